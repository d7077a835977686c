// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"strings"
	"testing"
	"testing/synctest"

	"fairlead.io/fairlead/model/plan"
)

// Connections that the kernel has handed to a listener are not accepted yet: it goes
// after them.
func TestEnvoyKeepsForAWhileWhatNothingLeadsTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "modes.yaml": theModes})
		r.reload(t.Context())
		port := r.to["shop/web "+string(plan.TLS)]
		r.write("modes.yaml", "")
		if log := r.took(r.reload); strings.Contains(log, "delete") || r.to["shop/web "+string(plan.TLS)] != 0 || !r.isApplied() {
			t.Errorf("applied %q of %q, kernel's ports %v, did\n%s", r.applied, r.revision, r.to, log)
		}
		r.seen = nil
		if r.pass(linger - tick); strings.Contains(strings.Join(r.seen, "\n"), "delete") {
			t.Errorf("too early: %q", r.seen)
		}

		r.write("modes.yaml", theModes)
		r.reload(t.Context())
		if r.to["shop/web "+string(plan.TLS)] != port {
			t.Errorf("back with another port: %v, was %d", r.to, port)
		}
		if r.pass(2 * linger); strings.Contains(strings.Join(r.seen, "\n"), "delete Listener out/tls") || len(r.retiring) != 0 {
			t.Errorf("deleted though it is needed again: %q, %v", r.seen, r.retiring)
		}

		r.write("modes.yaml", "")
		r.reload(t.Context())
		r.seen, r.there = nil, false // and it cannot be told
		r.pass(2 * linger)
		r.there = true
		if r.pass(tick); len(r.retiring) != 0 || !r.isApplied() {
			t.Errorf("retiring %v, ports %v", r.retiring, r.ports.state.Used)
		}
		for name, used := range r.ports.state.Used {
			if used == port {
				t.Errorf("%s has the port still", name)
			}
		}
	})
}
