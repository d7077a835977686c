// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/accesslog"
)

// elsewhere is, in a namespace that sorts first, a pod with a policy of the same rule as
// thePolicy.
const elsewhere = `
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: a, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.244.1.9, podIPs: [{ip: 10.244.1.9}]}
---
`

// What the proxy did is told in the user's names: who asked whom, what decided.
func TestFlowsOfTheProxy(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "routes.yaml": theRoutes, "policy.yaml": thePolicy, "modes.yaml": theModes,
		"elsewhere.yaml": elsewhere + strings.ReplaceAll(thePolicy, "shop", "a")})
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
		"denied before an endpoint was chosen": {with(func(r *accesslog.Record) {
			r.Details, r.Status, r.Upstream = "rbac_access_denied_matched_policy["+rule+"]", 403, netip.AddrPort{}
		}), "denied", "policy", "AuthorizationPolicy shop/p spec.rules[0]", nil},
		"denied on the way in": {with(func(r *accesslog.Record) {
			r.Details, r.Status, r.Upstream, r.Destination, r.Cluster = "rbac_access_denied_matched_policy["+rule+"]", 403, netip.AddrPort{}, ip("10.244.1.2:8080"), ""
		}), "denied", "policy", "AuthorizationPolicy shop/p spec.rules[0]", nil},
		"denied elsewhere": {with(func(r *accesslog.Record) {
			r.Details, r.Status, r.Upstream = "rbac_access_denied_matched_policy["+rule+"]", 403, ip("10.244.1.9:8080")
		}), "denied", "policy", "AuthorizationPolicy a/p spec.rules[0]", nil},
		"allowed by none": {with(func(r *accesslog.Record) { r.Details, r.Status = "rbac_access_denied_matched_policy[none]", 403 }), "denied", "policy", "AuthorizationPolicy shop/p spec",
			func(f hubble.Flow) bool { return f.Rule == "" }},
		"allowed by none, before an endpoint was chosen": {with(func(r *accesslog.Record) {
			r.Details, r.Status, r.Upstream = "rbac_access_denied_matched_policy[none]", 403, netip.AddrPort{}
		}), "denied", "policy", "AuthorizationPolicy shop/p spec", nil},
		"would be denied by a rule": {with(func(r *accesslog.Record) { r.Would = &accesslog.Denial{Rule: rule} }), "audited", "policy", "AuthorizationPolicy shop/p spec.rules[0]",
			func(f hubble.Flow) bool { return f.Rule == rule && f.HTTP.Status == 200 }},
		"would be allowed by none": {with(func(r *accesslog.Record) { r.Would = &accesslog.Denial{} }), "audited", "policy", "AuthorizationPolicy shop/p spec",
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

// Of what was refused where it came in the routes and limits are told that refused it.
func TestFlowsOfTheInboundListener(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "server.yaml": `
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: s, namespace: shop}
spec: {podSelector: {}, port: 8080, proxyProtocol: HTTP/1, accessPolicy: all-unauthenticated}
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: open, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: s}]
  rules: [{matches: [{path: {value: /open}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: limit, namespace: shop}
spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: s}, total: {requestsPerSecond: 7}}
`})
	r.reload(t.Context())
	table, _ := r.pipe.Get(plan.RouteTables, "in|shop/web:8080").(*plan.RouteTable)
	if table == nil || len(table.Routes) == 0 {
		t.Fatalf("routes %+v", table)
	}
	ip := netip.MustParseAddrPort
	base := accesslog.Record{Start: time.Unix(1, 0), Source: ip("10.244.1.2:4000"), Destination: ip("10.244.1.2:8080"), Method: "GET", Path: "/", Authority: "web", Route: table.Routes[0].ID}
	for name, c := range map[string]struct {
		details, route          string
		status                  uint32
		verdict, reason, object string
	}{
		"too many":             {"local_rate_limited", base.Route, 429, "denied", "rate-limit", "HTTPLocalRateLimitPolicy shop/limit"},
		"too many for gRPC":    {"local_rate_limited", base.Route, 200, "denied", "rate-limit", "HTTPLocalRateLimitPolicy shop/limit"},
		"no route":             {"route_not_found", "", 404, "denied", "no-route", "Server shop/s"},
		"nobody on this route": {"rbac_access_denied_matched_policy[none]", base.Route, 403, "denied", "policy", "HTTPRoute shop/open"},
		"answered":             {"via_upstream", base.Route, 404, "forwarded", "", "HTTPRoute shop/open"},
	} {
		rec := base
		rec.Details, rec.Status, rec.Route = c.details, c.status, c.route
		r.accessFlow(rec)
		f := r.flows.Last(1, hubble.Filter{})[0]
		if by := strings.Join(f.DecidedBy, "; "); f.Verdict != c.verdict || f.Reason != c.reason || !strings.Contains(by, c.object) {
			t.Errorf("%s: %s (%s) by %q", name, f.Verdict, f.Reason, by)
		}
	}
}

