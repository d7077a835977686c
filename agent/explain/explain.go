// SPDX-License-Identifier: Apache-2.0

// Package explain tells what becomes of what is sent to a service, and of what a pod
// sends and receives, and which objects and fields say so. It reads the tables of a
// node's plan and changes nothing: of the same objects an agent says the same as the
// command line does of files.
package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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
	pods map[netip.Addr]string // ns/name by address
}

// Target is what is asked about: a service, a host without service, or a pod.
type Target struct {
	Namespace, Name string
	Port            uint16 // of a service or host; 0: all
}

// ParseTarget reads "namespace/name" or "namespace/name:port".
func ParseTarget(s string) (Target, error) {
	ns, name, ok := strings.Cut(s, "/")
	name, port, hasPort := strings.Cut(name, ":")
	t := Target{Namespace: ns, Name: name}
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return Target{}, fmt.Errorf("%q: want NAMESPACE/NAME, or NAMESPACE/NAME:PORT of a service", s)
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Target{}, fmt.Errorf("%q: %q is no port", s, port)
		}
		t.Port = uint16(n)
	}
	return t, nil
}

// String is what ParseTarget reads.
func (t Target) String() string {
	if t.Port == 0 {
		return t.Namespace + "/" + t.Name
	}
	return model.FrontendKey(t.Namespace, t.Name, t.Port)
}

// Answer is what there is under a name: a service's or host's ports, a pod, or both.
type Answer struct {
	Frontends []Frontend `json:"frontends,omitempty"` // by port
	Pod       *Pod       `json:"pod,omitempty"`
	// Diagnostics are about the service or the pod, or about objects that decide for it.
	Diagnostics []model.Diagnostic `json:"diagnostics,omitempty"`
}

// NotFoundError says that nothing has the name.
type NotFoundError struct{ Target Target }

// Error names the target.
func (e *NotFoundError) Error() string {
	if e.Target.Port != 0 {
		return "there is no service or host " + e.Target.String()
	}
	return "there is no service, host or pod " + e.Target.String()
}

// Explain tells what becomes of a target. The error is a NotFoundError.
func Explain(t Tables, target Target) (*Answer, error) {
	v := &view{Tables: t, pods: map[netip.Addr]string{}}
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
		return nil, &NotFoundError{target}
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
