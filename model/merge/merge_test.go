// SPDX-License-Identifier: Apache-2.0

package merge

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

var planes = []string{"istio", "smi", "linkerd", "gateway"}

// routes is a frontend of shop/web:80 that answers with a status, from some objects.
func routes(status uint32, objects ...string) *model.Frontend {
	f := &model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{Direct: &model.Direct{Status: status}}}}
	for _, o := range objects {
		kind, name, _ := strings.Cut(o, " ")
		f.Src = append(f.Src, model.Source{Kind: kind, Namespace: "shop", Name: name})
	}
	return f
}

func TestOwner(t *testing.T) {
	istio, smi := routes(201, "VirtualService web"), routes(202, "TrafficSplit web")
	linkerd, gateway := routes(203, "HTTPRoute web"), routes(204, "HTTPRoute web")
	cases := []struct {
		name      string
		namespace *model.Namespace
		rows      map[string]*model.Frontend
		want      Owner
		said      model.Effect // of the diagnostic, "" if there must be none
	}{
		{"the only one", nil, map[string]*model.Frontend{"smi": smi}, Owner{Plane: "smi", Reason: ByOrder}, ""},
		{"the order", nil, map[string]*model.Frontend{"istio": istio, "smi": smi}, Owner{"istio", []string{"smi"}, ByOrder}, model.Degrades},
		{"the order, and both say the same", nil, map[string]*model.Frontend{"istio": istio, "smi": routes(201, "TrafficSplit web")},
			Owner{"istio", []string{"smi"}, ByOrder}, model.Cosmetic},
		{"a namespace without choice", &model.Namespace{Name: "shop"}, map[string]*model.Frontend{"istio": istio, "smi": smi},
			Owner{"istio", []string{"smi"}, ByOrder}, model.Degrades},
		{"the annotation", &model.Namespace{Name: "shop", Owner: "smi"}, map[string]*model.Frontend{"istio": istio, "smi": smi},
			Owner{"smi", []string{"istio"}, ByNamespace}, ""},
		{"the annotation beats the mark", &model.Namespace{Name: "shop", Owner: "smi", Mesh: "istio"}, map[string]*model.Frontend{"istio": istio, "smi": smi},
			Owner{"smi", []string{"istio"}, ByNamespace}, ""},
		{"the annotation without routes", &model.Namespace{Name: "shop", Owner: "gateway"}, map[string]*model.Frontend{"istio": istio},
			Owner{"gateway", []string{"istio"}, ByNamespace}, ""},
		{"the annotation of nobody", &model.Namespace{Name: "shop", Owner: "consul"}, map[string]*model.Frontend{"istio": istio, "smi": smi},
			Owner{"istio", []string{"smi"}, ByOrder}, model.Degrades},
		{"the mark", &model.Namespace{Name: "shop", Mesh: "smi"}, map[string]*model.Frontend{"istio": istio, "smi": smi},
			Owner{"smi", []string{"istio"}, ByMark}, model.Degrades},
		{"the mark of a plane without routes", &model.Namespace{Name: "shop", Mesh: "linkerd"}, map[string]*model.Frontend{"istio": istio, "smi": smi},
			Owner{"istio", []string{"smi"}, ByOrder}, model.Degrades},
		{"one object that two planes read, by mark", &model.Namespace{Name: "shop", Mesh: "linkerd"}, map[string]*model.Frontend{"linkerd": linkerd, "gateway": gateway},
			Owner{"linkerd", []string{"gateway"}, ByMark}, ""},
		{"one object that two planes read, by name", &model.Namespace{Name: "shop", Owner: "linkerd"}, map[string]*model.Frontend{"linkerd": linkerd, "gateway": gateway},
			Owner{"linkerd", []string{"gateway"}, ByNamespace}, ""},
		{"a plane with an object of its own", nil, map[string]*model.Frontend{"linkerd": routes(203, "ServiceProfile web", "HTTPRoute web"), "gateway": gateway},
			Owner{"linkerd", []string{"gateway"}, ByOrder}, ""},
		{"what the owner has not read", nil, map[string]*model.Frontend{"linkerd": routes(203, "ServiceProfile web"), "gateway": gateway},
			Owner{"linkerd", []string{"gateway"}, ByOrder}, model.Degrades},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := incr.New()
			Register(s, planes)
			if c.namespace != nil {
				s.Set(Namespaces, "shop", c.namespace)
			}
			for p, f := range c.rows {
				s.Set(RouteTable(p), f.Key(), f)
			}
			s.Run()
			got, _ := s.Get(Owners, "shop/web:80").(*Owner)
			if got == nil {
				t.Fatal("nobody owns it")
			}
			if len(got.Standby) == 0 {
				got.Standby = nil
			}
			if d := cmp.Diff(c.want, *got); d != "" {
				t.Error(d)
			}
			served, _ := s.Get(Frontends, "shop/web:80").(*model.Frontend)
			if served != c.rows[c.want.Plane] {
				t.Errorf("served: %+v", served)
			}
			var said model.Effect
			if ds, _ := s.Get(Diagnostics, "shop/web:80").([]model.Diagnostic); len(ds) > 0 {
				said = ds[0].Effect
			}
			if said != c.said {
				t.Errorf("said %q, want %q", said, c.said)
			}
		})
	}
}

