// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"net/netip"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// by says which policy the rules are of.
func by(policy string, rules ...model.AuthRule) []model.AuthRule {
	for i := range rules {
		rules[i].Src = []model.Source{{Kind: "AuthorizationPolicy", Name: policy}}
	}
	return rules
}

// TestEqualRulesOfTwoPolicies: one rule, which has one id, is written in policies of two
// namespaces, and in two of one namespace for different pods. Each pod's leads back to
// its own.
func TestEqualRulesOfTwoPolicies(t *testing.T) {
	api := &model.Workload{Namespace: "api", Name: "a", Node: "n1", Addresses: []netip.Addr{addr("10.244.1.7")}}
	atPort := from("client")
	atPort.To = []model.Operation{{Ports: []uint16{8080}, Paths: []model.StringMatch{{Kind: model.Prefix, Value: "/api"}}}}
	both := func(policy string) []model.AuthRule { return by(policy, from("client"), atPort) }
	p := store(append(world(), input{"workload", "api/a", api},
		allow("api/p", model.Target{Namespace: "api"}, both("a")...),
		allow("shop/p", model.Target{Namespace: "shop", Labels: map[string]string{"v": "1"}}, both("one")...),
		allow("shop/q", model.Target{Namespace: "shop", Labels: map[string]string{"v": "2"}}, both("two")...))...)
	sources := func(rule model.AuthRule, workloads ...string) string {
		var out string
		for _, s := range plan.RuleSources(p, plan.RuleName(rule), workloads...) {
			out += s.Name + " "
		}
		return out
	}
	// The same rule as it stands in the policy of a port that is taken for HTTP.
	resolved := atPort
	resolved.To = []model.Operation{{Paths: atPort.To[0].Paths}}
	for name, rule := range map[string]model.AuthRule{"of all ports": from("client"), "of a port": atPort, "at the port": resolved} {
		want := map[string]string{"api/a": "a ", "shop/web-1": "one ", "shop/web-2": "two "}
		if name == "at the port" {
			delete(want, "api/a") // nobody takes its port for HTTP
		}
		for w, want := range want {
			if got := sources(rule, w); got != want {
				t.Errorf("rule %s, for %s: of %q, want %q", name, w, got, want)
			}
		}
		if got := sources(rule, "shop/web-2", "shop/web-1", "shop/web-2"); got != "one two " {
			t.Errorf("rule %s, for both: of %q", name, got)
		}
		// Of a destination that is not known, or that the rule does not govern, any is told.
		for _, w := range [][]string{nil, {"shop/none"}, {"shop/client"}} {
			if got := sources(rule, w...); got != "a " && got != "one " && got != "two " {
				t.Errorf("rule %s, for %v: of %q", name, w, got)
			}
		}
	}
	if got := sources(from("nobody"), "api/a"); got != "" {
		t.Errorf("a rule that nobody wrote is of %q", got)
	}
}
