// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
)

var planes = []string{"red", "blue"}

// input is one row of the model.
type input struct {
	table incr.Table
	key   string
	value any
}

func store(rows ...input) *incr.Store {
	s := incr.New()
	merge.Register(s, planes)
	plan.Register(s, "n1", planes)
	for _, r := range rows {
		s.Set(r.table, r.key, r.value)
	}
	s.Run()
	return s
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func node(name, ip string) input {
	return input{"node", name, &model.Node{Name: name, Addresses: []netip.Addr{addr(ip)}, Managed: true}}
}

func pod(name, node, ip, sa string, labels map[string]string) input {
	return input{"workload", "shop/" + name, &model.Workload{Namespace: "shop", Name: name, Node: node,
		Addresses: []netip.Addr{addr(ip)}, Identity: model.SPIFFE("cluster.local", "shop", sa), Capture: true, Labels: labels}}
}

func service(name, vip string, port uint16, app model.App) input {
	return input{"service", "shop/" + name, &model.Service{Namespace: "shop", Name: name, VIPs: []netip.Addr{addr(vip)},
		Ports: []model.ServicePort{{Port: port, Protocol: model.TCP, App: app}}}}
}

func endpoints(name string, port, target uint16, ips ...string) input {
	p := model.EndpointsPort{Port: port, Protocol: model.TCP}
	for _, ip := range ips {
		p.Backends = append(p.Backends, model.Endpoint{Addr: addr(ip), Port: target})
	}
	return input{"endpoints", "shop/" + name, &model.Endpoints{Namespace: "shop", Service: name, Ports: []model.EndpointsPort{p}}}
}

func allow(key string, target model.Target, rules ...model.AuthRule) input {
	return input{"authz/red", key, &model.Authorization{Target: target, Rules: rules}}
}

func from(sa string) model.AuthRule {
	return model.AuthRule{From: []model.Peer{{Identities: []model.StringMatch{{Kind: model.Exact, Value: model.SPIFFE("cluster.local", "shop", sa)}}}}}
}

func world() []input {
	return []input{
		node("n1", "10.240.0.1"), node("n2", "10.240.0.2"),
		pod("client", "n1", "10.244.1.1", "client", nil),
		pod("web-1", "n1", "10.244.1.2", "web", map[string]string{"app": "web", "v": "1"}),
		pod("web-2", "n2", "10.244.2.2", "web", map[string]string{"app": "web", "v": "2"}),
		service("web", "10.96.0.1", 80, model.AppHTTP),
		endpoints("web", 80, 8080, "10.244.1.2", "10.244.2.2"),
	}
}

// dump prints the plan, a row a line.
func dump(s *incr.Store) []string {
	var out []string
	for _, t := range append(plan.Tables(), plan.Origins, plan.Diagnostics) {
		for _, r := range s.Rows(t) {
			out = append(out, fmt.Sprintf("%s %s %s", t, r.Key, model.Bytes(r.Value)))
		}
	}
	for _, r := range s.Rows(plan.Governance) {
		out = append(out, fmt.Sprintf("%s %s %s", plan.Governance, r.Key, model.Bytes(r.Value.(*plan.Governed).Sources)))
	}
	return out
}

// actions prints the verdicts of all policy sets as "class port/proto action"; an account
// of workloads outside any mesh has "/outside" behind it.
func actions(s *incr.Store) []string {
	names := map[uint64]string{}
	for _, r := range s.Rows(plan.Classes) {
		c := r.Value.(*plan.Class)
		n := c.Identity[strings.LastIndex(c.Identity, "/")+1:]
		if c.Identity != "" && !c.Member {
			n += "/outside"
		}
		for _, p := range c.Prefixes {
			n += "@" + p.String()
		}
		names[c.ID] = n
	}
	var out []string
	for _, r := range s.Rows(plan.Verdicts) {
		v := r.Value.(*plan.Verdict)
		n := names[v.Class]
		if v.Any {
			n = "any"
		}
		out = append(out, fmt.Sprintf("%s %d%s %s", n, v.Port, v.Proto, v.Action))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestUngovernedPodsHaveNoSet(t *testing.T) {
	s := store(world()...)
	if n := s.Len(plan.Verdicts); n != 0 {
		t.Errorf("%d verdicts", n)
	}
	p := s.Get(plan.Pods, "10.244.1.2").(*plan.Pod)
	if p.Set != 0 || p.Listeners[plan.HTTP] == "" {
		t.Errorf("pod = %+v", p)
	}
	if s.Get(plan.Pods, "10.244.2.2") != nil {
		t.Error("a remote pod is in the local table")
	}
	rt := s.Get(plan.RouteTables, "shop/web:80").(*plan.RouteTable)
	if len(rt.Routes) != 1 || rt.Routes[0].Clusters[0].Name != "shop/web:80" {
		t.Errorf("routes = %+v", rt.Routes)
	}
}

func TestVerdictsOfAnIdentityRule(t *testing.T) {
	s := store(append(world(), allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}, from("client")))...)
	check(t, actions(s),
		"any 0 deny", "any 8080TCP refuse", "any 8080UDP deny",
		"client 0 allow", "client 8080TCP allow", "client 8080UDP allow")
}

func TestVerdictsOfARequestRule(t *testing.T) {
	rule := from("client")
	rule.To = []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/ok"}}}}
	s := store(append(world(), allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}, rule))...)
	// Off the HTTP port nobody sees a path, so the rule allows nothing there.
	check(t, actions(s), "any 0 deny", "any 8080TCP refuse", "any 8080UDP deny", "client 8080TCP check")
}

