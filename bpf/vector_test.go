// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"fairlead.io/fairlead/internal/packet"
)

// Short names of reasons, paths and actions.
const (
	okDirect   = NetFlReasonFL_OK_DIRECT
	okOutbound = NetFlReasonFL_OK_OUTBOUND
	okInbound  = NetFlReasonFL_OK_INBOUND
	okSocket   = NetFlReasonFL_OK_SOCKET
	okReply    = NetFlReasonFL_OK_REPLY
	okAllowed  = NetFlReasonFL_OK_ALLOWED
	okChecked  = NetFlReasonFL_OK_CHECKED
	okProbe    = NetFlReasonFL_OK_PROBE
	badPolicy  = NetFlReasonFL_DROP_POLICY
	unchecked  = NetFlReasonFL_DROP_UNCHECKED
	spoofed    = NetFlReasonFL_DROP_SPOOFED
	reserved   = NetFlReasonFL_DROP_RESERVED_PORT
	truncated  = NetFlReasonFL_DROP_TRUNCATED
	extension  = NetFlReasonFL_DROP_EXTENSION
	fragmented = NetFlReasonFL_DROP_FRAGMENT
	noProxy    = NetFlReasonFL_DROP_NO_PROXY
	loopback   = NetFlReasonFL_DROP_LOOPBACK
	absent     = NetFlReasonFL_DROP_PROXY_ABSENT
	unknownPod = NetFlReasonFL_DROP_UNKNOWN_POD

	direct     = NetFlPathFL_DIRECT
	proxied    = NetFlPathFL_PROXIED
	turnedPath = NetFlPathFL_TURNED

	allow       = NetFlActionFL_ALLOW
	deny        = NetFlActionFL_DENY
	check       = NetFlActionFL_CHECK
	refuse      = NetFlActionFL_REFUSE
	onlyInbound = NetFlActionFL_INBOUND

	sideOpened = uint8(NetFlSideFL_OPENED)
	sideServed = uint8(NetFlSideFL_SERVED)
)

// hook is where a frame meets a program.
type hook int

const (
	fromClient   hook = iota // fl_from_pod on the client's device
	fromUplink               // fl_from_net
	toServer                 // fl_to_pod on the server's device, forwarded from the uplink
	toServerHere             // the same, sent by the node itself
	onLoopback               // fl_from_node
	onBridge                 // fl_from_bridge
	toUplink                 // fl_to_net, sent by the node itself
	toUplinkOn               // the same, forwarded from the server's device
)

func (h hook) direction() NetFlDirection {
	return []NetFlDirection{
		NetFlDirectionFL_FROM_POD, NetFlDirectionFL_FROM_NET, NetFlDirectionFL_TO_POD, NetFlDirectionFL_TO_POD,
		NetFlDirectionFL_TO_POD, NetFlDirectionFL_FROM_POD, NetFlDirectionFL_TO_POD, NetFlDirectionFL_TO_POD,
	}[h]
}

func (h hook) program(w *world) *ebpf.Program {
	return []*ebpf.Program{w.FlFromPod, w.FlFromNet, w.FlToPod, w.FlToPod, w.FlFromNode, w.FlFromBridge, w.FlToNet, w.FlToNet}[h]
}

func (h hook) context(l *lab) skb {
	switch h {
	case fromClient:
		return skb{Ifindex: uint32(l.client), IngressIfindex: uint32(l.client)}
	case fromUplink:
		return skb{Ifindex: uint32(l.uplink), IngressIfindex: uint32(l.uplink)}
	case toServer:
		return skb{Ifindex: uint32(l.server), IngressIfindex: uint32(l.uplink)}
	case onLoopback:
		return skb{Ifindex: 1, IngressIfindex: 1}
	case onBridge:
		return skb{Ifindex: uint32(l.client), IngressIfindex: uint32(l.client)}
	case toUplink:
		return skb{Ifindex: uint32(l.uplink)}
	case toUplinkOn:
		return skb{Ifindex: uint32(l.uplink), IngressIfindex: uint32(l.server)}
	default:
		return skb{Ifindex: uint32(l.server)}
	}
}

// said is what an event must say. The rest of it follows from the vector.
type said struct {
	reason           NetFlReason
	class, set, rule uint64
	port             uint16
}

// flow is a tuple that must be remembered after a vector.
type flow struct {
	frame packet.Packet // any packet of its direction
	path  NetFlPath
	port  uint16
	side  uint8
}

// vector is one frame, given to one program, and all that must come of it.
type vector struct {
	name  string
	only  string // family; empty: both
	at    hook
	mark  uint32
	gso   uint32 // segments
	world func(w *world)
	frame func(f family) packet.Packet

	want   uint32
	counts []NetFlReason
	said   []said                       // events, in order
	out    func(f family) packet.Packet // nil: as it came
	flows  func(f family) []flow        // nil: none
	kept   bool                         // flows are those that world wrote
	back   bool                         // turned back to loopback
	// forwarded: likewise, as what the node forwards.
	forwarded bool
	stripped  bool // likewise, without a mark
	answered  bool // sent to where the pod's own answers enter
	taken     bool // such an answer, which the host is to have
	assigned  bool // turned back to loopback, as the host's own
	observed  bool // what is said did not happen
}

