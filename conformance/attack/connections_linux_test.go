// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/packet"
)

// Nobody ends, slows or turns another's connection by errors, resets and redirects that it
// makes up, under its own address or under those of who is concerned.
func TestForgedErrors(t *testing.T) {
	r := attacked(t)
	for _, six := range []bool{false, true} {
		for _, web := range []string{"web-1", "web-2"} {
			name := fmt.Sprintf("%s-%t", web, six)
			t.Run(name, func(t *testing.T) {
				server := at(r.pods[web].address(six), guardedTCP)
				local := netip.MustParseAddrPort(call[string](t, r.hands["client"], "Connect", Dial{Name: name, Network: "tcp", To: server.String()}))
				call[None](t, r.hands["client"], "Talk", name)
				mtu := call[int](t, r.hands["client"], "MTU", server.Addr().String())
				before := r.drops(t)
				for _, attacker := range []string{"attacker-1", "attacker-2"} {
					var frames [][]byte
					for _, from := range []netip.Addr{r.pods[attacker].address(six), server.Addr(), r.pods["node-1"].address(six)} {
						// What the client sent, as if it could not be delivered, or were too long.
						sent := packet.TCP(local, server, packet.ACK).Seq(1, 1)
						frames = append(frames, packet.Unreachable(from, local.Addr(), sent).Bytes())
						back := packet.TCP(server, local, packet.ACK).Seq(1, 1)
						frames = append(frames, packet.Unreachable(from, server.Addr(), back).Bytes())
					}
					for seq := range uint32(64) { // a window of the whole space, again and again
						frames = append(frames,
							packet.TCP(server, local, packet.RST).Seq(seq<<26, 0).Bytes(),
							packet.TCP(local, server, packet.RST).Seq(seq<<26, 0).Bytes(),
							packet.TCP(server, local, packet.SYN).Seq(seq<<26, 0).Bytes())
					}
					call[None](t, r.hands[attacker], "Send", Frames{Frames: frames, Times: 3})
				}
				time.Sleep(100 * time.Millisecond)
				if len(grown(before, r.drops(t))) == 0 {
					t.Error("the datapath has dropped nothing")
				}
				call[None](t, r.hands["client"], "Talk", name)
				if now := call[int](t, r.hands["client"], "MTU", server.Addr().String()); now != mtu {
					t.Errorf("the client's packets to %s may have %d bytes, had %d", server, now, mtu)
				}
			})
		}
	}
}

// A pod that opens connections by the thousand, which are let out or refused, takes nothing
// from its neighbours: those that are open go on, and new ones are made.
func TestFlood(t *testing.T) {
	const flows = 100_000
	r := attacked(t)
	for name, c := range map[string]struct {
		to   netip.Addr
		port uint16
	}{
		"let out": {netip.MustParseAddr("198.51.100.1"), 1024},
		"refused": {r.pods["web-1"].v4, 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			web := at(r.pods["web-1"].v4, guardedTCP).String()
			kept := "flood " + name
			call[string](t, r.hands["client"], "Connect", Dial{Name: kept, Network: "tcp", To: web})
			quiet := call[[]string](t, r.hands["client"], "Dials", Dials{Network: "tcp", To: web, N: 50, Every: 5 * time.Millisecond})
			if len(quiet) > 0 {
				t.Fatalf("without a flood: %v", quiet)
			}
			var took time.Duration
			syn := packet.TCP(at(r.pods["attacker-1"].v4, 1024), at(c.to, c.port), packet.SYN).Bytes()
			flood := r.hands["attacker-1"].Go("Hand.Flood", Flood{Frame: syn, Flows: flows}, &took, nil)
			failed := call[[]string](t, r.hands["client"], "Dials", Dials{Network: "tcp", To: web, N: 300, Every: 5 * time.Millisecond})
			<-flood.Done
			if flood.Error != nil {
				t.Fatal(flood.Error)
			}
			if len(failed) > 0 {
				t.Errorf("during the flood %d of 300 failed: %v", len(failed), failed[0])
			}
			call[None](t, r.hands["client"], "Talk", kept)
			t.Logf("%d flows in %v", flows, took)
		})
	}
}
