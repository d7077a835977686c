// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// podAt is the pod that has an address; nil if no known pod has.
func podAt(r *incr.Reader, a netip.Addr) *model.Workload {
	for _, row := range r.Select(workloads, "addr", a.String()) {
		if w := row.Value.(*model.Workload); !w.External {
			return w
		}
	}
	return nil
}

// isOwn reports whether what comes from an address is the workload's. What is declared to
// run elsewhere is not believed to have an address that a pod or a node has, or that the
// next pod of a node may have; of several that say so the first by its key has it.
func isOwn(r *incr.Reader, w *model.Workload, a netip.Addr) bool {
	if !w.External {
		return true
	}
	for _, row := range r.Select(workloads, "addr", a.String()) {
		if other := row.Value.(*model.Workload); !other.External || other.Key() < w.Key() {
			return false
		}
	}
	for _, row := range r.All(nodes) {
		n := row.Value.(*model.Node)
		if slices.Contains(n.Addresses, a) || slices.ContainsFunc(n.PodRanges, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return false
		}
	}
	return true
}

// ownAddresses are those that a workload is known by.
func ownAddresses(r *incr.Reader, w *model.Workload) []netip.Addr {
	if !w.External {
		return w.Addresses
	}
	return slices.DeleteFunc(slices.Clone(w.Addresses), func(a netip.Addr) bool { return !isOwn(r, w, a) })
}

// governedElsewhere reports that policies select what runs where nothing of ours is.
func governedElsewhere(w *model.Workload, g *Governed) []incr.Row {
	if g.ID == 0 || len(w.Labels) == 0 {
		return nil
	}
	d := model.Diagnostic{Source: w.Src, Code: "external-unguarded", Effect: model.Degrades, Outcome: model.Approximated,
		Message: "policies select this workload, but it runs elsewhere: nothing here judges what comes to it",
		Advice:  "guard it where it runs"}
	return []incr.Row{{Table: Diagnostics, Key: w.Key(), Value: []model.Diagnostic{d}}}
}
