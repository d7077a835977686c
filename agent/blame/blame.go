// SPDX-License-Identifier: Apache-2.0

// Package blame finds what a user has written in a resource that could not be used:
// the objects and fields that it was made of, and of these the ones that what was
// said about it points at. It reads the tables and changes nothing.
package blame

import (
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
)

// Tables are those of a node's configuration; see pipeline.Pipeline.
type Tables interface {
	Get(t incr.Table, key string) any
	Rows(t incr.Table) []incr.Row
	Registry() *objects.Registry
}

// Cause is what a resource came from.
type Cause struct {
	// Sources are sorted; with a Value, those alone in which it stands, and with the
	// field and line where it does. None: it was made of nothing that users write, or
	// its row is not there any more.
	Sources []model.Source `json:"sources,omitempty"`
	// Field is the first source's, if it was found by the value in it.
	Field string `json:"field,omitempty"`
	Value string `json:"value,omitempty"` // what the detail quotes
}

// Find tells what a resource came from. Detail is what was said about it, by Envoy or
// by whoever could not render it: a value, an index or an id in it narrows the answer.
func Find(t Tables, typ, name, detail string) Cause {
	row := rowOf(t, typ, name)
	if row == nil {
		return Cause{}
	}
	all := units(row)
	chosen := readHint(typ, name, detail).choose(all)
	var guarded []string
	if slices.ContainsFunc(all, func(u unit) bool { return u.place == rulePlace }) {
		guarded = workloads(t, row)
	}
	originOf := func(u unit) []model.Source {
		if u.place == rulePlace {
			return plan.RuleSources(t, u.id, guarded...)
		}
		return origin(t, u.id)
	}
	var c Cause
	if len(chosen) == 0 { // it may be any of them, or what they stand in
		for _, u := range all {
			c.Sources = append(c.Sources, originOf(u)...)
		}
		if _, ok := row.(*plan.RouteTable); !ok {
			c.Sources = append(c.Sources, whole(t, row)...)
		}
	}
	var found []model.Source
	for _, u := range chosen {
		of := originOf(u)
		c.Sources = append(c.Sources, of...)
		for _, v := range u.values {
			for _, s := range of {
				if field := fieldOf(t, s, v); field != "" {
					found = append(found, at(t, s, field))
					c.Value = v
				}
			}
		}
	}
	if len(c.Sources) == 0 {
		c.Sources = whole(t, row)
	}
	c.Sources = sorted(c.Sources)
	if len(found) > 0 {
		c.Sources = sorted(found)
		c.Field = c.Sources[0].Field
	}
	return c
}

// rowOf is the row that the resource is made of, nil if there is none.
func rowOf(t Tables, typ, name string) any {
	switch typ {
	case xds.ClusterType:
		return t.Get(plan.Clusters, name)
	case xds.EndpointType:
		return t.Get(plan.Endpoints, name)
	case xds.RouteType:
		return t.Get(plan.RouteTables, name)
	case xds.ScopeType:
		return t.Get(plan.Scopes, name)
	case xds.ListenerType:
		return t.Get(plan.Listeners, name)
	}
	return nil
}

func origin(t Tables, id string) []model.Source {
	o, _ := t.Get(plan.Origins, id).(*plan.Origin)
	if o == nil {
		return nil
	}
	return o.Sources
}

func sorted(in []model.Source) []model.Source {
	out := slices.Clone(in)
	slices.SortFunc(out, model.CompareSources)
	return slices.Compact(out)
}
