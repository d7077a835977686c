// SPDX-License-Identifier: Apache-2.0

package blame

import (
	"encoding/json"
	"maps"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

// rulePlace is the place of rules, which are no routes.
const rulePlace = -1

// unit is a part of a row that has an origin of its own: a route, or a rule of a
// policy.
type unit struct {
	id     string
	place  int      // of the first of it among the routes in Envoy, or rulePlace
	parts  int      // how many routes it is there
	values []string // what stands in it; of a chosen unit, what it was chosen for
}

// units lists the parts of a row; none if it is made of one piece.
func units(row any) []unit {
	switch r := row.(type) {
	case *plan.RouteTable:
		var out []unit
		place := 0
		for i := range r.Routes {
			route := r.Routes[i]
			id, parts := route.ID, render.Parts(&route)
			out = append(out, rules(route.Policy)...)
			route.ID, route.Policy = "", nil
			out = append(out, unit{id, place, parts, values(&route)})
			place += parts
		}
		return out
	case *plan.Cluster:
		return rules(r.Policy)
	}
	return nil
}

func rules(p *plan.Policy) []unit {
	if p == nil {
		return nil
	}
	var out []unit
	for _, r := range slices.Concat(append([][]model.AuthRule{p.Deny}, p.Allow...)...) {
		out = append(out, unit{plan.RuleName(r), rulePlace, 0, values(r)})
	}
	return out
}

// values are the strings of a content, each once, in no order that matters.
func values(content any) []string {
	var body any
	if json.Unmarshal(model.Bytes(content), &body) != nil {
		return nil // not reached: it was marshalled just now
	}
	seen := map[string]bool{}
	collect(body, seen)
	return slices.Sorted(maps.Keys(seen))
}

func collect(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		if v != "" {
			into[v] = true
		}
	case []any:
		for _, item := range v {
			collect(item, into)
		}
	case map[string]any:
		for k, item := range v {
			if k != "kind" { // our own word for how a value is compared
				collect(item, into)
			}
		}
	}
}
