// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/packet"
)

// Bits of an observed pod and client, and of an event about one.
const (
	podObserved    = 1 << 0
	podDirect      = 1 << 1
	podSettling    = 1 << 2
	clientObserved = uint32(1) << 29
	eventObserved  = 1 << 0
)

const okObserved = NetFlReasonFL_OK_OBSERVED

// observed puts the server under policy that is not enforced.
func observed(rules ...func(w *world)) func(w *world) {
	return func(w *world) {
		under(rules...)(w)
		w.govern(w.f.server, func(p *NetFlPod) { p.Flags = podObserved })
	}
}

// settling is observed as it is a moment after.
func settling(rules ...func(w *world)) func(w *world) {
	return func(w *world) {
		under(rules...)(w)
		w.govern(w.f.server, func(p *NetFlPod) { p.Flags = podSettling })
	}
}

// would is the vector of a first packet that goes in, and of what is told that it would not.
func would(name string, h hook, world func(w *world), frame func(f family) packet.Packet, r NetFlReason, class, rule uint64) vector {
	v := admitted(name, h, world, frame, okObserved, class, rule)
	v.said[0].reason, v.observed = r, true
	return v
}

// To an observed pod everything goes in that policy alone keeps out, and the verdict is told.
func TestToPodObserved(t *testing.T) {
	udpRequest := func(f family) packet.Packet { return packet.UDP(at(f.remote, 40000), at(f.server, 80)) }
	fragment := func(f family) packet.Packet { return udpRequest(f).Fragment(64, false).Payload("x") }
	segment := func(f family) packet.Packet { return request(f).Flags(packet.ACK).Seq(5, 7) }
	onceTold := func(v vector, frame func(f family) packet.Packet) vector {
		v.flows = func(f family) []flow { return []flow{{frame(f), direct, 0, sideServed}} }
		return v
	}
	back := func(name string, world func(w *world), frame func(f family) packet.Packet, mark uint32) vector {
		return vector{name: name, at: toServerHere, mark: mark, world: world, frame: frame, want: redirect, back: true}
	}
	runVectors(t, []vector{
		would("what a rule denies goes in, and is told with the rule", toServer, observed(entry(classRemote, 80, tcp, deny)), request, badPolicy, classRemote, rule),
		would("what no rule allows goes in", toServer, observed(), request, badPolicy, classRemote, 0),
		would("what is refused with an answer goes in", toServer, observed(entry(classRemote, 80, tcp, refuse)), request, badPolicy, classRemote, rule),
		would("what needs the request goes in, and would be proxied", toServer, observed(entry(classRemote, 80, tcp, check)), request, okInbound, classRemote, rule),
		would("what the inbound listener has to see goes in, and would be proxied", toServer, observed(entry(classRemote, 80, tcp, onlyInbound)), request, okInbound, classRemote, rule),
		would("a process of the node is not turned back", toServerHere, observed(entry(classNode, 80, tcp, check)), requestFrom(node, 40000), okInbound, classNode, rule),
		onceTold(would("a datagram that is denied goes in", toServer, observed(), udpRequest, badPolicy, classRemote, 0), udpRequest),
		onceTold(would("a datagram that nobody can judge would be dropped", toServer, observed(entry(classRemote, 80, udp, check)), udpRequest, unchecked, classRemote, rule), udpRequest),
		admitted("what is allowed goes in as ever", toServer, observed(entry(classRemote, 80, tcp, allow)), request, okAllowed, classRemote, rule),
		admitted("what a proxy judged goes in as ever", toServer, observed(entry(classRemote, 80, tcp, check)), requestFrom(remote, checkedPort), okChecked, classRemote, rule),
		{
			name: "a later segment is counted, and not told", at: toServer, world: observed(), frame: segment, want: next, counts: []NetFlReason{okObserved},
		},
		{
			name: "a second datagram is counted, and not told", at: toServer, frame: udpRequest, want: next, counts: []NetFlReason{okObserved}, kept: true,
			world: observed(func(w *world) { w.served(at(w.f.remote, 40000), at(w.f.server, 80), udp, time.Second) }),
		},
		{
			name: "a later fragment goes in, and is told", at: toServer, world: observed(), frame: fragment, want: next, observed: true,
			counts: []NetFlReason{okObserved}, said: []said{{reason: fragmented}},
			flows: func(f family) []flow {
				return []flow{{packet.Raw(f.remote, f.server, udp, make([]byte, 8)), direct, 0, sideServed}}
			},
		},
		{
			name: "an error that policy keeps out goes in, and is told", at: toServer, world: observed(), want: next, observed: true,
			counts: []NetFlReason{okObserved}, said: []said{{badPolicy, classRemote, governed, 0, 0}},
			frame: func(f family) packet.Packet {
				return packet.Unreachable(f.stranger, f.server, request(f).Back().Flags(packet.ACK))
			},
		},
		back("what a proxy sends to the inbound listener goes there", observed(), requestFrom(client, inboundPort), fromProxy),
		{
			name: "broken headers are dropped all the same", only: "v6", at: toServer, world: observed(), want: drop,
			frame:  func(f family) packet.Packet { return request(f).Extend(packet.AH, 24) },
			counts: []NetFlReason{extension}, said: said1(extension),
		},
		{
			name: "another pod's address is dropped all the same", at: toServer, world: observed(), want: drop,
			frame: func(f family) packet.Packet { return request(f).To(f.client) }, counts: []NetFlReason{unknownPod}, said: said1(unknownPod),
		},
		{
			name: "what is open, and cannot be judged, goes on for a while", at: toServer, frame: segment, want: next, counts: []NetFlReason{okObserved},
			world: settling(entry(classRemote, 80, tcp, check)),
		},
		{
			name: "what is open, and is denied, is cut at once", at: toServer, frame: segment, want: redirect, counts: []NetFlReason{badPolicy},
			world: settling(entry(classRemote, 80, tcp, deny)), said: []said{{badPolicy, classRemote, governed, rule, 0}},
			out: func(f family) packet.Packet { return segment(f).Back().Flags(packet.RST).Seq(7, 0) },
		},
		judgedHere("what begins then is for the proxy", settling(entry(classRemote, 80, tcp, check)), request),
		rejected("a pod that is no more observed judges what is open by the policy of now", toServer, func(w *world) {
			observed()(w)
			w.govern(w.f.server, func(p *NetFlPod) { p.Flags = 0 })
		}, request, badPolicy, classRemote, 0),
	})
}

