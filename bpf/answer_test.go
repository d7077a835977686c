// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"fairlead.io/fairlead/internal/packet"
)

// What the node had translated goes to the proxy by loopback, and the proxy's answers go
// where the pod's own would.
func TestForwardedConnections(t *testing.T) {
	open := requestFrom(stranger, 40000)
	reply := func(f family) packet.Packet { return open(f).Back().Flags(packet.SYN | packet.ACK) }
	opened := func(path NetFlPath) func(w *world) {
		return func(w *world) { w.conn(at(w.f.stranger, 40000), at(w.f.server, 80), tcp, path, 0, 15100) }
	}
	passes := func(name string, h hook, mark uint32, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{name: name, at: h, mark: mark, world: world, frame: frame, want: next, kept: true}
	}
	answers := func(name string, h hook) vector {
		return vector{name: name, at: h, world: opened(turnedPath), frame: reply, want: redirect, answered: true, kept: true}
	}
	taken := func(name string, h hook) vector {
		return vector{name: name, at: h, mark: 0xa000_0000 | answered, world: opened(turnedPath), frame: reply, want: next, taken: true, kept: true}
	}
	runVectors(t, []vector{
		judgedHere("what needs the request", under(entry(0, 80, tcp, check)), open),
		judgedHere("what is refused is answered by the proxy", under(entry(0, 80, tcp, refuse)), open),
		rejected("what the kernel denies is denied at once", toServer, under(entry(0, 80, tcp, deny)), open, badPolicy, 0, rule),
		{
			name: "it is opened to the proxy", at: onLoopback, mark: forwarded, frame: open, want: drop,
			world:  func(w *world) { under(entry(0, 80, tcp, check))(w); w.inbound(15100) },
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, 0, governed, rule, 15100}}, flows: one(turnedPath, 15100, open),
		},
		answers("to the node itself", onLoopback),
		answers("to somebody outside", toUplink),
		passes("what is forwarded to somebody outside passes", toUplinkOn, 0, opened(turnedPath), reply),
		passes("an answer to what was redirected otherwise passes", toUplink, 0, opened(proxied), reply),
		passes("an answer to what went straight passes", onLoopback, 0, opened(direct), reply),
		passes("what a pod sends first passes", toUplink, 0, nil, reply),
		passes("what no pod sends passes", toUplink, 0, opened(turnedPath), func(f family) packet.Packet { return reply(f).From(f.node) }),
		passes("a datagram passes", toUplink, 0, opened(turnedPath), func(f family) packet.Packet { return packet.UDP(at(f.server, 80), at(f.stranger, 40000)) }),
		taken("the host takes it by the pod's device", fromClient),
		taken("the host takes it by the bridge", onBridge),
		passes("others on the bridge pass", onBridge, 0, opened(turnedPath), reply),
	})
}
