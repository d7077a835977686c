// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hand is what a pod can be told to do.
type Hand struct {
	mu    sync.Mutex
	sniff int // socket
	heard [][]byte
	conns map[string]net.Conn
}

// None is no argument or no answer.
type None struct{}

// Frames are sent as they are, but for their Ethernet addresses.
type Frames struct {
	Frames [][]byte
	// Source is the Ethernet address to send from, empty: the pod's own.
	Source []byte
	Times  int // how often all of them are sent; 0: once
}

const device = "eth0"

// Send sends frames by the pod's interface, to its gateway.
func (h *Hand) Send(f Frames, _ *None) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	gateway, err := gatewayOf(link)
	if err != nil {
		return err
	}
	from := f.Source
	if from == nil {
		from = link.Attrs().HardwareAddr
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for range max(1, f.Times) {
		for _, frame := range f.Frames {
			copy(frame, gateway)
			copy(frame[6:], from)
			if err := unix.Sendto(s, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("send %d bytes: %w", len(frame), err)
			}
		}
	}
	return nil
}

// Flood is frames of which each is a flow of its own.
type Flood struct {
	Frame []byte // of TCP or UDP over IPv4; its ports vary
	Flows int
}

// Flood sends each flow's frame once, as fast as it goes, and says how long that took.
func (h *Hand) Flood(f Flood, out *time.Duration) error {
	const ports = 14 + 20 // where they are in the frame
	began := time.Now()
	var batch [][]byte
	for i := range f.Flows {
		frame := bytes.Clone(f.Frame)
		binary.BigEndian.PutUint16(frame[ports:], uint16(1024+i%59_000))
		binary.BigEndian.PutUint16(frame[ports+2:], binary.BigEndian.Uint16(frame[ports+2:])+uint16(i/59_000))
		batch = append(batch, frame)
		if len(batch) == 10_000 || i == f.Flows-1 {
			if err := h.Send(Frames{Frames: batch}, nil); err != nil {
				return err
			}
			batch = nil
		}
	}
	*out = time.Since(began)
	return nil
}

// gatewayOf is the Ethernet address that the pod sends to: that of the host's end.
func gatewayOf(link netlink.Link) (net.HardwareAddr, error) {
	for range 50 {
		near, err := netlink.NeighList(link.Attrs().Index, unix.AF_UNSPEC)
		if err != nil {
			return nil, err
		}
		for _, n := range near {
			if len(n.HardwareAddr) == 6 && n.IP.IsGlobalUnicast() || len(n.HardwareAddr) == 6 && n.IP.IsLinkLocalUnicast() {
				return n.HardwareAddr, nil
			}
		}
		// It is asked for by whatever is sent.
		if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
			_, _ = c.Write([]byte("who"))
			_ = c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.New("no gateway is known")
}

// Listen hears everything that comes to the pod from now on.
func (h *Hand) Listen(None, *None) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = nil
	if h.sniff > 0 {
		return nil
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network order
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return err
	}
	h.sniff = s
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(s, b, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			h.mu.Lock()
			if len(h.heard) < 100_000 {
				h.heard = append(h.heard, bytes.Clone(b[:n]))
			}
			h.mu.Unlock()
		}
	}()
	return nil
}

// Heard is how many frames came that contain a text.
func (h *Hand) Heard(text string, out *int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, frame := range h.heard {
		if bytes.Contains(frame, []byte(text)) {
			*out++
		}
	}
	return nil
}

// Heard is a text in frames of TCP to a port.
type Heard struct {
	Text string
	Port uint16
}

// HeardAt is how many frames came for the port that contain the text.
func (h *Hand) HeardAt(w Heard, out *int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, frame := range h.heard {
		at := 14 + 20 + 2 // the port of the destination, of a packet without options
		if len(frame) > 14 && frame[14]>>4 == 6 {
			at = 14 + 40 + 2
		}
		if len(frame) > at+2 && binary.BigEndian.Uint16(frame[at:]) == w.Port && bytes.Contains(frame, []byte(w.Text)) {
			*out++
		}
	}
	return nil
}

// Dial is a connection that is kept under a name.
type Dial struct{ Name, Network, To string }

// Connect connects.
func (h *Hand) Connect(d Dial, local *string) error {
	c, err := net.DialTimeout(d.Network, d.To, 2*time.Second)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns == nil {
		h.conns = map[string]net.Conn{}
	}
	h.conns[d.Name] = c
	*local = c.LocalAddr().String()
	return nil
}

// Dials connects n times, talks, and closes; it is how many of them failed, and how.
func (h *Hand) Dials(d Dials, failed *[]string) error {
	*failed = []string{}
	for range d.N {
		err := func() error {
			c, err := net.DialTimeout(d.Network, d.To, 2*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			return talk(c)
		}()
		if err != nil {
			*failed = append(*failed, err.Error())
		}
		time.Sleep(d.Every)
	}
	return nil
}

// Dials are connections one after another.
type Dials struct {
	Network, To string
	N           int
	Every       time.Duration
}

func talk(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	b := make([]byte, 4096)
	_, err := c.Read(b)
	return err
}

// Talk says something on a connection that was kept, and waits for an answer.
func (h *Hand) Talk(name string, _ *None) error {
	h.mu.Lock()
	c := h.conns[name]
	h.mu.Unlock()
	return talk(c)
}

// MTU is how large packets to an address may be, as the pod's kernel has learned.
func (h *Hand) MTU(to string, out *int) error {
	routes, err := netlink.RouteGet(netip.MustParseAddr(to).AsSlice())
	if err != nil || len(routes) == 0 {
		return errors.Join(err, errors.New("no route"))
	}
	*out = routes[0].MTU
	return nil
}
