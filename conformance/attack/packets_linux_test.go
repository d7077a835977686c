// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/packet"
)

// Ports of the guarded pods: 5353 and 9000 are the client's alone, 9001 the attacker's too.
const (
	guardedUDP = 5353
	guardedTCP = 9000
	openTCP    = 9001
)

// control says by what an attempt is seen to have been one.
type control int

const (
	// let: the client, who may, sends the same from its own address, and it arrives.
	let control = 1 << iota
	// dropped: the datapath counts what it dropped.
	dropped
)

// attempt is frames that must not arrive.
type attempt struct {
	name    string
	control control
	only    int // a family, 0: both
	// frames are made for who sends, under which address, and to whom; every one says the mark.
	frames func(from, to netip.Addr, mark string) []packet.Packet
	// as is whose address the attacker uses: its own if empty. The control is the client's own.
	as string
	// mac is whose Ethernet address it uses, its own if nil.
	mac []byte
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func udp(from, to netip.Addr, mark string) packet.Packet {
	return packet.UDP(at(from, 40000), at(to, guardedUDP)).Payload(mark)
}

func tcp(flags packet.Flags) func(from, to netip.Addr, mark string) []packet.Packet {
	return func(from, to netip.Addr, mark string) []packet.Packet {
		return []packet.Packet{packet.TCP(at(from, 40001), at(to, guardedTCP), flags).Seq(1000, 2000).Payload(mark)}
	}
}

func one(f func(from, to netip.Addr, mark string) packet.Packet) func(from, to netip.Addr, mark string) []packet.Packet {
	return func(from, to netip.Addr, mark string) []packet.Packet { return []packet.Packet{f(from, to, mark)} }
}

func extended(proto uint8) func(from, to netip.Addr, mark string) []packet.Packet {
	return one(func(from, to netip.Addr, mark string) packet.Packet { return udp(from, to, mark).Extend(proto, 8) })
}

// long is a mark that fills several fragments, in each of which it is found.
func long(mark string) string { return strings.Repeat(mark+" ", 8) }

// inTwo are two fragments of a packet whose header has so many bytes, each with a mark; the
// first has 128 bytes in all.
func inTwo(p packet.Packet, header int, first, second string) []packet.Packet {
	return []packet.Packet{
		p.Payload(long(first)[:128-header]).Fragment(0, true),
		p.Payload(long(second)[:64]).Fragment(128, false),
	}
}

var attempts = []attempt{
	{name: "UDP", control: let | dropped, frames: one(udp)},
	{name: "SYN", control: let | dropped, frames: tcp(packet.SYN)},
	{name: "SYN with another's address", control: let | dropped, frames: tcp(packet.SYN), as: "client"},
	{name: "another's address", control: let | dropped, frames: one(udp), as: "client"},
	{name: "another's address and Ethernet address", control: let | dropped, frames: one(udp), as: "client", mac: []byte{2, 0, 0, 0, 0, 9}},
	{name: "the node's address", control: dropped, frames: one(udp), as: "node-1"},
	{name: "the guarded pod's own address", control: dropped, frames: one(udp), as: "web-1"},
	{name: "another's address in VLAN 0", control: dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet { return udp(from, to, mark).Tagged(0) }), as: "client"},
	{name: "another's address in VLAN 0 in VLAN 0", control: dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet { return udp(from, to, mark).Tagged(0, 0) }), as: "client"},
	{name: "the proxy's source ports, UDP", control: dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet {
		return packet.UDP(at(from, 61000), at(to, guardedUDP)).Payload(mark)
	})},
	{name: "the proxy's source ports, SYN", control: dropped, frames: func(from, to netip.Addr, mark string) []packet.Packet {
		var out []packet.Packet
		for _, port := range []uint16{61000, 62399, 63264, 65535} {
			out = append(out, packet.TCP(at(from, port), at(to, guardedTCP), packet.SYN).Payload(mark))
		}
		return out
	}},
	{name: "the proxy's source ports, ACK", control: dropped, frames: func(from, to netip.Addr, mark string) []packet.Packet {
		return []packet.Packet{packet.TCP(at(from, 61000), at(to, guardedTCP), packet.ACK).Payload(mark)}
	}},
	{name: "data in SYN", control: let | dropped, frames: tcp(packet.SYN | packet.PSH)},
	{name: "ACK without handshake", control: let | dropped, frames: tcp(packet.ACK | packet.PSH)},
	{name: "SYN and ACK, as of a simultaneous open", control: let | dropped, frames: tcp(packet.SYN | packet.ACK)},
	{name: "FIN", control: let | dropped, frames: tcp(packet.FIN | packet.ACK)},
	{name: "RST with data", control: let | dropped, frames: tcp(packet.RST | packet.ACK)},
	{name: "SYN and RST", control: let | dropped, frames: tcp(packet.SYN | packet.RST)},
	{name: "no flags", control: let | dropped, frames: tcp(0)},
	{name: "handshake at the open port, then the guarded one", control: let | dropped, frames: func(from, to netip.Addr, mark string) []packet.Packet {
		return []packet.Packet{
			packet.TCP(at(from, 40002), at(to, openTCP), packet.SYN),
			packet.TCP(at(from, 40002), at(to, guardedTCP), packet.ACK|packet.PSH).Seq(1, 1).Payload(mark),
		}
	}},
	{name: "its own flow the other way", control: dropped, frames: func(from, to netip.Addr, mark string) []packet.Packet {
		// What would look like the guarded pod's own flow, and then like its answer.
		return []packet.Packet{
			packet.TCP(at(to, guardedTCP), at(from, 40003), packet.SYN),
			packet.TCP(at(from, 40003), at(to, guardedTCP), packet.SYN|packet.ACK).Payload(mark),
		}
	}},
	{name: "datagram as an answer to what was never asked", control: let | dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet {
		return packet.UDP(at(from, 53), at(to, 33000)).Payload(mark)
	})},
	{name: "fragments", control: let | dropped, frames: func(from, to netip.Addr, mark string) []packet.Packet {
		return inTwo(udp(from, to, ""), 8, mark, mark)
	}},
	{name: "fragments with another's address", control: let | dropped, as: "client", frames: func(from, to netip.Addr, mark string) []packet.Packet {
		return inTwo(udp(from, to, ""), 8, mark, mark)
	}},
	{name: "a later fragment alone, with another's address", control: dropped, as: "client", frames: func(from, to netip.Addr, mark string) []packet.Packet {
		return []packet.Packet{udp(from, to, long(mark)).Fragment(64, false)}
	}},
	{name: "hop-by-hop options", control: dropped, only: 6, frames: extended(packet.HopByHop)},
	{name: "destination options", control: dropped, only: 6, frames: extended(packet.DestOpts)},
	{name: "routing header", control: dropped, only: 6, frames: extended(packet.Routing)},
	{name: "authentication header", control: dropped, only: 6, frames: extended(packet.AH)},
	{name: "mobility header", control: dropped, only: 6, frames: extended(packet.Mobility)},
	{name: "options of IPv4", control: dropped, only: 4, frames: one(func(from, to netip.Addr, mark string) packet.Packet { return udp(from, to, mark).Options(8) })},
	{name: "echo", control: let | dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet { return packet.Echo(from, to, 7).Payload(mark) })},
	{name: "answer to an echo that was never sent", control: let | dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet {
		return packet.EchoReply(from, to, 8).Payload(mark)
	})},
	{name: "SCTP", control: let | dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet {
		return packet.Raw(from, to, packet.SCTP, []byte("\x9c\x40\x9c\x41"+mark))
	})},
	{name: "an unknown protocol", control: let | dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet {
		return packet.Raw(from, to, 253, []byte(mark))
	})},
	{name: "checksum that is wrong", control: dropped, frames: one(func(from, to netip.Addr, mark string) packet.Packet { return udp(from, to, mark).NoChecksum() })},
}

