// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"reflect"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// A plane may say for some clients what becomes of hosts that nobody knows: tables tell
// them apart by what their listeners say of them, and their pods are held to services, or
// not.
func TestUnknownFrom(t *testing.T) {
	labels := map[string]string{"v": "1"}
	d := &model.Defaults{Choice: model.Choice{Basis: model.ByAuthority, Unknown: model.UnknownPass}, UnknownFrom: []model.UnknownFrom{
		{SourceNamespace: "shop", SourceLabels: labels, Unknown: model.UnknownRefuse},
		{SourceNamespace: "shop", SourceLabels: map[string]string{"v": "2"}, Unknown: model.UnknownPass},
		{SourceNamespace: "other", Unknown: model.UnknownRefuse},
	}}
	s := store(append(world(), input{"defaults", "red", d}, namespace(model.Namespace{Mesh: "red"}))...)
	from := table(t, s, "shop/web:80").Elsewhere.From
	if len(from) != 3 || from[0].SourceSelects == "" || from[0].SourceNamespace != "shop" || from[0].Unknown != model.UnknownRefuse ||
		!reflect.DeepEqual(from[2], plan.UnknownFrom{SourceNamespace: "other", Unknown: model.UnknownRefuse}) {
		t.Errorf("%+v", from)
	}
	selects := map[string]bool{}
	for _, row := range s.Rows(plan.Listeners) {
		for _, p := range row.Value.(*plan.Listener).Selects {
			selects[p] = true
		}
	}
	if !selects[from[0].SourceSelects] {
		t.Errorf("no listener has %s: %v", from[0].SourceSelects, selects)
	}
	for name, want := range map[string]bool{"10.244.1.1": false, "10.244.1.2": true} {
		if p := s.Get(plan.Pods, name).(*plan.Pod); p.KnownOnly != want {
			t.Errorf("%s is held to services: %t", name, p.KnownOnly)
		}
	}
}
