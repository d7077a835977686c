// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/packet"
)

// request comes to port 80 of the server from a pod of another node.
func request(f family) packet.Packet {
	return packet.TCP(at(f.remote, 40000), at(f.server, 80), packet.SYN)
}

// requestFrom is a request from another place.
func requestFrom(src func(f family) netip.Addr, port uint16) func(f family) packet.Packet {
	return func(f family) packet.Packet { return packet.TCP(at(src(f), port), at(f.server, 80), packet.SYN) }
}

func remote(f family) netip.Addr   { return f.remote }
func listed(f family) netip.Addr   { return f.listed }
func stranger(f family) netip.Addr { return f.stranger }
func node(f family) netip.Addr     { return f.node }
func client(f family) netip.Addr   { return f.client }

// under puts the server under policy.
func under(rules ...func(w *world)) func(w *world) {
	return func(w *world) {
		w.govern(w.f.server)
		for _, r := range rules {
			r(w)
		}
	}
}

func entry(class uint64, port uint16, proto uint8, action NetFlAction) func(w *world) {
	return func(w *world) { w.policy(class, port, proto, action) }
}

// admitted is the vector of a first packet that the policy lets in.
func admitted(name string, h hook, world func(w *world), frame func(f family) packet.Packet, r NetFlReason, class, rule uint64) vector {
	return vector{
		name: name, at: h, world: world, frame: frame, want: next,
		counts: []NetFlReason{r}, said: []said{{r, class, governed, rule, 0}},
	}
}

// rejected is the vector of a TCP packet that is answered by a RST.
func rejected(name string, h hook, world func(w *world), frame func(f family) packet.Packet, r NetFlReason, class, rule uint64) vector {
	return vector{
		name: name, at: h, world: world, frame: frame, want: redirect,
		counts: []NetFlReason{r}, said: []said{{r, class, governed, rule, 0}},
		out: func(f family) packet.Packet {
			return frame(f).Back().Flags(packet.RST|packet.ACK).Seq(0, 1001)
		},
	}
}

// judgedHere is the vector of what the node forwards, and the proxy has yet to see.
func judgedHere(name string, world func(w *world), frame func(f family) packet.Packet) vector {
	return vector{name: name, at: toServer, world: world, frame: frame, want: redirect, forwarded: true}
}

// silent is the vector of a packet that is dropped without an answer.
func silent(name string, h hook, world func(w *world), frame func(f family) packet.Packet, r NetFlReason, class, rule uint64) vector {
	return vector{
		name: name, at: h, world: world, frame: frame, want: drop,
		counts: []NetFlReason{r}, said: []said{{r, class, governed, rule, 0}},
	}
}