func TestDenyOfARequestCoversTheWholeOpaquePort(t *testing.T) {
	rule := model.AuthRule{To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Prefix, Value: "/admin"}}}}}
	s := store(append(world(), input{"authz/red", "d", &model.Authorization{Deny: true, Target: model.Target{Namespace: "shop"}, Rules: []model.AuthRule{rule}}})...)
	for _, a := range actions(s) {
		if strings.HasSuffix(a, " allow") {
			t.Errorf("an opaque port stays open: %s", a)
		}
	}
}

func TestPrefixesMakeClasses(t *testing.T) {
	rule := model.AuthRule{From: []model.Peer{{IPs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("192.0.2.0/24")}}}}
	s := store(append(world(), allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}, rule))...)
	got := actions(s)
	for _, want := range []string{"@192.0.2.0/24 8080TCP allow", "client@10.244.1.0/24 8080TCP allow", "@10.244.1.0/24 8080TCP allow"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if slices.Contains(got, "web 8080TCP allow") {
		t.Error("a pod outside the prefix is let in")
	}
}

// A pod that has started before its address is known here must not pass for a
// stranger whom no rule names.
func TestUnknownPodsAreNotLetIn(t *testing.T) {
	n := node("n2", "10.240.0.2")
	n.value.(*model.Node).PodRanges = []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}
	deny := input{"authz/red", "d", &model.Authorization{Deny: true, Target: model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}},
		Rules: []model.AuthRule{from("other")}}}
	s := store(append(world(), n, deny)...)
	p, _ := s.Get(plan.Prefixes, "10.244.2.0/24").(*plan.Prefix)
	if p == nil || !p.Unassigned {
		t.Fatalf("the pod range has no class of its own: %+v", p)
	}
	for _, r := range s.Rows(plan.Verdicts) {
		v := r.Value.(*plan.Verdict)
		if v.Any && v.Action != plan.Allow {
			t.Errorf("a stranger from outside is refused: %+v", v)
		}
		if !v.Any && v.Class == p.Class && v.Action != plan.Deny {
			t.Errorf("an unknown pod is let in: %+v", v)
		}
	}
	if !slices.Contains(actions(s), " 8080TCP deny") {
		t.Errorf("verdicts = %q", actions(s))
	}
}

