// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strconv"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// dryRunAnnotation makes a policy report what it would do.
const dryRunAnnotation = "istio.io/dry-run"

// authorizationPolicy translates one policy. What is not known to hold does not
// allow, and is taken to hold where it denies.
func (t *Translator) authorizationPolicy(r translators.Reader, o *objects.Object) translators.Result {
	n := &notes{o: o}
	rows := t.authorization(r, n, authorizationPolicySpec(o))
	for _, a := range rows {
		if !o.Invalid {
			t.judgeReach(r, n, a)
		}
		a.Src = []model.Source{o.Source(Plane, "spec")}
	}
	return translators.Result{Diagnostics: n.list, Authorizations: rows}
}

// rowKey is an object's key in the plane's table of authorizations.
func rowKey(o *objects.Object) string { return o.Kind.Kind + "/" + o.Key() }

// authorization gives the rows of a policy.
func (t *Translator) authorization(r translators.Reader, n *notes, p *security.AuthorizationPolicy) map[string]*model.Authorization {
	if dry, err := strconv.ParseBool(n.o.Annotations[dryRunAnnotation]); err == nil && dry {
		n.refused(entry("metadata.annotations", dryRunAnnotation), "unsupported-dry-run", model.Cosmetic,
			"dry runs are not reported: the policy has no effect", "")
		return nil
	}
	rows := map[string]*model.Authorization{}
	if len(targetRefs(p)) > 0 {
		rows = t.targeted(r, n, p)
	}
	if !bySelector(n.o, p) {
		return rows
	}
	a := &model.Authorization{Target: target(t.mesh(r).root, n.o, p.GetSelector())}
	if n.o.Invalid {
		a = t.failClosed(n, p, a)
	} else {
		a = t.judged(n, p, a, &ruleTranslation{t: t, n: n, domains: t.mesh(r).trustDomains()})
		if allows(n.o, p) {
			judgeWaypointIdentity(r, n, p)
		}
		t.judgeCapture(r, n, a)
	}
	if a != nil {
		rows[rowKey(n.o)] = a
	}
	return rows
}

// judged gives an authorization what the policy says; nil if it says nothing.
func (t *Translator) judged(n *notes, p *security.AuthorizationPolicy, a *model.Authorization, c *ruleTranslation) *model.Authorization {
	switch p.GetAction() {
	case security.AuthorizationPolicy_ALLOW:
	case security.AuthorizationPolicy_DENY:
		a.Deny = true
	case security.AuthorizationPolicy_CUSTOM:
		a.Deny = true
		n.refused("spec.action", "unsupported-action", model.Narrows,
			"external authorization is not supported: what the provider would be asked about is denied", "")
		if p.GetProvider() != nil {
			n.refused("spec.provider", "unsupported-field", model.Narrows, "the provider is not asked", "")
		}
	default: // AUDIT, which is for plugins of Istio's proxies
		n.surprising("spec.action", "unsupported-action", fmt.Sprintf("%s changes no traffic, and no plugin records any", p.GetAction()), "")
		return nil
	}
	c.deny = a.Deny
	for i, r := range p.GetRules() {
		a.Rules = append(a.Rules, c.rule(at("spec.rules", i), r)...)
	}
	a.Rules = model.SortContent(a.Rules)
	if a.Deny && len(a.Rules) == 0 {
		return nil // it denies nothing
	}
	return a
}

// failClosed stands in for a policy without a valid version. An ALLOW allows
// nothing; a DENY, or what might be one, denies everything.
func (t *Translator) failClosed(n *notes, p *security.AuthorizationPolicy, a *model.Authorization) *model.Authorization {
	_, action := n.o.Place.Lines["spec.action"]
	switch {
	case p.GetAction() == security.AuthorizationPolicy_AUDIT:
		return nil
	case p != nil && p.GetAction() == security.AuthorizationPolicy_ALLOW && !action && n.o.Place.Lines != nil:
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: the policy allows nothing", "repair it")
	default:
		a.Deny, a.Rules = true, []model.AuthRule{{Src: []model.Source{n.o.Source(Plane, "spec")}}}
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: everything that it may guard is denied", "repair it")
	}
	return a
}

// target is what a selector selects: workloads of the namespace, or of all of them
// if the policy is in the root namespace.
func target(root string, o *objects.Object, s *typev1beta1.WorkloadSelector) model.Target {
	out := model.Target{Namespace: o.Namespace}
	if o.Namespace == root {
		out.Namespace = ""
	}
	if len(s.GetMatchLabels()) > 0 {
		out.Labels = s.GetMatchLabels()
	}
	return out
}