func TestToPodPolicy(t *testing.T) {
	const any, port = classAny, 80
	// Every entry that applies, from the first that is asked to the last.
	order := []struct {
		name  string
		class uint64
		port  uint16
		proto uint8
	}{
		{"the class at the port", classRemote, port, tcp},
		{"any class at the port", any, port, tcp},
		{"the class at any port", classRemote, 0, 0},
		{"any class at any port", any, 0, 0},
	}
	var vectors []vector
	for i, o := range order {
		// It decides, whatever those behind it say.
		world := func(opposite, action NetFlAction) func(w *world) {
			return under(func(w *world) {
				for _, later := range order[i:] {
					w.policyRule(later.class, later.port, later.proto, opposite, 1)
				}
				w.policy(o.class, o.port, o.proto, action)
			})
		}
		vectors = append(vectors,
			admitted(o.name+" allows", toServer, world(deny, allow), request, okAllowed, classRemote, rule),
			rejected(o.name+" denies", toServer, world(allow, deny), request, badPolicy, classRemote, rule))
	}
	udpRequest := func(f family) packet.Packet { return packet.UDP(at(f.remote, 40000), at(f.server, 80)) }
	newcomer := under(func(w *world) { w.prefix(classListed, addrUnassigned) })
	late := func(f family) packet.Packet { return requestFrom(listed, 40000)(f).Flags(packet.ACK).Seq(5, 7) }
	datagramIn := func(v vector) vector {
		v.flows = func(f family) []flow { return []flow{{udpRequest(f), direct, 0, sideServed}} }
		return v
	}
	vectors = append(vectors,
		rejected("what no entry is for is denied", toServer, under(), request, badPolicy, classRemote, 0),
		rejected("another port is not for it", toServer, under(entry(classRemote, 81, tcp, allow)), request, badPolicy, classRemote, 0),
		rejected("another protocol is not for it", toServer, under(entry(classRemote, 80, udp, allow)), request, badPolicy, classRemote, 0),
		rejected("another class is not for it", toServer, under(entry(classListed, 80, tcp, allow)), request, badPolicy, classRemote, 0),
		rejected("another set is not for it", toServer, under(func(w *world) {
			put(w.t, w.FlPolicyV1, NetFlPolicyKey{Set: 1, Class: classRemote, Port: be(80), Proto: tcp}, NetFlPolicy{Action: uint32(allow)})
		}), request, badPolicy, classRemote, 0),
		rejected("an action that is not known denies", toServer, under(entry(classRemote, 80, tcp, 99)), request, badPolicy, classRemote, rule),
		rejected("no action denies", toServer, under(entry(classRemote, 80, tcp, 0)), request, badPolicy, classRemote, rule),
		admitted("a class by the longest prefix", toServer, under(entry(classListed, 80, tcp, allow), func(w *world) {
			key := NetFlPrefixKey{Bits: 0}
			put(w.t, w.FlPrefixesV2, key, NetFlAddress{Class: 1})
		}), requestFrom(listed, 40000), okAllowed, classListed, rule),
		admitted("a class by an address within a prefix", toServer, under(entry(5, 80, tcp, allow), func(w *world) {
			w.address(w.f.listed, 5, 0)
		}), requestFrom(listed, 40000), okAllowed, 5, rule),
		admitted("a stranger is of class 0", toServer, under(entry(0, 80, tcp, allow)), requestFrom(stranger, 40000), okAllowed, 0, rule),
		rejected("class 0 is not any class", toServer, under(entry(0, 80, tcp, allow)), request, badPolicy, classRemote, 0),
		datagramIn(admitted("a datagram by its port", toServer, under(entry(classRemote, 80, udp, allow)), udpRequest, okAllowed, classRemote, rule)),
		silent("a datagram is denied in silence", toServer, under(entry(classRemote, 80, tcp, allow)), udpRequest, badPolicy, classRemote, 0),
		silent("a datagram cannot be checked", toServer, under(entry(classRemote, 80, udp, check)), udpRequest, unchecked, classRemote, rule),
		silent("an echo is judged as any port", toServer, under(entry(classRemote, 80, tcp, allow), entry(classRemote, 0, 0, deny)),
			func(f family) packet.Packet { return packet.Echo(f.remote, f.server, 7) }, badPolicy, classRemote, rule),
		silent("an echo whose number is a port is judged as any port", toServer, under(entry(classRemote, 80, 0, allow), entry(classRemote, 0, 0, deny)),
			func(f family) packet.Packet { return packet.Echo(f.remote, f.server, 80) }, badPolicy, classRemote, rule),
		silent("SCTP is judged as any port", toServer, under(entry(classRemote, 80, tcp, allow)), func(f family) packet.Packet {
			return packet.Raw(f.remote, f.server, packet.SCTP, []byte{0, 1, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0})
		}, badPolicy, classRemote, 0),
		silent("a connection from a pod that nobody has told of yet may be tried again", toServer, newcomer, requestFrom(listed, 40000), badPolicy, classListed, 0),
		silent("so may one by its proxy", toServer, newcomer, requestFrom(listed, 61000), badPolicy, classListed, 0),
		vector{
			name: "what a pod that is gone has open is cut", at: toServer, world: newcomer, frame: late, want: redirect,
			counts: []NetFlReason{badPolicy}, said: []said{{badPolicy, classListed, governed, 0, 0}},
			out: func(f family) packet.Packet { return late(f).Back().Flags(packet.RST).Seq(7, 0) },
		},
		vector{
			name: "nobody governs the pod", at: toServer, frame: request, want: next,
			counts: []NetFlReason{okAllowed}, said: []said{{okAllowed, classRemote, 0, 0, 0}},
		},
		vector{
			name: "a segment is judged but not reported when it is let in", at: toServer, world: under(entry(classRemote, 80, tcp, allow)),
			frame: func(f family) packet.Packet { return request(f).Flags(packet.ACK) }, want: next, counts: []NetFlReason{okAllowed},
		},
		vector{
			name: "a datagram of a known flow is judged but not reported", at: toServer, frame: udpRequest,
			world: under(entry(classRemote, 80, udp, allow), func(w *world) { w.served(at(w.f.remote, 40000), at(w.f.server, 80), udp, 0) }),
			want:  next, counts: []NetFlReason{okAllowed}, kept: true,
		},
		func() vector {
			v := silent("a datagram of a flow that policy no longer allows is dropped", toServer, under(func(w *world) {
				w.served(at(w.f.remote, 40000), at(w.f.server, 80), udp, 0)
			}), udpRequest, badPolicy, classRemote, 0)
			v.kept = true
			return v
		}(),
		vector{
			name: "a pod of another device is not known", at: toServer, frame: request, want: drop,
			world:  func(w *world) { w.pod(w.f.server, NetFlPod{Ifindex: uint32(w.lab.client)}) },
			counts: []NetFlReason{unknownPod}, said: said1(unknownPod),
		},
		vector{
			name: "an address of no pod is not known", at: toServer, want: drop, counts: []NetFlReason{unknownPod}, said: said1(unknownPod),
			frame: func(f family) packet.Packet { return request(f).To(f.stranger) },
		},
	)
	runVectors(t, vectors)
}