// Where the node has an address among those of its pods, as a gateway for them, what comes
// from there is the node's, under what policy says of that address.
func TestHostAddressesAreTheNodes(t *testing.T) {
	n := node("n1", "10.240.0.1")
	n.value.(*model.Node).PodRanges = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	s := store(append(world(), n)...)
	if got := s.Get(plan.Addresses, "10.244.1.254"); got != nil {
		t.Fatalf("before it was said: %+v", got)
	}
	s.Set(plan.HostAddresses, "10.244.1.254", addr("10.244.1.254"))
	s.Run()
	a, _ := s.Get(plan.Addresses, "10.244.1.254").(*plan.Address)
	if a == nil || !a.Node || a.Managed || a.Class != 0 {
		t.Errorf("got %+v, want an address of a node without a class", a)
	}
	s.Set("authz/red", "d", &model.Authorization{Deny: true, Target: model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}},
		Rules: []model.AuthRule{{From: []model.Peer{{IPs: prefixes("10.244.1.0/24")}}}}})
	s.Run()
	a, _ = s.Get(plan.Addresses, "10.244.1.254").(*plan.Address)
	if a == nil || !a.Node || a.Class == 0 {
		t.Errorf("got %+v, want the class of a prefix that policy names", a)
	}
	s.Delete(plan.HostAddresses, "10.244.1.254")
	s.Run()
	if got := s.Get(plan.Addresses, "10.244.1.254"); got != nil {
		t.Errorf("it went and stays: %+v", got)
	}
}

func TestEveryGoverningPlaneMustAllow(t *testing.T) {
	rows := append(world(), allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}, from("client")))
	blue := func(rules ...model.AuthRule) input {
		return input{"authz/blue", "q", &model.Authorization{Target: model.Target{Namespace: "shop", ServiceAccount: "web"}, Rules: rules}}
	}
	one := dump(store(rows...))
	check(t, dump(store(append(rows, blue(from("client")))...)), one...) // the same demand twice is one
	s := store(append(rows, blue(from("other")))...)
	check(t, actions(s), "any 0 deny", "any 8080TCP refuse", "any 8080UDP deny")
}

func TestDefaultDenyOfANamespace(t *testing.T) {
	ns := input{"namespace", "shop", &model.Namespace{Name: "shop", DefaultDeny: []string{"blue"}}}
	s := store(append(world(), ns)...)
	check(t, actions(s), "any 0 deny", "any 8080TCP refuse", "any 8080UDP deny")
}

func TestEndpointsOfDifferentPoliciesBecomeClusters(t *testing.T) {
	rule := from("client")
	rule.To = []model.Operation{{Methods: []model.StringMatch{{Kind: model.Exact, Value: "GET"}}}}
	s := store(append(world(), pod("web-3", "n2", "10.244.2.3", "web", map[string]string{"v": "2"}),
		endpoints("web", 80, 8080, "10.244.1.2", "10.244.2.2", "10.244.2.3"),
		allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"v": "1"}}, rule))...)
	cs := s.Get(plan.RouteTables, "shop/web:80").(*plan.RouteTable).Routes[0].Clusters
	if len(cs) != 2 {
		t.Fatalf("clusters = %+v", cs)
	}
	for _, c := range cs {
		cl := s.Get(plan.Clusters, c.Name).(*plan.Cluster)
		n := len(s.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints).Backends)
		if guarded := cl.Policy != nil; (guarded && n != 1) || (!guarded && n != 2) || int(c.Weight) != n || !cl.Checked {
			t.Errorf("cluster %+v: weight %d, %d backends", cl, c.Weight, n)
		}
	}
}

func TestMirrorToAGuardedServiceIsNotChecked(t *testing.T) {
	f := &model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{
		Backends: []model.Backend{{Namespace: "shop", Service: "web", Port: 80, Weight: 1}},
		Mirrors:  []model.Mirror{{PerMillion: 1e6, Backend: model.Backend{Namespace: "shop", Service: "web", Port: 80}}}}}}
	rows := append(world(), input{"route/red", f.Key(), f})
	m := store(rows...).Get(plan.RouteTables, f.Key()).(*plan.RouteTable).Routes[0].Mirrors
	if len(m) != 1 || m[0].Cluster != "shop/web:80" {
		t.Errorf("open target: %+v", m)
	}
	s := store(append(rows, allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}, from("client")))...)
	m = s.Get(plan.RouteTables, f.Key()).(*plan.RouteTable).Routes[0].Mirrors
	if len(m) != 1 || s.Get(plan.Clusters, m[0].Cluster).(*plan.Cluster).Checked {
		t.Errorf("guarded target: %+v", m)
	}
}

