// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/packet"
)

// A client of this node dials a server that the node does not have.
func dial(f family) packet.Packet {
	return packet.TCP(at(f.client, 40000), at(f.remote, 80), packet.SYN)
}

// ack is a segment in the middle of that connection.
func ack(f family) packet.Packet { return dial(f).Flags(packet.ACK).Seq(5, 6).Payload("data") }

func datagram(f family) packet.Packet {
	return packet.UDP(at(f.client, 40000), at(f.remote, 53)).Payload("query")
}

func one(path NetFlPath, port uint16, frame func(f family) packet.Packet) func(f family) []flow {
	return func(f family) []flow { return []flow{{frame: frame(f), path: path, port: port}} }
}

// captured makes what the client sends to the service go by these flags. Its proxy
// ports are proxyPort(mode), which nobody has.
func captured(flags uint32) func(*world) {
	return func(w *world) {
		w.capture(modes...)
		w.service(w.f.service, 80, NetFlSvc{Id: 1, Slots: 1, Flags: flags})
	}
}

func dialService(f family) packet.Packet {
	return packet.TCP(at(f.client, 40000), at(f.service, 80), packet.SYN)
}

func dialServer(f family) packet.Packet {
	return packet.TCP(at(f.client, 40000), at(f.server, 80), packet.SYN)
}

func said1(r NetFlReason) []said { return []said{{reason: r}} }

// dropped is the vector of a frame that a pod may not send.
func droppedFromPod(name, only string, r NetFlReason, frame func(f family) packet.Packet) vector {
	return vector{name: name, only: only, frame: frame, want: drop, counts: []NetFlReason{r}, said: said1(r)}
}

// passes is the vector of a frame that a pod may send and that nothing remembers.
func passesFromPod(name, only string, frame func(f family) packet.Packet) vector {
	return vector{name: name, only: only, frame: frame, want: next}
}

// opensFromPod is the vector of a frame that begins a flow.
func opensFromPod(name, only string, frame func(f family) packet.Packet) vector {
	return vector{
		name: name, only: only, frame: frame, want: next, counts: []NetFlReason{okDirect}, said: said1(okDirect),
		flows: one(direct, 0, frame),
	}
}

