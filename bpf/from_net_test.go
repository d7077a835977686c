// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"fairlead.io/fairlead/internal/packet"
)

// needs makes the server's policy need the request, and gives nobody to read it.
func needs(class uint64, action NetFlAction) func(w *world) {
	return under(entry(class, 80, tcp, action), func(w *world) { w.inbound(15100) })
}

// behind is a world where the other node may not have what is configured by now.
func behind(in func(w *world)) func(w *world) {
	return func(w *world) {
		in(w)
		w.address(w.f.remote, classRemote, addrManaged|addrBehind)
	}
}

func TestFromNet(t *testing.T) {
	passes := func(name, only string, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{name: name, only: only, at: fromUplink, world: world, frame: frame, want: next}
	}
	dropped := func(name, only string, r NetFlReason, frame func(f family) packet.Packet) vector {
		return vector{name: name, only: only, at: fromUplink, frame: frame, want: drop, counts: []NetFlReason{r}, said: said1(r)}
	}
	inbound := func(name string, world func(w *world), frame func(f family) packet.Packet, class uint64) vector {
		return vector{
			name: name, at: fromUplink, world: world, frame: frame, want: drop,
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, class, governed, rule, 15100}}, flows: one(proxied, 15100, frame),
		}
	}
	redirected := func(w *world) { w.conn(at(w.f.remote, 40000), at(w.f.server, 80), tcp, proxied, 0, 15100) }
	runVectors(t, []vector{
		passes("ARP passes", "v4", nil, func(family) packet.Packet { return packet.Frame(0x0806, make([]byte, 28)) }),
		passes("a VLAN within a VLAN is not ours", "", nil, func(f family) packet.Packet { return request(f).Tagged(5) }),
		passes("a neighbour asks", "v6", nil, func(f family) packet.Packet {
			return packet.ICMP(netip.MustParseAddr("fe80::9"), f.server, 135, 0, 0).TTL(255)
		}),
		passes("what is for the node passes", "", needs(classRemote, check), func(f family) packet.Packet { return request(f).To(f.node) }),
		passes("what is for the node passes even broken", "", nil, func(f family) packet.Packet {
			p := request(f).To(f.node)
			return p.Cut(len(p.Bytes()) - 20)
		}),
		passes("what is for another node's pod passes", "", nil, func(f family) packet.Packet { return request(f).From(f.stranger).To(f.remote) }),
		passes("a connection to a pod that nobody governs passes", "", nil, request),
		passes("a connection that policy allows passes", "", needs(classRemote, allow), request),
		passes("a connection that policy denies is rejected at the pod", "", needs(classRemote, deny), request),
		passes("a datagram passes", "", needs(classRemote, check), func(f family) packet.Packet { return packet.UDP(at(f.remote, 1), at(f.server, 80)) }),
		passes("an echo passes", "", needs(classRemote, check), func(f family) packet.Packet { return packet.Echo(f.remote, f.server, 7) }),
		passes("a later fragment passes", "", needs(classRemote, check), func(f family) packet.Packet {
			return request(f).Fragment(64, false).Payload("x")
		}),
		passes("an error passes", "", nil, func(f family) packet.Packet { return packet.Unreachable(f.stranger, f.server, request(f).Back()) }),
		passes("a segment of a connection from before us passes", "", needs(classRemote, check),
			func(f family) packet.Packet { return request(f).Flags(packet.ACK) }),

		dropped("a local pod's source is dropped", "", spoofed, func(f family) packet.Packet { return request(f).From(f.client) }),
		dropped("the receiver's own source is dropped", "", spoofed, func(f family) packet.Packet { return request(f).From(f.server) }),
		dropped("a local pod's source is dropped also for the node", "", spoofed, func(f family) packet.Packet { return request(f).From(f.client).To(f.node) }),
		dropped("a local pod's source of an error is dropped", "", spoofed, func(f family) packet.Packet {
			return packet.Unreachable(f.client, f.server, request(f).Back())
		}),
		dropped("a local pod's source of a later fragment is dropped", "", spoofed, func(f family) packet.Packet {
			return request(f).From(f.client).Fragment(64, false).Payload("x")
		}),
		dropped("the address that stands for a pod itself is dropped", "", spoofed, func(f family) packet.Packet { return request(f).From(f.self) }),
		dropped("a packet to loopback is dropped", "", loopback, func(f family) packet.Packet { return request(f).To(f.loopback) }),
		dropped("a packet for a pod that is too short is dropped", "", truncated, func(f family) packet.Packet {
			p := request(f)
			return p.Cut(len(p.Bytes()) - 20)
		}),
		dropped("a packet for a pod with headers that are not walked is dropped", "v6", extension,
			func(f family) packet.Packet { return request(f).Extend(packet.AH, 24) }),

		inbound("a connection that needs the request goes to the inbound proxy", needs(classRemote, check), request, classRemote),
		inbound("a connection that is refused is answered by the inbound proxy", needs(classRemote, refuse), request, classRemote),
		inbound("a checked port does not help against refusal", needs(classRemote, refuse), requestFrom(remote, checkedPort), classRemote),
		inbound("what has to pass here goes to the inbound proxy", needs(classRemote, onlyInbound), request, classRemote),
		inbound("a checked port does not help against that", needs(classRemote, onlyInbound), requestFrom(remote, checkedPort), classRemote),
		inbound("what another node's proxy sends to it goes to the inbound proxy", needs(classRemote, allow), requestFrom(remote, inboundPort), classRemote),
		inbound("up to the last port", needs(classRemote, allow), requestFrom(remote, uncheckedPort-1), classRemote),
		passes("a stranger sends nothing to it", "", needs(0, allow), requestFrom(stranger, inboundPort)),
		passes("a node neither", "", needs(classNode, allow), requestFrom(node, inboundPort)),
		inbound("an unchecked port goes to the inbound proxy", needs(classRemote, check), requestFrom(remote, uncheckedPort), classRemote),
		inbound("a stranger's checked port goes to the inbound proxy", needs(0, check), requestFrom(stranger, checkedPort), 0),
		inbound("a node's checked port goes to the inbound proxy", needs(classNode, check), requestFrom(node, checkedPort), classNode),
		inbound("a SYN with FIN goes to the inbound proxy", needs(classRemote, check),
			func(f family) packet.Packet { return request(f).Flags(packet.SYN | packet.FIN) }, classRemote),
		passes("a managed node's checked port passes", "", needs(classRemote, check), requestFrom(remote, checkedPort)),
		inbound("a checked port of a node that is behind goes to the inbound proxy", behind(needs(classRemote, check)), requestFrom(remote, checkedPort), classRemote),
		inbound("what its proxy sends to the inbound proxy does so", behind(needs(classRemote, allow)), requestFrom(remote, inboundPort), classRemote),
		passes("a segment of what a node has open that is behind passes", "", behind(needs(classRemote, check)),
			func(f family) packet.Packet { return requestFrom(remote, checkedPort)(f).Flags(packet.ACK) }),
		{
			name: "a segment of a redirected connection without socket asks the proxy", at: fromUplink, world: redirected,
			frame: func(f family) packet.Packet { return request(f).Flags(packet.ACK) }, want: drop,
			counts: []NetFlReason{noProxy}, said: said1(noProxy), kept: true,
		},
		{
			name: "a SYN that is not redirected ends an earlier redirection", at: fromUplink, world: redirected, frame: request, want: next,
		},
	})
}
