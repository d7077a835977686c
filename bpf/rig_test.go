// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/internal/packet"
)

// skb is the kernel's struct __sk_buff.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto uint32
	Priority, IngressIfindex, Ifindex, TCIndex                                  uint32
	CB                                                                          [5]uint32
	Hash, TCClassID, Data, DataEnd, NapiID, Family, RemoteIP4, LocalIP4         uint32
	RemoteIP6, LocalIP6                                                         [4]uint32
	RemotePort, LocalPort, DataMeta                                             uint32
	FlowKeys, Tstamp                                                            uint64
	WireLen, GSOSegs                                                            uint32
	Sk                                                                          uint64
	GSOSize                                                                     uint32
	TstampType                                                                  uint8
	_                                                                           [3]uint8
	HWTstamp                                                                    uint64
}

// What programs return.
const (
	next     = ^uint32(0) // TCX_NEXT
	drop     = uint32(2)  // TCX_DROP
	redirect = uint32(7)  // TC_ACT_REDIRECT, by bpf_redirect
)

// Marks.
const (
	toProxy     = 0x200
	fromProxy   = 0x300
	turned      = 0x400
	fromInbound = 0x500
	forwarded   = 0x600
	answered    = 0x700
	markMask    = 0xf00
)

// Protocols.
const (
	tcp = 6
	udp = 17
)

// family is one set of addresses, so that every vector runs in both.
type family struct {
	name string
	// Pods of this node.
	client, server netip.Addr
	// A pod of another node, a stranger whose address lies in a prefix, another stranger.
	remote, listed, stranger netip.Addr
	node, service, self      netip.Addr
	prefix                   netip.Prefix
	loopback                 netip.Addr
}

func families() []family {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	return []family{
		{
			"v4", a("10.1.0.1"), a("10.1.0.2"), a("10.2.0.1"), a("192.0.2.7"), a("203.0.113.9"),
			a("10.0.0.1"), a("10.96.0.10"), a("169.254.42.1"), p("192.0.2.0/24"), a("127.0.0.1"),
		},
		{
			"v6", a("fd10:1::1"), a("fd10:1::2"), a("fd10:2::1"), a("2001:db8:7::7"), a("2001:db8:9::9"),
			a("fd10::1"), a("fd96::10"), a("fd00:42::1"), p("2001:db8:7::/48"), a("::1"),
		},
	}
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func addrOf(a netip.Addr) (out NetFlAddr) {
	b := a.As16()
	for i := range out.W {
		out.W[i] = nativeWord(b[4*i:])
	}
	return out
}

// nativeWord reads bytes as the processor would.
func nativeWord(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func be(port uint16) uint16 { return port>>8 | port<<8 }

// lab is a network namespace with the devices that vectors name.
type lab struct {
	ns                     int
	client, server, uplink int // interface indexes
}

// newLab makes a namespace that lives until the test ends.
func newLab(t testing.TB) *lab {
	t.Helper()
	need.Root(t)
	var l lab
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		for _, d := range []struct {
			name  string
			index *int
		}{{"client", &l.client}, {"server", &l.server}, {"uplink", &l.uplink}} {
			if *d.index, err = addVeth(d.name); err != nil {
				return
			}
		}
		if err = l.route(); err != nil {
			return
		}
		l.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}()
	<-done
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { unix.Close(l.ns) })
	return &l
}

// route makes the namespace forward, by the uplink unless told otherwise.
func (l *lab) route() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+f, []byte("1"), 0); err != nil {
			return err
		}
	}
	if err := addAddress(lo, "10.9.9.9/32"); err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		dst, err := netlink.ParseIPNet(all)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.uplink, Dst: dst}); err != nil {
			return fmt.Errorf("route %s: %w", all, err)
		}
	}
	return nil
}

