// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// judgeDestinationRule says what became of the fields. What a rule does is found out
// where a backend is looked up.
func (t *Translator) judgeDestinationRule(r translators.Reader, o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	dr := destinationRuleSpec(o)
	if o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: requests to its subsets get 503, and its policies have no effect", "repair it")
		return n.list
	}
	host := t.fullName(dr.GetHost(), o.Namespace)
	services := t.servicesOf(r, host)
	if len(services) == 0 {
		n.surprising("spec.host", "unknown-host", fmt.Sprintf("%s names no service: the rule has no effect", dr.GetHost()), hostAdvice(t, dr.GetHost()))
	}
	t.judgeHidden(r, n, host, services)
	if _, selects := selectorOf(o); selects {
		for _, svc := range services {
			hosts := []string{t.fullNameOf(svc)}
			if _, beyond := t.selections(r, hosts, client{namespace: o.Namespace}); slices.Contains(beyond, o) {
				n.judgeBeyond(hosts)
			}
		}
	}
	j := policyJudge{n: n, ports: portsOf(services)}
	j.policy("spec.trafficPolicy", dr.GetTrafficPolicy(), nil)
	for i, s := range dr.GetSubsets() {
		field := at("spec.subsets", i)
		j.policy(field+".trafficPolicy", s.GetTrafficPolicy(), dr.GetTrafficPolicy())
		if same := t.earlierSubset(r, o, host, s.GetName()); same != nil {
			n.surprising(field+".name", "duplicate-subset",
				fmt.Sprintf("DestinationRule %s defines the subset already and is older", same.Key()), "name it differently")
		}
	}
	return n.list
}

// judgeHidden notes rules that clients of the rule's namespace have no more, because of
// this one.
func (t *Translator) judgeHidden(r translators.Reader, n *notes, host string, services []*model.Service) {
	if n.o.Namespace == t.mesh(r).root || isWildcard(host) || len(services) == 0 || services[0].Namespace == n.o.Namespace {
		return
	}
	for _, other := range t.rulesFor(r, host) {
		if other.Namespace == services[0].Namespace {
			n.surprising("spec.host", "hides-rule",
				fmt.Sprintf("clients of %s have this rule in place of DestinationRule %s, of which they have nothing then", n.o.Namespace, other.Key()), "")
			return
		}
	}
}

// earlierSubset finds an older rule of the namespace, for the same host, that
// defines the subset.
func (t *Translator) earlierSubset(r translators.Reader, o *objects.Object, host, subset string) *objects.Object {
	index := host
	if isWildcard(host) {
		index = anyWildcard
	}
	for _, other := range r.Select(destinationRuleKind, byHost, index) {
		if other == o {
			return nil
		}
		spec := destinationRuleSpec(other)
		if other.Namespace != o.Namespace || !sameSelector(other, o) || t.fullName(spec.GetHost(), other.Namespace) != host {
			continue
		}
		if slices.ContainsFunc(spec.GetSubsets(), func(s *networking.Subset) bool { return s.GetName() == subset }) {
			return other
		}
	}
	return nil
}

// sameSelector reports whether two rules are for the same clients of their namespace.
func sameSelector(a, b *objects.Object) bool {
	x, xs := selectorOf(a)
	y, ys := selectorOf(b)
	return xs == ys && maps.Equal(x, y)
}
