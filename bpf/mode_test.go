// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"fairlead.io/fairlead/internal/packet"
)

// Short names of modes.
const (
	http    = NetFlModeFL_MODE_HTTP
	tls     = NetFlModeFL_MODE_TLS
	opaque  = NetFlModeFL_MODE_OPAQUE
	anyMode = NetFlModeFL_MODE_ANY
	detect  = NetFlModeFL_MODE_DETECT
	detect2 = NetFlModeFL_MODE_DETECT2
	detect3 = NetFlModeFL_MODE_DETECT3

	anyDetect = NetFlModeFL_MODE_ANY_DETECT
	anyOpaque = NetFlModeFL_MODE_ANY_OPAQUE
)

var modes = []NetFlMode{http, tls, opaque, anyMode, detect, detect2, detect3, anyDetect, anyOpaque}

const svcDirect = 1 << 4 // flag of a service

// proxyPort is the client's listener of a mode.
func proxyPort(m NetFlMode) uint16 { return 15100 + uint16(m) }

// capture gives the client proxy ports of these modes.
func (w *world) capture(modes ...NetFlMode) {
	w.t.Helper()
	p := NetFlPod{Ifindex: uint32(w.lab.client)}
	for _, m := range modes {
		p.Ports[m] = proxyPort(m)
	}
	w.pod(w.f.client, p)
}

func (w *world) service(a netip.Addr, port uint16, s NetFlSvc) {
	w.t.Helper()
	put(w.t, w.FlServicesV2, NetFlSvcKey{Addr: addrOf(a), Port: be(port), Proto: tcp}, s)
}

// anywhere writes what becomes of connections to addresses that nobody has.
func (w *world) anywhere(port uint16, flags uint32) {
	w.t.Helper()
	w.service(unspecified(w.f), port, NetFlSvc{Flags: flags | svcDirect})
}

// inRange writes what becomes of connections to the addresses of a prefix.
func (w *world) inRange(p netip.Prefix, port uint16, flags uint32) {
	w.t.Helper()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	put(w.t, w.FlRangesV1, NetFlRangeKey{Bits: uint32(32 + bits), Port: be(port), Proto: tcp, Addr: addrOf(p.Masked().Addr())}, flags)
}

