// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
)

// sockWorld is the socket programs on a cgroup with one client in it, and servers
// outside, all in one network namespace.
type sockWorld struct {
	SockObjects
	t      testing.TB
	f      family
	child  *child
	events *ringbuf.Reader
}

// cgroup2 is where the unified hierarchy is mounted.
func cgroup2(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1]
		}
	}
	need.Missing(t, "needs a mounted cgroup2")
	return ""
}

func newSockWorld(t testing.TB, l *lab, f family) *sockWorld {
	t.Helper()
	spec, err := LoadSock()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if m.Type == ebpf.LRUHash {
			m.MaxEntries = 4096
		}
	}
	w := &sockWorld{t: t, f: f}
	if err := spec.LoadAndAssign(&w.SockObjects, nil); err != nil {
		t.Fatalf("load: %+v", err)
	}
	t.Cleanup(func() { w.SockObjects.Close() })
	if w.events, err = ringbuf.NewReader(w.FlEventsV1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.events.Close() })

	dir, err := os.MkdirTemp(cgroup2(t), "fairlead-bpf-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The kernel lets go of it a moment after the client's end.
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if err = os.Remove(dir); err == nil || time.Now().After(end) {
				break
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	for at, p := range map[ebpf.AttachType]*ebpf.Program{
		ebpf.AttachCGroupInet4Connect: w.FlConnect4, ebpf.AttachCGroupInet6Connect: w.FlConnect6,
		ebpf.AttachCGroupUDP4Sendmsg: w.FlSendmsg4, ebpf.AttachCGroupUDP6Sendmsg: w.FlSendmsg6,
		ebpf.AttachCGroupUDP4Recvmsg: w.FlRecvmsg4, ebpf.AttachCGroupUDP6Recvmsg: w.FlRecvmsg6,
		ebpf.AttachCgroupInet4GetPeername: w.FlGetpeername4, ebpf.AttachCgroupInet6GetPeername: w.FlGetpeername6,
	} {
		k, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: at, Program: p})
		if err != nil {
			t.Fatalf("attach %s: %v", at, err)
		}
		t.Cleanup(func() { k.Close() })
	}
	group, err := os.Open(filepath.Clean(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	w.child = startChild(t, group)
	return w
}

// serve answers at an address with a name, by TCP and UDP, MPTCP too.
func serve(t testing.TB, a netip.AddrPort, name string) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	l, err := lc.Listen(context.Background(), "tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, name)
			c.Read(make([]byte, 1)) // the client's question: closing before it would reset
			c.Close()
		}
	}()
	u, err := net.ListenPacket("udp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo([]byte(name), from)
		}
	}()
}

