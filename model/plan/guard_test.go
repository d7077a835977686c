// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"net/netip"
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
)

var web = model.Target{Namespace: "shop", Labels: map[string]string{"app": "web"}}

// To the kernel 192.0.2.1 is ::ffff:192.0.2.1, inside ::/0. To everybody else it is not.
func TestIPv6PrefixesDoNotHoldForIPv4(t *testing.T) {
	for _, text := range []string{"::/0", "::/80"} {
		p := netip.MustParsePrefix(text)
		s := store(append(world(), allow("p", web, model.AuthRule{From: []model.Peer{{IPs: []netip.Prefix{p}}}}))...)
		all, _ := s.Get(plan.Prefixes, "0.0.0.0/0").(*plan.Prefix)
		if all == nil || all.Class != 0 {
			t.Errorf("%s: IPv4 has %+v", text, all)
		}
	}
	both := model.AuthRule{From: []model.Peer{{IPs: []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0")}}}}
	s := store(append(world(), allow("p", web, both))...)
	if all, _ := s.Get(plan.Prefixes, "0.0.0.0/0").(*plan.Prefix); all == nil || all.Class == 0 {
		t.Errorf("a prefix of all of IPv4 that a policy names has %+v", all)
	}
	s = store(append(world(), allow("p", web, model.AuthRule{From: []model.Peer{{IPs: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}}}}))...)
	if all := s.Get(plan.Prefixes, "0.0.0.0/0"); all != nil {
		t.Errorf("nothing needs %+v", all)
	}
}

// The endpoint is known before its pod is. Its node may guard it already, and must
// not believe that it was judged here.
func TestConnectionsToStrangersAreNotChecked(t *testing.T) {
	s := store(append(world(), endpoints("web", 80, 8080, "10.244.1.2", "10.244.2.77"))...)
	cs := s.Get(plan.RouteTables, "shop/web:80").(*plan.RouteTable).Routes[0].Clusters
	if len(cs) != 2 {
		t.Fatalf("clusters = %+v", cs)
	}
	for _, c := range cs {
		cl := s.Get(plan.Clusters, c.Name).(*plan.Cluster)
		at := s.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints).Backends[0].Addrs[0].Addr()
		if known := at == addr("10.244.1.2"); cl.Checked != known {
			t.Errorf("connections to %s: checked = %v", at, cl.Checked)
		}
	}
}

// A pod that is on its way out still answers what it has been asked.
func TestUnreadyPodsAreJudgedAsBefore(t *testing.T) {
	rule := from("client")
	rule.To = []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/ok"}}}}
	rows := append(world(), allow("p", web, rule))
	want := actions(store(rows...))
	leaving := endpoints("web", 80, 8080, "10.244.2.2")
	leaving.value.(*model.Endpoints).Ports[0].Unready = []model.Endpoint{{Addr: addr("10.244.1.2"), Port: 8080}}
	s := store(append(rows, leaving)...)
	check(t, actions(s), want...)
	if b := s.Get(plan.Services, "TCP/10.96.0.1:80").(*plan.Service).Backends; len(b) != 1 {
		t.Errorf("new connections go to %+v", b)
	}
}

// Connections that the inbound listener has taken go on when the policy that
// brought them there is gone.
func TestInboundScopesOutliveThePolicy(t *testing.T) {
	s := store(world()...)
	sc, _ := s.Get(plan.Scopes, "in|10.244.1.2:8080").(*plan.Scope)
	if sc == nil || s.Get(plan.Listeners, plan.InboundListener) == nil {
		t.Fatal("an unguarded HTTP port has no inbound scope")
	}
	if r := s.Get(plan.RouteTables, sc.RouteTable).(*plan.RouteTable).Routes[0]; r.Policy != nil || !r.Original {
		t.Errorf("route = %+v", r)
	}
	if s.Get(plan.Scopes, "in|10.244.2.2:8080") != nil {
		t.Error("a remote pod has an inbound scope")
	}
	if s := store(node("n1", "10.240.0.1"), pod("client", "n1", "10.244.1.1", "client", nil)); s.Get(plan.Listeners, plan.InboundListener) != nil {
		t.Error("a node without HTTP ports has an inbound listener")
	}
}

// A scope that changes while its table is loaded makes Envoy forget who waits for it.
func TestPolicyChangesNoScope(t *testing.T) {
	before := store(world()...)
	after := store(append(world(), allow("web", model.Target{Namespace: "shop"}))...)
	const key = "in|10.244.1.2:8080"
	was, is := before.Get(plan.Scopes, key).(*plan.Scope), after.Get(plan.Scopes, key).(*plan.Scope)
	if *was != *is {
		t.Errorf("scope was %+v, is %+v", *was, *is)
	}
	if p := after.Get(plan.RouteTables, is.RouteTable).(*plan.RouteTable).Routes[0].Policy; p == nil {
		t.Error("the table has no policy")
	}
}

// A default that cannot be had must not become "everybody may".
func TestDefaultDenyOfAnUnknownPlane(t *testing.T) {
	ns := input{"namespace", "shop", &model.Namespace{Name: "shop", DefaultDeny: []string{"green"}}}
	s := store(append(world(), ns)...)
	check(t, actions(s), "any 0 deny", "any 8080TCP refuse", "any 8080UDP deny")
	d, _ := s.Get(merge.Diagnostics, "shop").([]model.Diagnostic)
	if len(d) != 1 || d[0].Code != "unknown-default-deny" || !d[0].IsError() {
		t.Errorf("diagnostics = %+v", d)
	}
}

func TestUnknownOwnerIsSaidOfNamespacesWithoutRoutes(t *testing.T) {
	s := store(input{"namespace", "shop", &model.Namespace{Name: "shop", Owner: "green"}})
	d, _ := s.Get(merge.Diagnostics, "shop").([]model.Diagnostic)
	if !slices.ContainsFunc(d, func(d model.Diagnostic) bool { return d.Code == "unknown-owner" }) {
		t.Errorf("diagnostics = %+v", d)
	}
}

func TestPoliciesOfHostNetworkPodsAreSaidToBeVoid(t *testing.T) {
	p := pod("web-1", "n1", "10.240.0.1", "web", map[string]string{"app": "web"})
	p.value.(*model.Workload).HostNetwork = true
	s := store(append(world(), p, allow("p", web, from("client")))...)
	if d, _ := s.Get(plan.Diagnostics, "shop/web-1").([]model.Diagnostic); len(d) != 1 || d[0].Code != "host-network-unguarded" {
		t.Errorf("diagnostics = %+v", d)
	}
	if s.Get(plan.Governance, "shop/web-1") != nil || s.Get(plan.Pods, "10.240.0.1") != nil {
		t.Error("the node's address is guarded as the pod's")
	}
	if n := store(append(world(), p)...).Len(plan.Diagnostics); n != 0 {
		t.Errorf("%d diagnostics without policies", n)
	}
}