// TestPackets sends each attempt from an attacker on each node to the guarded pod on each.
func TestPackets(t *testing.T) {
	r := attacked(t)
	for i, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			for _, six := range []bool{false, true} {
				if a.only != 0 && (a.only == 6) != six {
					continue
				}
				r.attempt(t, a, i, six)
			}
		})
	}
}

// attempt makes one attempt in a family.
func (r *rig) attempt(t *testing.T, a attempt, i int, six bool) {
	t.Helper()
	family := map[bool]string{false: "v4", true: "v6"}[six]
	for _, web := range []string{"web-1", "web-2"} {
		call[None](t, r.hands[web], "Listen", None{})
		to := r.pods[web].address(six)
		send := func(from, as string, n int) string {
			mark := fmt.Sprintf("mark-%d-%s-%s-%d.", i, family, web, n)
			var frames [][]byte
			for _, p := range a.frames(r.pods[as].address(six), to, mark) {
				frames = append(frames, p.Bytes())
			}
			f := Frames{Frames: frames, Times: 3}
			if from != "client" {
				f.Source = a.mac
			}
			call[None](t, r.hands[from], "Send", f)
			return mark
		}
		for n, attacker := range []string{"attacker-1", "attacker-2"} {
			as := a.as
			if as == "" {
				as = attacker
			}
			before := r.drops(t)
			mark := send(attacker, as, n)
			time.Sleep(50 * time.Millisecond)
			if got := call[int](t, r.hands[web], "Heard", mark); got > 0 {
				t.Errorf("%s: %s reaches %s: %d frames arrived", family, attacker, web, got)
			}
			reasons := grown(before, r.drops(t))
			if a.control&dropped != 0 && len(reasons) == 0 {
				t.Errorf("%s: %s to %s: the datapath has dropped nothing", family, attacker, web)
			}
			t.Logf("%s: %s to %s: %v", family, attacker, web, reasons)
		}
		if a.control&let != 0 {
			mark := send("client", "client", 9)
			if !r.arrives(t, web, mark) {
				t.Errorf("%s: what the client sends to %s does not arrive: the attempt says nothing", family, web)
			}
		}
	}
}