func TestToPodFlags(t *testing.T) {
	allowed := under(entry(classRemote, 80, tcp, allow))
	denied := under()
	var vectors []vector
	for name, flags := range map[string]packet.Flags{
		"SYN": packet.SYN, "SYN-FIN": packet.SYN | packet.FIN, "SYN-PSH": packet.SYN | packet.PSH,
	} {
		p := func(f family) packet.Packet { return request(f).Flags(flags) }
		vectors = append(vectors,
			admitted(name+" opens where policy allows", toServer, allowed, p, okAllowed, classRemote, rule),
			rejected(name+" is rejected where policy denies", toServer, denied, p, badPolicy, classRemote, 0))
	}
	for name, flags := range map[string]packet.Flags{"SYN-RST": packet.SYN | packet.RST, "RST": packet.RST} {
		p := func(f family) packet.Packet { return request(f).Flags(flags) }
		vectors = append(vectors, silent(name+" is not answered", toServer, denied, p, badPolicy, classRemote, 0))
	}
	for name, flags := range map[string]packet.Flags{
		"nothing": 0, "FIN": packet.FIN, "ACK": packet.ACK, "SYN-ACK": packet.SYN | packet.ACK,
	} {
		p := func(f family) packet.Packet { return request(f).Flags(flags).Seq(1000, 2000) }
		v := rejected(name+" without connection is rejected where policy denies", toServer, denied, p, badPolicy, classRemote, 0)
		v.out = func(f family) packet.Packet {
			if flags&packet.ACK != 0 {
				return p(f).Back().Flags(packet.RST).Seq(2000, 0)
			}
			return p(f).Back().Flags(packet.RST|packet.ACK).Seq(0, 1001)
		}
		vectors = append(vectors, v)
	}
	// The pod dials the remote; what comes back over the same tuple with a SYN is a new connection.
	opened := under(func(w *world) { w.conn(at(w.f.server, 80), at(w.f.remote, 40000), tcp, direct, 0, 0) })
	for name, flags := range map[string]packet.Flags{"a SYN": packet.SYN, "a SYN with FIN": packet.SYN | packet.FIN} {
		v := rejected(name+" does not pass as an answer", toServer, opened,
			func(f family) packet.Packet { return request(f).Flags(flags) }, badPolicy, classRemote, 0)
		v.kept = true
		vectors = append(vectors, v)
	}
	forget := admitted("a connection that is let in ends what the pod had opened over its tuple", toServer,
		under(entry(classRemote, 80, tcp, allow), func(w *world) {
			w.conn(at(w.f.server, 80), at(w.f.remote, 40000), tcp, direct, 0, 0)
		}), request, okAllowed, classRemote, rule)
	reserved := admitted("a connection to a reserved port is remembered, so that its answers may leave", toServer,
		under(entry(classRemote, checkedPort, tcp, allow)),
		func(f family) packet.Packet {
			return packet.TCP(at(f.remote, 40000), at(f.server, checkedPort), packet.SYN)
		},
		okAllowed, classRemote, rule)
	reserved.flows = func(f family) []flow { return []flow{{reserved.frame(f), direct, 0, sideServed}} }
	runVectors(t, append(vectors, forget, reserved))
}

