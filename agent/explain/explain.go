// SPDX-License-Identifier: Apache-2.0

// Package explain tells what becomes of what is sent to a service, and of what a pod
// sends and receives, and which objects and fields say so. It reads the tables of a
// node's plan and changes nothing: of the same objects an agent says the same as the
// command line does of files.
package explain

import (
	"net/netip"
	"slices"

	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Tables are those of a node's configuration; see pipeline.Pipeline.
type Tables interface {
	Get(t incr.Table, key string) any
	Rows(t incr.Table) []incr.Row
	Registry() *objects.Registry
}

// view is the tables, with what is asked of them often.
type view struct {
	Tables
	pods    map[netip.Addr]string       // ns/name by address
	backend func(cluster string) string // see trace.Backends
}

// Answer is what there is under a name: a service's or host's ports, a pod, or both.
type Answer struct {
	Frontends []Frontend `json:"frontends,omitempty"` // by port
	Pod       *Pod       `json:"pod,omitempty"`
	// Diagnostics are about the service or the pod, or about objects that decide for it.
	Diagnostics []model.Diagnostic `json:"diagnostics,omitempty"`
}

// Explain tells what becomes of a target. The error is a NotFoundError.
func Explain(t Tables, target Target) (*Answer, error) {
	v := &view{Tables: t, pods: map[netip.Addr]string{}, backend: trace.Backends(t)}
	for _, row := range t.Rows(translators.Workloads) {
		if w := row.Value.(*model.Workload); !w.HostNetwork { // whose address is the node's
			for _, a := range w.Addresses {
				v.pods[a] = row.Key
			}
		}
	}
	a := &Answer{Frontends: frontends(v, target)}
	if target.Port == 0 {
		a.Pod = pod(v, target.String())
	}
	if a.Pod == nil && len(a.Frontends) == 0 {
		if w, err := trace.Pod(t, target.String()); err == nil && target.Port == 0 {
			a.Pod = pod(v, w.Key())
		} else {
			return nil, &NotFoundError{target, hint(v, target)}
		}
	}
	a.Diagnostics = diagnostics(v, a, target)
	return a, nil
}

// Resources lists the Envoy resources that the answer is about, as "Type name", by
// the short names of their types.
func (a *Answer) Resources() map[string]bool {
	out := map[string]bool{}
	for _, f := range a.Frontends {
		for _, n := range f.RouteTables {
			out["RouteConfiguration "+n] = true
		}
		for _, s := range f.Scopes {
			out["ScopedRouteConfiguration "+s] = true
		}
		for _, c := range f.Clusters {
			out["Cluster "+c.Name], out["ClusterLoadAssignment "+c.Name] = true, true
		}
	}
	if a.Pod != nil {
		for _, l := range a.Pod.Listeners {
			out["Listener "+l] = true
		}
		for _, p := range a.Pod.Ports {
			if p.RouteTable != "" {
				out["RouteConfiguration "+p.RouteTable] = true
			}
		}
	}
	return out
}

func origin(t *view, id string) []model.Source {
	if o, ok := t.Get(plan.Origins, id).(*plan.Origin); ok {
		return o.Sources
	}
	return nil
}

// diagnostics are those about objects that have a say in the answer, or would have: what
// is refused has none, and mostly the same name.
func diagnostics(t *view, a *Answer, target Target) []model.Diagnostic {
	about := map[string]bool{}
	add := func(ss []model.Source) {
		for _, s := range ss {
			about[s.Object()] = true
		}
	}
	for i := range a.Frontends {
		f := &a.Frontends[i]
		add(f.Sources)
		if f.Owner != nil {
			for _, plane := range f.Owner.Standby {
				if other, ok := t.Get(translators.Routes(plane), f.Key).(*model.Frontend); ok {
					add(other.Src)
				}
			}
		}
		for _, r := range f.Routes {
			add(r.Sources)
		}
		for _, c := range f.Connections {
			add(c.Sources)
		}
		for _, c := range f.Clusters {
			add(c.Policy.sources())
		}
	}
	if a.Pod != nil {
		add([]model.Source{a.Pod.Source})
		add(a.Pod.Policy.sources())
		add(a.Pod.GovernedBy)
	}
	var out []model.Diagnostic
	for _, table := range []incr.Table{translators.Diagnostics, merge.Diagnostics, plan.Diagnostics} {
		for _, row := range t.Rows(table) {
			for _, d := range row.Value.([]model.Diagnostic) {
				if about[d.Source.Object()] || d.Source.Namespace == target.Namespace && d.Source.Name == target.Name {
					out = append(out, d)
				}
			}
		}
	}
	slices.SortStableFunc(out, model.CompareDiagnostics)
	return slices.Compact(out)
}
