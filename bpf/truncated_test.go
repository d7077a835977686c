// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"fairlead.io/fairlead/internal/packet"
)

// A frame that was cut anywhere is not let past the program that judges it, until
// all that it is judged by is there.
func TestTruncated(t *testing.T) {
	l := newLab(t)
	type sample struct {
		name string
		only string
		p    packet.Packet
		// whole is how many bytes behind the last extension header must be there.
		whole int
	}
	samples := func(f family) []sample {
		tcpIn := packet.TCP(at(f.remote, 40000), at(f.server, 80), packet.SYN).Payload("data")
		udpIn := packet.UDP(at(f.remote, 40000), at(f.server, 80)).Payload("data")
		out := []sample{
			{"TCP", "", tcpIn, 20},
			{"UDP", "", udpIn, 4},
			{"echo", "", packet.Echo(f.remote, f.server, 7).Payload("data"), 8},
			{"an error", "", packet.Unreachable(f.remote, f.server, udpIn.Back()), 8 + headerLen(f) + 4},
			{"TCP behind options", "v4", tcpIn.Options(40), 20},
			{"TCP behind extensions", "v6", tcpIn.Extend(packet.HopByHop, 16).Extend(packet.DestOpts, 8).Fragment(0, true), 20},
			{"an error about a packet with extensions", "v6",
				packet.Unreachable(f.remote, f.server, udpIn.Back().Extend(packet.DestOpts, 8)), 8 + 40 + 8 + 4},
		}
		return out
	}
	for _, f := range families() {
		for _, s := range samples(f) {
			if s.only != "" && s.only != f.name {
				continue
			}
			t.Run(s.name+"/"+f.name, func(t *testing.T) {
				l.enter(t)
				w := newWorld(t, l, f)
				w.peopled()
				w.govern(f.server)
				w.policy(classAny, 0, 0, allow)
				frame := s.p.Bytes()
				enough := lastHeader(frame) + s.whole
				for n := 14 + headerLen(f); n <= len(frame); n++ { // the kernel runs no test on less
					got := w.run(w.FlToPod, frame[:n:n], toServer.context(l))
					if let := got.verdict == next; let != (n >= enough) {
						t.Errorf("%d of %d bytes: verdict %d, but %d are enough", n, len(frame), int32(got.verdict), enough)
					}
					// The others let nothing through to a pod that they could not read.
					if got := w.run(w.FlFromPod, frame[:n:n], fromClient.context(l)); got.verdict != drop {
						t.Errorf("%d of %d bytes: the client's foreign source passed: %d", n, len(frame), int32(got.verdict))
					}
					net := w.run(w.FlFromNet, frame[:n:n], fromUplink.context(l))
					if net.verdict == next && n < enough {
						t.Errorf("%d of %d bytes: passed from the net", n, len(frame))
					}
				}
			})
		}
	}
}

func headerLen(f family) int {
	if f.server.Is4() {
		return 20
	}
	return 40
}

// lastHeader is where the header behind IP and its extensions begins.
func lastHeader(frame []byte) int {
	b := frame[14:]
	if b[0]>>4 == 4 {
		return 14 + int(b[0]&15)*4
	}
	next, off := b[6], 40
	for {
		switch next {
		case packet.HopByHop, packet.Routing, packet.DestOpts:
			next, off = b[off], off+int(b[off+1]+1)*8
		case packet.FragmentV6:
			next, off = b[off], off+8
		default:
			return 14 + off
		}
	}
}

// A first byte that lies about what follows is not believed.
func TestLyingHeaders(t *testing.T) {
	l := newLab(t)
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			l.enter(t)
			w := newWorld(t, l, f)
			w.peopled()
			w.govern(f.server)
			w.policy(classAny, 0, 0, allow)
			frame := packet.TCP(at(f.remote, 40000), at(f.server, 80), packet.SYN).Bytes()
			header := lastHeader(frame)
			for name, lie := range map[string]func(b []byte){
				"another version":          func(b []byte) { b[14] ^= 0x50 },
				"a TCP header of 16 bytes": func(b []byte) { b[header+12] = 4 << 4 },
				"a TCP header of no bytes": func(b []byte) { b[header+12] = 0 },
			} {
				b := append([]byte(nil), frame...)
				lie(b)
				if got := w.run(w.FlToPod, b, toServer.context(l)); got.verdict != drop {
					t.Errorf("%s: verdict %d", name, int32(got.verdict))
				}
			}
			if f.name == "v4" {
				b := append([]byte(nil), frame...)
				b[14] = 4<<4 | 4
				if got := w.run(w.FlToPod, b, toServer.context(l)); got.verdict != drop {
					t.Errorf("an IPv4 header of 16 bytes: verdict %d", int32(got.verdict))
				}
			}
		})
	}
}

// Whatever bytes come: no program fails, and what it does is one of its verdicts.
func FuzzPrograms(f *testing.F) {
	l := newLab(f)
	fam := families()
	for _, a := range fam {
		tcpIn := packet.TCP(at(a.remote, 40000), at(a.server, 80), packet.SYN)
		for _, p := range []packet.Packet{
			tcpIn, packet.UDP(at(a.remote, 1), at(a.server, 2)), packet.Echo(a.remote, a.server, 7),
			packet.Unreachable(a.remote, a.server, tcpIn.Back()), tcpIn.Fragment(0, true), tcpIn.Tagged(0),
		} {
			f.Add(p.Bytes())
		}
	}
	f.Add(packet.TCP(at(fam[1].remote, 1), at(fam[1].server, 2), 0).Extend(packet.HopByHop, 8).Extend(packet.Routing, 24).Bytes())
	w := newWorld(f, l, fam[0])
	for _, a := range fam {
		w.f = a
		w.peopled()
		w.govern(a.server)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14+41 || len(frame) > 1500 { // the kernel runs no test on less than an IP header
			return
		}
		l.enter(t)
		w.t = t
		for h := fromClient; h <= toServerHere; h++ {
			got := w.run(h.program(w), frame, h.context(l))
			if got.verdict != next && got.verdict != drop && got.verdict != redirect {
				t.Errorf("hook %d: verdict %d\n%s", h, got.verdict, packet.Dump(frame))
			}
			if got.verdict == next && h >= toServer && isJudged(frame) {
				t.Errorf("hook %d let it in to a pod under an empty policy\n%s", h, packet.Dump(frame))
			}
		}
	})
}

// isJudged reports whether the frame is surely IP and not neighbour discovery.
func isJudged(frame []byte) bool {
	const next = 14 + 6 // of IPv6: the next header
	switch ether := uint16(frame[12])<<8 | uint16(frame[13]); ether {
	case 0x0800:
		return true
	case 0x86dd:
		return frame[next] == tcp || frame[next] == udp
	}
	return false
}
