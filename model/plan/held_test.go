// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// A plane that routes by destination has no unknown hosts; where it refuses them for some
// clients all the same, these are held to services.
func TestHeldWhateverTheBasis(t *testing.T) {
	for _, c := range []struct {
		d    model.Defaults
		held bool
	}{
		{model.Defaults{Choice: model.Choice{Basis: model.ByDestination}, UnknownFrom: []model.UnknownFrom{{SourceNamespace: "shop", Unknown: model.UnknownRefuse}}}, true},
		{model.Defaults{Choice: model.Choice{Basis: model.ByDestination}, UnknownFrom: []model.UnknownFrom{{SourceNamespace: "shop", Unknown: model.UnknownPass}, {Unknown: model.UnknownRefuse}}}, false},
		{model.Defaults{Choice: model.Choice{Basis: model.ByDestination, Unknown: model.UnknownRefuse}}, false},
	} {
		s := store(append(world(), input{"defaults", "red", &c.d}, namespace(model.Namespace{Mesh: "red"}))...)
		for _, row := range s.Rows(plan.Pods) {
			if p := row.Value.(*plan.Pod); p.Listeners != nil && p.KnownOnly != c.held {
				t.Errorf("%+v: %s is held to services: %t", c.d, p.Name, p.KnownOnly)
			}
		}
	}
}
