// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
)

// remotePods are addresses of other nodes' pods, one of each node and family: out of the
// node's ranges, or, if it says none, some pod's. Sorted.
func (a *agent) remotePods() []netip.Addr {
	type place struct {
		node string
		v6   bool
	}
	at := map[place]netip.Addr{}
	add := func(node string, addr netip.Addr) {
		p := place{node, addr.Is6()}
		if had, ok := at[p]; !ok || addr.Less(had) {
			at[p] = addr
		}
	}
	ranges := map[string]bool{}
	for _, row := range a.pipe.Rows(translators.Nodes) {
		n := row.Value.(*model.Node)
		if n.Name == a.opts.Node {
			continue
		}
		for _, r := range n.PodRanges {
			if first := r.Masked().Addr().Next(); r.Contains(first) {
				ranges[n.Name] = true
				add(n.Name, first)
			}
		}
	}
	for _, row := range a.pipe.Rows(translators.Workloads) {
		w := row.Value.(*model.Workload)
		if w.HostNetwork || w.External || w.Node == a.opts.Node || w.Node == "" || ranges[w.Node] {
			continue
		}
		for _, addr := range w.Addresses {
			add(w.Node, addr)
		}
	}
	var out []netip.Addr
	for _, addr := range at {
		out = append(out, addr)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