func TestToPodChecked(t *testing.T) {
	checks := func(class uint64) func(w *world) { return under(entry(class, 80, tcp, check)) }
	refuses := func(class uint64) func(w *world) { return under(entry(class, 80, tcp, refuse)) }
	marked := func(v vector, mark uint32) vector { v.mark = mark; return v }
	segment := func(f family) packet.Packet { return requestFrom(node, 40000)(f).Flags(packet.ACK).Seq(5, 7) }
	// What a process of the node opens goes back, for the proxy to see it.
	back := func(name string, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{name: name, at: toServerHere, world: world, frame: frame, want: redirect, back: true}
	}
	runVectors(t, []vector{
		admitted("a managed node's proxy checked it", toServer, checks(classRemote), requestFrom(remote, checkedPort), okChecked, classRemote, rule),
		admitted("the last checked port counts", toServer, checks(classRemote), requestFrom(remote, inboundPort-1), okChecked, classRemote, rule),
		judgedHere("a port for the inbound listener does not", checks(classRemote), requestFrom(remote, inboundPort)),
		judgedHere("the first unchecked port does not", checks(classRemote), requestFrom(remote, uncheckedPort)),
		judgedHere("the port below does not", checks(classRemote), requestFrom(remote, checkedPort-1)),
		judgedHere("a stranger with a checked port is not believed", checks(0), requestFrom(stranger, checkedPort)),
		judgedHere("a prefix with a checked port is not believed", checks(classListed), requestFrom(listed, checkedPort)),
		judgedHere("a node is not managed", checks(classNode), requestFrom(node, checkedPort)),
		marked(judgedHere("a mark does not count from elsewhere", checks(0), requestFrom(stranger, checkedPort)), fromProxy),
		marked(admitted("the node's own proxy checked it", toServerHere, checks(classClient), requestFrom(client, checkedPort), okChecked, classClient, rule), fromProxy),
		marked(admitted("the mark is one nibble", toServerHere, checks(classNode), requestFrom(node, checkedPort), okChecked, classNode, rule), 0xa000_0000|fromProxy|0xff),
		marked(back("the proxy's mark with an unchecked port does not count", checks(classNode), requestFrom(node, uncheckedPort)), fromProxy),
		marked(back("another mark does not count", checks(classNode), requestFrom(node, checkedPort)), 0xa000_0000|toProxy|0xff),
		back("a process of the node without mark is not believed", checks(classNode), requestFrom(node, checkedPort)),
		back("a managed address of a process of the node is not believed", checks(classRemote), requestFrom(remote, checkedPort)),
		judgedHere("what is refused is not for a managed node's proxy either", refuses(classRemote), requestFrom(remote, checkedPort)),
		marked(back("what is refused is not for the node's proxy either", refuses(classClient), requestFrom(client, checkedPort)), fromProxy),
		back("what is refused to a process of the node is answered by the proxy", refuses(classNode), requestFrom(node, 40000)),
		rejected("what the kernel denies a process of the node is denied at once", toServerHere, under(entry(classNode, 80, tcp, deny)), requestFrom(node, 40000), badPolicy, classNode, rule),
		{
			name: "a segment of a process of the node that no socket has is rejected", at: toServerHere, world: checks(classNode), frame: segment,
			want: redirect, counts: []NetFlReason{unchecked}, said: []said{{unchecked, classNode, governed, rule, 0}},
			out: func(f family) packet.Packet { return segment(f).Back().Flags(packet.RST).Seq(7, 0) },
		},
		judgedHere("a managed node that is behind is not believed", behind(checks(classRemote)), requestFrom(remote, checkedPort)),
		{
			name: "a segment of what it has open passes", at: toServer, world: behind(checks(classRemote)),
			frame: func(f family) packet.Packet { return requestFrom(remote, checkedPort)(f).Flags(packet.ACK) },
			want:  next, counts: []NetFlReason{okChecked},
		},
		{
			name: "a segment of a checked connection passes", at: toServer, world: checks(classRemote),
			frame: func(f family) packet.Packet { return requestFrom(remote, checkedPort)(f).Flags(packet.ACK) },
			want:  next, counts: []NetFlReason{okChecked},
		},
	})
}

