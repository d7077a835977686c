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
	// Reason is "namespace" (its owner is set) or "order" (the first plane, in
	// the documented order, that has routes).
	Reason string `json:"reason"`
}

// RouteTable is where a plane's frontends are.
func RouteTable(plane string) incr.Table { return incr.Table("route/" + plane) }

// Namespaces is the table of *model.Namespace.
const Namespaces incr.Table = "namespace"

// Register adds the stages. Planes are in the documented order: where a namespace
// names no owner, the first that has routes for a frontend serves them. A
// namespace's owner without routes for the frontend owns it all the same: the
// service then gets what a service without routes gets.
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
	owner, reason := have[0], "order"
	var diags []model.Diagnostic
	if n, ok := r.Get(Namespaces, ns).(*model.Namespace); ok && slices.Contains(planes, n.Owner) {
		owner, reason = n.Owner, "namespace"
	}
	standby := slices.DeleteFunc(slices.Clone(have), func(p string) bool { return p == owner })
	if reason == "order" && len(standby) > 0 {
		diags = append(diags, contested(byPlane, owner, standby, ns))
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

// contested reports that two planes route one frontend and nobody chose. It is
// cosmetic where they say the same.
func contested(byPlane map[string]*model.Frontend, owner string, standby []string, ns string) model.Diagnostic {
	d := model.Diagnostic{Code: "two-owners", Effect: model.Cosmetic, Outcome: model.Approximated,
		Message: fmt.Sprintf("%s and %s both route %s, in the same way; %s serves", owner, strings.Join(standby, ", "), byPlane[owner].Key(), owner),
		Advice:  fmt.Sprintf("set the annotation fairlead.io/control-plane on namespace %s to choose", ns)}
	if src := byPlane[standby[0]].Src; len(src) > 0 {
		d.Source = src[0]
	}
	for _, p := range standby {
		if model.Hash(byPlane[p]) != model.Hash(byPlane[owner]) {
			d.Effect = model.Degrades
			d.Message = fmt.Sprintf("%s and %s route %s differently; %s serves, the other stands by", owner, strings.Join(standby, ", "), byPlane[owner].Key(), owner)
		}
	}
	return d
}