// addVeth makes a pair; the peer has the name with a p behind.
func addVeth(name string) (int, error) {
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(v); err != nil {
		return 0, fmt.Errorf("add %s: %w", name, err)
	}
	// It would speak by itself.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"p/disable_ipv6", []byte("1"), 0); err != nil {
		return 0, err
	}
	for _, n := range []string{name, name + "p"} {
		d, err := netlink.LinkByName(n)
		if err != nil {
			return 0, err
		}
		if err := netlink.LinkSetUp(d); err != nil {
			return 0, fmt.Errorf("set %s up: %w", n, err)
		}
	}
	d, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return d.Attrs().Index, nil
}

// enter runs the rest of the test in the namespace.
func (l *lab) enter(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	old, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setns(l.ns, unix.CLONE_NEWNET); err != nil {
		t.Fatalf("enter the network namespace: %v", err)
	}
	t.Cleanup(func() {
		defer unix.Close(old)
		if err := unix.Setns(old, unix.CLONE_NEWNET); err == nil {
			runtime.UnlockOSThread()
		}
	})
}

// world is one set of programs with maps of its own.
type world struct {
	NetObjects
	t      testing.TB
	lab    *lab
	f      family
	events *ringbuf.Reader
}

// newWorld loads the programs with maps of their own, empty, and of so few entries
// that they are cleared fast.
func newWorld(t testing.TB, l *lab, f family) *world {
	t.Helper()
	return loadWorld(t, l, f, 1024)
}

func loadWorld(t testing.TB, l *lab, f family, entries uint32) *world {
	t.Helper()
	spec, err := LoadNet()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if m.Type == ebpf.LRUHash || m.Type == ebpf.Hash {
			m.MaxEntries = entries
		}
	}
	w := &world{t: t, lab: l, f: f}
	if err := spec.LoadAndAssign(&w.NetObjects, nil); err != nil {
		t.Fatalf("load: %+v", err)
	}
	t.Cleanup(func() { w.NetObjects.Close() })
	if w.events, err = ringbuf.NewReader(w.FlEventsV1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.events.Close() })
	return w
}

// clean empties every map for the next vector, of which t is the test.
func (w *world) clean(t testing.TB) {
	t.Helper()
	w.t = t
	drained(t, w.events)
	for _, m := range []*ebpf.Map{
		w.FlAddressesV1, w.FlCapturedV1, w.FlConntrackV1, w.FlHeldV1, w.FlPodsV3, w.FlPolicyV1, w.FlPrefixesV2, w.FlRangesV1, w.FlServicesV2,
	} {
		key := make([]byte, m.KeySize())
		for {
			err := m.NextKey(nil, &key)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				break
			}
			if err == nil {
				err = m.Delete(key)
			}
			if err != nil {
				t.Fatalf("empty %s: %v", m, err)
			}
		}
	}
	zero := make([]uint64, ebpf.MustPossibleCPU())
	for r := range NetFlReasonFL_REASONS {
		put(t, w.FlCountersV1, uint32(r), zero)
	}
	w.inbound(0)
	w.bank(0)
	for slot := range uint32(NetFlOwnFL_OWN_SLOTS) {
		w.ownBank(slot, 0)
	}
}

func put(t testing.TB, m *ebpf.Map, key, value any) {
	t.Helper()
	if err := m.Put(key, value); err != nil {
		t.Fatalf("write %s: %v", m, err)
	}
}

// Classes, sets and rules of the vectors.
const (
	classClient   = 0x11
	classServer   = 0x22
	classRemote   = 0x33
	classListed   = 0x44
	classNode     = 0x55
	classAny      = ^uint64(0)
	governed      = 0x99
	rule          = 0x77
	checkedPort   = 61000
	inboundPort   = 62400
	uncheckedPort = 63264
)

