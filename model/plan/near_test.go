// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
)

// on is the plan of a node.
func on(node string, rows ...input) *incr.Store {
	s := incr.New()
	merge.Register(s, planes)
	plan.Register(s, node, planes)
	for _, r := range rows {
		s.Set(r.table, r.key, r.value)
	}
	s.Run()
	return s
}

// kernelOf are the backends of shop/web that clients who are not proxied have.
func kernelOf(t *testing.T, s *incr.Store, key string) string {
	t.Helper()
	e, _ := s.Get(plan.Services, key).(*plan.Service)
	if e == nil {
		t.Fatalf("no service %s", key)
	}
	var out []string
	for _, b := range e.Backends {
		out = append(out, b.Addr.String())
	}
	return strings.Join(out, " ")
}

// envoyOf are the backends of a service's clusters, whatever judges them.
func envoyOf(s *incr.Store, name string) string {
	var all []string
	for _, r := range s.Rows(plan.Endpoints) {
		if r.Key != name && !strings.HasPrefix(r.Key, name+"~") {
			continue
		}
		for _, b := range r.Value.(*plan.ClusterEndpoints).Backends {
			all = append(all, b.Addrs[0].String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// placedEndpoints are those of shop/web, port 80.
func placedEndpoints(local bool, all ...model.Endpoint) input {
	slices.SortFunc(all, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return input{"endpoints", "shop/web", &model.Endpoints{Namespace: "shop", Service: "web", Local: local,
		Ports: []model.EndpointsPort{{Port: 80, Protocol: model.TCP, Backends: all}}}}
}

func without(rows []input, table incr.Table, key string) []input {
	return slices.DeleteFunc(slices.Clone(rows), func(r input) bool { return r.table == table && r.key == key })
}

func TestLocalServiceHasTheEndpointsOfTheNodeAlone(t *testing.T) {
	base := without(world(), "endpoints", "shop/web")
	rows := append(base, placedEndpoints(true,
		model.Endpoint{Addr: addr("10.244.1.2"), Port: 8080, Node: "n1"},
		model.Endpoint{Addr: addr("10.244.2.2"), Port: 8080, Node: "n2"},
		model.Endpoint{Addr: addr("192.0.2.1"), Port: 8080})) // of no node
	for node, want := range map[string]string{"n1": "10.244.1.2:8080", "n2": "10.244.2.2:8080", "n3": ""} {
		s := on(node, append(rows, pod("client-of-"+node, node, "10.244.9.9", "client", nil))...)
		if got := kernelOf(t, s, "TCP/10.96.0.1:80"); got != want {
			t.Errorf("the kernel of %s has %q, want %q", node, got, want)
		}
		if got := envoyOf(s, "shop/web:80"); got != want {
			t.Errorf("Envoy of %s has %q, want %q", node, got, want)
		}
	}
	// Also where another service's routes lead to it, narrowed by labels or not.
	routed := append(rows, service("shop", "10.96.0.2", 80, model.AppTCP), frontend("red", model.Frontend{
		Service: "shop", Port: 80, App: model.AppTCP,
		Backends: []model.Backend{{Namespace: "shop", Service: "web", Port: 80, Weight: 1, Labels: map[string]string{"app": "web"}}}}))
	e := on("n2", routed...).Get(plan.Services, "TCP/10.96.0.2:80").(*plan.Service)
	if e.Routed == nil || len(e.Routed.Backends) != 1 || e.Routed.Backends[0].Addr.String() != "10.244.2.2:8080" {
		t.Errorf("routed to a local service: %+v", e.Routed)
	}
}

// hinted is an endpoint with what its slice says whom it is for.
func hinted(n int, zones, nodes string) model.Endpoint {
	return model.Endpoint{Addr: addr(fmt.Sprintf("10.244.2.%d", n)), Port: 8080, ForZones: zones, ForNodes: nodes}
}

func TestHintsOfEndpoints(t *testing.T) {
	zoned := node("n1", "10.240.0.1")
	zoned.value.(*model.Node).Locality = model.Locality{Region: "eu", Zone: "eu-a"}
	six := hinted(1, "eu-b", "")
	six.Addr = addr("fd00::1")
	for name, c := range map[string]struct {
		endpoints []model.Endpoint
		want      string
	}{
		"no hints":                      {[]model.Endpoint{hinted(1, "", ""), hinted(2, "", "")}, "1 2"},
		"of the zone":                   {[]model.Endpoint{hinted(1, "eu-a", ""), hinted(2, "eu-b", "")}, "1"},
		"of several zones":              {[]model.Endpoint{hinted(1, "eu-b,eu-a", ""), hinted(2, "eu-b", ""), hinted(3, "eu-a", "")}, "1 3"},
		"names are whole":               {[]model.Endpoint{hinted(1, "eu-ab", ""), hinted(2, "eu-a", "")}, "2"},
		"one has none":                  {[]model.Endpoint{hinted(1, "eu-a", ""), hinted(2, "", "")}, "1 2"},
		"none for the zone":             {[]model.Endpoint{hinted(1, "eu-b", ""), hinted(2, "eu-c", "")}, "1 2"},
		"of the node":                   {[]model.Endpoint{hinted(1, "eu-a", "n1"), hinted(2, "eu-a", "n2")}, "1"},
		"none for the node, so by zone": {[]model.Endpoint{hinted(1, "eu-a", "n3"), hinted(2, "eu-b", "n2"), hinted(3, "eu-a", "n2")}, "1 3"},
		"one has none for nodes":        {[]model.Endpoint{hinted(1, "eu-a", "n1"), hinted(2, "eu-b", ""), hinted(3, "eu-a", "n2")}, "1 3"},
		"each family by itself":         {[]model.Endpoint{hinted(1, "eu-a", ""), hinted(2, "eu-c", ""), six}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for n := range strings.FieldsSeq(c.want) {
				want = append(want, "10.244.2."+n+":8080")
			}
			base := without(without(world(), "endpoints", "shop/web"), "node", "n1")
			s := on("n1", append(base, zoned, placedEndpoints(false, c.endpoints...))...)
			if got := kernelOf(t, s, "TCP/10.96.0.1:80"); got != strings.Join(want, " ") {
				t.Errorf("the kernel has %q, want %q", got, want)
			}
			if got := envoyOf(s, "shop/web:80"); got != strings.Join(want, " ") {
				t.Errorf("Envoy has %q, want %q", got, want)
			}
		})
	}
}

// A plane that chooses by authority, as Istio does, has its own words for near endpoints.
// Clients that it does not steer go by the hints all the same.
func TestHintsWhereAPlaneHasItsOwnOrder(t *testing.T) {
	zoned := node("n1", "10.240.0.1")
	zoned.value.(*model.Node).Locality = model.Locality{Region: "eu", Zone: "eu-a"}
	base := append(without(without(world(), "endpoints", "shop/web"), "node", "n1"), zoned,
		placedEndpoints(false, hinted(1, "eu-a", ""), hinted(2, "eu-b", "")))
	s := on("n1", append(base, byAuthority...)...)
	if got := kernelOf(t, s, "TCP/10.96.0.1:80"); got != "10.244.2.1:8080" {
		t.Errorf("the kernel has %q", got)
	}
	if got := envoyOf(s, "shop/web:80"); got != "10.244.2.1:8080 10.244.2.2:8080" {
		t.Errorf("Envoy has %q", got)
	}
}
