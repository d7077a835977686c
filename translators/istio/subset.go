// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// client is whom a DestinationRule is looked up for.
type client struct {
	namespace string            // "": any that no rule and no route is for by name
	labels    map[string]string // that it is known to carry
}

// ruled are the DestinationRules that a client has for a host. They are of one namespace
// and for one host, and add up: the first to say something stands. Nil: there are none.
type ruled struct {
	exportTo []string // sorted
	selector map[string]string
	selects  bool
	rules    []*objects.Object
}

// rulesFor lists the rules whose host covers a full name: those for some clients first,
// then the oldest.
func (t *Translator) rulesFor(r translators.Reader, fqdn string) []*objects.Object {
	var out []*objects.Object
	for _, o := range slices.Concat(r.Select(destinationRuleKind, byHost, fqdn), r.Select(destinationRuleKind, byHost, anyWildcard)) {
		if covers(t.fullName(destinationRuleSpec(o).GetHost(), o.Namespace), fqdn) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b *objects.Object) int {
		_, first := selectorOf(a)
		_, second := selectorOf(b)
		switch {
		case first == second:
			return objects.CompareCreated(a, b)
		case first:
			return -1
		}
		return 1
	})
	return out
}

// selectorOf is what a rule asks of its clients; ok is false if it is for all.
func selectorOf(o *objects.Object) (labels map[string]string, ok bool) {
	s := destinationRuleSpec(o).GetWorkloadSelector()
	return s.GetMatchLabels(), s != nil
}

// ruleVisibility is what exportTo says of a rule. One for some clients is for those of
// its namespace.
func (t *Translator) ruleVisibility(r translators.Reader, o *objects.Object) visibility {
	if _, ok := selectorOf(o); ok {
		return exported([]string{"."}, o.Namespace)
	}
	to := destinationRuleSpec(o).GetExportTo()
	if len(to) == 0 {
		to = t.mesh(r).destinationRules
	}
	return exported(to, o.Namespace)
}

// rule looks the rules for a host up as a client does: in its own namespace, then in the
// service's, then in the root namespace. The first of them with a rule for the host
// decides, though that be for a wildcard, or for other clients of the namespace.
func (t *Translator) rule(r translators.Reader, fqdn string, cl client) *ruled {
	rules, root := t.rulesFor(r, fqdn), t.mesh(r).root
	service := ""
	if svc := t.hostService(r, fqdn, cl.namespace); svc != nil {
		service = svc.Namespace
	}
	in := func(namespace string, may func(visibility) bool) []*objects.Object {
		return t.mostSpecific(slices.DeleteFunc(slices.Clone(rules), func(o *objects.Object) bool {
			return o.Namespace != namespace || !may(t.ruleVisibility(r, o))
		}))
	}
	if ns := cl.namespace; ns != "" {
		// The root namespace's rules are for all: its own clients do not prefer them.
		own := in(ns, func(v visibility) bool { return v.to(ns) && (ns != root || v.private(ns)) })
		if len(own) > 0 {
			return choose(own, cl)
		}
	}
	for _, ns := range []string{service, root} {
		shared := in(ns, func(v visibility) bool { return !v.private(ns) })
		shared = slices.DeleteFunc(shared, func(o *objects.Object) bool {
			v := t.ruleVisibility(r, o)
			return !v.public && (cl.namespace == "" || !v.to(cl.namespace))
		})
		if len(shared) > 0 {
			return choose(shared, cl)
		}
	}
	return nil
}

// mostSpecific leaves the rules with the most specific host, in order.
func (t *Translator) mostSpecific(rules []*objects.Object) []*objects.Object {
	host := func(o *objects.Object) string { return t.fullName(destinationRuleSpec(o).GetHost(), o.Namespace) }
	best := ""
	for _, o := range rules {
		if moreSpecific(host(o), best) {
			best = host(o)
		}
	}
	return slices.DeleteFunc(rules, func(o *objects.Object) bool { return host(o) != best })
}

// choose adds rules up and gives those for the client: the first that selects it, or
// else the last that is for all.
func choose(rules []*objects.Object, cl client) *ruled {
	var all *ruled
	for _, m := range consolidate(rules) {
		switch {
		case !m.selects:
			all = m
		case m.rules[0].Namespace == cl.namespace && carries(cl.labels, m.selector):
			return m
		}
	}
	return all
}

// carries reports whether labels have all that is asked for.
func carries(labels, want map[string]string) bool {
	for k, v := range want {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// consolidate adds up rules that are for the same clients, as Istio does
// (mergeDestinationRule): those of the same exportTo, or of a wider one than an earlier
// rule has, and of the same selector.
func consolidate(rules []*objects.Object) []*ruled {
	var out []*ruled
	for _, o := range rules {
		next := &ruled{rules: []*objects.Object{o}}
		next.selector, next.selects = selectorOf(o)
		if next.exportTo = slices.Sorted(slices.Values(destinationRuleSpec(o).GetExportTo())); next.selects {
			next.exportTo = []string{"."}
		}
		apart := true
		for _, m := range out {
			apart = m.apart(next)
			if m.takes(next) {
				m.rules = append(m.rules, o)
			}
		}
		if apart {
			out = append(out, next)
		}
	}
	return out
}

// takes reports whether what a later rule says is added to these.
func (m *ruled) takes(next *ruled) bool {
	wider := len(m.exportTo) > 0 && !slices.ContainsFunc(m.exportTo, func(e string) bool { return !slices.Contains(next.exportTo, e) })
	if !slices.Equal(m.exportTo, next.exportTo) && !wider {
		return false
	}
	return !m.selects || !next.selects || maps.Equal(m.selector, next.selector)
}

// apart reports whether a later rule stands for itself, too.
func (m *ruled) apart(next *ruled) bool {
	if m.takes(next) && m.selects != next.selects {
		return !slices.Equal(m.exportTo, next.exportTo)
	}
	return !m.takes(next)
}

// subset finds a subset and the rule that defines it.
func (m *ruled) subset(name string) (*networking.Subset, *objects.Object) {
	if m == nil {
		return nil, nil
	}
	for _, o := range m.rules {
		for _, s := range destinationRuleSpec(o).GetSubsets() {
			if s.GetName() == name {
				return s, o
			}
		}
	}
	return nil, nil
}

// policy is the traffic policy for the whole host, and the rule that says it. What an
// invalid rule says is not known.
func (m *ruled) policy() (*networking.TrafficPolicy, *objects.Object) {
	if m == nil {
		return nil, nil
	}
	for _, o := range m.rules {
		if p := destinationRuleSpec(o).GetTrafficPolicy(); p != nil && !o.Invalid {
			return p, o
		}
	}
	return nil, nil
}

func subsetLabels(s *networking.Subset) map[string]string {
	if len(s.GetLabels()) == 0 {
		return nil
	}
	return s.GetLabels()
}