// Some requests have to pass the inbound listener of this node, whoever judged them before.
func TestToPodOnlyInbound(t *testing.T) {
	needs := func(class uint64) func(w *world) { return under(entry(class, 80, tcp, onlyInbound)) }
	marked := func(v vector, mark uint32) vector { v.mark = mark; return v }
	back := func(name string, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{name: name, at: toServerHere, world: world, frame: frame, want: redirect, back: true}
	}
	segment := func(src func(f family) netip.Addr, port uint16) func(f family) packet.Packet {
		return func(f family) packet.Packet { return requestFrom(src, port)(f).Flags(packet.ACK).Seq(5, 7) }
	}
	goesOn := func(name string, h hook, class uint64, frame func(f family) packet.Packet, mark uint32) vector {
		return vector{name: name, at: h, mark: mark, world: needs(class), frame: frame, want: next, counts: []NetFlReason{okChecked}}
	}
	cut := func(name string, h hook, class uint64, frame func(f family) packet.Packet) vector {
		return vector{
			name: name, at: h, world: needs(class), frame: frame, want: redirect, counts: []NetFlReason{unchecked},
			said: []said{{unchecked, class, governed, rule, 0}},
			out:  func(f family) packet.Packet { return frame(f).Back().Flags(packet.RST).Seq(7, 0) },
		}
	}
	runVectors(t, []vector{
		marked(admitted("the inbound listener judged it", toServerHere, needs(classClient), requestFrom(client, checkedPort), okChecked, classClient, rule), fromInbound),
		marked(admitted("for another node's pod, too", toServerHere, needs(classRemote), requestFrom(remote, checkedPort), okChecked, classRemote, rule), fromInbound),
		marked(admitted("it may do what any proxy may", toServerHere, under(entry(classClient, 80, tcp, check)),
			requestFrom(client, checkedPort), okChecked, classClient, rule), fromInbound),
		marked(rejected("it has to say so by its port", toServerHere, needs(classClient), requestFrom(client, uncheckedPort), unchecked, classClient, rule), fromInbound),
		marked(judgedHere("its mark does not count from elsewhere", needs(0), requestFrom(stranger, checkedPort)), fromInbound),
		marked(rejected("what it opens it does not see again", toServerHere, under(entry(classClient, 80, tcp, refuse)),
			requestFrom(client, checkedPort), badPolicy, classClient, rule), fromInbound),
		marked(back("what the node's proxy judged elsewhere is for the listener", needs(classClient), requestFrom(client, checkedPort)), fromProxy),
		marked(back("what the node's proxy did not judge is, too", needs(classClient), requestFrom(client, uncheckedPort)), fromProxy),
		back("what a process of the node opens is, too", needs(classNode), requestFrom(node, 40000)),
		marked(back("what the node's proxy sends to the listener is, also where nobody governs", nil, requestFrom(client, inboundPort)), fromProxy),
		marked(back("up to the last port", nil, requestFrom(client, uncheckedPort-1)), fromProxy),
		marked(admitted("and not beyond", toServerHere, under(entry(classClient, 80, tcp, allow)),
			requestFrom(client, uncheckedPort), okAllowed, classClient, rule), fromProxy),
		admitted("a process of the node cannot send to it", toServerHere, under(entry(classNode, 80, tcp, allow)),
			requestFrom(node, inboundPort), okAllowed, classNode, rule),
		{
			name: "what the proxy opens straight was taken in an earlier life", at: toServerHere, mark: fromProxy, frame: requestFrom(client, checkedPort),
			world: under(entry(classClient, 80, tcp, allow), func(w *world) {
				w.conn(at(w.f.client, checkedPort), at(w.f.server, 80), tcp, proxied, 0, 15100)
			}),
			want: next, counts: []NetFlReason{okAllowed}, said: []said{{okAllowed, classClient, governed, rule, 0}},
		},
		{
			name: "a segment of what was taken goes on if no socket has it", at: toServerHere, mark: fromProxy, frame: segment(client, checkedPort),
			world: under(entry(classClient, 80, tcp, allow), func(w *world) {
				w.conn(at(w.f.client, checkedPort), at(w.f.server, 80), tcp, proxied, 0, 15100)
			}),
			want: next, counts: []NetFlReason{okAllowed}, kept: true,
		},
		judgedHere("another node's proxy is not believed", needs(classRemote), requestFrom(remote, checkedPort)),
		goesOn("what another node's proxy has open goes on", toServer, classRemote, segment(remote, checkedPort), 0),
		goesOn("what the node's proxy has open goes on", toServerHere, classClient, segment(client, checkedPort), fromProxy),
		cut("what another has open is cut", toServer, classRemote, segment(remote, 40000)),
		cut("a stranger's checked port means nothing", toServer, 0, segment(stranger, checkedPort)),
		cut("the node's own, too, without the mark", toServerHere, classNode, segment(node, checkedPort)),
		silent("a datagram cannot be judged", toServer, under(entry(classRemote, 80, udp, onlyInbound)),
			func(f family) packet.Packet { return packet.UDP(at(f.remote, 40000), at(f.server, 80)) }, unchecked, classRemote, rule),
		admitted("the node probes", toServerHere, under(entry(classNode, 80, tcp, onlyInbound), func(w *world) {
			w.govern(w.f.server, func(p *NetFlPod) { p.Probes[0] = be(80) })
		}), requestFrom(node, 40000), okProbe, classNode, 0),
		{
			name: "an error about an answer passes", at: toServer, world: needs(classRemote), want: next, counts: []NetFlReason{okAllowed},
			frame: func(f family) packet.Packet {
				return packet.Unreachable(f.stranger, f.server, request(f).Back().Flags(packet.ACK))
			},
		},
	})
}

func TestToPodProbes(t *testing.T) {
	probes := func(ports ...uint16) func(w *world) {
		return func(w *world) {
			w.govern(w.f.server, func(p *NetFlPod) {
				for i, n := range ports {
					p.Probes[i] = be(n)
				}
			})
		}
	}
	runVectors(t, []vector{
		admitted("the node probes", toServerHere, probes(80), requestFrom(node, 40000), okProbe, classNode, 0),
		admitted("the last probe port counts", toServerHere, probes(1, 2, 3, 4, 5, 6, 7, 80), requestFrom(node, 40000), okProbe, classNode, 0),
		rejected("behind the end there is no probe port", toServerHere, probes(1, 0, 80), requestFrom(node, 40000), badPolicy, classNode, 0),
		rejected("another port is no probe", toServerHere, probes(81), requestFrom(node, 40000), badPolicy, classNode, 0),
		rejected("another node does not probe", toServer, probes(80), requestFrom(node, 40000), badPolicy, classNode, 0),
		rejected("who is not the node does not probe", toServerHere, probes(80), requestFrom(client, 40000), badPolicy, classClient, 0),
		silent("a datagram is no probe", toServerHere, probes(80),
			func(f family) packet.Packet { return packet.UDP(at(f.node, 40000), at(f.server, 80)) }, badPolicy, classNode, 0),
	})
}

