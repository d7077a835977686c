// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// Planned is the plan of a node, as it travels to its process.
type Planned struct {
	Verdicts  []*plan.Verdict
	Addresses []*plan.Address
	Prefixes  []*plan.Prefix
	Pods      []*plan.Pod
	Services  []*plan.Service
	Ports     map[string]uint16
	Inbound   uint16
}

func (p Planned) rows() []incr.Row {
	var out []incr.Row
	for _, v := range p.Verdicts {
		out = append(out, incr.Row{Table: plan.Verdicts, Key: v.Key(), Value: v})
	}
	for _, v := range p.Addresses {
		out = append(out, incr.Row{Table: plan.Addresses, Key: v.Addr.String(), Value: v})
	}
	for _, v := range p.Prefixes {
		out = append(out, incr.Row{Table: plan.Prefixes, Key: v.Prefix.String(), Value: v})
	}
	for _, v := range p.Pods {
		out = append(out, incr.Row{Table: plan.Pods, Key: v.Addr.String(), Value: v})
	}
	for _, v := range p.Services {
		out = append(out, incr.Row{Table: plan.Services, Key: v.Key(), Value: v})
	}
	return out
}

// since are the changes from an older plan; all rows that stay are changes too.
func (p Planned) since(old Planned) []incr.Change {
	type id struct {
		table incr.Table
		key   string
	}
	was := map[id]any{}
	for _, r := range old.rows() {
		was[id{r.Table, r.Key}] = r.Value
	}
	var out []incr.Change
	for _, r := range p.rows() {
		out = append(out, incr.Change{Table: r.Table, Key: r.Key, Old: was[id{r.Table, r.Key}], New: r.Value})
		delete(was, id{r.Table, r.Key})
	}
	for k, v := range was {
		out = append(out, incr.Change{Table: k.table, Key: k.key, Old: v})
	}
	return out
}

// Open opens the datapath of the helper's node and collects its flows.
func (h *Helper) Open(o Options, _ *None) error {
	o.Log = h.logger()
	d, err := Open(context.Background(), o)
	if err != nil {
		return err
	}
	h.datapath = d
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() {
		_ = d.Events(ctx, func(f Flow) { // missing flows fail the test
			h.mu.Lock()
			defer h.mu.Unlock()
			h.flows = append(h.flows, f)
		})
	}()
	return nil
}

// Sync writes a whole plan.
func (h *Helper) Sync(p Planned, _ *None) error {
	h.plan = p
	if err := h.datapath.SetInbound(p.Inbound); err != nil {
		return err
	}
	return h.datapath.Sync(context.Background(), p.rows(), func(l string) uint16 { return p.Ports[l] })
}

// Apply writes what changed since the last plan.
func (h *Helper) Apply(p Planned, _ *None) error {
	old := h.plan
	h.plan = p
	if err := h.datapath.SetInbound(p.Inbound); err != nil {
		return err
	}
	return h.datapath.Apply(context.Background(), p.since(old), func(l string) uint16 { return p.Ports[l] })
}

// Close ends the helper's part in the datapath.
func (h *Helper) Close(None, *None) error {
	h.stop()
	h.datapath.Close()
	return nil
}

// Uninstall gives the node back.
func (h *Helper) Uninstall(o Options, _ *None) error {
	o.Log = h.logger()
	return Uninstall(context.Background(), o)
}

// Status is the datapath's.
func (h *Helper) Status(_ None, out *Status) (err error) {
	*out, err = h.datapath.Status()
	return err
}

// Writes are all that the process wrote to maps.
func (h *Helper) Writes(_ None, out *uint64) error {
	for _, n := range h.datapath.Stats() {
		*out += n
	}
	return nil
}

// Flows are those that were reported since they were asked for last. It gives the
// kernel a moment to report.
func (h *Helper) Flows(_ None, out *[]Flow) error {
	time.Sleep(50 * time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	*out, h.flows = h.flows, nil
	return nil
}

// Proxy stands in for the node's proxy on a port: it takes connections that were
// redirected, and answers itself or connects onwards under the client's address.
type Proxy struct {
	Port uint16
	Name string
	// Onward gives the backend of a destination; "original" is the destination
	// itself. Others are answered with the proxy's name.
	Onward map[string]string
	// Unchecked: it does not claim to have judged the backend's policy.
	Unchecked bool
}

const (
	checkedPorts   = 62399<<16 | 61000
	uncheckedPorts = 65535<<16 | 63264
)

// Redirected starts a proxy.
func (h *Helper) Redirected(p Proxy, _ *None) error {
	for _, a := range []string{"127.0.0.1", "::1"} {
		lc := net.ListenConfig{Control: options(func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		})}
		l, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(a), p.Port).String())
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go p.serve(c)
			}
		}()
	}
	return nil
}

func options(set func(fd int) error) func(_, _ string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var inside error
		err := raw.Control(func(fd uintptr) { inside = set(int(fd)) })
		return errors.Join(err, inside)
	}
}

// original is where the connection was going, as Envoy asks for it: of the kernel, or of
// the socket if that does not know.
func original(c net.Conn) string {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return ""
	}
	out := c.LocalAddr().String()
	_ = raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
			if a, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, 80); err == nil { // 16 bytes of sockaddr_in
				b := a.Multiaddr
				out = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3])).String()
			}
			return
		}
		if a, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, 80); err == nil { // starts with sockaddr_in6
			out = netip.AddrPortFrom(netip.AddrFrom16(a.Addr.Addr), a.Addr.Port<<8|a.Addr.Port>>8).String()
		}
	})
	return out
}

func (p Proxy) serve(c net.Conn) {
	to := p.Onward[original(c)]
	switch to {
	case "":
		answer(c, p.Name)
		return
	case "original":
		to = c.LocalAddr().String()
	}
	defer c.Close()
	client := c.RemoteAddr().(*net.TCPAddr)
	ports := checkedPorts
	if p.Unchecked {
		ports = uncheckedPorts
	}
	d := net.Dialer{
		Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: client.IP},
		Control: options(func(fd int) error {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1),
				unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
				unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, ports),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x300))
		}),
	}
	up, err := d.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
}