// peopled writes who is who: two pods of this node that nobody governs, a managed pod
// of another, a node, a prefix.
func (w *world) peopled() {
	w.pod(w.f.client, NetFlPod{Ifindex: uint32(w.lab.client)})
	w.pod(w.f.server, NetFlPod{Ifindex: uint32(w.lab.server)})
	w.address(w.f.client, classClient, addrManaged)
	w.address(w.f.server, classServer, addrManaged)
	w.address(w.f.remote, classRemote, addrManaged)
	w.address(w.f.node, classNode, addrNode)
	w.prefix(classListed, 0)
}

// prefix gives the family's prefix a class.
func (w *world) prefix(class uint64, flags uint32) {
	w.t.Helper()
	bits := w.f.prefix.Bits()
	if w.f.prefix.Addr().Is4() {
		bits += 96
	}
	key := NetFlPrefixKey{Bits: uint32(bits), Addr: addrOf(w.f.prefix.Addr())}
	put(w.t, w.FlPrefixesV2, key, NetFlAddress{Class: class, Flags: flags})
}

// Flags of an address.
const (
	addrManaged    = 1
	addrNode       = 2
	addrUnassigned = 4 // of a prefix
	addrBehind     = 8 // with addrManaged
)

func (w *world) pod(a netip.Addr, p NetFlPod) { put(w.t, w.FlPodsV3, addrOf(a), p) }

// govern puts a pod under the set, changed by edit.
func (w *world) govern(a netip.Addr, edit ...func(*NetFlPod)) {
	var p NetFlPod
	if err := w.FlPodsV3.Lookup(addrOf(a), &p); err != nil {
		w.t.Fatal(err)
	}
	p.Set = governed
	for _, e := range edit {
		e(&p)
	}
	w.pod(a, p)
}

func (w *world) address(a netip.Addr, class uint64, flags uint32) {
	put(w.t, w.FlAddressesV1, addrOf(a), NetFlAddress{Class: class, Flags: flags})
}

func (w *world) policy(class uint64, port uint16, proto uint8, action NetFlAction) {
	w.policyRule(class, port, proto, action, rule)
}

func (w *world) policyRule(class uint64, port uint16, proto uint8, action NetFlAction, rule uint64) {
	key := NetFlPolicyKey{Set: governed, Class: class, Port: be(port), Proto: proto}
	put(w.t, w.FlPolicyV1, key, NetFlPolicy{Rule: rule, Action: uint32(action)})
}

// conn writes what an earlier packet left behind.
func (w *world) conn(src, dst netip.AddrPort, proto uint8, path NetFlPath, age time.Duration, proxy uint16) {
	w.t.Helper()
	w.remember(tupleOf(src, dst, proto), path, age, proxy)
}

// served writes that a pod of this node let a flow in.
func (w *world) served(src, dst netip.AddrPort, proto uint8, age time.Duration) {
	w.t.Helper()
	t := tupleOf(src, dst, proto)
	t.Side = sideServed
	w.remember(t, direct, age, 0)
}

func (w *world) remember(tuple NetFlTuple, path NetFlPath, age time.Duration, proxy uint16) {
	w.t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		w.t.Fatal(err)
	}
	c := NetFlConn{Path: uint16(path), Port: proxy}
	if seen := now.Nano() - age.Nanoseconds(); seen > 0 {
		c.Seen = uint64(seen)
	}
	put(w.t, w.FlConntrackV1, tuple, c)
}

func tupleOf(src, dst netip.AddrPort, proto uint8) NetFlTuple {
	return NetFlTuple{
		Saddr: addrOf(src.Addr()), Daddr: addrOf(dst.Addr()), Sport: be(src.Port()), Dport: be(dst.Port()), Proto: proto,
	}
}

