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

// At addresses that are everybody's, a service of one plane neither opens what another
// plane closes to its clients nor closes what it leaves open.
func TestUnknownFromOfSeveralPlanes(t *testing.T) {
	for _, red := range []model.Unknown{model.UnknownPass, model.UnknownRefuse} {
		s := store(append(world(), namespace(model.Namespace{Mesh: "red"}),
			input{"namespace", "held", &model.Namespace{Name: "held", Mesh: "blue"}}, input{"namespace", "free", &model.Namespace{Name: "free", Mesh: "blue"}},
			input{"defaults", "red", &model.Defaults{Choice: model.Choice{Basis: model.ByAuthority, Unknown: red}}},
			input{"defaults", "blue", &model.Defaults{UnknownFrom: []model.UnknownFrom{{SourceNamespace: "held", Unknown: model.UnknownRefuse}, {SourceNamespace: "shop", Unknown: model.UnknownRefuse}}}},
			declared(model.Service{Name: "api.example.com", Hosts: []string{"api.example.com"}, Reach: model.ReachAnywhere, Resolution: model.ResolveDNS,
				Ports: []model.ServicePort{{Name: "http", Port: 80, Protocol: model.TCP, App: model.AppHTTP}}}))...)
		e := table(t, s, "any:80").Elsewhere
		for ns, want := range map[string]model.Unknown{"held": model.UnknownRefuse, "free": model.UnknownPass, "shop": red} {
			got := e.Unknown
			for _, u := range e.From {
				if u.SourceNamespace == ns || u.SourceNamespace == "" {
					got = u.Unknown
					break
				}
			}
			if got != want {
				t.Errorf("red %s: clients of %s: %s", red, ns, got)
			}
		}
	}
}

// Who is kept from what nobody knows is told by whom: the plane's exception for the client,
// else the namespace's mark, else the plane's default.
func TestUnknownSources(t *testing.T) {
	src := func(name string) []model.Source { return []model.Source{{Kind: "Thing", Name: name}} }
	web, client := &model.Workload{Name: "web-1", Namespace: "shop", Labels: map[string]string{"v": "1"}}, &model.Workload{Name: "client", Namespace: "shop"}
	other := &model.Workload{Name: "x", Namespace: "other"}
	d := func(u model.Unknown) *model.Defaults {
		return &model.Defaults{Choice: model.Choice{Basis: model.ByAuthority, Unknown: u}, Src: src("mesh"), UnknownFrom: []model.UnknownFrom{
			{SourceNamespace: "shop", SourceLabels: web.Labels, Unknown: model.UnknownRefuse, Src: src("sidecar")},
			{SourceNamespace: "other", Unknown: model.UnknownPass, Src: src("other")},
		}}
	}
	marked := func(u model.Unknown) model.Namespace {
		return model.Namespace{Mesh: "red", Choice: model.Choice{Unknown: u}, Src: src("namespace")[0]}
	}
	for _, c := range []struct {
		name      string
		defaults  *model.Defaults
		namespace model.Namespace
		of        *model.Workload
		frontend  string
		want      string
	}{
		{"an exception", d(model.UnknownPass), marked(""), web, "", "sidecar"},
		{"nobody", d(model.UnknownPass), marked(""), client, "", ""},
		{"the mesh", d(model.UnknownRefuse), marked(""), client, "", "mesh"},
		{"the namespace", d(model.UnknownPass), marked(model.UnknownRefuse), client, "", "namespace"},
		{"the namespace, of a mesh that refuses", d(model.UnknownRefuse), marked(model.UnknownRefuse), client, "", "namespace"},
		{"the namespace passes", d(model.UnknownRefuse), marked(model.UnknownPass), client, "", ""},
		{"the service's namespace", d(model.UnknownPass), marked(model.UnknownRefuse), &model.Workload{Namespace: "far"}, "shop/web:80", "namespace"},
		{"an exception for who asks", d(model.UnknownPass), marked(model.UnknownRefuse), other, "shop/web:80", ""},
	} {
		s := store(append(world(), input{"defaults", "red", c.defaults}, namespace(c.namespace))...)
		got := ""
		for _, x := range plan.UnknownSources(s, c.of, c.frontend) {
			got += x.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
