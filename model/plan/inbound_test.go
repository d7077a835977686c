// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// inboundAt is what a plane says of port 8080 of a pod.
func inboundAt(plane, pod string, in model.Inbound) input {
	in.Namespace, in.Workload, in.Port = "shop", pod, 8080
	in.Src = []model.Source{{Plane: plane, Kind: "Server", Name: pod}}
	return input{incr.Table("inbound/" + plane), in.Key(), &in}
}

func limit(total uint32) model.Inbound {
	return model.Inbound{RateLimit: &model.RateLimit{Total: total}}
}

func path(p string) model.RouteMatch {
	return model.RouteMatch{Path: &model.StringMatch{Kind: model.Prefix, Value: p}}
}

// inboundTable is the route table of port 8080 of a pod.
func inboundTable(t *testing.T, s *incr.Store, pod string) *plan.RouteTable {
	t.Helper()
	rt, ok := s.Get(plan.RouteTables, "in|shop/"+pod+":8080").(*plan.RouteTable)
	if !ok {
		t.Fatalf("no route table of %s", pod)
	}
	return rt
}

func TestInboundLimit(t *testing.T) {
	s := store(append(world(), inboundAt("red", "web-1", limit(7)))...)
	check(t, actions(s), "any 0 allow", "any 8080TCP inbound", "any 8080UDP allow")

	rt := inboundTable(t, s, "web-1")
	if rt.Limit == nil || rt.Limit.Total != 7 || len(rt.Limit.Clients) != 0 || rt.Limit.Others != 0 {
		t.Errorf("limit = %s", model.Bytes(rt.Limit))
	}
	if len(rt.Routes) != 1 || !rt.Routes[0].Original || !rt.Routes[0].Checked || rt.Routes[0].Policy != nil {
		t.Errorf("routes = %s", model.Bytes(rt.Routes))
	}
	if p := s.Get(plan.Pods, "10.244.1.2").(*plan.Pod); p.Set == 0 {
		t.Error("the kernel does not judge what comes to the pod")
	}
	if s.Len(plan.Diagnostics) != 0 {
		t.Errorf("diagnostics: %v", s.Rows(plan.Diagnostics))
	}

	s.Delete("inbound/red", "shop/web-1:8080")
	s.Run()
	if d := diff(dump(store(world()...)), dump(s)); d != "" {
		t.Errorf("without it (-from scratch +after removal):\n%s", d)
	}
}

// What has to pass the inbound listener is not judged by the clients' proxies, on
// whatever node, and does not say so.
func TestInboundIsNotJudgedAtTheSource(t *testing.T) {
	for _, pod := range []string{"web-1", "web-2"} {
		rows := append(world(), allow("a", model.Target{Namespace: "shop"}, from("client")), inboundAt("red", pod, limit(7)))
		s := store(rows...)
		var got []string
		for _, r := range s.Rows(plan.Clusters) {
			c := r.Value.(*plan.Cluster)
			e := s.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints)
			got = append(got, fmt.Sprintf("%v checked=%v inbound=%v policy=%v", e.Backends[0].Addrs, c.Checked, c.Inbound, c.Policy != nil))
		}
		slices.Sort(got)
		free := map[string]bool{"web-1": pod == "web-1", "web-2": pod == "web-2"}
		check(t, got,
			fmt.Sprintf("[10.244.1.2:8080] checked=%v inbound=%v policy=%v", !free["web-1"], free["web-1"], !free["web-1"]),
			fmt.Sprintf("[10.244.2.2:8080] checked=%v inbound=%v policy=%v", !free["web-2"], free["web-2"], !free["web-2"]))
		if rt := s.Get(plan.RouteTables, "in|shop/web-2:8080"); rt != nil {
			t.Error("a remote pod has an inbound table")
		}
	}
}

