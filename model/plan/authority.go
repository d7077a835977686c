// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
)

// choiceOf is how a frontend treats hosts that are not its own: as it says itself,
// else as its namespace is marked, else as its plane does by default. Nobody says:
// requests go where they are sent.
func choiceOf(r getter, key, namespace string, f *model.Frontend) model.Choice {
	var out model.Choice
	fill := func(c model.Choice) {
		out.Basis, out.Unknown = cmp.Or(out.Basis, c.Basis), cmp.Or(out.Unknown, c.Unknown)
	}
	if f != nil {
		fill(f.Choice)
	}
	n, _ := r.Get(namespaces, namespace).(*model.Namespace)
	if n != nil {
		fill(n.Choice)
	}
	if d := defaultsOf(r, key, n); d != nil {
		fill(d.Choice)
	}
	fill(model.Choice{Basis: model.ByDestination, Unknown: model.UnknownPass})
	return out
}

// defaultsOf are those of the plane that owns the frontend, or would own it: the
// namespace's owner, else the mesh whose mark the namespace carries. nil if there is
// no such plane.
func defaultsOf(r getter, key string, n *model.Namespace) *model.Defaults {
	var planes []string
	if o, ok := r.Get(merge.Owners, key).(*merge.Owner); ok {
		planes = append(planes, o.Plane)
	}
	if n != nil {
		planes = append(planes, n.Owner, n.Mesh)
	}
	for _, p := range planes {
		if p == "" {
			continue
		}
		if d, ok := r.Get(defaults, p).(*model.Defaults); ok {
			return d
		}
	}
	return nil
}

// hosts are what requests may call a service by: its names, and its addresses as they
// are written in a request.
func hosts(s *model.Service) []string {
	out := slices.Clone(s.Hosts)
	for _, a := range s.VIPs {
		if a.Is6() {
			out = append(out, "["+a.String()+"]")
		} else {
			out = append(out, a.String())
		}
	}
	return out
}
