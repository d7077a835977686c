// SPDX-License-Identifier: Apache-2.0

package blame

import (
	"fmt"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// A route that is several in Envoy is found by the place of any of them.
func TestPlaces(t *testing.T) {
	table := &plan.RouteTable{Name: "shop/web:80", Routes: []plan.Route{
		{ID: "split", Clusters: []plan.WeightedCluster{{Name: "a", Weight: 1}, {Status: 500, Weight: 1}, {Status: 503, Weight: 1}}},
		{ID: "redirect", Redirect: &model.Redirect{Status: 301, Scheme: "https", Port: 443}},
		{ID: "plain", Clusters: []plan.WeightedCluster{{Name: "a", Weight: 1}}},
		{ID: "broken", Redirect: &model.Redirect{}},
		{ID: "last", Direct: &model.Direct{Status: 200}},
	}}
	for place, want := range []string{"split", "split", "split", "redirect", "redirect", "plain", "broken", "last"} {
		detail := fmt.Sprintf("caused by VirtualHostValidationError.Routes[%d]: bad", place)
		got := readHint(xds.RouteType, table.Name, detail).choose(units(table))
		if len(got) != 1 || got[0].id != want {
			t.Errorf("place %d: %+v, want %s", place, got, want)
		}
	}
}