// Copies come from nobody: that is said where the target's policy asks who sends, and
// nowhere else.
func TestCopiesWithoutIdentity(t *testing.T) {
	f := &model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{
		Backends: []model.Backend{{Namespace: "shop", Service: "web", Port: 80, Weight: 1}},
		Mirrors:  []model.Mirror{{Src: []model.Source{{Kind: "Route", Name: "r"}}, PerMillion: 1e6, Backend: model.Backend{Namespace: "shop", Service: "web", Port: 80}}}}}}
	target := model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}
	byPath := model.AuthRule{To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/"}}}}}
	for _, c := range []struct {
		rules []model.AuthRule
		want  int
	}{{nil, 0}, {[]model.AuthRule{byPath}, 0}, {[]model.AuthRule{from("client")}, 1}} {
		rows := append(world(), input{"route/red", f.Key(), f})
		if c.rules != nil {
			rows = append(rows, allow("p", target, c.rules...))
		}
		n := 0
		for _, row := range store(rows...).Rows(plan.Diagnostics) {
			for _, d := range row.Value.([]model.Diagnostic) {
				if d.Code == "copies-without-identity" && d.Source.Name == "r" {
					n++
				}
			}
		}
		if n != c.want {
			t.Errorf("%d diagnostics with rules %s", n, model.Bytes(c.rules))
		}
	}
}

// Edits in any order end in the same plan as a computation from scratch, and taking
// everything away leaves nothing.
func TestEditsEqualScratch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rule := from("client")
	rule.To = []model.Operation{{Paths: []model.StringMatch{{Kind: model.Prefix, Value: "/api"}}}}
	cidr := model.AuthRule{From: []model.Peer{{NotIPs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}}}
	f := func(plane string, w uint32) input {
		fr := &model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{Timeout: time.Second,
			Match:    model.RouteMatch{SourceLabels: map[string]string{"v": "1"}},
			Backends: []model.Backend{{Namespace: "shop", Service: "web", Port: 80, Labels: map[string]string{"v": "1"}, Weight: w}}}}}
		return input{incr.Table("route/" + plane), fr.Key(), fr}
	}
	pool := append(world(), f("red", 1), f("blue", 2),
		allow("p", model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}, by("p", rule)...),
		allow("p", model.Target{Labels: map[string]string{"v": "2"}}, by("everywhere", cidr)...),
		allow("q", model.Target{Namespace: "shop"}, by("q", from("client"), cidr, rule)...),
		pod("web-2", "n1", "10.244.1.9", "web", map[string]string{"app": "web"}),
		pod("web-1", "n1", "10.244.1.2", "other", map[string]string{"app": "web", "v": "1"}),
		outsider("web-1", "n1", "10.244.1.2", "web"), remaining("client", "n1", "10.244.1.1", "client"), outsider("client", "n1", "10.244.1.1", "client"), strict(),
		endpoints("web", 80, 8080, "10.244.1.9"), service("web", "10.96.0.1", 80, model.AppTCP),
		input{"namespace", "shop", &model.Namespace{Name: "shop", Owner: "blue"}},
		input{"namespace", "shop", &model.Namespace{Name: "shop", DefaultDeny: []string{"red"}}})
	pool = append(append(pool, moreRows()...), policyRows()...)
	pool = append(pool, declaredRows()...)
	s := store()
	now := map[string]input{}
	seen := map[string]bool{}
	for i := range 2000 {
		in := pool[rng.IntN(len(pool))]
		id := string(in.table) + in.key
		if _, ok := now[id]; ok && rng.IntN(3) == 0 {
			delete(now, id)
			s.Delete(in.table, in.key)
		} else {
			now[id] = in
			s.Set(in.table, in.key, in.value)
		}
		if rng.IntN(3) > 0 {
			continue
		}
		s.Run()
		var rows []input
		for _, r := range now {
			rows = append(rows, r)
		}
		if d := diff(dump(store(rows...)), dump(s)); d != "" {
			t.Fatalf("after %d edits (-scratch +edited):\n%s", i, d)
		}
		if c := s.Run(); len(c) != 0 {
			t.Fatalf("an idle run changed %d rows", len(c))
		}
		for _, r := range s.Rows(plan.Services) {
			seen[string(r.Value.(*plan.Service).Mode)] = true
			seen["direct"] = seen["direct"] || r.Value.(*plan.Service).Direct
		}
		for _, r := range s.Rows(plan.Clusters) {
			if parts := strings.Split(r.Key, "|"); parts[0] == "tcp" {
				seen["class"] = seen["class"] || parts[1] != ""
			}
		}
		for _, r := range s.Rows(plan.Diagnostics) {
			for _, d := range r.Value.([]model.Diagnostic) {
				seen[d.Code] = true
			}
		}
		for _, r := range s.Rows(plan.Listeners) {
			seen["times"] = seen["times"] || len(r.Value.(*plan.Listener).Times) > 0
			seen["tunnels"] = seen["tunnels"] || len(r.Value.(*plan.Listener).Tunnels) > 0
		}
	}
	for _, what := range []string{"kernel", "http", "tls", "opaque", "any", "detect", "detect2", "detect3", "direct", "shared-endpoint", "host-twice", "too-many-timeouts", "server-name", "class",
		"any-detect", "any-opaque", "shared-address", "shared-port", "tunnels"} {
		if !seen[what] {
			t.Errorf("the edits never came to %s", what)
		}
	}
	for _, in := range now {
		s.Delete(in.table, in.key)
	}
	s.Run()
	if left := dump(s); len(left) != 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// Who is exempt from a plane's permissions passes these, where the plane governs, and no
