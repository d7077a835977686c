// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/packet"
)

// The kernel gives a packet to a socket only where it really comes in, and takes
// VLAN tags off only there. So these vectors are sent through a device.

// seen is what a program behind ours saw of a packet that ours let on.
type seen struct {
	Count uint32
	Mark  uint32
	Port  uint32 // of the socket that the packet was given to
	State uint32 // of that socket
}

// States of a socket.
const (
	established = 1
	timeWait    = 6
	listening   = 10
)

// recorder is a program that notes what it sees and drops it.
func recorder(t testing.TB) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(seen{})), MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	const srcPort, state = 44, 72 // in struct bpf_sock
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R7, asm.R1, int16(unsafe.Offsetof(skb{}.Mark)), asm.Word),
			asm.LoadMem(asm.R8, asm.R1, int16(unsafe.Offsetof(skb{}.Sk)), asm.DWord),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.StoreMem(asm.R0, int16(unsafe.Offsetof(seen{}.Mark)), asm.R7, asm.Word),
			asm.Mov.Imm(asm.R1, 0),
			asm.Mov.Imm(asm.R2, 0),
			asm.JEq.Imm(asm.R8, 0, "store"),
			asm.LoadMem(asm.R1, asm.R8, srcPort, asm.Word),
			asm.LoadMem(asm.R2, asm.R8, state, asm.Word),
			asm.StoreMem(asm.R0, int16(unsafe.Offsetof(seen{}.Port)), asm.R1, asm.Word).WithSymbol("store"),
			asm.StoreMem(asm.R0, int16(unsafe.Offsetof(seen{}.State)), asm.R2, asm.Word),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
			asm.Mov.Imm(asm.R0, int32(drop)).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("load the recorder: %+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p, m
}

// attach puts a program behind those that are there.
func attach(t testing.TB, p *ebpf.Program, ifindex int) {
	t.Helper()
	l, err := link.AttachTCX(link.TCXOptions{Program: p, Interface: ifindex, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	t.Cleanup(func() { l.Close() })
}

// inject sends a frame into the other end of a device.
func inject(t testing.TB, device string, frame []byte) {
	t.Helper()
	peer, err := netlink.LinkByName(device + "p")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: peer.Attrs().Index}); err != nil {
		t.Fatalf("send %d bytes: %v", len(frame), err)
	}
}

// listen opens a listener as a proxy does.
func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		var err error
		e := c.Control(func(fd uintptr) {
			if network == "tcp6" {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			}
		})
		if e != nil {
			return e
		}
		return err
	}}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatalf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connected is a connection from the client's address to the service, both here.
