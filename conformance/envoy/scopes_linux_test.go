// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"
	"testing"

	"fairlead.io/fairlead/xds"
)

// A trap: the scopes go with the last listener that has them, when it has drained, and
// Envoy does not ask for them a second time on the same stream. The next listener has those
// that are sent from then on, and no other: their requests are answered 404. A listener
// that never goes keeps them.
func TestScopesGoWithListeners(t *testing.T) {
	kept, _ := strings.CutPrefix(requests(15102, "spiffe://kept", ""), "\n  - ")
	for _, c := range []struct {
		what   string
		keep   bool
		status int // of what was sent before the listener was back
	}{
		{"no listener is left", false, 404},
		{"one stays", true, 200},
	} {
		t.Run(c.what, func(t *testing.T) {
			p, s := startScript(t, "", "--drain-time-s", "1")
			if c.keep {
				equal(t, "the one that stays", s.outcome(s.send(resource(t, xds.ListenerType, "    "+kept))), "")
			}
			equal(t, "listener", s.outcome(s.send(frontListener(t, ""))), "")
			s.waitFor("scopes are asked for", func() bool { return s.first()[xds.ScopeType] != nil })
			s.push(direct(t, "r", 200), scopeTo(t, vip(0, 1, 80), "r", false))
			s.waitFor("listener", func() bool { return !refusedSoon(t, vip(0, 1, 80)) })
			equal(t, "at first", mustFetch(t, vip(0, 1, 80), "/").Status, 200)

			equal(t, "removal", s.outcome(s.remove(xds.ListenerType, "out/15100")), "")
			p.waitFor("the listener has drained", func() bool {
				return strings.Contains(p.get("/stats?filter=total_listeners_draining"), "draining: 0")
			})
			// What comes while the listener is away.
			if c.keep {
				s.push(direct(t, "r2", 200), scopeTo(t, vip(0, 2, 80), "r2", false))
			} else {
				s.send(scopeTo(t, vip(0, 2, 80), "r2", false))
			}
			equal(t, "the listener again", s.outcome(s.send(frontListener(t, ""))), "")
			s.push(direct(t, "r3", 200), scopeTo(t, vip(0, 3, 80), "r3", false))
			s.waitFor("listener", func() bool { return !refusedSoon(t, vip(0, 3, 80)) })
			for i, want := range []int{c.status, c.status, 200} {
				equal(t, vip(0, i+1, 80), mustFetch(t, vip(0, i+1, 80), "/").Status, want)
			}
		})
	}
}