// What is put together of fragments is judged, and where they contradict each other nothing is.
func TestOverlappingFragments(t *testing.T) {
	const header = 20
	r := attacked(t)
	for _, six := range []bool{false, true} {
		for _, web := range []string{"web-1", "web-2"} {
			for _, attacker := range []string{"attacker-1", "attacker-2"} {
				name := fmt.Sprintf("%s-%s-%t", attacker, web, six)
				call[None](t, r.hands[web], "Listen", None{})
				from, to := r.pods[attacker].address(six), r.pods[web].address(six)
				syn := func(port uint16) packet.Packet { return packet.TCP(at(from, 40010), at(to, port), packet.SYN) }
				send := func(all ...packet.Packet) {
					var f Frames
					for _, p := range all {
						f.Frames = append(f.Frames, p.Bytes())
					}
					call[None](t, r.hands[attacker], "Send", f)
				}
				// The port that the attacker may use: what it sends there in fragments arrives.
				send(inTwo(syn(openTCP), header, "open-"+name, "open-"+name)...)
				if !r.arrives(t, web, "open-"+name) {
					t.Errorf("%s: fragments for the open port do not arrive: the rest says nothing", name)
				}
				open, guarded := inTwo(syn(openTCP), header, "shut-"+name, "shut-"+name), inTwo(syn(guardedTCP), header, "shut-"+name, "shut-"+name)
				send(open[0], guarded[0], guarded[1])
				send(guarded[0], open[0], open[1])
				send(open[1], guarded[0], open[0])
				time.Sleep(50 * time.Millisecond)
				if n := call[int](t, r.hands[web], "HeardAt", Heard{"shut-" + name, guardedTCP}); n > 0 {
					t.Errorf("%s: %d frames for the guarded port arrive", name, n)
				}
			}
		}
	}
}

// arrives reports whether a mark is heard within a second.
func (r *rig) arrives(t *testing.T, pod, mark string) bool {
	t.Helper()
	for range 50 {
		if call[int](t, r.hands[pod], "Heard", mark) > 0 {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// Every attempt has a name of its own, and a control.
func TestAttemptsAreControlled(t *testing.T) {
	var names []string
	for _, a := range attempts {
		if a.control == 0 || slices.Contains(names, a.name) {
			t.Errorf("attempt %q: %d", a.name, a.control)
		}
		names = append(names, a.name)
	}
}