func connected(t testing.TB, f family) (client, server *net.TCPConn, l net.Listener) {
	t.Helper()
	here(t, f.client)
	here(t, f.service)
	l = listen(t, at(f.service, 80).String())
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(at(f.client, 40000)), Timeout: 5 * time.Second}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", at(f.service, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	client = c.(*net.TCPConn)
	t.Cleanup(func() { client.SetLinger(0); client.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = s.(*net.TCPConn)
	t.Cleanup(func() { server.SetLinger(0); server.Close() })
	return client, server, l
}

// waiting is a connection of the proxy, which closed it first.
func waiting(t testing.TB, w *world) {
	t.Helper()
	client, server, l := connected(t, w.f)
	server.CloseWrite()
	io.Copy(io.Discard, client)
	client.Close()
	io.Copy(io.Discard, server)
	server.Close()
	l.Close()
	w.conn(at(w.f.client, 40000), at(w.f.service, 80), tcp, proxied, 0, 15101)
}

type liveCase struct {
	name   string
	only   string
	uplink bool // comes in there, and not from the client
	world  func(t *testing.T, w *world)
	frame  func(f family) packet.Packet
	want   seen // without count; none: dropped
	passes bool
	counts []NetFlReason
	said   []said
}

func TestLive(t *testing.T) {
	proxy := func(ports ...uint16) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) {
			captured(uint32(http))(w)
			w.inbound(15100)
			for _, p := range ports {
				listen(t, at(w.f.loopback, p).String())
			}
		}
	}
	inbound := func(a NetFlAction, ports ...uint16) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) {
			w.govern(w.f.server)
			w.policy(classAny, 80, tcp, a)
			proxy(ports...)(t, w)
		}
	}
	second := func(first func(t *testing.T, w *world)) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) { first(t, w); w.bank(1) }
	}
	// The server has an inbound proxy of its own, in the second slot, of the first or the second bank.
	ownInbound := func(bank uint32, ports ...uint16) func(t *testing.T, w *world) {
		return func(t *testing.T, w *world) {
			inbound(check, ports...)(t, w)
			w.govern(w.f.server, func(p *NetFlPod) { p.Ports[11] = 17200 })
			w.ownBank(1, bank)
		}
	}
	open := func(t *testing.T, w *world) { connected(t, w.f) }
	anywhere := map[bool]string{true: "0.0.0.0:80", false: "[::]:80"}
	segment := func(f family) packet.Packet { return dialService(f).Flags(packet.ACK) }
	// An error about what the socket at the client's address sent.
	tooBig := func(f family) packet.Packet { return packet.Unreachable(f.stranger, f.client, segment(f)) }
	to := func(port, state uint32) seen { return seen{Mark: toProxy, Port: port, State: state} }

	runLive(t, []liveCase{
		{
			name: "a captured client's connection goes to its proxy", world: proxy(15101), frame: dialService, passes: true,
			want: to(15101, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15101}},
		},
		{
			name: "the other bank takes over where nobody listens", world: proxy(16101), frame: dialService, passes: true,
			want: to(16101, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15101}},
		},
		{
			name: "the other bank waits while the proxy listens", world: proxy(16101, 15101), frame: dialService, passes: true,
			want: to(15101, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15101}},
		},
		{
			name: "the second bank is another port", world: second(proxy(16101, 15101)), frame: dialService, passes: true,
			want: to(16101, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15101}},
		},
		{
			name: "the first bank takes over for the second", world: second(proxy(15101)), frame: dialService, passes: true,
			want: to(15101, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15101}},
		},
		{
			name: "without any listener the connection is dropped", world: proxy(15102, 16102, 14101, 17101), frame: dialService,
			counts: []NetFlReason{noProxy}, said: []said{{reason: noProxy, port: 15101}},
		},
		{
			name: "in the second bank too", world: second(proxy(15102, 16102, 14101, 17101)), frame: dialService,
			counts: []NetFlReason{noProxy}, said: []said{{reason: noProxy, port: 15101}},
		},
		{
			name: "a port of none is none of the second bank either", uplink: true, frame: request,
			world: func(t *testing.T, w *world) {
				inbound(check, 1000)(t, w)
				w.inbound(0)
				w.bank(1)
			},
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, classRemote, governed, rule, 0}},
		},
		{
			name: "each mode has a listener of its own", frame: dialService, passes: true,
			world: func(t *testing.T, w *world) { proxy(15101, 15102)(t, w); captured(uint32(tls))(w) },
			want:  to(15102, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15102}},
		},
		{
			name: "addresses that nobody has go to theirs", frame: dialStranger, passes: true,
			world: func(t *testing.T, w *world) { proxy(15101, 15104)(t, w); w.anywhere(80, uint32(anyMode)) },
			want:  to(15104, listening), counts: []NetFlReason{okOutbound}, said: []said{{reason: okOutbound, port: 15104}},
		},
		{
			name: "a segment without socket goes to the proxy, which answers it", frame: segment, passes: true,
			world: func(t *testing.T, w *world) {
				proxy(15101)(t, w)
				w.conn(at(w.f.client, 40000), at(w.f.service, 80), tcp, proxied, 0, 15101)
			},
			want: to(15101, listening),
		},
		{
			name: "a server of this node that needs the request has the inbound proxy", world: inbound(check, 15100), frame: dialServer, passes: true,
			want: to(15100, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classClient, governed, rule, 15100}},
		},
		{
			name: "from elsewhere too", uplink: true, world: inbound(check, 15100), frame: request, passes: true,
			want: to(15100, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 15100}},
		},
		{
			name: "the inbound proxy answers what is refused", uplink: true, world: inbound(refuse, 15100), frame: request, passes: true,
			want: to(15100, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 15100}},
		},
		{
			name: "the inbound proxy's other bank takes over", uplink: true, world: inbound(check, 16100), frame: request, passes: true,
			want: to(16100, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 15100}},
		},
		{
			name: "the inbound proxy of the second bank", uplink: true, world: second(inbound(check, 15100, 16100)), frame: request, passes: true,
			want: to(16100, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 15100}},
		},
		{
			name: "a pod's own inbound proxy takes the place of the node's", uplink: true, world: ownInbound(0, 15100, 17200, 18200), frame: request, passes: true,
			want: to(17200, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 17200}},
		},
		{
			name: "its bank is its own", uplink: true, world: ownInbound(1, 15100, 17200, 18200), frame: request, passes: true,
			want: to(18200, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 17200}},
		},
		{
			name: "and the node's bank is not its", uplink: true, world: second(ownInbound(0, 15100, 16100, 17200, 18200)), frame: request, passes: true,
			want: to(17200, listening), counts: []NetFlReason{okInbound}, said: []said{{okInbound, classRemote, governed, rule, 17200}},
		},
		{
			name: "without it the node's takes nothing", uplink: true, world: ownInbound(0, 15100, 16100), frame: request,
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, classRemote, governed, rule, 17200}},
		},
		{
			name: "the port of an own inbound proxy is no mode's", frame: dialService,
			world: func(t *testing.T, w *world) {
				proxy(17200)(t, w)
				w.govern(w.f.client, func(p *NetFlPod) { p.Set, p.Ports = 0, [12]uint16{11: 17200} })
			},
			passes: true, counts: []NetFlReason{NetFlReasonFL_OK_DIRECT}, said: []said{{reason: NetFlReasonFL_OK_DIRECT}},
		},
		{
			// It answers RST; the proxy of the first bank, which had the connection, may be gone.
			name: "a segment without socket goes to the bank in use", frame: segment, passes: true,
			world: func(t *testing.T, w *world) {
				second(proxy(15101, 16101))(t, w)
				w.conn(at(w.f.client, 40000), at(w.f.service, 80), tcp, proxied, 0, 15101)
			},
			want: to(16101, listening),
		},
		{
			name: "a segment goes to the socket that has the connection", world: open, frame: segment, passes: true,
			want: to(80, established), counts: []NetFlReason{okSocket},
		},
		{
			name: "a SYN of that connection too", world: open, frame: dialService, passes: true,
			want: to(80, established), counts: []NetFlReason{okSocket},
		},
		{
			name: "a SYN goes to the socket in TIME_WAIT, whose answer makes way", frame: dialService, passes: true,
			world: func(t *testing.T, w *world) { waiting(t, w) },
			want:  to(80, timeWait), counts: []NetFlReason{okSocket},
		},
		{
			// That socket would hand it to whoever listens there.
			name: "a SYN does not get from TIME_WAIT to a process of the node", frame: dialService,
			world: func(t *testing.T, w *world) {
				waiting(t, w)
				listen(t, anywhere[w.f.service.Is4()])
			},
			counts: []NetFlReason{NetFlReasonFL_DROP_ASSIGN}, said: said1(NetFlReasonFL_DROP_ASSIGN),
		},
		{
			name: "an error about what the proxy sent in a pod's name is the proxy's", uplink: true, world: open, frame: tooBig, passes: true,
			want: seen{Mark: toProxy}, counts: []NetFlReason{okSocket},
		},
		{
			name: "an error about what nobody here sent is the pod's", uplink: true, frame: tooBig, passes: true,
		},
		{
			name: "one tag of VLAN 0 hides nothing", passes: true, frame: func(f family) packet.Packet { return dial(f).Tagged(0) },
			counts: []NetFlReason{okDirect}, said: said1(okDirect),
		},
		{
			name: "two tags of VLAN 0 are dropped", frame: func(f family) packet.Packet { return dial(f).Tagged(0, 0) },
			counts: []NetFlReason{extension}, said: said1(extension),
		},
		{
			name: "two tags of VLAN 0 from elsewhere are dropped", uplink: true,
			frame:  func(f family) packet.Packet { return request(f).Tagged(0, 0) },
			counts: []NetFlReason{extension}, said: said1(extension),
		},
		{
			name: "VLANs within VLANs from elsewhere pass", uplink: true, passes: true,
			frame: func(f family) packet.Packet { return request(f).Tagged(5, 0) },
		},
		{
			name: "half an IP header is dropped", frame: func(f family) packet.Packet { return dial(f).Cut(14 + 10) },
			counts: []NetFlReason{truncated}, said: said1(truncated),
		},
	})
}

