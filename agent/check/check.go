// SPDX-License-Identifier: Apache-2.0

// Package check says what a configuration comes to, whole: which pods are captured and
// why, who routes what, who is guarded, what becomes of every object, and what all that
// does that Kubernetes alone would not. It reads the tables of a plan and writes nothing.
package check

import (
	"cmp"
	"slices"
	"strings"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Report is what there is to say.
type Report struct {
	Settings   *Settings          `json:"settings,omitempty"` // nil: of files
	Namespaces []Namespace        `json:"namespaces"`
	Pods       []Pod              `json:"pods"`
	Frontends  []Frontend         `json:"frontends"`
	Objects    []pipeline.Fate    `json:"objects"`
	Notes      []model.Diagnostic `json:"notes,omitempty"` // of no object in particular
	Standby    []diff.Standby     `json:"standby,omitempty"`
	// Effects are what changes where nothing but Kubernetes was in force before.
	Effects *diff.Report `json:"effects"`
}

// Settings are what no object says and the report is judged by.
type Settings struct {
	// Installation is the namespace of the one whose settings they are; "" if there is none,
	// or none that may be read.
	Installation string `json:"installation,omitempty"`
	// Flags are those that are set, by the installation or on the command line, which counts
	// before; others are at their defaults.
	Flags map[string]string `json:"flags,omitempty"`
}

// Namespace is what holds in one.
type Namespace struct {
	Name string `json:"name"`
	// Owner is the plane that the namespace is given to; Mesh the one whose mark it carries.
	Owner string `json:"owner,omitempty"`
	Mesh  string `json:"mesh,omitempty"`
	// DefaultDeny are the planes that deny by default there.
	DefaultDeny []string `json:"defaultDeny,omitempty"`
	Pods        int      `json:"pods"`
	Captured    int      `json:"captured"`
	Guarded     int      `json:"guarded"` // pods that a policy governs
	Routed      int      `json:"routed"`  // frontends that a plane routes
	Errors      int      `json:"errors"`
	Warnings    int      `json:"warnings"`
}

// Pod is what becomes of one.
type Pod struct {
	Name    string          `json:"name"` // ns/name
	Node    string          `json:"node"`
	Capture explain.Capture `json:"capture"`
	// GovernedBy are the objects that permit or deny; none: all may come in.
	GovernedBy []model.Source `json:"governedBy,omitempty"`
}

// Frontend is a service's port, or a host's, that a plane routes.
type Frontend struct {
	Name    string         `json:"name"` // key
	Plane   string         `json:"plane"`
	Reason  merge.Reason   `json:"reason"`
	Standby []string       `json:"standby,omitempty"`
	Sources []model.Source `json:"sources,omitempty"`
}

// Tables are those of a plan, of any node.
type Tables interface {
	explain.Tables
	Fates() ([]pipeline.Fate, []model.Diagnostic)
}

// Check says it of a configuration; bare is the same without its control planes, see
// pipeline.Bare.
func Check(t, bare Tables) *Report {
	r := &Report{Namespaces: []Namespace{}, Pods: []Pod{}, Frontends: []Frontend{}, Standby: diff.Standbys(t), Effects: diff.Compare(bare, t)}
	r.Objects, r.Notes = t.Fates()
	at := map[string]*Namespace{}
	of := func(name string) *Namespace {
		if at[name] == nil {
			at[name] = &Namespace{Name: name}
		}
		return at[name]
	}
	for _, row := range t.Rows(translators.Namespaces) {
		n, into := row.Value.(*model.Namespace), of(row.Key)
		into.Owner, into.Mesh, into.DefaultDeny = n.Owner, n.Mesh, n.DefaultDeny
	}
	for _, row := range t.Rows(translators.Workloads) {
		w := row.Value.(*model.Workload)
		if w.External {
			continue
		}
		p := Pod{Name: row.Key, Node: w.Node, Capture: explain.CaptureOf(t, w)}
		n := of(w.Namespace)
		n.Pods++
		if w.Capture {
			n.Captured++
		}
		if p.GovernedBy = governedBy(t, row.Key); len(p.GovernedBy) > 0 {
			n.Guarded++
		}
		r.Pods = append(r.Pods, p)
	}
	for _, row := range t.Rows(merge.Owners) {
		o := row.Value.(*merge.Owner)
		f := Frontend{Name: row.Key, Plane: o.Plane, Reason: o.Reason, Standby: o.Standby}
		if m, _ := t.Get(merge.Frontends, row.Key).(*model.Frontend); m != nil {
			f.Sources = m.Src
		}
		namespace, _, _ := strings.Cut(row.Key, "/")
		of(namespace).Routed++
		r.Frontends = append(r.Frontends, f)
	}
	for _, o := range r.Objects {
		for _, d := range o.Diagnostics {
			switch name := namespaceOf(o); {
			case name == "":
			case d.IsError():
				of(name).Errors++
			case d.Effect != model.Cosmetic:
				of(name).Warnings++
			}
		}
	}
	for _, n := range at {
		r.Namespaces = append(r.Namespaces, *n)
	}
	slices.SortFunc(r.Namespaces, func(a, b Namespace) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// governedBy are the objects that let a workload have less than everything come in. Every
// workload has a row: where nobody says anything it is empty.
func governedBy(t Tables, workload string) []model.Source {
	g, _ := t.Get(plan.Governance, workload).(*plan.Governed)
	if g == nil {
		return nil
	}
	by := slices.Clone(g.Src)
	for _, rule := range g.Deny {
		by = append(by, rule.Src...)
	}
	slices.SortFunc(by, model.CompareSources)
	return slices.Compact(by)
}

// Only keeps what is of some namespaces.
func (r *Report) Only(namespaces ...string) {
	others := func(namespace string) bool { return !slices.Contains(namespaces, namespace) }
	of := func(key string) string { namespace, _, _ := strings.Cut(key, "/"); return namespace }
	r.Namespaces = slices.DeleteFunc(r.Namespaces, func(n Namespace) bool { return others(n.Name) })
	r.Pods = slices.DeleteFunc(r.Pods, func(p Pod) bool { return others(of(p.Name)) })
	r.Frontends = slices.DeleteFunc(r.Frontends, func(f Frontend) bool { return others(of(f.Name)) })
	r.Standby = slices.DeleteFunc(r.Standby, func(b diff.Standby) bool { return others(of(b.Frontend)) })
	r.Objects = slices.DeleteFunc(r.Objects, func(o pipeline.Fate) bool { return others(namespaceOf(o)) })
	r.Notes = slices.DeleteFunc(r.Notes, func(d model.Diagnostic) bool { return others(d.Source.Namespace) })
	e := r.Effects
	e.Routes = slices.DeleteFunc(e.Routes, func(c diff.RouteChange) bool { return others(of(c.Frontend)) })
	e.Permissions = slices.DeleteFunc(e.Permissions, func(c diff.PermissionChange) bool {
		return !slices.ContainsFunc(c.Workloads, func(w string) bool { return !others(of(w)) })
	})
	e.Entities = slices.DeleteFunc(e.Entities, func(c diff.EntityChange) bool { return others(of(c.Name)) })
}

// namespaceOf is the namespace that an object is in, or is.
func namespaceOf(o pipeline.Fate) string {
	if o.Kind == objects.NamespaceKind.Kind {
		return o.Name
	}
	return o.Namespace
}

// Diagnostics are all that was said, of objects and others.
func (r *Report) Diagnostics() []model.Diagnostic {
	out := slices.Clone(r.Notes)
	for _, o := range r.Objects {
		out = append(out, o.Diagnostics...)
	}
	return out
}