// Copies pass the inbound listener, too.
func TestInboundOfMirrors(t *testing.T) {
	web := model.Backend{Namespace: "shop", Service: "web", Port: 80, Weight: 1}
	f := &model.Frontend{Namespace: "shop", Service: "other", Port: 80, Routes: []model.Route{{Direct: &model.Direct{Status: 200}}, {
		Backends: []model.Backend{{Namespace: "shop", Service: "other", Port: 80, Weight: 1}},
		Mirrors:  []model.Mirror{{Backend: web, PerMillion: 1_000_000}}}}}
	rows := append(world(), service("other", "10.96.0.2", 80, model.AppHTTP), input{"route/red", f.Key(), f},
		inboundAt("red", "web-1", limit(7)), inboundAt("red", "web-2", limit(7)))
	s := store(rows...)
	route := s.Get(plan.RouteTables, "shop/other:80").(*plan.RouteTable).Routes[1]
	if len(route.Mirrors) != 1 {
		t.Fatalf("mirrors %+v", route.Mirrors)
	}
	if c := s.Get(plan.Clusters, route.Mirrors[0].Cluster).(*plan.Cluster); !c.Inbound || c.Checked {
		t.Errorf("copies go to %s", model.Bytes(c))
	}
}

// A node without Fairlead has no inbound listener: what can be is judged at the source.
func TestInboundOfUnmanagedNode(t *testing.T) {
	rows := append(world(), allow("a", model.Target{Namespace: "shop", Workload: "web-2"}, from("client")), inboundAt("red", "web-2", limit(7)))
	rows[1] = input{"node", "n2", &model.Node{Name: "n2", Addresses: []netip.Addr{addr("10.240.0.2")}}}
	s := store(rows...)
	for _, r := range s.Rows(plan.Clusters) {
		c := r.Value.(*plan.Cluster)
		to := s.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints).Backends[0].Addrs[0].Addr()
		if to == addr("10.244.2.2") && (c.Policy == nil || c.Inbound) {
			t.Errorf("%s: %s", to, model.Bytes(c))
		}
	}
}

// A proxy that judges for a node without Fairlead does not know the routes there: who may
// take none of them is not let in.
func TestInboundRoutesOfUnmanagedNode(t *testing.T) {
	routes := model.Inbound{Routes: []model.InboundRoute{
		{Match: path("/a"), Allow: []model.AuthRule{from("client")}}, {Match: path("/b"), Allow: []model.AuthRule{from("other")}}}}
	rows := append(world(), allow("a", model.Target{Namespace: "shop", Workload: "web-2"}, model.AuthRule{}), inboundAt("red", "web-2", routes))
	rows[1] = input{"node", "n2", &model.Node{Name: "n2", Addresses: []netip.Addr{addr("10.240.0.2")}}}
	s := store(rows...)
	found := false
	for _, r := range s.Rows(plan.Clusters) {
		c := r.Value.(*plan.Cluster)
		if s.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints).Backends[0].Addrs[0].Addr() != addr("10.244.2.2") {
			continue
		}
		found = true
		for _, who := range []string{"client", "other", "third"} {
			if d := c.Policy.Judge(&plan.Request{Path: "/a", Client: plan.Client{Identity: from(who).From[0].Identities[0].Value}}); d.Denied != (who == "third") {
				t.Errorf("%s: %s denied: %v", c.Name, who, d.Denied)
			}
		}
	}
	if !found {
		t.Error("there is no cluster")
	}
}

// Another node's proxy may send requests for a port to the inbound listener before this
// node knows that it is read: there is a way on for them.
func TestOpaquePortsHaveInboundTables(t *testing.T) {
	rows := world()
	rows[5] = service("web", "10.96.0.1", 80, model.AppUndeclared)
	s := store(rows...)
	if rt := inboundTable(t, s, "web-1"); len(rt.Routes) != 1 || rt.Routes[0].App != model.AppDetect || !rt.Routes[0].Original {
		t.Errorf("routes = %s", model.Bytes(rt.Routes))
	}
	if s.Get(plan.Listeners, plan.InboundListener) == nil {
		t.Error("there is no inbound listener")
	}
}