func TestToPodReplies(t *testing.T) {
	passes := func(name string, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{
			name: name, at: toServer, world: under(world), frame: frame, want: next, counts: []NetFlReason{okReply}, kept: true,
		}
	}
	dropped := func(name, only string, world func(w *world), frame func(f family) packet.Packet, class uint64) vector {
		v := silent(name, toServer, under(world), frame, badPolicy, class, 0)
		v.only, v.kept = only, true
		return v
	}
	// The pod speaks from 40000 to port 80 of the remote.
	opened := func(proto uint8, path NetFlPath, age time.Duration) func(w *world) {
		return func(w *world) { w.conn(at(w.f.server, 40000), at(w.f.remote, 80), proto, path, age, 15101) }
	}
	segment := func(f family) packet.Packet {
		return packet.TCP(at(f.remote, 80), at(f.server, 40000), packet.SYN|packet.ACK)
	}
	reply := func(f family) packet.Packet { return packet.UDP(at(f.remote, 80), at(f.server, 40000)) }
	pinged := func(w *world) { w.conn(at(w.f.server, 7), at(w.f.remote, 7), protoICMP(w.f), direct, 0, 0) }
	about := func(f family) packet.Packet { return packet.UDP(at(f.server, 40000), at(f.remote, 80)) }
	from := func(src func(f family) netip.Addr, quoted func(f family) packet.Packet) func(f family) packet.Packet {
		return func(f family) packet.Packet { return packet.Unreachable(src(f), f.server, quoted(f)) }
	}
	// Another pod's flow, or an attacker's.
	others := func(w *world) { w.conn(at(w.f.client, 40000), at(w.f.remote, 80), udp, direct, 0, 0) }

	wrongPort := passes("x", opened(udp, direct, 0), func(f family) packet.Packet { return packet.UDP(at(f.remote, 81), at(f.server, 40000)) })
	runVectors(t, []vector{
		passes("a segment of the pod's connection is an answer", opened(tcp, direct, 0), segment),
		passes("also of one that went to the proxy", opened(tcp, proxied, 0), segment),
		passes("also after a day", opened(tcp, direct, 24*time.Hour), segment),
		passes("a datagram answers", opened(udp, direct, time.Minute), reply),
		dropped("a datagram does not answer after long", "", opened(udp, direct, time.Hour), reply, classRemote),
		dropped("a datagram from another port does not answer", "", opened(udp, direct, 0), wrongPort.frame, classRemote),
		dropped("a datagram of the same ports from elsewhere does not answer", "", opened(udp, direct, 0),
			func(f family) packet.Packet { return reply(f).From(f.stranger) }, 0),
		dropped("a flow that the pod serves makes no answers", "", func(w *world) {
			w.served(at(w.f.server, 40000), at(w.f.remote, 80), udp, 0)
		}, reply, classRemote),
		passes("an echo reply answers", pinged, func(f family) packet.Packet { return packet.EchoReply(f.remote, f.server, 7) }),
		dropped("an echo does not answer an echo", "", pinged, func(f family) packet.Packet { return packet.Echo(f.remote, f.server, 7) }, classRemote),
		dropped("an echo reply of another number does not answer", "", pinged,
			func(f family) packet.Packet { return packet.EchoReply(f.remote, f.server, 8) }, classRemote),
		dropped("a redirect does not answer an echo", "v4", pinged,
			func(f family) packet.Packet { return packet.ICMP(f.remote, f.server, 5, 0, 7) }, classRemote),

		passes("an error about what the pod sent passes", opened(udp, direct, 0), from(stranger, about)),
		passes("an error about a connection that went to the proxy passes", opened(tcp, proxied, 0), from(stranger, func(f family) packet.Packet {
			return segment(f).Back()
		})),
		dropped("an error about what the pod did not send is dropped", "", func(*world) {}, from(stranger, about), classRemote),
		// A pod of this node would else reach all others by quoting a flow of its own.
		dropped("an error that quotes another's flow is dropped", "", others, from(client, func(f family) packet.Packet {
			return about(f).From(f.client)
		}), 0),
		dropped("an error that quotes what the pod received is dropped", "", opened(udp, direct, 0), from(stranger, func(f family) packet.Packet {
			return about(f).Back()
		}), 0),
		{
			name: "an error about an answer to whom policy allows passes", at: toServer, frame: from(stranger, func(f family) packet.Packet {
				return request(f).Back().Flags(packet.ACK)
			}),
			world: under(entry(classRemote, 80, tcp, allow)), want: next, counts: []NetFlReason{okAllowed},
		},
		{
			name: "an error to a pod that nobody governs passes", at: toServer, frame: from(stranger, about), want: next,
		},
	})
}

func protoICMP(f family) uint8 {
	if f.server.Is4() {
		return packet.ICMPv4
	}
	return packet.ICMPv6
}