func TestFromPodBeginnings(t *testing.T) {
	straight := []said{{reason: okDirect}}
	runVectors(t, []vector{
		opensFromPod("a connection to nobody we know goes straight", "", dial),
		opensFromPod("a datagram goes straight", "", datagram),
		opensFromPod("an echo goes straight", "", func(f family) packet.Packet { return packet.Echo(f.client, f.remote, 7) }),
		opensFromPod("SCTP goes straight by its ports", "", func(f family) packet.Packet {
			return packet.Raw(f.client, f.remote, packet.SCTP, []byte{1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0})
		}),
		opensFromPod("a SYN with data opens", "", func(f family) packet.Packet { return dial(f).Payload("early") }),
		opensFromPod("a SYN with FIN opens", "", func(f family) packet.Packet { return dial(f).Flags(packet.SYN | packet.FIN) }),
		opensFromPod("a SYN with RST opens", "", func(f family) packet.Packet { return dial(f).Flags(packet.SYN | packet.RST) }),
		{
			name: "a SYN behind IPv4 options opens", only: "v4", frame: func(f family) packet.Packet { return dial(f).Options(12) },
			want: next, counts: []NetFlReason{okDirect}, said: straight, flows: one(direct, 0, dial),
		},
		{
			name: "a SYN behind extension headers opens", only: "v6",
			frame: func(f family) packet.Packet {
				return dial(f).Extend(packet.HopByHop, 8).Extend(packet.DestOpts, 24).Extend(packet.Routing, 16)
			},
			want: next, counts: []NetFlReason{okDirect}, said: straight, flows: one(direct, 0, dial),
		},
		{
			name: "a SYN in a first fragment opens", frame: func(f family) packet.Packet { return dial(f).Fragment(0, true) },
			want: next, counts: []NetFlReason{okDirect}, said: straight, flows: one(direct, 0, dial),
		},
		{
			name: "a SYN rewrites what an earlier connection left", frame: dial,
			world: func(w *world) { w.conn(at(w.f.client, 40000), at(w.f.remote, 80), tcp, proxied, 0, 15101) },
			want:  next, counts: []NetFlReason{okDirect}, said: straight, flows: one(direct, 0, dial),
		},
		{
			name: "a second datagram is not reported", frame: datagram,
			world: func(w *world) { w.conn(at(w.f.client, 40000), at(w.f.remote, 53), udp, direct, time.Second, 0) },
			want:  next, kept: true,
		},
		{
			name: "a datagram long after the last begins anew", frame: datagram,
			world: func(w *world) { w.conn(at(w.f.client, 40000), at(w.f.remote, 53), udp, direct, time.Hour, 0) },
			want:  next, counts: []NetFlReason{okDirect}, said: straight, flows: one(direct, 0, datagram),
		},
		{
			name: "an answer to a datagram begins nothing", frame: datagram,
			world: func(w *world) { w.served(at(w.f.remote, 53), at(w.f.client, 40000), udp, time.Second) },
			want:  next, kept: true,
		},
		{
			name: "an echo reply begins nothing", frame: func(f family) packet.Packet { return packet.EchoReply(f.client, f.remote, 7) },
			want: next,
		},
		{
			name: "a segment of a connection from before us passes", frame: ack, want: next,
		},
		{
			name: "a SYN-ACK is not an opening", frame: func(f family) packet.Packet { return dial(f).Flags(packet.SYN | packet.ACK) },
			want: next,
		},
	})
}

func TestFromPodOtherFrames(t *testing.T) {
	local := netip.MustParseAddr("fe80::1")
	all := netip.MustParseAddr("ff02::1")
	ndp := func(kind uint8, src func(f family) netip.Addr, hops uint8) func(f family) packet.Packet {
		return func(f family) packet.Packet { return packet.ICMP(src(f), all, kind, 0, 0).TTL(hops) }
	}
	self := func(f family) netip.Addr { return f.client }
	link := func(family) netip.Addr { return local }
	none := func(family) netip.Addr { return netip.IPv6Unspecified() }
	runVectors(t, []vector{
		passesFromPod("ARP passes", "v4", func(family) packet.Packet { return packet.Frame(0x0806, make([]byte, 28)) }),
		passesFromPod("what is not IP passes", "v4", func(family) packet.Packet { return packet.Frame(0x88cc, make([]byte, 46)) }),
		// The kernel strips two tags of VLAN 0 and takes what is inside.
		{
			name: "a tag inside a tag is dropped", frame: func(f family) packet.Packet { return dial(f).Tagged(0) },
			want: drop, counts: []NetFlReason{extension}, said: said1(extension),
		},
		passesFromPod("a neighbour is asked for from a link-local address", "v6", ndp(135, link, 255)),
		passesFromPod("a neighbour is asked for from the pod's address", "v6", ndp(135, self, 255)),
		passesFromPod("a neighbour is asked for from no address", "v6", ndp(135, none, 255)),
		passesFromPod("a neighbour is answered from the pod's address", "v6", ndp(136, self, 255)),
		passesFromPod("a group is joined from no address", "v6", ndp(143, none, 1)),
		droppedFromPod("a neighbour is not asked for from a foreign address", "v6", spoofed,
			ndp(135, func(f family) netip.Addr { return f.remote }, 255)),
		droppedFromPod("what looks like a neighbour but came from afar is no neighbour", "v6", spoofed, ndp(135, link, 64)),
		// CVE-2020-10749: a pod that the node took for a router.
		droppedFromPod("a pod is no router", "v6", spoofed, ndp(134, link, 255)),
		droppedFromPod("a pod does not redirect", "v6", spoofed, ndp(137, link, 255)),
		droppedFromPod("a pod does not redirect in IPv4 either", "v4", spoofed, func(f family) packet.Packet {
			return packet.ICMP(f.client, f.node, 5, 1, 0).Payload("redirect")
		}),
		// Protocol 58 in IPv4 is no neighbour discovery, and 1 in IPv6 no error.
		opensFromPod("ICMPv6 in IPv4 is any packet", "v4", func(f family) packet.Packet {
			return packet.Raw(f.client, f.remote, packet.ICMPv6, []byte{135, 0, 0, 0, 0, 0, 0, 0})
		}),
		opensFromPod("ICMP in IPv6 is any packet", "v6", func(f family) packet.Packet {
			return packet.Raw(f.client, f.remote, packet.ICMPv4, []byte{3, 0, 0, 0, 0, 0, 0, 0})
		}),
		passesFromPod("an error about a packet that the pod received passes", "", func(f family) packet.Packet {
			return packet.Unreachable(f.client, f.remote, datagram(f).Back())
		}),
		passesFromPod("a later fragment passes", "", func(f family) packet.Packet { return datagram(f).Fragment(64, false) }),
	})
}