func TestInboundRoutes(t *testing.T) {
	s := store(append(world(),
		allow("a", model.Target{Namespace: "shop", Workload: "web-1"}, from("client"), from("other")),
		input{"authz/blue", "d", &model.Authorization{Deny: true, Target: model.Target{Namespace: "shop"}, Rules: []model.AuthRule{from("evil")}}},
		inboundAt("red", "web-1", model.Inbound{Routes: []model.InboundRoute{
			{Match: path("/a"), Allow: []model.AuthRule{from("client")}, Src: []model.Source{{Name: "first"}}},
			{Match: path("/b"), Allow: []model.AuthRule{{}}, RequestHeaders: model.HeaderEdit{Remove: []string{"x"}}},
			{Match: path("/c"), Src: []model.Source{{Name: "nobody"}}},
			{Match: path("/d"), Allow: []model.AuthRule{{}}, Redirect: &model.Redirect{Status: 301, Path: "/a"}},
		}}),
		pod("evil", "n2", "10.244.2.3", "evil", nil))...)

	rt := inboundTable(t, s, "web-1")
	var got []string
	for _, r := range rt.Routes {
		p := r.Policy
		groups := []int{}
		for _, g := range p.Allow {
			groups = append(groups, len(g))
		}
		got = append(got, fmt.Sprintf("%s original=%v redirect=%v edits=%v deny=%d allow=%v known=%d", r.Match.Path.Value, r.Original && r.Checked,
			r.Redirect != nil, !r.RequestHeaders.IsZero(), len(p.Deny), groups, len(p.Known)))
	}
	check(t, got,
		"/a original=true redirect=false edits=false deny=1 allow=[2 1] known=2",
		"/b original=true redirect=false edits=true deny=1 allow=[2] known=2",
		"/c original=true redirect=false edits=false deny=1 allow=[2 0] known=2",
		"/d original=false redirect=true edits=false deny=1 allow=[2] known=2")

	// Who is refused on whichever route does not get in, even if the listener errs.
	check(t, slices.DeleteFunc(actions(s), func(a string) bool { return a[len(a)-5:] == "allow" }),
		"any 0 deny", "any 8080TCP refuse", "any 8080UDP deny", "client 8080TCP inbound", "evil 0 deny")

	for i, want := range []string{"first", "", "nobody", ""} {
		o := s.Get(plan.Origins, rt.Routes[i].ID).(*plan.Origin)
		name := ""
		if len(o.Sources) > 0 {
			name = o.Sources[0].Name
		}
		if name != want {
			t.Errorf("route %d came from %q, want %q", i, name, want)
		}
	}
	for _, rule := range rt.Routes[0].Policy.Allow[0] {
		if s.Get(plan.Origins, plan.RuleName(rule)) == nil {
			t.Errorf("rule %s of a route has no origin", plan.RuleName(rule))
		}
	}
}

func TestInboundApp(t *testing.T) {
	for _, c := range []struct {
		service, inbound model.App
		want             string
	}{
		{model.AppHTTP, model.AppUndeclared, "inbound"},
		{model.AppHTTP, model.AppTCP, ""}, // an opaque port is not read, so there is nothing to count
		{model.AppUndeclared, model.AppUndeclared, ""},
		{model.AppUndeclared, model.AppGRPC, "inbound"},
		{model.AppTCP, model.AppHTTP, "inbound"},
		{model.AppTCP, model.AppDetect, "inbound"},
	} {
		rows := world()
		rows[5] = service("web", "10.96.0.1", 80, c.service)
		in := limit(1)
		in.App = c.inbound
		s := store(append(rows, inboundAt("red", "web-1", in))...)
		got := ""
		for _, a := range actions(s) {
			if a == "any 8080TCP inbound" {
				got = "inbound"
			}
		}
		if got != c.want {
			t.Errorf("service %q, inbound %q: %q, want %q", c.service, c.inbound, got, c.want)
		}
		if got == "" {
			continue
		}
		app := c.inbound
		if app == model.AppUndeclared {
			app = c.service
		}
		if r := inboundTable(t, s, "web-1").Routes[0]; r.App != app {
			t.Errorf("service %q, inbound %q: spoken to in %q", c.service, c.inbound, r.App)
		}
		if said := s.Len(plan.Diagnostics) > 0; said != (app == model.AppDetect) {
			t.Errorf("service %q, inbound %q: diagnostics %v", c.service, c.inbound, s.Rows(plan.Diagnostics))
		}
	}
}

