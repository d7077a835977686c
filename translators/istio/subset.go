// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// foundSubset is what a lookup came to.
type foundSubset struct {
	found  bool
	labels map[string]string
	advice string // if it was not found
}

// subset looks a subset up as a client does: in the rules of the client's namespace,
// then of the service's, then of the root namespace; the first of them with a rule
// for the host decides. The client is known if a route is for one namespace ("" if
// it is not): otherwise the search begins at the service's.
func (t *Translator) subset(r translators.Reader, fqdn, service, client, name string) foundSubset {
	var rules []*objects.Object
	for _, o := range slices.Concat(r.Select(destinationRuleKind, byHost, fqdn), r.Select(destinationRuleKind, byHost, anyWildcard)) {
		// Rules that select clients by their labels are refused.
		if spec := destinationRuleSpec(o); spec.GetWorkloadSelector() == nil && covers(t.fullName(spec.GetHost(), o.Namespace), fqdn) {
			rules = append(rules, o)
		}
	}
	slices.SortStableFunc(rules, objects.CompareCreated)
	for _, ns := range []string{client, service, t.root} {
		if ns == "" {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(rules), func(o *objects.Object) bool {
			if o.Namespace != ns {
				return true
			}
			return client != "" && client != ns && !exported(destinationRuleSpec(o).GetExportTo(), ns).to(client)
		})
		if len(own) > 0 {
			return t.subsetOf(mostSpecific(t, own), name)
		}
	}
	out := foundSubset{}
	if len(rules) > 0 {
		out.advice = "put DestinationRule " + rules[0].Key() + " into the service's namespace: those of a client's namespace apply where a route names that namespace"
	}
	return out
}

// mostSpecific leaves the rules with the most specific host, in order.
func mostSpecific(t *Translator, rules []*objects.Object) []*objects.Object {
	host := func(o *objects.Object) string { return t.fullName(destinationRuleSpec(o).GetHost(), o.Namespace) }
	best := ""
	for _, o := range rules {
		if moreSpecific(host(o), best) {
			best = host(o)
		}
	}
	return slices.DeleteFunc(slices.Clone(rules), func(o *objects.Object) bool { return host(o) != best })
}

// subsetOf finds the subset in rules for one host, whose subsets add up: the first
// of a name stands. What an invalid rule says is not known.
func (t *Translator) subsetOf(rules []*objects.Object, name string) foundSubset {
	for _, o := range rules {
		for _, s := range destinationRuleSpec(o).GetSubsets() {
			if s.GetName() != name {
				continue
			}
			if o.Invalid {
				return foundSubset{advice: "repair DestinationRule " + o.Key()}
			}
			return foundSubset{found: true, labels: subsetLabels(s)}
		}
	}
	return foundSubset{advice: "add the subset to DestinationRule " + rules[0].Key()}
}

func subsetLabels(s *networking.Subset) map[string]string {
	if len(s.GetLabels()) == 0 {
		return nil
	}
	return s.GetLabels()
}