func runLive(t *testing.T, cases []liveCase) {
	l := newLab(t)
	l.enter(t)
	w := newWorld(t, l, family{})
	for _, c := range cases {
		for _, f := range families() {
			if c.only == "" || c.only == f.name {
				t.Run(c.name+"/"+f.name, func(t *testing.T) {
					l.enter(t)
					w.f = f
					w.clean(t)
					c.check(t, w)
				})
			}
		}
	}
}

func (c liveCase) check(t *testing.T, w *world) {
	w.peopled()
	if c.world != nil {
		c.world(t, w)
	}
	device, index, prog, direction := "client", w.lab.client, w.FlFromPod, NetFlDirectionFL_FROM_POD
	if c.uplink {
		device, index, prog, direction = "uplink", w.lab.uplink, w.FlFromNet, NetFlDirectionFL_FROM_NET
	}
	rec, m := recorder(t)
	attach(t, prog, index)
	attach(t, rec, index)
	frame := c.frame(w.f).Bytes()
	inject(t, device, frame)

	var got seen
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := m.Lookup(uint32(0), &got); err != nil {
			t.Fatal(err)
		}
		if counts := counted(t, w.FlCountersV1); got.Count > 0 || !c.passes && len(counts) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the frame did not come: counted %q\n%s", reasonNames(counted(t, w.FlCountersV1)), packet.Dump(frame))
		}
	}
	if got.Port == 0 { // the socket that sent the frame
		got.State = 0
	}
	want := c.want
	if c.passes {
		want.Count = 1
	}
	if got != want {
		t.Errorf("behind the program: %+v, want %+v", got, want)
	}
	counts := map[NetFlReason]uint64{}
	for _, r := range c.counts {
		counts[r]++
	}
	if g, w := reasonNames(counted(t, w.FlCountersV1)), reasonNames(counts); g != w {
		t.Errorf("counted %q, want %q", g, w)
	}
	var events, expected []string
	for _, e := range drained(t, w.events) {
		events = append(events, fmt.Sprintf("%s %d class %#x set %#x rule %#x port %d", reasonName(NetFlReason(e.Reason)), e.Direction, e.Class, e.Set, e.Rule, e.Port))
	}
	for _, s := range c.said {
		expected = append(expected, fmt.Sprintf("%s %d class %#x set %#x rule %#x port %d", reasonName(s.reason), direction, s.class, s.set, s.rule, s.port))
	}
	if fmt.Sprint(events) != fmt.Sprint(expected) {
		t.Errorf("events %q, want %q", events, expected)
	}
	if t.Failed() {
		t.Logf("the frame:\n%s", packet.Dump(frame))
	}
}

// Why a tag within a tag is dropped: the kernel itself takes in what is behind two.
func TestKernelTakesOffTwoTags(t *testing.T) {
	l := newLab(t)
	l.enter(t)
	for _, f := range []string{"all", "client"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+f+"/rp_filter", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	here := netip.MustParseAddrPort("10.9.9.9:9999")
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(here))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	device, err := netlink.LinkByName("client")
	if err != nil {
		t.Fatal(err)
	}
	spoofed := netip.MustParseAddrPort("203.0.113.9:1")
	frame := packet.UDP(spoofed, here).Payload("in").Tagged(0, 0).Bytes()
	copy(frame, device.Attrs().HardwareAddr)
	inject(t, "client", frame)
	b := make([]byte, 16)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Logf("this kernel does not: %v", err)
		return
	}
	if string(b[:n]) != "in" || from.Port() != 1 {
		t.Errorf("%q from %s", b[:n], from)
	}
}
