// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"context"
	"net/http"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// TestScopesOutliveListeners: a node that had no listener for longer than they take to
// drain has all scopes when there is one again, also those that came meanwhile. Envoy asks
// for scopes while some listener has them, and does not ask again on the same stream.
func TestScopesOutliveListeners(t *testing.T) {
	r := newRig(t)
	answers := func(n int) []any {
		return service(n, plan.Route{ID: "direct", Direct: &model.Direct{Status: http.StatusOK, Body: "hello"}})
	}
	r.push(rows(answers(1), listeners())...)
	if got := r.get(alpha, vip(1), "/"); got.Status != http.StatusOK {
		t.Fatalf("at first: %d", got.Status)
	}
	var gone []serve.Change
	for _, l := range resources(t, listeners()...) {
		gone = append(gone, serve.Change{Type: xds.ListenerType, Name: l.Name})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := r.agent.Push(ctx, gone); err != nil {
		t.Fatal(err)
	}
	a := newAdmin(PathsIn(r.dir).Admin[0])
	r.waitFor("listeners have drained", func() bool {
		n, err := a.stats(t.Context(), "^listener_manager.total_(filter_chains|listeners)_draining$")
		return err == nil && n["listener_manager.total_listeners_draining"]+n["listener_manager.total_filter_chains_draining"] == 0
	})
	r.push(rows(answers(2), listeners())...)
	for n := 1; n <= 2; n++ {
		if got := r.get(alpha, vip(n), "/"); got.Status != http.StatusOK {
			t.Errorf("service %d: %d", n, got.Status)
		}
	}
}