// flows are the tuples that are remembered, as text.
func (w *world) flows() []string {
	var out []string
	var k NetFlTuple
	var v NetFlConn
	it := w.FlConntrackV1.Iterate()
	for it.Next(&k, &v) {
		out = append(out, fmt.Sprintf("%s path %d port %d", tupleText(k), v.Path, v.Port))
	}
	if err := it.Err(); err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func tupleText(k NetFlTuple) string {
	return fmt.Sprintf("side %d: %d %s > %s", k.Side, k.Proto, endpoint(k.Saddr, k.Sport), endpoint(k.Daddr, k.Dport))
}

func endpoint(a NetFlAddr, port uint16) netip.AddrPort {
	var b [16]byte
	for i, w := range a.W {
		b[4*i], b[4*i+1], b[4*i+2], b[4*i+3] = byte(w), byte(w>>8), byte(w>>16), byte(w>>24)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), be(port))
}

// inbound writes the node's inbound port.
func (w *world) inbound(port uint16) {
	put(w.t, w.FlSettingsV1, uint32(0), NetFlSettings{InboundPort: port})
}

// bank writes which one is in use.
func (w *world) bank(n uint32) { put(w.t, w.FlBankV1, uint32(0), n) }

// ownBank writes which one is in use of a namespace's proxy.
func (w *world) ownBank(slot, n uint32) { put(w.t, w.FlOwnbanksV1, slot, n) }

// counted are the counters that are not zero, by reason.
func counted(t testing.TB, m *ebpf.Map) map[NetFlReason]uint64 {
	t.Helper()
	out := map[NetFlReason]uint64{}
	for r := range NetFlReasonFL_REASONS {
		var per []uint64
		if err := m.Lookup(uint32(r), &per); err != nil {
			t.Fatal(err)
		}
		for _, n := range per {
			if n > 0 {
				out[r] += n
			}
		}
	}
	return out
}

// drained are the events that wait.
func drained(t testing.TB, r *ringbuf.Reader) []SockFlEvent {
	t.Helper()
	var out []SockFlEvent
	r.SetDeadline(time.Now())
	for {
		rec, err := r.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			t.Fatalf("read an event: %v", err)
		}
		var e SockFlEvent
		if err := unmarshal(rec.RawSample, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

// result is what became of a frame.
type result struct {
	verdict uint32
	frame   []byte
	ctx     skb
}

// run gives a frame to a program.
func (w *world) run(prog *ebpf.Program, frame []byte, ctx skb) result {
	w.t.Helper()
	var r result
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx, ContextOut: &r.ctx}
	verdict, err := prog.Run(opts)
	if err != nil {
		w.t.Fatalf("run %s: %v\n%s", prog, err, packet.Dump(frame))
	}
	r.verdict, r.frame = verdict, opts.DataOut
	return r
}

func reasonName(r NetFlReason) string {
	names := []string{
		"OK_DIRECT", "OK_OUTBOUND", "OK_INBOUND", "OK_SOCKET", "OK_REPLY", "OK_ALLOWED", "OK_CHECKED", "OK_PROBE",
		"OK_BALANCED", "DROP_POLICY", "DROP_UNCHECKED", "DROP_SPOOFED", "DROP_RESERVED_PORT", "DROP_TRUNCATED",
		"DROP_EXTENSION", "DROP_FRAGMENT", "DROP_NO_PROXY", "DROP_ASSIGN", "DROP_LOOPBACK", "MAP_FULL",
		"DROP_NO_BACKEND", "DROP_UNKNOWN_POD", "EVENT_LOST", "OK_OBSERVED", "DROP_PROXY_ABSENT",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprint(uint32(r))
}

// reasonNames is the counters as one line, repeated where they counted twice.
func reasonNames(counts map[NetFlReason]uint64) string {
	var out []string
	for r, n := range counts {
		for range n {
			out = append(out, reasonName(r))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func sameFrame(t testing.TB, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("the frame became\n%swant\n%s", packet.Dump(got), packet.Dump(want))
	}
}

func addAddress(d netlink.Link, prefix string) error {
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	a.Flags |= unix.IFA_F_NODAD
	if err := netlink.AddrAdd(d, a); err != nil {
		return fmt.Errorf("add %s: %w", prefix, err)
	}
	return nil
}