// here puts an address on lo for the test.
func here(t testing.TB, a netip.Addr) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.PrefixFrom(a, a.BitLen()).String()
	if err := addAddress(lo, prefix); err != nil {
		t.Fatal(err)
	}
	// The kernel routes to a new IPv6 address a moment later.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		r, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(r) > 0 && r[0].Type == unix.RTN_LOCAL {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no route to %s: %v, %v", a, r, err)
		}
	}
	t.Cleanup(func() {
		d, err := netlink.ParseAddr(prefix)
		if err == nil {
			err = netlink.AddrDel(lo, d)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// service writes a service at the family's address, its slots under the id.
func (w *sockWorld) service(port uint16, proto uint8, s SockFlSvc, slots ...netip.AddrPort) {
	w.t.Helper()
	s.Slots = w.slots(s.Id, slots)
	w.head(port, proto, s)
}

// routed writes a service that has backends for captured clients, and others.
func (w *sockWorld) routed(port uint16, proto uint8, s SockFlSvc, own, led []netip.AddrPort) {
	w.t.Helper()
	s.Flags |= svcRouted
	s.RoutedSlots = w.slots(s.RoutedId, led)
	w.service(port, proto, s, own...)
}

func (w *sockWorld) slots(id uint32, of []netip.AddrPort) uint32 {
	w.t.Helper()
	for i, b := range of {
		v := SockFlBackend{Port: be(b.Port())}
		v.Addr.W = addrOf(b.Addr()).W
		put(w.t, w.FlSlotsV1, SockFlSlotKey{Id: id, Slot: uint32(i)}, v)
	}
	return uint32(len(of))
}

func (w *sockWorld) head(port uint16, proto uint8, s SockFlSvc) {
	w.t.Helper()
	put(w.t, w.FlServicesV2, w.key(port, proto), s)
}

// capture makes the client one whose connections of these modes are redirected, and for
// whom routes hold.
func (w *sockWorld) capture(modes ...NetFlMode) {
	w.t.Helper()
	bits := uint32(1) << 30
	for _, m := range modes {
		bits |= 1 << (m - 1)
	}
	put(w.t, w.FlCapturedV1, netnsCookie(w.t), bits)
}

func (w *sockWorld) key(port uint16, proto uint8) SockFlSvcKey {
	k := SockFlSvcKey{Port: be(port), Proto: proto}
	k.Addr.W = addrOf(w.f.service).W
	return k
}

// sockFamilies are the clients' sockets: an IPv6 socket may dial an IPv4 service.
func sockFamilies() []family {
	all := families()
	mapped := all[0]
	mapped.name = "v4 by an IPv6 socket"
	return append(all, mapped)
}

// dialled is the service as the client writes it.
func (w *sockWorld) dialled(port uint16) netip.AddrPort {
	if strings.HasSuffix(w.f.name, "IPv6 socket") {
		return at(netip.AddrFrom16(w.f.service.As16()), port)
	}
	return at(w.f.service, port)
}

func (w *sockWorld) backend(n uint16) netip.AddrPort { return at(w.f.loopback, 18080+n) }

// all fails unless every answer is of one of the names; it counts them.
func all(t testing.TB, got []answer, want int, names ...string) map[string]int {
	t.Helper()
	if len(got) != want {
		t.Errorf("%d answers, want %d", len(got), want)
	}
	count := map[string]int{}
	for i, a := range got {
		if a.Errno != 0 {
			t.Fatalf("time %d: %v", i, unix.Errno(a.Errno))
		}
		count[a.Name]++
	}
	for _, n := range names {
		want -= count[n]
	}
	if want != 0 {
		t.Errorf("answered by %v, want %q", count, names)
	}
	return count
}

type sockCase struct {
	name string
	run  func(t *testing.T, w *sockWorld)
}

// TestSockets runs each case with a new world in each family.
func TestSockets(t *testing.T) {
	l := newLab(t)
	cases := []sockCase{
		{"a connection goes to the backend and shows the service", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1}, w.backend(0))
			got := w.child.ask(t, "tcp", w.dialled(80), 1)
			all(t, got, 1, "a")
			if got[0].Peer != w.dialled(80) {
				t.Errorf("getpeername says %s, want %s", got[0].Peer, w.dialled(80))
			}
			w.counted(okBalanced, 1)
			w.said(okBalanced, 80, tcp, w.backend(0))
		}},
		{"an MPTCP socket too, but it shows the backend", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1}, w.backend(0))
			got := w.child.ask(t, "mptcp", w.dialled(80), 1)
			if e := unix.Errno(got[0].Errno); e == unix.EPROTONOSUPPORT || e == unix.ENOPROTOOPT {
				need.Missing(t, "needs a kernel with MPTCP")
			}
			all(t, got, 1, "a")
			if shown := at(got[0].Peer.Addr().Unmap(), got[0].Peer.Port()); shown != w.backend(0) {
				t.Errorf("getpeername says %s, want %s", shown, w.backend(0))
			}
			w.counted(okBalanced, 1)
		}},
		{"a connected datagram socket goes to the backend and shows the service", func(t *testing.T, w *sockWorld) {
			w.service(53, udp, SockFlSvc{Id: 1}, w.backend(0))
			got := w.child.ask(t, "udp", w.dialled(53), 1)
			all(t, got, 1, "a")
			if got[0].Peer != w.dialled(53) || got[0].Sender != w.dialled(53) {
				t.Errorf("getpeername says %s, recvfrom %s, want %s", got[0].Peer, got[0].Sender, w.dialled(53))
			}
		}},
		{"a datagram socket keeps its backend, and its answers come from the service", func(t *testing.T, w *sockWorld) {
			w.service(53, udp, SockFlSvc{Id: 1}, w.backend(0), w.backend(1), w.backend(0), w.backend(1))
			for range 10 {
				got := w.child.ask(t, "sendto", w.dialled(53), 5)
				if count := all(t, got, 5, "a", "b"); len(count) != 1 {
					t.Errorf("one socket was answered by %v", count)
				}
				for _, a := range got {
					if a.Sender != w.dialled(53) {
						t.Errorf("recvfrom says %s, want %s", a.Sender, w.dialled(53))
					}
				}
			}
			w.counted(okBalanced, 50)
			if n := len(drained(t, w.events)); n != 0 {
				t.Errorf("%d events of datagrams", n)
			}
		}},
		{"datagram sockets are spread", func(t *testing.T, w *sockWorld) {
			w.service(53, udp, SockFlSvc{Id: 1}, w.backend(0), w.backend(1))
			count := map[string]int{}
			for range 100 {
				for n, c := range all(t, w.child.ask(t, "sendto", w.dialled(53), 1), 1, "a", "b") {
					count[n] += c
				}
			}
			if count["a"] < 20 || count["b"] < 20 {
				t.Errorf("%v of 100 sockets", count)
			}
		}},
		{"connections are spread by weight", func(t *testing.T, w *sockWorld) {
			a, b := w.backend(0), w.backend(1)
			w.service(80, tcp, SockFlSvc{Id: 1}, a, a, a, b)
			const n = 400
			count := all(t, w.child.ask(t, "tcp", w.dialled(80), n), n, "a", "b")
			// Five deviations around 300, sqrt(400 * 3/4 * 1/4) each: one run in a million is outside.
			if count["a"] < 300-44 || count["a"] > 300+44 {
				t.Errorf("%v, want about 300 and 100", count)
			}
		}},
		{"affinity keeps a client on a backend", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1, Affinity: 60}, w.backend(0), w.backend(1))
			if count := all(t, w.child.ask(t, "tcp", w.dialled(80), 30), 30, "a", "b"); len(count) != 1 {
				t.Errorf("answered by %v", count)
			}
		}},
		{"affinity ends after its time", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1, Affinity: 2}, w.backend(0))
			w.affine(1, w.backend(1), 3*time.Second)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
		}},
		{"affinity lasts its time", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1, Affinity: 60}, w.backend(0))
			w.affine(1, w.backend(1), time.Second)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "b")
		}},
		{"affinity ends with the backends it was chosen from", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 2, Affinity: 60}, w.backend(0))
			w.affine(1, w.backend(1), time.Second)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
		}},
		{"new backends take over with one write", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1}, w.backend(0))
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
			w.service(80, tcp, SockFlSvc{Id: 2}, w.backend(1))
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "b")
		}},
		{"a service without backend refuses", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1})
			w.service(53, udp, SockFlSvc{Id: 2})
			w.refused("tcp", 80, 1)
			w.said(noBackend, 80, tcp, netip.AddrPort{})
			w.refused("udp", 53, 2)
			w.refused("sendto", 53, 3)
		}},
		{"slots that are not there refuse", func(t *testing.T, w *sockWorld) {
			w.head(80, tcp, SockFlSvc{Id: 9, Slots: 2})
			w.refused("tcp", 80, 1)
		}},
		{"a captured client keeps the service's address", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1, Flags: uint32(http)}, w.backend(0))
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			w.capture(http)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
			w.counted(okBalanced, 1)
		}},
		{"a captured client keeps the address in every mode that it is captured in", func(t *testing.T, w *sockWorld) {
			for i, m := range modes {
				w.service(80, tcp, SockFlSvc{Id: uint32(i + 1), Flags: uint32(m)}, w.backend(0))
				w.capture(m)
				all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
				w.capture(slices.DeleteFunc(slices.Clone(modes), func(o NetFlMode) bool { return o == m })...)
				all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			}
		}},
		{"an address of a pod is left alone, whoever dials it", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Flags: uint32(http) | svcDirect})
			for range 2 {
				got := w.child.ask(t, "tcp", w.dialled(80), 1)
				all(t, got, 1, "service")
				if got[0].Peer != w.dialled(80) {
					t.Errorf("getpeername says %s, want %s", got[0].Peer, w.dialled(80))
				}
				w.capture(http)
			}
			w.service(80, tcp, SockFlSvc{Id: 1, Flags: svcDirect}, w.backend(0)) // the proxy is bypassed
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
			w.counted(okBalanced, 0)
			w.counted(noBackend, 0)
		}},
		{"no address is the client's own, whatever goes to addresses that nobody has", func(t *testing.T, w *sockWorld) {
			w.f.service = netip.IPv4Unspecified()
			if w.f.loopback.Is6() {
				w.f.service = netip.IPv6Unspecified()
			}
			w.service(80, tcp, SockFlSvc{Flags: uint32(anyMode) | svcDirect})
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
			w.capture(modes...)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
			w.f.service = w.f.stranger
			here(t, w.f.service)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
			w.counted(noBackend, 0)
		}},
		{"a client that may reach services alone", func(t *testing.T, w *sockWorld) {
			known := func(modes ...NetFlMode) {
				bits := uint32(1) << 31
				for _, m := range modes {
					bits |= 1 << (m - 1)
				}
				put(t, w.FlCapturedV1, netnsCookie(t), bits)
			}
			reached := func(port uint16) {
				t.Helper()
				all(t, w.child.ask(t, "tcp", w.dialled(port), 1), 1, "service")
			}
			reached(80)
			known(http)
			w.refused("tcp", 80, 1)
			w.said(noBackend, 80, tcp, netip.AddrPort{})
			all(t, w.child.ask(t, "sendto", w.dialled(80), 1), 1, "service") // datagrams are nobody's matter
			w.service(80, tcp, SockFlSvc{Flags: svcDirect})
			reached(80)
			w.service(80, tcp, SockFlSvc{Id: 1}, w.backend(0))
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			if err := w.FlServicesV2.Delete(w.key(80, tcp)); err != nil {
				t.Fatal(err)
			}
			ranged := SockFlAddr{W: addrOf(w.f.service).W}
			put(t, w.FlRangesV1, NetFlRangeKey{Bits: 160, Port: be(80), Proto: tcp, Addr: NetFlAddr(ranged)}, uint32(anyOpaque)|svcDirect)
			reached(80)
			pod := NetFlPod{Netns: netnsCookie(t) + 1}
			put(t, w.FlPodsV3, addrOf(w.f.service), pod)
			put(t, w.FlAddressesV1, addrOf(w.f.service), NetFlAddress{})
			w.refused("tcp", 80, 2) // somebody's, whatever range it is in
			pod.Netns--
			put(t, w.FlPodsV3, addrOf(w.f.service), pod)
			reached(80) // its own
			all(t, w.child.ask(t, "tcp", w.backend(0), 1), 1, "a")
		}},
		{"a captured client is balanced where requests are not routed", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1}, w.backend(0))
			w.capture(modes...)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
		}},
		{"another port and another protocol are left alone", func(t *testing.T, w *sockWorld) {
			w.service(81, tcp, SockFlSvc{Id: 1}, w.backend(0))
			w.service(80, udp, SockFlSvc{Id: 2}, w.backend(0))
			got := w.child.ask(t, "tcp", w.dialled(80), 1)
			all(t, got, 1, "service")
			if got[0].Peer != w.dialled(80) {
				t.Errorf("getpeername says %s, want %s", got[0].Peer, w.dialled(80))
			}
			w.counted(okBalanced, 0)
		}},
		{"a backend of the other family is never half an address", func(t *testing.T, w *sockWorld) {
			if w.f.name != "v4" { // an IPv6 socket has room for both
				return
			}
			w.service(80, tcp, SockFlSvc{Id: 1}, at(netip.MustParseAddr("::1"), 18080))
			w.refused("tcp", 80, 1)
		}},
	}
	for _, c := range append(append(cases, routedCases()...), observedCases()...) {
		for _, f := range sockFamilies() {
			t.Run(c.name+"/"+f.name, func(t *testing.T) {
				l.enter(t)
				here(t, f.service)
				w := newSockWorld(t, l, f)
				serve(t, w.backend(0), "a")
				serve(t, w.backend(1), "b")
				serve(t, at(netip.IPv6Unspecified(), 80), "service")
				c.run(t, w)
			})
		}
	}
}