// On its way to an observed pod nothing is redirected.
func TestFromNetObserved(t *testing.T) {
	passes := func(name string, a NetFlAction) vector {
		return vector{name: name, at: fromUplink, frame: request, want: next,
			world: observed(entry(classRemote, 80, tcp, a), func(w *world) { w.inbound(15100) })}
	}
	runVectors(t, []vector{
		passes("what needs the request passes", check),
		passes("what is refused passes", refuse),
		passes("what has to pass the inbound listener passes", onlyInbound),
		{
			name: "what another node's proxy sends to the inbound listener goes there", at: fromUplink, frame: requestFrom(remote, inboundPort), want: drop,
			world:  observed(entry(classRemote, 80, tcp, check), func(w *world) { w.inbound(15100) }),
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, classRemote, governed, rule, 15100}}, flows: one(proxied, 15100, requestFrom(remote, inboundPort)),
		},
		{
			name: "what was redirected before goes on", at: fromUplink, want: drop, kept: true,
			frame: func(f family) packet.Packet { return request(f).Flags(packet.ACK) },
			world: observed(entry(classRemote, 80, tcp, check), func(w *world) {
				w.conn(at(w.f.remote, 40000), at(w.f.server, 80), tcp, proxied, 0, 15100)
			}),
			counts: []NetFlReason{noProxy}, said: said1(noProxy),
		},
	})
}

// What an observed pod sends goes where it dials, unless it is not its to send.
func TestFromPodObserved(t *testing.T) {
	unrouted := func(flags uint32) func(w *world) {
		return func(w *world) {
			captured(flags)(w)
			var p NetFlPod
			if err := w.FlPodsV3.Lookup(addrOf(w.f.client), &p); err != nil {
				w.t.Fatal(err)
			}
			p.Flags = podObserved | podDirect
			w.pod(w.f.client, p)
		}
	}
	told := vector{
		name: "a connection that would be redirected is told", frame: dialService, world: unrouted(uint32(http)), observed: true,
		want: next, counts: []NetFlReason{okDirect}, said: []said{{reason: okOutbound, port: 15101}}, flows: one(direct, 0, dialService),
	}
	lingering := vector{
		name: "what was dialled to be redirected still is, until it is told otherwise", frame: dialService, want: drop,
		world: func(w *world) {
			unrouted(uint32(http))(w)
			w.govern(w.f.client, func(p *NetFlPod) { p.Flags = podObserved })
		},
		counts: []NetFlReason{noProxy}, said: []said{{reason: noProxy, port: 15101}}, flows: one(proxied, 15101, dialService),
	}
	other := opensFromPod("a connection that would not is as ever", "", dial)
	other.world = unrouted(uint32(http))
	spoof := droppedFromPod("a foreign source is dropped all the same", "", spoofed, func(f family) packet.Packet { return dial(f).From(f.stranger) })
	spoof.world = unrouted(uint32(http))
	port := droppedFromPod("a reserved port is dropped all the same", "", reserved, func(f family) packet.Packet {
		return packet.TCP(at(f.client, checkedPort), at(f.remote, 80), packet.SYN)
	})
	port.world = unrouted(uint32(http))
	runVectors(t, []vector{told, lingering, other, spoof, port})
}

// observedCases are of captured clients that are observed: balanced as all others are.
func observedCases() []sockCase {
	observe := func(t *testing.T, w *sockWorld, bits uint32) {
		t.Helper()
		drained(t, w.events)
		put(t, w.FlCapturedV1, netnsCookie(t), bits|clientObserved)
	}
	says := func(t *testing.T, w *sockWorld, r NetFlReason, flags uint32) {
		t.Helper()
		got := drained(t, w.events)
		if len(got) != 1 || NetFlReason(got[0].Reason) != r || got[0].Flags != flags {
			t.Errorf("events %+v, want one of %s with flags %d", got, reasonName(r), flags)
		}
	}
	return []sockCase{
		{"an observed client does not keep the address that would be redirected", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1, Flags: uint32(http)}, w.backend(0))
			observe(t, w, 1<<(http-1))
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			says(t, w, okOutbound, eventObserved)
			observe(t, w, 1<<(tls-1)) // not in this mode
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			says(t, w, okBalanced, 0)
			w.capture(http)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
		}},
		{"an observed client has the backends of everyone", func(t *testing.T, w *sockWorld) {
			w.routed(80, tcp, SockFlSvc{Id: 1, RoutedId: 2}, []netip.AddrPort{w.backend(0)}, []netip.AddrPort{w.backend(1)})
			observe(t, w, 1<<30)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			says(t, w, okBalanced, eventObserved)
		}},
		{"an observed client that is held to services reaches others", func(t *testing.T, w *sockWorld) {
			observe(t, w, 1<<31)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
			says(t, w, noBackend, eventObserved)
			put(t, w.FlCapturedV1, netnsCookie(t), uint32(1)<<31)
			w.refused("tcp", 80, 1)
		}},
	}
}
