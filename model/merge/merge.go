// SPDX-License-Identifier: Apache-2.0

// Package merge makes one configuration out of what several planes say: who owns
// a frontend's routes. Routes of two planes are never mixed; the planes that do
// not own stand by.
//
// Authorization needs no merge: each plane that governs a workload must allow and
// a deny from any stands, so the plan reads every plane's table.
package merge

import (
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// Tables that the stage writes.
const (
	Frontends   incr.Table = "frontend"         // *model.Frontend, key Frontend.Key
	Owners      incr.Table = "frontend/owner"   // *Owner, key Frontend.Key
	Diagnostics incr.Table = "diagnostic/merge" // []model.Diagnostic, key Frontend.Key or namespace
)

// Owner says which plane's routes a frontend serves and which stand by.
type Owner struct {
	Plane   string   `json:"plane"`
	Standby []string `json:"standby,omitempty"` // in the order of the planes
	Reason  Reason   `json:"reason"`
}

// Reason is why a plane owns a frontend.
type Reason string

const (
	ByNamespace Reason = "namespace" // the namespace names it
	ByMark      Reason = "mark"      // it has routes, and the namespace carries its mesh's mark
	ByOrder     Reason = "order"     // it is the first that has routes, in the documented order
)

// RouteTable is where a plane's frontends are.
func RouteTable(plane string) incr.Table { return incr.Table("route/" + plane) }

// Namespaces is the table of *model.Namespace.
const Namespaces incr.Table = "namespace"

// Register adds the stages. Planes are in the documented order. The owner of a frontend is
//
//  1. the plane that its namespace names (fairlead.io/control-plane), also without routes
//     for it: the service then gets what a service without routes gets;
//  2. else, among the planes that have routes for it, the one whose mark the namespace
//     carries;
//  3. else the first of them in the order.
func Register(s *incr.Store, planes []string) {
	keys := map[incr.Table]func(string, any) []string{}
	for _, p := range planes {
		keys[RouteTable(p)] = func(k string, _ any) []string { return []string{k} }
	}
	s.Add(incr.Stage{Name: "merge", Keys: keys, Compute: func(r *incr.Reader, key string) []incr.Row {
		return one(r, planes, key)
	}})
	s.Add(incr.Stage{Name: "merge/namespace",
		Keys: map[incr.Table]func(string, any) []string{Namespaces: func(k string, _ any) []string { return []string{k} }},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			n, _ := r.Get(Namespaces, key).(*model.Namespace)
			if n == nil {
				return nil
			}
			return unknownPlanes(n, planes)
		}})
}

// unknownPlanes reports planes that a namespace names and that are not there.
func unknownPlanes(n *model.Namespace, planes []string) []incr.Row {
	known := strings.Join(planes, ", ")
	var diags []model.Diagnostic
	if n.Owner != "" && !slices.Contains(planes, n.Owner) {
		diags = append(diags, model.Diagnostic{Source: n.Src, Code: "unknown-owner", Effect: model.Degrades, Outcome: model.Refused,
			Message: fmt.Sprintf("there is no control plane %q; the documented order decides", n.Owner),
			Advice:  "set fairlead.io/control-plane to one of " + known})
	}
	for _, p := range n.DefaultDeny {
		if !slices.Contains(planes, p) {
			diags = append(diags, model.Diagnostic{Source: n.Src, Code: "unknown-default-deny", Effect: model.Narrows, Outcome: model.Refused,
				Message: fmt.Sprintf("there is no control plane %q, so nothing of it can allow anything: everything into the namespace's pods is denied", p),
				Advice:  "name in fairlead.io/default-deny only " + known})
		}
	}
	if len(diags) == 0 {
		return nil
	}
	return []incr.Row{{Table: Diagnostics, Key: n.Name, Value: diags}}
}

func one(r *incr.Reader, planes []string, key string) []incr.Row {
	byPlane := map[string]*model.Frontend{}
	var have []string
	for _, p := range planes {
		if f, ok := r.Get(RouteTable(p), key).(*model.Frontend); ok {
			byPlane[p] = f
			have = append(have, p)
		}
	}
	ns, _, _ := strings.Cut(key, "/")
	n, _ := r.Get(Namespaces, ns).(*model.Namespace)
	owner, reason := choose(n, planes, have)
	standby := slices.DeleteFunc(slices.Clone(have), func(p string) bool { return p == owner })
	var diags []model.Diagnostic
	if others := ignored(byPlane, owner, standby); reason != ByNamespace && len(others) > 0 {
		diags = append(diags, contested(byPlane, owner, others, reason, ns))
	}
	rows := []incr.Row{{Table: Owners, Key: key, Value: &Owner{Plane: owner, Standby: standby, Reason: reason}}}
	if f := byPlane[owner]; f != nil {
		rows = append(rows, incr.Row{Table: Frontends, Key: key, Value: f})
	}
	if len(diags) > 0 {
		rows = append(rows, incr.Row{Table: Diagnostics, Key: key, Value: diags})
	}
	return rows
}

// choose finds the owner; have are the planes with routes, in order.
func choose(n *model.Namespace, planes, have []string) (string, Reason) {
	switch {
	case n != nil && slices.Contains(planes, n.Owner):
		return n.Owner, ByNamespace
	case n != nil && slices.Contains(have, n.Mesh):
		return n.Mesh, ByMark
	}
	return have[0], ByOrder
}

// ignored are the planes that stand by with something that is not served: the owner has
// not read one of their objects. What two planes read alike is nobody's loss.
func ignored(byPlane map[string]*model.Frontend, owner string, standby []string) []string {
	read := map[string]bool{}
	if f := byPlane[owner]; f != nil {
		for _, s := range f.Src {
			read[s.Object()] = true
		}
	}
	var out []string
	for _, p := range standby {
		if slices.ContainsFunc(byPlane[p].Src, func(s model.Source) bool { return !read[s.Object()] }) {
			out = append(out, p)
		}
	}
	return out
}

// TwoOwners is the code of the diagnostic that planes contest a frontend.
const TwoOwners = "two-owners"

// contested reports that planes route one frontend and nobody chose by name. It is
// cosmetic where they say the same.
func contested(byPlane map[string]*model.Frontend, owner string, others []string, reason Reason, ns string) model.Diagnostic {
	why := ""
	if reason == ByMark {
		why = ", whose mark the namespace carries,"
	}
	all, both, rest := listed(append([]string{owner}, others...)), "both ", "the other stands by"
	if len(others) > 1 {
		both, rest = "all ", "the others stand by"
	}
	d := model.Diagnostic{Code: TwoOwners, Effect: model.Cosmetic, Outcome: model.Approximated,
		Message: fmt.Sprintf("%s %sroute %s, in the same way; %s%s serves", all, both, byPlane[owner].Key(), owner, why),
		Advice:  fmt.Sprintf("set the annotation fairlead.io/control-plane on namespace %s to choose", ns)}
	if src := byPlane[others[0]].Src; len(src) > 0 {
		d.Source = src[0]
	}
	for _, p := range others {
		if model.Hash(byPlane[p]) != model.Hash(byPlane[owner]) {
			d.Effect = model.Degrades
			d.Message = fmt.Sprintf("%s route %s differently; %s%s serves, %s", all, byPlane[owner].Key(), owner, why, rest)
		}
	}
	return d
}

// listed is "a, b and c".
func listed(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