const (
	okBalanced = NetFlReasonFL_OK_BALANCED
	noBackend  = NetFlReasonFL_DROP_NO_BACKEND
)

// refused has the child fail as if nobody listened; so many have been refused by then.
func (w *sockWorld) refused(socket string, port uint16, so int) {
	w.t.Helper()
	got := w.child.ask(w.t, socket, w.dialled(port), 1)
	if e := unix.Errno(got[0].Errno); e != unix.ECONNREFUSED {
		w.t.Errorf("%s: %v, want %v", socket, e, unix.ECONNREFUSED)
	}
	w.counted(noBackend, uint64(so))
}

func (w *sockWorld) counted(r NetFlReason, n uint64) {
	w.t.Helper()
	if got := counted(w.t, w.FlCountersV1)[r]; got != n {
		w.t.Errorf("%s counted %d, want %d", reasonName(r), got, n)
	}
}

// said wants one event, of the child.
func (w *sockWorld) said(r NetFlReason, port uint16, proto uint8, backend netip.AddrPort) {
	w.t.Helper()
	got := drained(w.t, w.events)
	if len(got) != 1 {
		w.t.Fatalf("%d events, want 1: %+v", len(got), got)
	}
	e := got[0]
	var want SockFlEvent
	want.Tuple.Daddr.W, want.Tuple.Dport, want.Tuple.Proto = addrOf(w.f.service).W, be(port), proto
	if backend.IsValid() {
		want.Tuple.Saddr.W, want.Tuple.Sport = addrOf(backend.Addr()).W, be(backend.Port())
	}
	want.Set = netnsCookie(w.t)
	want.Reason, want.Direction = uint8(r), uint8(NetFlDirectionFL_CONNECT)
	want.Pid, want.Time = uint32(w.child.pid), e.Time
	for i, c := range comm(w.t, w.child.pid) {
		want.Comm[i] = int8(c)
	}
	if e != want || e.Time == 0 {
		w.t.Errorf("event\n\t%+v\nwant\n\t%+v", e, want)
	}
}

func comm(t testing.TB, pid int) []byte {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b, []byte("\n"))
}

// affine writes which backend the client had, of which id, so long ago.
func (w *sockWorld) affine(id uint32, b netip.AddrPort, age time.Duration) {
	w.t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		w.t.Fatal(err)
	}
	v := SockFlAff{Id: id, Seen: uint64(now.Nano() - age.Nanoseconds())}
	v.Backend.Addr.W, v.Backend.Port = addrOf(b.Addr()).W, be(b.Port())
	put(w.t, w.FlAffinityV1, SockFlAffKey{Client: netnsCookie(w.t), Svc: w.key(80, tcp)}, v)
}

// netnsCookie is that of the thread's network namespace.
func netnsCookie(t testing.TB) uint64 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