// The owner follows the namespace: what is stored meanwhile decides nothing.
func TestOwnerChanges(t *testing.T) {
	s := incr.New()
	Register(s, planes)
	for p, status := range map[string]uint32{"istio": 201, "smi": 202} {
		f := routes(status, p+" web")
		s.Set(RouteTable(p), f.Key(), f)
	}
	for _, c := range []struct{ owner, mesh, want string }{{"", "", "istio"}, {"smi", "", "smi"}, {"", "smi", "smi"}, {"istio", "smi", "istio"}, {"", "", "istio"}} {
		s.Set(Namespaces, "shop", &model.Namespace{Name: "shop", Owner: c.owner, Mesh: c.mesh})
		s.Run()
		if got := s.Get(Owners, "shop/web:80").(*Owner).Plane; got != c.want {
			t.Errorf("owner %q, mark %q: %s serves, want %s", c.owner, c.mesh, got, c.want)
		}
	}
	s.Delete(RouteTable("istio"), "shop/web:80")
	s.Run()
	if got := s.Get(Owners, "shop/web:80").(*Owner); got.Plane != "smi" || len(got.Standby) > 0 {
		t.Errorf("istio has gone, and %+v", got)
	}
}

// What is said names all of them, and is a sentence however many they are.
func TestContestedWords(t *testing.T) {
	a, b := routes(201, "VirtualService web"), routes(202, "TrafficSplit web")
	for _, c := range []struct {
		rows map[string]*model.Frontend
		want string
	}{
		{map[string]*model.Frontend{"istio": a, "smi": b}, "istio and smi route shop/web:80 differently; istio serves, the other stands by"},
		{map[string]*model.Frontend{"istio": a, "smi": b, "linkerd": routes(203, "ServiceProfile web"), "gateway": routes(204, "HTTPRoute web")},
			"istio, smi, linkerd and gateway route shop/web:80 differently; istio serves, the others stand by"},
		{map[string]*model.Frontend{"istio": a, "smi": routes(201, "TrafficSplit web")}, "istio and smi both route shop/web:80, in the same way; istio serves"},
		{map[string]*model.Frontend{"istio": a, "smi": routes(201, "TrafficSplit web"), "linkerd": routes(201, "ServiceProfile web")},
			"istio, smi and linkerd all route shop/web:80, in the same way; istio serves"},
	} {
		s := incr.New()
		Register(s, planes)
		for p, f := range c.rows {
			s.Set(RouteTable(p), f.Key(), f)
		}
		s.Run()
		var got []string
		ds, _ := s.Get(Diagnostics, "shop/web:80").([]model.Diagnostic)
		for _, d := range ds {
			got = append(got, d.Message)
		}
		if d := cmp.Diff([]string{c.want}, got); d != "" {
			t.Error(d)
		}
	}
}
