// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// Closed lists the namespaces in which something governs what pods may receive, or holds
// what they send to services that are known, so that none should run without its policy;
// sorted. everywhere: something selects pods of all namespaces. open are those that are known
// and not closed. Pods need not be there yet, and not each one that is must be selected. None
// waits for a policy that is only observed.
func Closed(t interface {
	getter
	Rows(incr.Table) []incr.Row
}, planes []string) (closed, open []string, everywhere bool) {
	found := map[string]bool{}
	known, observed := map[string]bool{}, map[string]bool{"": true}
	for _, row := range t.Rows(namespaces) {
		n := row.Value.(*model.Namespace)
		known[n.Name] = true
		if n.Observed {
			observed[n.Name] = true
		}
		if len(n.DefaultDeny) > 0 || n.Capture && UnknownOf(t, &model.Workload{Namespace: n.Name}) == model.UnknownRefuse {
			found[n.Name] = true
		}
	}
	for _, row := range t.Rows(workloads) {
		w := row.Value.(*model.Workload)
		known[w.Namespace] = true
		if w.Capture && !found[w.Namespace] && UnknownOf(t, w) == model.UnknownRefuse {
			found[w.Namespace] = true
		}
	}
	for _, plane := range planes {
		for _, row := range t.Rows(authzTable(plane)) {
			a := row.Value.(*model.Authorization)
			everywhere = everywhere || a.Target.Namespace == ""
			found[a.Target.Namespace] = true
		}
		for _, row := range t.Rows(inboundTable(plane)) {
			if in := row.Value.(*model.Inbound); len(in.Routes) > 0 {
				found[in.Namespace] = true
			}
		}
	}
	maps.DeleteFunc(found, func(name string, _ bool) bool { return observed[name] })
	maps.DeleteFunc(known, func(name string, _ bool) bool { return found[name] || everywhere && !observed[name] })
	return slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(known)), everywhere
}
