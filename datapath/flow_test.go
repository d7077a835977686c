// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFlow(t *testing.T) {
	wall := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	v4, v6 := toAddr(netip.MustParseAddr("10.0.0.1")), toAddr(netip.MustParseAddr("fd00::1"))
	for name, c := range map[string]struct {
		event event
		want  Flow
	}{
		"redirected": {
			event{Time: uint64(time.Second), Class: 1, Set: 2, Rule: 3, Ifindex: 4, Port: 15100, Reason: 1,
				Tuple: tuple{Source: v4, Destination: v6, SourcePort: toPort(5), DestPort: toPort(80), Proto: 6}},
			Flow{Time: wall.Add(time.Second), Class: 1, Set: 2, Rule: 3, Ifindex: 4, ProxyPort: 15100, Reason: "outbound",
				Direction: FromPod, Verdict: Redirected, Protocol: "TCP", Source: addrPort("10.0.0.1:5"), Destination: addrPort("[fd00::1]:80")},
		},
		"dropped": {
			event{Reason: 9, Direction: 2, Tuple: tuple{Source: v4, Destination: v4, Proto: 17}},
			Flow{Time: wall, Reason: "policy", Direction: ToPod, Verdict: Dropped, Protocol: "UDP",
				Source: addrPort("10.0.0.1:0"), Destination: addrPort("10.0.0.1:0")},
		},
		"no backend": {
			event{Reason: 20, Direction: 3, PID: 7, Set: 9, Command: [16]byte{'c', 'u', 'r', 'l'}, Tuple: tuple{Destination: v4, Proto: 6}},
			Flow{Time: wall, Reason: "no-backend", Direction: Connect, Verdict: Dropped, Protocol: "TCP",
				Destination: addrPort("10.0.0.1:0"), PID: 7, Command: "curl", Netns: 9},
		},
		"no proxy for long": {
			event{Reason: 24, Tuple: tuple{Source: v4, Destination: v4, Proto: 6}},
			Flow{Time: wall, Reason: "proxy-absent", Direction: FromPod, Verdict: Dropped, Protocol: "TCP",
				Source: addrPort("10.0.0.1:0"), Destination: addrPort("10.0.0.1:0")},
		},
		"of a later version": {
			event{Reason: 200, Direction: 100, Tuple: tuple{Proto: 99}},
			Flow{Time: wall, Reason: "reason-200", Direction: "direction-100", Verdict: Dropped, Protocol: "99"},
		},
	} {
		got, err := toFlow([]byte(encode(c.event)), wall)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := toFlow([]byte{1, 2, 3}, wall); err == nil {
		t.Error("three bytes are a flow")
	}
}

func BenchmarkFlow(b *testing.B) {
	raw := []byte(encode(event{Reason: 1, Tuple: tuple{Proto: 6}}))
	for b.Loop() {
		if _, err := toFlow(raw, time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
}
