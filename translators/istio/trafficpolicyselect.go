// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// maxSelections bounds how many sets of clients of a namespace one route is written for.
const maxSelections = 64

// selections lists the clients of a namespace that rules select by their labels: those
// that several rules select at once come first. Each rule has its own clients before any
// two are told apart from those of one. Beyond are rules for which there is no more room.
func (t *Translator) selections(r translators.Reader, hosts []string, of client) (out []client, beyond []*objects.Object) {
	type selection struct {
		labels map[string]string
		rule   *objects.Object
	}
	var selectors []selection
	for _, h := range hosts {
		for _, o := range t.rulesFor(r, h) {
			s, ok := selectorOf(o)
			if ok && o.Namespace == of.namespace && !carries(of.labels, s) &&
				!slices.ContainsFunc(selectors, func(have selection) bool { return maps.Equal(have.labels, s) }) {
				selectors = append(selectors, selection{s, o})
			}
		}
	}
	var sets []map[string]string
	add := func(have map[string]string, s selection) {
		both, ok := union(have, s.labels)
		switch {
		case !ok || slices.ContainsFunc(sets, func(x map[string]string) bool { return maps.Equal(x, both) }):
		case len(sets) < maxSelections:
			sets = append(sets, both)
		case !slices.Contains(beyond, s.rule):
			beyond = append(beyond, s.rule)
		}
	}
	for _, s := range selectors {
		add(of.labels, s)
	}
	for _, s := range selectors {
		for _, have := range sets {
			add(have, s)
		}
	}
	slices.SortStableFunc(sets, func(a, b map[string]string) int { return cmp.Compare(len(b), len(a)) })
	for _, labels := range sets {
		out = append(out, client{of.namespace, labels})
	}
	return out, beyond
}

// union is what carries both; ok is false if nothing can.
func union(a, b map[string]string) (out map[string]string, ok bool) {
	if !canShare(a, b) {
		return nil, false
	}
	out = map[string]string{}
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out, true
}

// judgeBeyond notes a rule for which there is no more room at some hosts.
func (n *notes) judgeBeyond(hosts []string) {
	n.refused("spec.workloadSelector", "too-many-selectors", model.Degrades,
		fmt.Sprintf("rules of the namespace tell more than %d sets of clients of %s apart: clients that it selects, or those of them that others select too, have what other rules say",
			maxSelections, strings.Join(hosts, " and ")),
		"write fewer rules with a workloadSelector, or select by one label of which each client has another value")
}