func unspecified(f family) netip.Addr {
	if f.client.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func dialStranger(f family) packet.Packet {
	return packet.TCP(at(f.client, 40000), at(f.stranger, 80), packet.SYN)
}

// redirectedTo is the vector of a connection for a proxy port that nobody has.
func redirectedTo(name string, m NetFlMode, frame func(f family) packet.Packet, world func(w *world)) vector {
	return vector{
		name: name, frame: frame, world: world, want: drop, counts: []NetFlReason{noProxy},
		said: []said{{reason: noProxy, port: proxyPort(m)}}, flows: one(proxied, proxyPort(m), frame),
	}
}

// straight is the vector of a connection that is not redirected.
func straight(name string, frame func(f family) packet.Packet, world func(w *world)) vector {
	v := opensFromPod(name, "", frame)
	v.world = world
	return v
}

func TestFromPodModes(t *testing.T) {
	var vectors []vector
	for _, m := range modes {
		others := slices.DeleteFunc(slices.Clone(modes), func(o NetFlMode) bool { return o == m })
		vectors = append(vectors,
			redirectedTo(fmt.Sprintf("mode %d has its port", m), m, dialService, captured(uint32(m))),
			redirectedTo(fmt.Sprintf("mode %d of an address of a pod too", m), m, dialServer, func(w *world) {
				w.capture(m, http)
				w.service(w.f.server, 80, NetFlSvc{Flags: uint32(m) | svcDirect})
			}),
			redirectedTo(fmt.Sprintf("mode %d with flags that nobody knows", m), m, dialService, captured(uint32(m)|^uint32(0xf))),
			straight(fmt.Sprintf("mode %d without port goes straight", m), dialService, func(w *world) {
				captured(uint32(m))(w)
				w.capture(others...)
			}),
		)
	}
	vectors = append(vectors,
		straight("a client without port for requests is not captured", dialService, func(w *world) {
			captured(uint32(tls))(w)
			w.capture(tls, opaque)
		}),
		straight("an address of a pod that the proxy is bypassed for", dialServer, func(w *world) {
			w.capture(modes...)
			w.service(w.f.server, 80, NetFlSvc{Flags: svcDirect})
		}),
	)
	runVectors(t, vectors)
}

func TestFromPodAny(t *testing.T) {
	every := func(w *world) {
		w.capture(modes...)
		w.anywhere(80, uint32(anyMode))
	}
	also := func(f func(w *world)) func(w *world) { return func(w *world) { every(w); f(w) } }
	to := func(dst func(f family) netip.Addr, port uint16) func(f family) packet.Packet {
		return func(f family) packet.Packet { return packet.TCP(at(f.client, 40000), at(dst(f), port), packet.SYN) }
	}
	listed := func(f family) netip.Addr { return f.listed }
	runVectors(t, []vector{
		redirectedTo("an address that nobody has", anyMode, dialStranger, every),
		redirectedTo("an address in a prefix of nobody's pods", anyMode, to(listed, 80), every),
		straight("an address in a pod range", to(listed, 80), also(func(w *world) { w.prefix(classListed, addrUnassigned) })),
		straight("an address in a pod range that policy does not tell apart", to(listed, 80),
			also(func(w *world) { w.prefix(0, addrUnassigned) })),
		straight("another node's pod", dial, every),
		straight("this node's pod", dialServer, every),
		straight("an address of a pod of no class", dialStranger, also(func(w *world) { w.address(w.f.stranger, 0, 0) })),
		straight("a node", to(func(f family) netip.Addr { return f.node }, 80), every),
		straight("a service that the kernel balances", dialService, also(func(w *world) {
			w.service(w.f.service, 80, NetFlSvc{Id: 1, Slots: 1})
		})),
		redirectedTo("a service of another mode", opaque, dialService, also(func(w *world) {
			w.service(w.f.service, 80, NetFlSvc{Id: 1, Slots: 1, Flags: uint32(opaque)})
		})),
		redirectedTo("an address whose service has another port", anyMode, dialService, also(func(w *world) {
			w.service(w.f.service, 81, NetFlSvc{Id: 1, Slots: 1})
		})),
		straight("another port", to(func(f family) netip.Addr { return f.stranger }, 81), every),
		straight("only the other family", dialStranger, func(w *world) {
			every(w)
			for _, f := range families() {
				if f.name != w.f.name {
					w.service(unspecified(f), 80, NetFlSvc{Flags: uint32(anyMode)})
				}
			}
			key := NetFlSvcKey{Addr: addrOf(unspecified(w.f)), Port: be(80), Proto: tcp}
			if err := w.FlServicesV2.Delete(key); err != nil {
				w.t.Fatal(err)
			}
		}),
		straight("a client without that port", dialStranger, also(func(w *world) { w.capture(http, tls) })),
		straight("a client that is not captured", dialStranger, also(func(w *world) { w.capture() })),
		straight("the proxy is bypassed", dialStranger, func(w *world) { every(w); w.anywhere(80, 0) }),
		redirectedTo("another mode", anyOpaque, dialStranger, func(w *world) { every(w); w.anywhere(80, uint32(anyOpaque)) }),
		straight("a datagram", func(f family) packet.Packet {
			return packet.UDP(at(f.client, 40000), at(f.stranger, 80)).Payload("query")
		}, every),
	})
}

// around is a range of so many bits that an address is in.
func around(a netip.Addr, bits int) netip.Prefix {
	if a.Is6() {
		bits += 96
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func TestFromPodRange(t *testing.T) {
	every := func(w *world) {
		w.capture(modes...)
		w.inRange(around(w.f.stranger, 24), 80, uint32(anyOpaque)|svcDirect)
	}
	also := func(f func(w *world)) func(w *world) { return func(w *world) { every(w); f(w) } }
	runVectors(t, []vector{
		redirectedTo("an address in a range", anyOpaque, dialStranger, every),
		redirectedTo("the longer range", anyDetect, dialStranger, also(func(w *world) {
			w.inRange(around(w.f.stranger, 31), 80, uint32(anyDetect)|svcDirect)
			w.inRange(around(w.f.stranger, 16), 80, uint32(anyMode)|svcDirect)
		})),
		redirectedTo("a range before any address", anyOpaque, dialStranger, also(func(w *world) { w.anywhere(80, uint32(anyMode)) })),
		redirectedTo("a service of the range's addresses", opaque, dialStranger, also(func(w *world) {
			w.service(w.f.stranger, 80, NetFlSvc{Flags: uint32(opaque) | svcDirect})
		})),
		straight("a pod's address in a range", dialStranger, also(func(w *world) { w.address(w.f.stranger, 0, 0) })),
		straight("another port of the range", func(f family) packet.Packet {
			return packet.TCP(at(f.client, 40000), at(f.stranger, 81), packet.SYN)
		}, every),
		straight("an address outside the range", func(f family) packet.Packet {
			return packet.TCP(at(f.client, 40000), at(f.listed, 80), packet.SYN)
		}, every),
		straight("a client without that port", dialStranger, also(func(w *world) { w.capture(http, anyMode) })),
		straight("a client that is not captured", dialStranger, also(func(w *world) { w.capture() })),
	})
}