func runVectors(t *testing.T, vectors []vector) {
	l := newLab(t)
	l.enter(t)
	w := newWorld(t, l, family{})
	seen := map[string]bool{}
	for _, v := range vectors {
		if seen[v.name] {
			t.Fatalf("two vectors are called %q", v.name)
		}
		seen[v.name] = true
		for _, f := range families() {
			if v.only != "" && v.only != f.name {
				continue
			}
			t.Run(v.name+"/"+f.name, func(t *testing.T) {
				l.enter(t)
				w.f = f
				w.clean(t)
				v.check(t, w)
			})
		}
	}
}

func (v vector) check(t *testing.T, w *world) {
	w.peopled()
	if v.world != nil {
		v.world(w)
	}
	before := w.flows()
	in := v.frame(w.f).Bytes()
	ctx := v.at.context(w.lab)
	ctx.Mark, ctx.GSOSegs = v.mark, v.gso
	got := w.run(v.at.program(w), in, ctx)
	defer func() {
		if t.Failed() {
			t.Logf("the frame:\n%s", packet.Dump(in))
		}
	}()

	if got.verdict != v.want {
		t.Errorf("verdict %d, want %d", int32(got.verdict), int32(v.want))
	}
	mark := v.mark
	if v.back {
		mark = mark&^markMask | turned
	}
	if v.forwarded {
		mark = mark&^markMask | forwarded
	}
	if v.answered {
		mark = mark&^markMask | answered
	}
	if v.taken || v.stripped {
		mark &^= markMask
	}
	if v.assigned {
		mark = mark&^markMask | toProxy
	}
	if got.ctx.Mark != mark {
		t.Errorf("mark %#x, want %#x", got.ctx.Mark, mark)
	}
	want := map[NetFlReason]uint64{}
	for _, r := range v.counts {
		want[r]++
	}
	if g, w := reasonNames(counted(t, w.FlCountersV1)), reasonNames(want); g != w {
		t.Errorf("counted %q, want %q", g, w)
	}
	v.checkEvents(t, w, ctx)
	out := v.frame(w.f)
	if v.out != nil {
		out = v.out(w.f)
	}
	frame := out.Bytes()
	if v.back || v.forwarded || v.stripped || v.assigned {
		clear(frame[:6])
	}
	sameFrame(t, got.frame, frame)
	v.checkFlows(t, w, before)
}

func (v vector) checkEvents(t *testing.T, w *world, ctx skb) {
	var got, want []string
	line := func(r NetFlReason, d NetFlDirection, ifindex uint32, class, set, rule uint64, port uint16, flags uint32) string {
		return fmt.Sprintf("%s direction %d ifindex %d class %#x set %#x rule %#x port %d flags %d", reasonName(r), d, ifindex, class, set, rule, port, flags)
	}
	flags := uint32(0)
	if v.observed {
		flags = eventObserved
	}
	for _, e := range drained(t, w.events) {
		got = append(got, line(NetFlReason(e.Reason), NetFlDirection(e.Direction), e.Ifindex, e.Class, e.Set, e.Rule, e.Port, e.Flags))
		if e.Time == 0 {
			t.Error("an event without time")
		}
	}
	for _, s := range v.said {
		want = append(want, line(s.reason, v.at.direction(), ctx.Ifindex, s.class, s.set, s.rule, s.port, flags))
	}
	if !slices.Equal(got, want) {
		t.Errorf("events\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (v vector) checkFlows(t *testing.T, w *world, before []string) {
	want := []string{}
	if v.kept {
		want = before
	}
	if v.flows != nil {
		for _, f := range v.flows(w.f) {
			tuple := tupleIn(f.frame)
			tuple.Side = f.side
			want = append(want, fmt.Sprintf("%s path %d port %d", tupleText(tuple), f.path, f.port))
		}
	}
	slices.Sort(want)
	if got := w.flows(); !slices.Equal(got, want) {
		t.Errorf("remembered\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// tupleIn reads the tuple of a frame without options or extensions.
func tupleIn(p packet.Packet) NetFlTuple {
	b := p.Bytes()[14:]
	var src, dst [16]byte
	var proto byte
	if b[0]>>4 == 4 {
		src[10], src[11], dst[10], dst[11] = 0xff, 0xff, 0xff, 0xff
		copy(src[12:], b[12:16])
		copy(dst[12:], b[16:20])
		proto, b = b[9], b[20:]
	} else {
		copy(src[:], b[8:24])
		copy(dst[:], b[24:40])
		proto, b = b[6], b[40:]
	}
	t := NetFlTuple{Proto: proto}
	for i := range 4 {
		t.Saddr.W[i], t.Daddr.W[i] = nativeWord(src[4*i:]), nativeWord(dst[4*i:])
	}
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(b[i:]) }
	switch {
	case proto == tcp || proto == udp || proto == packet.SCTP:
		t.Sport, t.Dport = port(0), port(2)
	case b[0] == 8 && proto == packet.ICMPv4 || b[0] == 128 && proto == packet.ICMPv6:
		t.Sport, t.Dport = port(4), port(4)
	}
	return t
}

// unmarshal reads what the kernel wrote.
func unmarshal(b []byte, v any) error {
	_, err := binary.Decode(b, binary.NativeEndian, v)
	return err
}