func TestInboundOfTwoPlanes(t *testing.T) {
	id := func(sa string) string { return model.SPIFFE("cluster.local", "shop", sa) }
	override := func(n uint32, sa ...string) model.RateLimitOverride {
		for i := range sa {
			sa[i] = id(sa[i])
		}
		return model.RateLimitOverride{Identities: sa, PerSecond: n}
	}
	one := model.Inbound{Routes: []model.InboundRoute{{Match: path("/one")}}, RateLimit: &model.RateLimit{
		Total: 100, PerIdentity: 10, Overrides: []model.RateLimitOverride{override(30, "web"), override(1, "web")}}}
	other := model.Inbound{Routes: []model.InboundRoute{{Match: path("/other")}}, RateLimit: &model.RateLimit{
		Total: 50, Overrides: []model.RateLimitOverride{override(5, "client", "web")}}}
	s := store(append(world(), inboundAt("red", "web-1", one), inboundAt("blue", "web-1", other))...)

	rt := inboundTable(t, s, "web-1")
	if len(rt.Routes) != 1 || rt.Routes[0].Match.Path.Value != "/one" {
		t.Errorf("routes = %s", model.Bytes(rt.Routes))
	}
	ds, _ := s.Get(plan.Diagnostics, "shop/web-1").([]model.Diagnostic)
	if len(ds) != 1 || ds[0].Code != "inbound-routes-of-two-planes" || ds[0].Source.Plane != "blue" || !ds[0].IsError() {
		t.Errorf("diagnostics = %+v", ds)
	}
	l := rt.Limit
	got := []string{fmt.Sprint("total ", l.Total), fmt.Sprint("others ", l.Others)}
	for _, c := range l.Clients {
		got = append(got, fmt.Sprintf("%s %d %v", c.Identity, c.PerSecond, c.Addresses))
	}
	check(t, got, "total 50", "others 10",
		id("client")+" 5 [10.244.1.1]", id("web")+" 5 [10.244.1.2 10.244.2.2]")
}

// Whose an address is matters only to limits of identities, and of overrides only for
// those that they name: other pods come and go without a change of the table.
func TestInboundLimitKnowsWhomItNames(t *testing.T) {
	id := model.SPIFFE("cluster.local", "shop", "client")
	for name, c := range map[string]struct {
		limit model.RateLimit
		want  int
	}{
		"total":     {model.RateLimit{Total: 1}, 0},
		"override":  {model.RateLimit{Overrides: []model.RateLimitOverride{{Identities: []string{id}, PerSecond: 1}}}, 1},
		"exemption": {model.RateLimit{PerIdentity: 1, Overrides: []model.RateLimitOverride{{Identities: []string{id}}}}, 2},
		"identity":  {model.RateLimit{PerIdentity: 1}, 2},
	} {
		s := store(append(world(), inboundAt("red", "web-1", model.Inbound{RateLimit: &c.limit}))...)
		got := inboundTable(t, s, "web-1").Limit
		if len(got.Clients) != c.want {
			t.Errorf("%s: %s, want %d clients", name, model.Bytes(got), c.want)
		}
		if name == "exemption" && (got.Clients[0].Identity != id || got.Clients[0].PerSecond != 0) {
			t.Errorf("%s: %s, want no limit for the client", name, model.Bytes(got))
		}
	}
}
