// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"strings"
	"testing"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// Envoy may judge a resource for the first time when the agent that sent it is gone:
// the next one, which finds that the proxy has everything, hears of it all the same.
func TestRejectedAfterARestartOfTheAgent(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	never := service(2)
	never[0] = badRoutes(t, "svc-2")
	all := resources(t, rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners(), never)...)
	var changes []any
	for _, res := range all {
		changes = append(changes, res)
	}
	r.push(changes...) // nobody has used it, so nobody finds anything
	r.feed.Stop()
	r.startAgent(all...)
	r.waitFor("the next agent", func() bool { return len(r.agent.Status().Clients) == 1 && r.status().Feed.Connected })
	if n := r.agent.Counters().Resources; n != 0 {
		t.Fatalf("%d resources were sent, want none", n)
	}
	if bad := r.agent.Status().Rejected; len(bad) != 0 {
		t.Fatalf("rejected before anybody asks: %+v", bad)
	}
	r.wantStatus(2, 500)
	r.waitFor("the next agent to know", func() bool { return len(r.agent.Status().Rejected) > 0 })
	bad := r.agent.Status().Rejected
	if len(bad) != 1 || bad[0].Type != xds.RouteType || bad[0].Name != "svc-2" || !strings.Contains(bad[0].Detail, "missing )") {
		t.Errorf("rejected %+v", bad)
	}
	r.wantStatus(1, 200)
	// A later version that is good ends it, and goes the ordinary way.
	r.push(service(2, to("a"))...)
	if bad := r.agent.Status().Rejected; len(bad) != 0 {
		t.Errorf("still rejected: %+v", bad)
	}
	r.wantStatus(2, 200)
}