func TestFromPodSpoofed(t *testing.T) {
	mapped := func(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
	runVectors(t, []vector{
		droppedFromPod("a foreign source is dropped", "", spoofed, func(f family) packet.Packet { return dial(f).From(f.remote) }),
		droppedFromPod("another pod's source is dropped", "", spoofed, func(f family) packet.Packet { return dial(f).From(f.server) }),
		droppedFromPod("the address that stands for a pod itself is dropped", "", spoofed,
			func(f family) packet.Packet { return dial(f).From(f.self) }),
		droppedFromPod("a foreign source of a datagram is dropped", "", spoofed,
			func(f family) packet.Packet { return datagram(f).From(f.remote) }),
		droppedFromPod("a foreign source of a later fragment is dropped", "", spoofed,
			func(f family) packet.Packet { return datagram(f).From(f.remote).Fragment(64, false) }),
		droppedFromPod("a foreign source of an error is dropped", "", spoofed, func(f family) packet.Packet {
			return packet.Unreachable(f.stranger, f.remote, datagram(f))
		}),
		droppedFromPod("a v4-mapped source in IPv6 is dropped", "v4", spoofed, func(f family) packet.Packet {
			return packet.TCP(at(mapped(f.client), 40000), at(netip.MustParseAddr("fd00::9"), 80), packet.SYN)
		}),
		droppedFromPod("a v4-mapped destination in IPv6 is dropped", "v6", spoofed, func(f family) packet.Packet {
			return dial(f).To(mapped(netip.MustParseAddr("10.1.0.2")))
		}),
		// A node would take such a packet out and believe the source of what is inside.
		droppedFromPod("IP in IP to a node is dropped", "", spoofed, tunnel(packet.IPIP)),
		droppedFromPod("IPv6 in IP to a node is dropped", "", spoofed, tunnel(packet.SixInFour)),
		droppedFromPod("GRE to a node is dropped", "", spoofed, tunnel(packet.GRE)),
		droppedFromPod("VXLAN to a node is dropped", "", spoofed, overlay(4789)),
		droppedFromPod("the kernel's VXLAN to a node is dropped", "", spoofed, overlay(8472)),
		droppedFromPod("VXLAN to an address of the node that nobody told us of is dropped", "v4", spoofed, func(f family) packet.Packet {
			return packet.UDP(at(f.client, 40000), at(netip.MustParseAddr("10.9.9.9"), 8472)).Payload("frame")
		}),
		droppedFromPod("Geneve to a node is dropped", "", spoofed, overlay(6081)),
		opensFromPod("another datagram to a node passes", "", overlay(53)),
		opensFromPod("VXLAN to another pod passes", "", func(f family) packet.Packet {
			return packet.UDP(at(f.client, 40000), at(f.remote, 4789)).Payload("frame")
		}),
	})
}

func tunnel(proto uint8) func(f family) packet.Packet {
	return func(f family) packet.Packet { return packet.Raw(f.client, f.node, proto, make([]byte, 40)) }
}

func overlay(port uint16) func(f family) packet.Packet {
	return func(f family) packet.Packet {
		return packet.UDP(at(f.client, 40000), at(f.node, port)).Payload("frame")
	}
}

func TestFromPodReservedPorts(t *testing.T) {
	from := func(port uint16, flags packet.Flags) func(f family) packet.Packet {
		return func(f family) packet.Packet { return packet.TCP(at(f.client, port), at(f.server, 80), flags) }
	}
	serves := func(w *world) { w.served(at(w.f.server, 80), at(w.f.client, checkedPort), tcp, 0) }
	runVectors(t, []vector{
		droppedFromPod("the first checked port opens nothing", "", reserved, from(checkedPort, packet.SYN)),
		droppedFromPod("the first unchecked port opens nothing", "", reserved, from(uncheckedPort, packet.SYN)),
		droppedFromPod("the last port opens nothing", "", reserved, from(65535, packet.SYN)),
		droppedFromPod("SYN with FIN opens nothing", "", reserved, from(checkedPort, packet.SYN|packet.FIN)),
		droppedFromPod("SYN with RST opens nothing", "", reserved, from(checkedPort, packet.SYN|packet.RST)),
		droppedFromPod("a first fragment opens nothing", "", reserved,
			func(f family) packet.Packet { return from(checkedPort, packet.SYN)(f).Fragment(0, true) }),
		droppedFromPod("a segment of no connection is dropped", "", reserved, from(checkedPort, packet.ACK)),
		droppedFromPod("a SYN-ACK of no connection is dropped", "", reserved, from(checkedPort, packet.SYN|packet.ACK)),
		opensFromPod("the port below opens", "", from(checkedPort-1, packet.SYN)),
		opensFromPod("a datagram is free to use them", "", func(f family) packet.Packet {
			return packet.UDP(at(f.client, checkedPort), at(f.server, 80))
		}),
		{
			name: "a pod answers where it serves", frame: from(checkedPort, packet.ACK), world: serves, want: next, kept: true,
		},
		{
			name: "a SYN opens nothing even where the pod serves", frame: from(checkedPort, packet.SYN), world: serves,
			want: drop, counts: []NetFlReason{reserved}, said: said1(reserved), kept: true,
		},
		{
			name: "an attempt that the pod did not admit is no connection", frame: from(checkedPort, packet.ACK),
			world: func(w *world) { w.conn(at(w.f.server, 80), at(w.f.client, checkedPort), tcp, direct, 0, 0) },
			want:  drop, counts: []NetFlReason{reserved}, said: said1(reserved), kept: true,
		},
		{
			name: "an entry of its own does not make it one that the pod serves", frame: from(checkedPort, packet.ACK),
			world: func(w *world) { w.conn(at(w.f.client, checkedPort), at(w.f.server, 80), tcp, direct, 0, 0) },
			want:  drop, counts: []NetFlReason{reserved}, said: said1(reserved), kept: true,
		},
		{
			// It has the tuple of what the proxy sends in the pod's name.
			name: "a pod does not speak into the proxy's connection", frame: from(checkedPort, packet.ACK),
			world: func(w *world) { w.served(at(w.f.client, checkedPort), at(w.f.server, 80), tcp, 0) },
			want:  drop, counts: []NetFlReason{reserved}, said: said1(reserved), kept: true,
		},
	})
}

func TestFromPodLoopback(t *testing.T) {
	runVectors(t, []vector{
		droppedFromPod("a connection to loopback is dropped", "", loopback, func(f family) packet.Packet { return dial(f).To(f.loopback) }),
		droppedFromPod("a datagram to loopback is dropped", "", loopback, func(f family) packet.Packet { return datagram(f).To(f.loopback) }),
		droppedFromPod("all of 127 is loopback", "v4", loopback,
			func(f family) packet.Packet { return dial(f).To(netip.MustParseAddr("127.255.0.9")) }),
		droppedFromPod("a later fragment to loopback is dropped", "", loopback,
			func(f family) packet.Packet { return datagram(f).To(f.loopback).Fragment(64, false) }),
		droppedFromPod("an error to loopback is dropped", "", loopback, func(f family) packet.Packet {
			return packet.Unreachable(f.client, f.loopback, datagram(f).Back())
		}),
	})
}

func TestFromPodHairpin(t *testing.T) {
	toSelf := func(p func(f family) packet.Packet) func(f family) packet.Packet {
		return func(f family) packet.Packet { return p(f).To(f.self) }
	}
	turned := func(p func(f family) packet.Packet) func(f family) packet.Packet {
		return func(f family) packet.Packet { return p(f).To(f.client) }
	}
	vec := func(name, only string, p, tuple func(f family) packet.Packet) vector {
		return vector{
			name: name, only: only, frame: toSelf(p), out: turned(p), want: next,
			counts: []NetFlReason{okDirect}, said: said1(okDirect), flows: one(direct, 0, turned(tuple)),
		}
	}
	bare := func(f family) packet.Packet { return packet.UDP(at(f.client, 40000), at(f.remote, 53)).NoChecksum() }
	runVectors(t, []vector{
		vec("a connection goes to the pod itself", "", dial, dial),
		vec("a datagram goes to the pod itself", "", datagram, datagram),
		vec("options are kept", "v4", func(f family) packet.Packet { return dial(f).Options(8) }, dial),
		vec("extension headers are kept", "v6", func(f family) packet.Packet { return dial(f).Extend(packet.DestOpts, 16) }, dial),
		{
			name: "a segment with data keeps its checksum right", frame: toSelf(ack), out: turned(ack), want: next,
		},
		droppedFromPod("an echo to the pod itself is dropped", "", spoofed,
			func(f family) packet.Packet { return packet.Echo(f.client, f.self, 7) }),
		{
			name: "a datagram without checksum stays without", only: "v4", frame: func(f family) packet.Packet { return bare(f).To(f.self) },
			out: func(f family) packet.Packet { return bare(f).To(f.client) }, want: next,
			counts: []NetFlReason{okDirect}, said: said1(okDirect), flows: one(direct, 0, turned(bare)),
		},
	})
}

func TestFromPodRedirect(t *testing.T) {
	inbound := func(a NetFlAction) func(w *world) {
		return func(w *world) {
			w.govern(w.f.server)
			w.policy(classClient, 80, tcp, a)
			w.inbound(15100)
		}
	}
	runVectors(t, []vector{
		{
			name: "a captured client without its proxy is dropped", frame: dialService, world: captured(uint32(http)),
			want: drop, counts: []NetFlReason{noProxy}, said: []said{{reason: noProxy, port: 15101}},
			flows: one(proxied, 15101, dialService),
		},
		{
			name: "a service that is not routed goes straight", frame: dialService, world: captured(0),
			want: next, counts: []NetFlReason{okDirect}, said: said1(okDirect), flows: one(direct, 0, dialService),
		},
		{
			name: "another port of the service goes straight", world: captured(uint32(http)),
			frame: func(f family) packet.Packet { return packet.TCP(at(f.client, 40000), at(f.service, 81), packet.SYN) },
			want:  next, counts: []NetFlReason{okDirect}, said: said1(okDirect),
			flows: one(direct, 0, func(f family) packet.Packet { return packet.TCP(at(f.client, 40000), at(f.service, 81), packet.SYN) }),
		},
		{
			name: "a client that is not captured goes straight", frame: dialService,
			world: func(w *world) { captured(uint32(http))(w); w.pod(w.f.client, NetFlPod{Ifindex: uint32(w.lab.client)}) },
			want:  next, counts: []NetFlReason{okDirect}, said: said1(okDirect), flows: one(direct, 0, dialService),
		},
		{
			name:  "a segment of a redirected connection without socket asks the proxy",
			frame: func(f family) packet.Packet { return dialService(f).Flags(packet.ACK) },
			world: func(w *world) {
				captured(uint32(http))(w)
				w.conn(at(w.f.client, 40000), at(w.f.service, 80), tcp, proxied, 0, 15101)
			},
			want: drop, counts: []NetFlReason{noProxy}, said: said1(noProxy), kept: true,
		},
		{
			name: "a server of this node whose policy needs the request has the inbound proxy", frame: dialServer, world: inbound(check),
			want: drop, counts: []NetFlReason{noProxy}, said: []said{{noProxy, classClient, governed, rule, 15100}},
			flows: one(proxied, 15100, dialServer),
		},
		{
			name: "a server of this node that is reached there alone has the inbound proxy", frame: dialServer, world: inbound(onlyInbound),
			want: drop, counts: []NetFlReason{noProxy}, said: []said{{noProxy, classClient, governed, rule, 15100}},
			flows: one(proxied, 15100, dialServer),
		},
		{
			name: "a server of this node that refuses has the inbound proxy answer", frame: dialServer, world: inbound(refuse),
			want: drop, counts: []NetFlReason{noProxy}, said: []said{{noProxy, classClient, governed, rule, 15100}},
			flows: one(proxied, 15100, dialServer),
		},
		{
			name: "a server of this node that allows is reached straight", frame: dialServer, world: inbound(allow),
			want: next, counts: []NetFlReason{okDirect}, said: []said{{okDirect, classClient, governed, rule, 0}},
			flows: one(direct, 0, dialServer),
		},
		{
			name: "a server of this node that denies is left to its own device", frame: dialServer, world: inbound(deny),
			want: next, counts: []NetFlReason{okDirect}, said: []said{{okDirect, classClient, governed, rule, 0}},
			flows: one(direct, 0, dialServer),
		},
		{
			name: "without inbound port the connection is dropped", frame: dialServer,
			world: func(w *world) { inbound(check)(w); w.inbound(0) },
			want:  drop, counts: []NetFlReason{noProxy}, said: []said{{noProxy, classClient, governed, rule, 0}},
			flows: one(proxied, 0, dialServer),
		},
	})
}

func TestFromPodBroken(t *testing.T) {
	long := func(n int) func(f family) packet.Packet {
		return func(f family) packet.Packet {
			p := dial(f)
			for range n {
				p = p.Extend(packet.DestOpts, 8)
			}
			return p
		}
	}
	runVectors(t, []vector{
		{
			name: "six extension headers are walked", only: "v6", frame: long(6), want: next,
			counts: []NetFlReason{okDirect}, said: said1(okDirect), flows: one(direct, 0, dial),
		},
		droppedFromPod("seven extension headers are too many", "v6", extension, long(7)),
		droppedFromPod("an authentication header is not walked", "v6", extension,
			func(f family) packet.Packet { return dial(f).Extend(packet.AH, 24) }),
		droppedFromPod("a mobility header is not walked", "v6", extension,
			func(f family) packet.Packet { return packet.Raw(f.client, f.remote, packet.Mobility, make([]byte, 8)) }),
		droppedFromPod("an error that quotes too little is dropped", "", truncated, func(f family) packet.Packet {
			return packet.Unreachable(f.client, f.remote, datagram(f).Back().Cut(22))
		}),
		droppedFromPod("a first fragment without the whole TCP header is dropped", "", truncated, func(f family) packet.Packet {
			p := dial(f).Fragment(0, true)
			return p.Cut(len(p.Bytes()) - 5)
		}),
	})
}