// other plane's; and what is denied stays denied.
func TestExemptFromAPlane(t *testing.T) {
	runner := []model.Peer{{Identities: []model.StringMatch{{Kind: model.Prefix, Value: "spiffe://cluster.local/ns/tools/sa/"}}},
		{IPs: []netip.Prefix{netip.MustParsePrefix("10.244.1.1/32")}}}
	ns := func(deny ...string) input {
		return input{"namespace", "shop", &model.Namespace{Name: "shop", DefaultDeny: deny,
			Exempt: []model.Exemption{{Plane: "blue", From: runner, Src: []model.Source{{Kind: "Namespace", Name: "shop", Field: "exempt"}}}}}}
	}
	tool := pod("runner", "n1", "10.244.1.9", "runner", nil)
	tool.value.(*model.Workload).Namespace, tool.key = "tools", "tools/runner"
	tool.value.(*model.Workload).Identity = model.SPIFFE("cluster.local", "tools", "runner")
	rows := append(world(), tool)
	blue := input{"authz/blue", "q", &model.Authorization{Target: model.Target{Namespace: "shop", ServiceAccount: "web"}}}
	lets := []string{"@10.244.1.1/32 0 allow", "@10.244.1.1/32 8080TCP allow", "@10.244.1.1/32 8080UDP allow",
		"any 0 deny", "any 8080TCP refuse", "any 8080UDP deny",
		"client@10.244.1.1/32 0 allow", "client@10.244.1.1/32 8080TCP allow", "client@10.244.1.1/32 8080UDP allow",
		"runner 0 allow", "runner 8080TCP allow", "runner 8080UDP allow"}
	for name, c := range map[string]struct {
		rows []input
		want []string
	}{
		"nobody governs": {[]input{ns()}, nil},
		"default":        {[]input{ns("blue")}, lets},
		"a policy":       {[]input{ns(), blue}, lets},
		"another plane":  {[]input{ns("red"), blue}, lets[3:6]},
	} {
		t.Run(name, func(t *testing.T) { check(t, actions(store(append(slices.Clone(rows), c.rows...)...)), c.want...) })
	}
	s := store(append(slices.Clone(rows), ns("blue"))...)
	g := s.Get(plan.Governance, "shop/web-1").(*plan.Governed)
	if len(g.Allow) != 1 || len(g.Allow[0]) != 1 || len(g.Sources[plan.RuleName(g.Allow[0][0])]) != 1 {
		t.Errorf("allowed: %+v by %v", g.Allow, g.Sources)
	}
}
