// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"net/netip"
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// outsider is a pod that no mesh has taken: it has an identity by its address alone.
func outsider(name, node, ip, sa string) input {
	in := pod(name, node, ip, sa, nil)
	in.value.(*model.Workload).Capture = false
	return in
}

// remaining is a pod that still has the sidecar of the mesh that it comes from.
func remaining(name, node, ip, sa string) input {
	in := outsider(name, node, ip, sa)
	in.value.(*model.Workload).Sidecar = true
	return in
}

var anybody = []model.StringMatch{{Kind: model.Present}}

// checkSorted is check for what is wanted in any order.
func checkSorted(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	check(t, got, want...)
}

// strict denies who is no member of the mesh.
func strict() input {
	return input{"authz/red", "strict", &model.Authorization{Deny: true, Target: web,
		Rules: []model.AuthRule{{From: []model.Peer{{NotIdentities: anybody}}}}}}
}

// mixed is a world with an account that a member and an outsider share.
func mixed(more ...input) []input {
	return append(append(world(), outsider("legacy", "n2", "10.244.2.3", "client"), outsider("other", "n2", "10.244.2.4", "legacy"),
		remaining("moving", "n2", "10.244.2.5", "moving")), more...)
}

func TestAnyIdentityIsThatOfAMember(t *testing.T) {
	allMembers := []string{"any 0 deny", "client 0 allow", "moving 0 allow", "web 0 allow",
		"any 8080TCP refuse", "client 8080TCP allow", "moving 8080TCP allow", "web 8080TCP allow",
		"any 8080UDP deny", "client 8080UDP allow", "moving 8080UDP allow", "web 8080UDP allow"}
	for name, in := range map[string]input{
		"denied without":  strict(),
		"allowed with":    allow("p", web, model.AuthRule{From: []model.Peer{{Identities: anybody}}}),
		"on a condition":  allow("p", web, model.AuthRule{When: []model.Condition{{Kind: model.OnIdentity, Values: anybody}}}),
		"among the named": allow("p", web, model.AuthRule{From: []model.Peer{{Identities: append([]model.StringMatch{{Kind: model.Exact, Value: "spiffe://nobody"}}, anybody...)}}}),
	} {
		t.Run(name, func(t *testing.T) { checkSorted(t, actions(store(mixed(in)...)), allMembers...) })
	}
}

// Denials of connections close them, whatever denies requests besides.
func TestDenialsOfConnectionsClose(t *testing.T) {
	closing := model.AuthRule{From: []model.Peer{{NotIdentities: anybody}}, Closes: true}
	for _, other := range []model.AuthRule{from("nobody"), {}} {
		in := input{"authz/red", "strict", &model.Authorization{Deny: true, Target: web, Rules: []model.AuthRule{other, closing}}}
		got := actions(store(mixed(in)...))
		if !slices.Contains(got, "any 8080TCP deny") {
			t.Errorf("%v", got)
		}
		if want := len(other.From) == 0; slices.Contains(got, "client 8080TCP refuse") != want {
			t.Errorf("%v", got)
		}
	}
}

// Who is named is known by the address, in a mesh or not.
func TestNamedIdentitiesAreBelievedOfOutsiders(t *testing.T) {
	checkSorted(t, actions(store(mixed(allow("p", web, from("client")))...)),
		"any 0 deny", "client/outside 0 allow", "client 0 allow",
		"any 8080TCP refuse", "client/outside 8080TCP allow", "client 8080TCP allow",
		"any 8080UDP deny", "client/outside 8080UDP allow", "client 8080UDP allow")
}

// The inbound listener tells them by their addresses.
func TestInboundPoliciesKnowMembers(t *testing.T) {
	rule := model.AuthRule{From: []model.Peer{{Identities: anybody}}, To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/a"}}}}}
	named := from("client")
	named.To = rule.To
	policy := func(rules ...model.AuthRule) *plan.Policy {
		s := store(mixed(allow("p", web, rules...))...)
		return s.Get(plan.RouteTables, s.Get(plan.Scopes, "in|10.244.1.2:8080").(*plan.Scope).RouteTable).(*plan.RouteTable).Routes[0].Policy
	}
	members := []netip.Addr{addr("10.244.1.1"), addr("10.244.1.2"), addr("10.244.2.2"), addr("10.244.2.5")}
	client := []plan.KnownIdentity{{Identity: model.SPIFFE("cluster.local", "shop", "client"), Addresses: []netip.Addr{addr("10.244.1.1"), addr("10.244.2.3")}}}
	for name, c := range map[string]struct{ got, want *plan.Policy }{
		"any":   {policy(rule), &plan.Policy{Members: members}},
		"named": {policy(named), &plan.Policy{Known: client}},
		"both":  {policy(rule, named), &plan.Policy{Known: client, Members: members}},
	} {
		c.want.Allow = c.got.Allow
		if model.Hash(c.got) != model.Hash(c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, model.Bytes(c.got), model.Bytes(c.want))
		}
	}
}

// The same rule, judged request by request.
func TestJudgeAsksForMembers(t *testing.T) {
	p := &plan.Policy{Deny: []model.AuthRule{{From: []model.Peer{{NotIdentities: anybody}}}}}
	id := model.SPIFFE("cluster.local", "shop", "client")
	for _, c := range []struct {
		client plan.Client
		denied bool
	}{{plan.Client{}, true}, {plan.Client{Identity: id}, true}, {plan.Client{Identity: id, Member: true}, false}} {
		if d := p.Judge(&plan.Request{Client: c.client}); d.Denied != c.denied {
			t.Errorf("%+v: %+v", c.client, d)
		}
	}
}

// A pod that is captured, or no longer, is another's equal at once.
func TestMembershipComesAndGoes(t *testing.T) {
	s := store(mixed(strict())...)
	class := func() *plan.Class {
		id := s.Get(plan.Addresses, "10.244.2.3").(*plan.Address).Class
		for _, r := range s.Rows(plan.Classes) {
			if c := r.Value.(*plan.Class); c.ID == id {
				return c
			}
		}
		return nil
	}
	if c := class(); c == nil || c.Member {
		t.Errorf("before: %+v", c)
	}
	in := pod("legacy", "n2", "10.244.2.3", "client", nil)
	s.Set(in.table, in.key, in.value)
	s.Run()
	if c := class(); c == nil || !c.Member {
		t.Errorf("captured: %+v", c)
	}
	in = outsider("legacy", "n2", "10.244.2.3", "client")
	s.Set(in.table, in.key, in.value)
	s.Run()
	check(t, dump(s), dump(store(mixed(strict())...))...)
}