func TestToPodOtherFrames(t *testing.T) {
	link := netip.MustParseAddr("fe80::1")
	passes := func(name, only string, frame func(f family) packet.Packet) vector {
		return vector{name: name, only: only, at: toServer, world: under(), frame: frame, want: next}
	}
	dropped := func(name, only string, r NetFlReason, frame func(f family) packet.Packet) vector {
		return vector{
			name: name, only: only, at: toServer, world: under(entry(classAny, 0, 0, allow)), frame: frame,
			want: drop, counts: []NetFlReason{r}, said: said1(r),
		}
	}
	judged := func(name, only string, frame func(f family) packet.Packet, class uint64) vector {
		v := silent(name, toServer, under(), frame, badPolicy, class, 0)
		v.only = only
		return v
	}
	runVectors(t, []vector{
		passes("ARP passes", "v4", func(family) packet.Packet { return packet.Frame(0x0806, make([]byte, 28)) }),
		dropped("a tag inside a tag is dropped", "", extension, func(f family) packet.Packet { return request(f).Tagged(0) }),
		passes("the node asks for its neighbour", "v6", func(f family) packet.Packet { return packet.ICMP(f.node, f.server, 135, 0, 0).TTL(255) }),
		passes("the node advertises itself as router", "v6", func(f family) packet.Packet { return packet.ICMP(link, f.server, 134, 0, 0).TTL(255) }),
		passes("the node asks for groups", "v6", func(f family) packet.Packet { return packet.ICMP(link, f.server, 130, 0, 0).TTL(1) }),
		judged("neighbour discovery that was forwarded is judged", "v6",
			func(f family) packet.Packet {
				return packet.ICMP(f.remote, f.server, 135, 0, 0).TTL(254).Payload("covert")
			}, classRemote),
		judged("group membership from afar is judged", "v6",
			func(f family) packet.Packet {
				return packet.ICMP(f.remote, f.server, 143, 0, 0).TTL(1).Payload("covert")
			}, classRemote),
		judged("ICMPv6 in IPv4 is judged", "v4", func(f family) packet.Packet {
			return packet.Raw(f.remote, f.server, packet.ICMPv6, []byte{135, 0, 0, 0, 0, 0, 0, 0}).TTL(255)
		}, classRemote),
		judged("ICMP in IPv6 is judged", "v6", func(f family) packet.Packet {
			return packet.Raw(f.remote, f.server, packet.ICMPv4, []byte{3, 0, 0, 0, 0, 0, 0, 0}).TTL(255)
		}, classRemote),
		dropped("a later fragment is dropped", "", fragmented, func(f family) packet.Packet {
			return packet.UDP(at(f.remote, 1), at(f.server, 80)).Fragment(64, false).Payload("x")
		}),
		dropped("a fragment at offset 8 is dropped", "", fragmented, func(f family) packet.Packet {
			return packet.UDP(at(f.remote, 1), at(f.server, 80)).Fragment(8, true).Payload("x")
		}),
		dropped("a fragment behind a whole fragment's header is dropped", "v6", fragmented, func(f family) packet.Packet {
			return packet.UDP(at(f.remote, 1), at(f.server, 80)).Fragment(0, false).Fragment(8, true).Payload("x")
		}),
		{
			name: "a later fragment for a pod that nobody governs passes", at: toServer, want: next,
			frame: func(f family) packet.Packet {
				return packet.UDP(at(f.remote, 1), at(f.server, 80)).Fragment(64, false).Payload("x")
			},
		},
		admitted("a first fragment is judged", toServer, under(entry(classRemote, 80, tcp, allow)),
			func(f family) packet.Packet { return request(f).Fragment(0, true) }, okAllowed, classRemote, rule),
		dropped("an authentication header is not walked", "v6", extension, func(f family) packet.Packet { return request(f).Extend(packet.AH, 24) }),
		dropped("a v4-mapped source in IPv6 is dropped", "v6", spoofed, func(f family) packet.Packet {
			return request(f).From(netip.MustParseAddr("::ffff:10.2.0.1"))
		}),
		dropped("an error that quotes v4-mapped addresses is dropped", "v6", truncated, func(f family) packet.Packet {
			return packet.Unreachable(f.remote, f.server, request(f).From(netip.MustParseAddr("::ffff:10.2.0.1")))
		}),
	})
}

func TestToPodReset(t *testing.T) {
	options := func(v vector, only string) vector { v.only = only; return v }
	many := silent("what the kernel segments is not answered", toServer, under(), func(f family) packet.Packet {
		return request(f).Flags(packet.ACK)
	}, badPolicy, classRemote, 0)
	many.gso = 3
	data := func(f family) packet.Packet {
		return request(f).Flags(packet.ACK|packet.PSH).Seq(77, 0xfffffff0).Payload("odd")
	}
	answer := rejected("a segment with data gets a RST where it expects the next byte", toServer, under(), data, badPolicy, classRemote, 0)
	answer.out = func(f family) packet.Packet { return data(f).Back().Flags(packet.RST).Seq(0xfffffff0, 0) }
	last := func(f family) packet.Packet { return request(f).Seq(0xffffffff, 0) }
	wraps := rejected("the acknowledgement of a SYN wraps", toServer, under(), last, badPolicy, classRemote, 0)
	wraps.out = func(f family) packet.Packet { return last(f).Back().Flags(packet.RST|packet.ACK).Seq(0, 0) }
	self := silent("a pod that dials itself is not answered", toServer, under(), func(f family) packet.Packet {
		return request(f).From(f.server)
	}, badPolicy, classServer, 0)
	runVectors(t, []vector{
		rejected("a SYN is answered by a RST with the right checksums", toServer, under(), request, badPolicy, classRemote, 0),
		rejected("a SYN of a process of the node is answered", toServerHere, under(), requestFrom(node, 40000), badPolicy, classNode, 0),
		options(rejected("the answer keeps IPv4 options", toServer, under(), func(f family) packet.Packet { return request(f).Options(8) }, badPolicy, classRemote, 0), "v4"),
		options(rejected("the answer keeps extension headers", toServer, under(), func(f family) packet.Packet { return request(f).Extend(packet.DestOpts, 16) }, badPolicy, classRemote, 0), "v6"),
		answer, wraps, many, self,
	})
}

