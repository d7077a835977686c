// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

func defaults(plane string, basis model.Basis, unknown model.Unknown) input {
	return input{"defaults", plane, &model.Defaults{Choice: model.Choice{Basis: basis, Unknown: unknown}}}
}

func namespace(n model.Namespace) input {
	n.Name = "shop"
	return input{"namespace", "shop", &n}
}

// frontend makes routes/red say something about a port.
func frontend(plane string, f model.Frontend) input {
	f.Namespace = "shop"
	return input{"route/" + incr.Table(plane), f.Key(), &f}
}

func named(in input) input {
	s := *in.value.(*model.Service)
	s.Hosts = []string{s.Name + ".shop.svc.cluster.local", s.Name + ".shop", s.Name}
	if len(s.VIPs) == 0 {
		s.Hosts = append(s.Hosts, "*."+s.Hosts[0])
	}
	in.value = &s
	return in
}

func table(t *testing.T, p *incr.Store, name string) *plan.RouteTable {
	t.Helper()
	rt, _ := p.Get(plan.RouteTables, name).(*plan.RouteTable)
	if rt == nil {
		t.Fatalf("no route table %s", name)
	}
	return rt
}

// Who decides how requests for other hosts are treated, the first that says something:
// the frontend, the namespace's annotations, the plane that routes it, the namespace's
// owner, the mesh of its mark.
func TestChoiceOfHosts(t *testing.T) {
	red := defaults("red", model.ByAuthority, model.UnknownPass)
	blue := defaults("blue", model.ByDestination, "")
	strict := defaults("blue", model.ByAuthority, model.UnknownRefuse)
	routes := []model.Route{{Direct: &model.Direct{Status: 200}}}
	web := func(c model.Choice) model.Frontend {
		return model.Frontend{Service: "web", Port: 80, Routes: routes, Choice: c}
	}
	for name, c := range map[string]struct {
		rows []input
		want string
	}{
		"nobody":                      {[]input{red, blue}, "destination"},
		"the mark":                    {[]input{red, namespace(model.Namespace{Mesh: "red"})}, "pass"},
		"a mark of nobody's":          {[]input{red, namespace(model.Namespace{Mesh: "green"})}, "destination"},
		"the owner before the mark":   {[]input{red, blue, namespace(model.Namespace{Mesh: "red", Owner: "blue"})}, "destination"},
		"an owner that is not there":  {[]input{red, namespace(model.Namespace{Mesh: "red", Owner: "green"})}, "pass"},
		"who routes, before the mark": {[]input{red, strict, frontend("blue", web(model.Choice{})), namespace(model.Namespace{Mesh: "red"})}, "refuse"},
		"the annotation":              {[]input{red, frontend("red", web(model.Choice{})), namespace(model.Namespace{Choice: model.Choice{Basis: model.ByDestination}})}, "destination"},
		"one annotation of two":       {[]input{red, frontend("red", web(model.Choice{})), namespace(model.Namespace{Choice: model.Choice{Unknown: model.UnknownRefuse}})}, "refuse"},
		"the frontend":                {[]input{red, frontend("red", web(model.Choice{Basis: model.ByDestination})), namespace(model.Namespace{Choice: model.Choice{Basis: model.ByAuthority}})}, "destination"},
	} {
		rt := table(t, store(append(world(), c.rows...)...), "shop/web:80")
		got := "destination"
		if rt.Elsewhere != nil {
			got = string(rt.Elsewhere.Unknown)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestHostsOfAFrontend(t *testing.T) {
	s := service("web", "10.96.0.1", 80, model.AppHTTP)
	v := s.value.(*model.Service)
	v.VIPs = append(v.VIPs, addr("fd96::1"))
	p := store(append(world(), named(s), defaults("red", model.ByAuthority, model.UnknownPass), namespace(model.Namespace{Mesh: "red"}))...)
	for _, name := range []string{"shop/web:80", "shop/web:80@6"} {
		rt := table(t, p, name)
		want := []string{"web.shop.svc.cluster.local", "web.shop", "web", "10.96.0.1", "[fd96::1]"}
		if !slices.Equal(rt.Hosts, want) || !reflect.DeepEqual(*rt.Elsewhere, plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}) {
			t.Errorf("%s: hosts %q, elsewhere %+v", name, rt.Hosts, rt.Elsewhere)
		}
	}
	if rt := table(t, store(append(world(), named(s))...), "shop/web:80"); rt.Hosts != nil || rt.Elsewhere != nil {
		t.Errorf("by destination: %q, %+v", rt.Hosts, rt.Elsewhere)
	}
}

// headless is a service without address.
func headless(name string, port uint16, app model.App) input {
	return input{"service", "shop/" + name, &model.Service{Namespace: "shop", Name: name, Ports: []model.ServicePort{{Port: port, Protocol: model.TCP, App: app}}}}
}

var byAuthority = []input{defaults("red", model.ByAuthority, model.UnknownPass), namespace(model.Namespace{Mesh: "red"})}

func rowsOf(p *incr.Store, t incr.Table, in func(key string) bool) []string {
	var out []string
	for _, r := range p.Rows(t) {
		if in(r.Key) {
			out = append(out, fmt.Sprintf("%s %s", r.Key, model.Bytes(r.Value)))
		}
	}
	return out
}

func TestHeadlessServices(t *testing.T) {
	peers := []input{named(headless("peers", 8080, model.AppHTTP)), endpoints("peers", 8080, 8080, "10.244.1.2", "10.244.2.2")}
	unready := endpoints("peers", 8080, 8080, "10.244.1.2")
	unready.value.(*model.Endpoints).Ports[0].Unready = []model.Endpoint{{Addr: addr("10.244.2.2"), Port: 8080}}

	t.Run("by authority", func(t *testing.T) {
		for _, eps := range []input{peers[1], unready} {
			p := store(append(append(world(), byAuthority...), peers[0], eps)...)
			for _, a := range []string{"10.244.1.2:8080", "10.244.2.2:8080"} {
				s, _ := p.Get(plan.Services, "TCP/"+a).(*plan.Service)
				if s == nil || s.Mode != plan.HTTP || !s.Direct || len(s.Backends) > 0 {
					t.Errorf("%s: %+v", a, s)
				}
				if sc, _ := p.Get(plan.Scopes, a).(*plan.Scope); sc == nil || sc.RouteTable != "shop/peers:8080" {
					t.Errorf("%s: %+v", a, sc)
				}
			}
			for key, name := range map[string]string{"host|peers.shop.svc.cluster.local:8080": "shop/peers:8080", "host|peers.shop.svc.cluster.local:8080@6": "shop/peers:8080@6"} {
				if sc, _ := p.Get(plan.Scopes, key).(*plan.Scope); sc == nil || sc.RouteTable != name {
					t.Errorf("%s: %+v", key, sc)
				}
			}
			rt := table(t, p, "shop/peers:8080")
			r := rt.Routes[0]
			// The client chose the endpoint, and nobody has judged what it may.
			if len(rt.Routes) != 1 || !r.Original || r.Checked || r.App != model.AppHTTP || len(r.Clusters) > 0 || !slices.Contains(rt.Hosts, "*.peers.shop.svc.cluster.local") {
				t.Errorf("table %+v", rt)
			}
		}
	})
	t.Run("by destination without routes", func(t *testing.T) {
		p := store(append(world(), peers...)...)
		if p.Get(plan.Services, "TCP/10.244.1.2:8080") != nil || p.Get(plan.RouteTables, "shop/peers:8080") != nil {
			t.Error("the proxy is in the way of clients that it does nothing for")
		}
	})
	t.Run("with routes", func(t *testing.T) {
		own := model.Backend{Namespace: "shop", Service: "peers", Port: 8080, Weight: 1}
		part := own
		part.Labels = map[string]string{"v": "1"}
		p := store(append(append(world(), peers...), frontend("red", model.Frontend{Service: "peers", Port: 8080, Routes: []model.Route{
			{Match: model.RouteMatch{Path: &model.StringMatch{Kind: model.Exact, Value: "/v1"}}, Backends: []model.Backend{part}},
			{Backends: []model.Backend{own}}}}))...)
		rs := table(t, p, "shop/peers:8080").Routes
		if len(rs) != 2 || rs[0].Original || len(rs[0].Clusters) != 1 || !rs[1].Original || len(rs[1].Clusters) > 0 {
			t.Errorf("routes %+v", rs)
		}
	})
	t.Run("not HTTP", func(t *testing.T) {
		for _, app := range []model.App{model.AppTCP, model.AppTLS, model.AppUndeclared} {
			p := store(append(append(world(), byAuthority...), named(headless("peers", 8080, app)), peers[1])...)
			if p.Get(plan.Services, "TCP/10.244.1.2:8080") != nil {
				t.Errorf("%q goes through the proxy", app)
			}
		}
	})
}

// Two services whose pods are dialled by their addresses: the first has them, the
// other says so, in whatever order they come.
func TestHeadlessServicesOfTheSamePods(t *testing.T) {
	rows := append(append(world(), byAuthority...),
		named(headless("b", 8080, model.AppHTTP)), endpoints("b", 8080, 8080, "10.244.1.2", "10.244.2.2"),
		named(headless("a", 8080, model.AppHTTP)), endpoints("a", 8080, 8080, "10.244.1.2"))
	p := store(rows...)
	for a, want := range map[string]string{"10.244.1.2:8080": "shop/a:8080", "10.244.2.2:8080": "shop/b:8080"} {
		if sc := p.Get(plan.Scopes, a).(*plan.Scope); sc.RouteTable != want {
			t.Errorf("%s: %s, want %s", a, sc.RouteTable, want)
		}
	}
	d, _ := p.Get(plan.Diagnostics, "service/shop/b").([]model.Diagnostic)
	if len(d) != 1 || d[0].Code != "shared-endpoint" || p.Get(plan.Diagnostics, "service/shop/a") != nil {
		t.Errorf("diagnostics %+v", d)
	}
	p.Delete("service", "shop/a")
	p.Run()
	if sc := p.Get(plan.Scopes, "10.244.1.2:8080").(*plan.Scope); sc.RouteTable != "shop/b:8080" || p.Get(plan.Diagnostics, "service/shop/b") != nil {
		t.Errorf("after it has gone: %+v", sc)
	}
}

func TestHostsWithoutService(t *testing.T) {
	web := model.Backend{Namespace: "shop", Service: "web", Port: 80, Weight: 1}
	host := func(name string, port uint16, c model.Choice) input {
		return frontend("red", model.Frontend{Host: name, Port: port, Choice: c,
			Routes: []model.Route{{Match: model.RouteMatch{Path: &model.StringMatch{Kind: model.Exact, Value: "/"}}, Backends: []model.Backend{web}}, {Original: true}}})
	}
	refuse := model.Choice{Unknown: model.UnknownRefuse}
	p := store(append(world(), host("www.example.com", 80, refuse), host("*.example.com", 80, model.Choice{}), host("www.example.com", 8080, refuse))...)
	for key, name := range map[string]string{
		"host|www.example.com:80": "shop/host/www.example.com:80", "host|www.example.com:80@6": "shop/host/www.example.com:80@6",
		"host|*.example.com:80": "shop/host/*.example.com:80", "host|www.example.com:8080": "shop/host/www.example.com:8080",
		"any|80": "any:80", "any|8080": "any:8080",
	} {
		if sc, _ := p.Get(plan.Scopes, key).(*plan.Scope); sc == nil || sc.RouteTable != name {
			t.Errorf("%s: %+v", key, sc)
		}
	}
	rt := table(t, p, "shop/host/www.example.com:80@6")
	if len(rt.Routes) != 2 || rt.Routes[0].Clusters[0].Name != "shop/web:80@6" || !rt.Routes[1].Original || rt.Routes[1].Checked || rt.Routes[1].App != model.AppDetect || rt.Elsewhere != nil {
		t.Errorf("table %+v", rt)
	}
	check(t, rowsOf(p, plan.Services, func(k string) bool { return k != "TCP/10.96.0.1:80" }),
		`TCP/0.0.0.0:80 {"addr":"0.0.0.0","port":80,"protocol":"TCP","name":"any","mode":"any"}`,
		`TCP/0.0.0.0:8080 {"addr":"0.0.0.0","port":8080,"protocol":"TCP","name":"any","mode":"any"}`,
		`TCP/[::]:80 {"addr":"::","port":80,"protocol":"TCP","name":"any","mode":"any"}`,
		`TCP/[::]:8080 {"addr":"::","port":8080,"protocol":"TCP","name":"any","mode":"any"}`)
	// One who passes unknown hosts is enough: the addresses are everybody's.
	for name, want := range map[string]plan.Elsewhere{"any:80": {Port: 80, Unknown: model.UnknownPass}, "any:8080": {Port: 8080, Unknown: model.UnknownRefuse}} {
		if rt := table(t, p, name); rt.Elsewhere == nil || !reflect.DeepEqual(*rt.Elsewhere, want) || len(rt.Hosts)+len(rt.Routes) > 0 {
			t.Errorf("%s: %+v", name, rt)
		}
	}
	if l := p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners; l[plan.Any] == "" || l[plan.HTTP] == "" || len(l) != 2 {
		t.Errorf("listeners %v", l)
	}
}

func TestHostOfTwoNamespaces(t *testing.T) {
	in := func(ns string) input {
		f := &model.Frontend{Namespace: ns, Host: "www.example.com", Port: 80, Routes: []model.Route{{Original: true}}}
		return input{"route/red", f.Key(), f}
	}
	p := store(append(world(), in("shop"), in("other"))...)
	if sc := p.Get(plan.Scopes, "host|www.example.com:80").(*plan.Scope); sc.RouteTable != "other/host/www.example.com:80" {
		t.Errorf("scope %+v", sc)
	}
	if d, _ := p.Get(plan.Diagnostics, "shop/host/www.example.com:80").([]model.Diagnostic); len(d) != 1 || d[0].Code != "host-twice" {
		t.Errorf("diagnostics %+v", d)
	}
}

// TestEqualRoutesOfTwoFrontends: each leads back to what its own was written by.
func TestEqualRoutesOfTwoFrontends(t *testing.T) {
	in := func(host string) input {
		f := &model.Frontend{Namespace: "shop", Host: host, Port: 80,
			Routes: []model.Route{{Original: true, Src: []model.Source{{Kind: "VirtualService", Name: host}}}}}
		return input{"route/red", f.Key(), f}
	}
	p := store(append(world(), in("a.example.com"), in("b.example.com"))...)
	for _, host := range []string{"a.example.com", "b.example.com"} {
		id := table(t, p, "shop/host/"+host+":80").Routes[0].ID
		if o, _ := p.Get(plan.Origins, id).(*plan.Origin); o == nil || len(o.Sources) != 1 || o.Sources[0].Name != host {
			t.Errorf("%s: origin %+v", host, o)
		}
	}
}
