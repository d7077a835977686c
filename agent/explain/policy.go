// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Policy is what a request must pass: none of Deny matches, and of each group in Allow
// at least one rule does.
type Policy struct {
	Deny  []Rule   `json:"deny,omitempty"`
	Allow [][]Rule `json:"allow,omitempty"`
}

// Rule is a rule with what users wrote that it came from.
type Rule struct {
	ID string `json:"id"` // as in flows and in Envoy's RBAC
	model.AuthRule
	Sources []model.Source `json:"sources"`
}

// policy tells what guards the workloads.
func policy(t *view, p *plan.Policy, workloads []string) *Policy {
	if p == nil {
		return nil
	}
	return policyOf(t, p.Deny, p.Allow, workloads)
}

func policyOf(t *view, deny []model.AuthRule, allow [][]model.AuthRule, workloads []string) *Policy {
	if len(deny)+len(allow) == 0 {
		return nil
	}
	out := &Policy{Deny: rules(t, deny, workloads)}
	for _, g := range allow {
		out.Allow = append(out.Allow, rules(t, g, workloads))
	}
	return out
}

// rules is never nil: a group without rules allows nothing.
func rules(t *view, in []model.AuthRule, workloads []string) []Rule {
	out := make([]Rule, len(in))
	for i, r := range in {
		id := plan.RuleName(r)
		out[i] = Rule{ID: id, AuthRule: r, Sources: plan.RuleSources(t, id, workloads...)}
	}
	return out
}

func (p *Policy) sources() []model.Source {
	if p == nil {
		return nil
	}
	var out []model.Source
	for _, g := range append([][]Rule{p.Deny}, p.Allow...) {
		for _, r := range g {
			out = append(out, r.Sources...)
		}
	}
	return out
}