// The kernel says which rule decided, and for whom: the same rule may be in policies of
// others.
func TestRuleOfAFlowOfTheKernel(t *testing.T) {
	const identity = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {rules: [{from: [{source: {namespaces: [shop]}}]}]}
`
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "policy.yaml": identity,
		"elsewhere.yaml": elsewhere + strings.ReplaceAll(identity, "namespace: shop", "namespace: a")})
	r.reload(t.Context())
	rule := r.pipe.Get(plan.Governance, "shop/web").(*plan.Governed).Allow[0][0]
	for to, want := range map[string]string{"10.244.1.2:8080": "AuthorizationPolicy shop/p", "10.244.1.9:8080": "AuthorizationPolicy a/p"} {
		r.kernelFlow(datapath.Flow{Time: time.Unix(1, 0), Verdict: "forwarded", Direction: "ingress", Protocol: "TCP",
			Source: netip.MustParseAddrPort("10.244.1.2:4000"), Destination: netip.MustParseAddrPort(to), Rule: plan.RuleID(rule)})
		if f := r.flows.Last(1, hubble.Filter{})[0]; len(f.DecidedBy) != 1 || !strings.Contains(f.DecidedBy[0], want+" ") {
			t.Errorf("to %s: %s decided by %v, want %s", to, f.Rule, f.DecidedBy, want)
		}
	}
}

// What the node itself sends and gets, the kubelet's probes above all, has the node's name,
// whichever of its addresses it has.
func TestFlowsOfTheNode(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.host.put([]netip.Addr{netip.MustParseAddr("10.244.1.1")})
	r.reload(t.Context())
	for from, want := range map[string]string{"10.244.1.1:4000": "node/n1:4000", "10.244.1.2:4000": "shop/web:4000", "192.0.2.1:4000": "192.0.2.1:4000"} {
		r.kernelFlow(datapath.Flow{Time: time.Unix(1, 0), Verdict: "forwarded", Direction: "to-pod", Protocol: "TCP",
			Source: netip.MustParseAddrPort(from), Destination: netip.MustParseAddrPort("10.244.1.2:8080")})
		if got := r.flows.Last(1, hubble.Filter{})[0].Source.Name(); got != want {
			t.Errorf("%s is named %q, want %q", from, got, want)
		}
	}
}

// Whoever is held to what is known is told by whom, of connections as of requests; and what
// needs a rule, and cannot be judged, is told with those that guard its destination.
func TestFlowsNameWhoRefuses(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "policy.yaml": thePolicy, "modes.yaml": theModes, "held.yaml": `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: held, namespace: shop}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
`})
	r.reload(t.Context())
	ip := netip.MustParseAddrPort
	const sidecar, policy = "held.yaml:6: Sidecar shop/held spec.outboundTrafficPolicy", "AuthorizationPolicy shop/p spec"
	connect := datapath.Flow{Direction: datapath.Connect, Verdict: datapath.Dropped, Reason: "no-backend", Protocol: "TCP", Destination: ip("192.0.2.1:9000"), Client: "shop/web", Command: "curl", PID: 7}
	with := func(f datapath.Flow, change func(*datapath.Flow)) datapath.Flow { change(&f); return f }
	in := datapath.Flow{Direction: datapath.ToPod, Verdict: datapath.Dropped, Protocol: "UDP", Source: ip("192.0.2.1:9"), Destination: ip("10.244.1.2:8080")}
	for name, c := range map[string]struct {
		in              datapath.Flow
		reason, by      string
		meaning, advice string
	}{
		"held":            {connect, "unknown-host", sidecar, "its host is nobody's", "declare the host"},
		"no endpoint":     {with(connect, func(f *datapath.Flow) { f.Destination = ip("10.96.0.1:80") }), "no-backend", "", "the service has no endpoint", "see whether"},
		"nobody's client": {with(connect, func(f *datapath.Flow) { f.Client = "" }), "no-backend", "", "the service has no endpoint", "see whether"},
		"policy":          {with(in, func(f *datapath.Flow) { f.Reason = "policy" }), "policy", policy, "no rule allows it", ""},
		"unchecked":       {with(in, func(f *datapath.Flow) { f.Reason = "unchecked" }), "unchecked", policy, "rules are about requests", "if it should get in"},
		"fragment":        {with(in, func(f *datapath.Flow) { f.Reason = "fragment" }), "fragment", policy, "a fragment has no ports", "have the sender"},
		"spoofed":         {with(in, func(f *datapath.Flow) { f.Reason = "spoofed" }), "spoofed", "", "its source address", "find out"},
	} {
		r.kernelFlow(c.in)
		f := r.flows.Last(1, hubble.Filter{})[0]
		if by := strings.Join(f.DecidedBy, "; "); f.Reason != c.reason || !strings.HasSuffix(by, c.by) || (by == "") != (c.by == "") ||
			!strings.HasPrefix(f.Meaning, c.meaning) || !strings.HasPrefix(f.Advice, c.advice) || (f.Advice == "") != (c.advice == "") {
			t.Errorf("%s: %s by %q: %q, %q", name, f.Reason, by, f.Meaning, f.Advice)
		}
	}
	if f := r.flows.Last(9, hubble.Filter{Pod: "shop/web", Namespace: "shop"}); len(f) != 6 {
		t.Errorf("%d of 7 are from or to the pod: a client that dials is one, too", len(f))
	}
	r.accessFlow(accesslog.Record{Start: time.Unix(1, 0), Source: ip("10.244.1.2:4000"), Destination: ip("10.96.0.1:80"), Authority: "nobody", Details: "ext_authz_denied", Status: 502})
	if f := r.flows.Last(1, hubble.Filter{Verdict: "denied"})[0]; f.Reason != "unknown-host" || len(f.DecidedBy) != 1 || !strings.HasSuffix(f.DecidedBy[0], sidecar) || f.Advice == "" {
		t.Errorf("a request to an unknown host: %+v", f)
	}
}

// What was lost before it came here is told in the stream, once.
func TestLostFlowsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{flows: hubble.NewRing(8), alog: accesslog.New(1), opts: Options{Node: "n1"}}
		ctx, cancel := context.WithCancel(t.Context())
		var n atomic.Uint64
		n.Store(100) // of an agent before
		ended := make(chan error)
		go func() { ended <- a.lostFlows(ctx, func() (uint64, error) { return n.Load(), nil }) }()
		time.Sleep(3 * time.Second)
		n.Add(5)
		time.Sleep(3 * time.Second)
		n.Add(2)
		time.Sleep(3 * time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range a.flows.Last(9, hubble.Filter{Verdict: "dropped"}) {
			got = append(got, fmt.Sprint(f.Node, " ", f.Verdict, " ", f.Reason, " ", f.Lost))
		}
		if want := "n1 lost kernel 5; n1 lost kernel 2"; strings.Join(got, "; ") != want {
			t.Errorf("%q, want %s", got, want)
		}
	})
}