func TestToPodHairpin(t *testing.T) {
	mine := func(f family) packet.Packet {
		return packet.TCP(at(f.server, checkedPort), at(f.server, 80), packet.SYN)
	}
	turned := func(f family) packet.Packet { return mine(f).From(f.self) }
	checked := admitted("what the proxy sends a pod in its own name comes from elsewhere", toServerHere,
		under(entry(classServer, 80, tcp, check)), mine, okChecked, classServer, rule)
	checked.mark, checked.out = fromProxy, turned
	data := func(f family) packet.Packet { return mine(f).Flags(packet.ACK).Seq(3, 4).Payload("odd") }
	datagram := func(f family) packet.Packet {
		return packet.UDP(at(f.server, 53), at(f.server, 40000)).Payload("answer")
	}
	runVectors(t, []vector{
		checked,
		{
			name: "its segments too", at: toServerHere, mark: fromProxy, world: under(entry(classServer, 80, tcp, check)),
			frame: data, out: func(f family) packet.Packet { return data(f).From(f.self) }, want: next, counts: []NetFlReason{okChecked},
		},
		{
			name: "an answer to what a pod sent itself comes from elsewhere too", at: toServer, kept: true,
			world: under(func(w *world) { w.conn(at(w.f.server, 40000), at(w.f.server, 53), udp, direct, 0, 0) }),
			frame: datagram, out: func(f family) packet.Packet { return datagram(f).From(f.self) }, want: next, counts: []NetFlReason{okReply},
		},
		{
			name: "an echo to itself has no place to come from", at: toServer, want: drop,
			counts: []NetFlReason{okAllowed, spoofed}, said: []said{{okAllowed, classServer, 0, 0, 0}, {reason: spoofed}},
			frame: func(f family) packet.Packet { return packet.Echo(f.server, f.server, 7) },
			flows: func(f family) []flow { return []flow{{packet.Echo(f.server, f.server, 7), direct, 0, sideServed}} },
		},
	})
}

func TestFromNode(t *testing.T) {
	mine := func(f family) packet.Packet { return requestFrom(node, 40000)(f) }
	passes := func(name string, mark uint32, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{name: name, at: onLoopback, mark: mark, world: world, frame: frame, want: next}
	}
	lost := func(name string, world func(w *world), frame func(f family) packet.Packet) vector {
		return vector{
			name: name, at: onLoopback, mark: turned, world: world, frame: frame, want: drop, counts: []NetFlReason{unchecked},
			said: []said{{unchecked, 0, 0, 0, 0}},
		}
	}
	opens := func(name string, action NetFlAction) vector {
		return vector{
			name: name, at: onLoopback, mark: turned, world: needs(classNode, action), frame: mine, want: drop,
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, classNode, governed, rule, 15100}}, flows: one(proxied, 15100, mine),
		}
	}
	runVectors(t, []vector{
		passes("what was not turned back is not ours", 0, needs(classNode, check), mine),
		passes("what was not turned back is not ours, whatever its mark", toProxy, needs(classNode, check), mine),
		passes("what is not for a pod passes", turned, nil, func(f family) packet.Packet { return mine(f).To(f.loopback) }),
		passes("a datagram passes", turned, nil, func(f family) packet.Packet { return packet.UDP(at(f.node, 1), at(f.server, 80)) }),
		opens("what needs the request is opened to the proxy", check),
		opens("what is refused is opened to the proxy", refuse),
		opens("what has to pass here is opened to the proxy", onlyInbound),
		{
			name: "what the proxy sends to its listener is opened to it, also where nobody governs", at: onLoopback, mark: turned,
			world: func(w *world) { w.inbound(15100) }, frame: requestFrom(client, inboundPort), want: drop,
			counts: []NetFlReason{noProxy}, said: []said{{noProxy, classClient, 0, 0, 15100}}, flows: one(proxied, 15100, requestFrom(client, inboundPort)),
		},
		lost("a segment that no socket has is dropped", needs(classNode, check), func(f family) packet.Packet { return mine(f).Flags(packet.ACK) }),
	})
}
