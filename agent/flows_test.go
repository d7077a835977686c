// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/accesslog"
)

// What the proxy did is told in the user's names: who asked whom, what decided.
func TestFlowsOfTheProxy(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "routes.yaml": theRoutes, "policy.yaml": thePolicy, "modes.yaml": theModes})
	r.reload(t.Context())
	route := r.pipe.Get(plan.RouteTables, "shop/web:80").(*plan.RouteTable).Routes[0].ID
	rule := plan.RuleName(r.pipe.Get(plan.Clusters, "shop/web:80").(*plan.Cluster).Policy.Allow[0][0])
	connection := ""
	for _, row := range r.rows([]incr.Table{plan.Clusters}) {
		if strings.HasPrefix(row.Key, "tcp|") && strings.HasSuffix(row.Key, "10.96.0.8:9000") {
			connection = row.Key
		}
	}
	if connection == "" {
		t.Fatal("no cluster of connections")
	}
	ip := netip.MustParseAddrPort
	base := accesslog.Record{Start: time.Unix(1, 0), Source: ip("10.244.1.2:4000"), Destination: ip("10.96.0.1:80"), Upstream: ip("10.244.1.2:8080"),
		Identity: "spiffe://cluster.local/ns/shop/sa/default", Cluster: "shop/web:80", Route: route, Method: "GET", Path: "/", Authority: "web", Status: 200}
	with := func(f func(*accesslog.Record)) accesslog.Record {
		out := base
		f(&out)
		return out
	}
	for name, c := range map[string]struct {
		in      accesslog.Record
		verdict string
		reason  string
		by      string // ends DecidedBy
		check   func(f hubble.Flow) bool
	}{
		"answered": {base, "forwarded", "", "VirtualService shop/web spec.http[0].match[0]", func(f hubble.Flow) bool {
			return f.Source.Pod == "shop/web" && f.Service == "shop/web:80" && f.HTTP.Status == 200 && f.TCP == nil && f.Rule == route
		}},
		// It names another host than it was sent to: both are told, and where it went.
		"led by its host": {with(func(r *accesslog.Record) { r.Destination, r.Authority = ip("10.96.0.8:9000"), "web.shop" }), "forwarded", "", "VirtualService shop/web spec.http[0].match[0]",
			func(f hubble.Flow) bool {
				return f.Service == "shop/many:9000" && f.Destination.Addr == ip("10.96.0.8:9000") && f.HTTP.Authority == "web.shop" && f.Cluster == "shop/web:80"
			}},
		"of an unknown host": {with(func(r *accesslog.Record) {
			r.Details, r.Status, r.Route, r.Cluster, r.Flags = "ext_authz_denied", 502, "", "", []string{"UAEX"}
		}), "denied", "unknown-host", "", nil},
		"denied by a rule": {with(func(r *accesslog.Record) {
			r.Details, r.Status = "rbac_access_denied_matched_policy["+rule+"]", 403
		}), "denied", "policy", "AuthorizationPolicy shop/p spec.rules[0]", func(f hubble.Flow) bool { return f.Rule == rule }},
		"allowed by none": {with(func(r *accesslog.Record) { r.Details, r.Status = "rbac_access_denied_matched_policy[none]", 403 }), "denied", "policy", "AuthorizationPolicy shop/p spec",
			func(f hubble.Flow) bool { return f.Rule == "" }},
		"failed": {with(func(r *accesslog.Record) { r.Details, r.Status = "upstream_reset", 503 }), "forwarded", "upstream_reset", "spec.http[0].match[0]", nil},
		"a connection": {accesslog.Record{Connection: true, Source: base.Source, Destination: ip("10.96.0.8:9000"), Upstream: base.Upstream, Cluster: connection, Route: connection,
			RequestBytes: 3, ResponseBytes: 5, Duration: time.Minute}, "forwarded", "", "VirtualService shop/many spec.tcp[0].match[0]", func(f hubble.Flow) bool {
			return f.HTTP == nil && *f.TCP == hubble.TCP{Sent: 3, Received: 5, Duration: time.Minute} && f.Service == "shop/many:9000"
		}},
		"a connection that was closed": {accesslog.Record{Connection: true, Source: base.Source, Destination: ip("10.96.0.8:443"), ServerName: "other", Flags: []string{"UH"}},
			"dropped", "UH", "", func(f hubble.Flow) bool { return f.TCP.ServerName == "other" && f.Service == "shop/many:443" }},
	} {
		r.accessFlow(c.in)
		f := r.flows.Last(1, hubble.Filter{})[0]
		by := strings.Join(f.DecidedBy, "; ")
		if f.Verdict != c.verdict || f.Reason != c.reason || (by == "") != (c.by == "") || !strings.HasSuffix(by, c.by) || f.Direction != "proxy" || c.check != nil && !c.check(f) {
			t.Errorf("%s: %s (%s) by %q: %+v %+v %+v", name, f.Verdict, f.Reason, by, f, f.HTTP, f.TCP)
		}
	}
}
