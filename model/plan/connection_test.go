// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func database(f model.Frontend) []input {
	f.Service, f.Port = "db", 5432
	return append(world(), service("db", "10.96.0.9", 5432, model.AppTCP), endpoints("db", 5432, 5432, "10.244.1.2", "10.244.2.2"),
		service("db2", "10.96.0.10", 5432, ""), endpoints("db2", 5432, 5432, "10.244.2.2"), frontend("red", f))
}

func to(service string, weight uint32) model.Backend {
	return model.Backend{Namespace: "shop", Service: service, Port: 5432, Weight: weight}
}

func TestConnectionsBySource(t *testing.T) {
	p := store(database(model.Frontend{Connections: []model.ConnectionRoute{
		{SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{to("db2", 3), to("nobody", 1), to("db", 0)}},
		{SourceNamespace: "other"},
		{Backends: []model.Backend{to("db", 7)}},
	}})...)
	s := p.Get(plan.Services, "TCP/10.96.0.9:5432").(*plan.Service)
	if s.Mode != plan.Opaque || len(s.Backends) != 2 {
		t.Errorf("service %+v", s) // those that are not captured get its own endpoints
	}
	if sc, _ := p.Get(plan.Scopes, "tcp|10.96.0.9:5432").(*plan.Scope); sc == nil || sc.RouteTable != "tcp/shop/db:5432" {
		t.Errorf("scope %+v", sc)
	}
	if p.Get(plan.Scopes, "10.96.0.9:5432") != nil {
		t.Error("connections have a scope of requests")
	}
	rt := table(t, p, "tcp/shop/db:5432")
	var got []string
	for _, c := range rt.Connections {
		line := c.SourceNamespace
		if c.SourceSelects != "" {
			line += "labels"
		}
		for _, w := range c.Clusters {
			line += fmt.Sprintf(" %s*%d", w.Name, w.Weight)
		}
		got = append(got, line)
		if p.Get(plan.Origins, c.ID) == nil {
			t.Errorf("%s has no origin", line)
		}
	}
	// The share of a backend that is not there is kept, and closed.
	check(t, got, "labels tcp/shop/db2:5432*3 tcp/shop/nobody:5432*1", "other", " tcp/shop/db:5432*1")
	if e := p.Get(plan.Endpoints, "tcp/shop/nobody:5432").(*plan.ClusterEndpoints); len(e.Backends) > 0 {
		t.Errorf("endpoints %+v", e)
	}
	// The pod that carries the labels has a listener that says so.
	l := p.Get(plan.Listeners, p.Get(plan.Pods, "10.244.1.2").(*plan.Pod).Listeners[plan.Opaque]).(*plan.Listener)
	if !slices.Contains(l.Selects, rt.Connections[0].SourceSelects) {
		t.Errorf("listener %+v", l)
	}
}

// A connection is judged where it arrives, whatever guards the endpoint and however
// its port is declared there: never may it look as if it had been judged before.
func TestConnectionsAreNotChecked(t *testing.T) {
	paths := from("client")
	paths.To = []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/ok"}}}}
	for name, rows := range map[string][]input{
		"unguarded":   nil,
		"by identity": {allow("p", model.Target{Namespace: "shop"}, from("client"))},
		"by request":  {allow("p", model.Target{Namespace: "shop"}, paths)},
		"a stranger":  {endpoints("web", 80, 8080, "10.244.1.2", "10.244.2.77")},
	} {
		p := store(append(database(model.Frontend{Connections: []model.ConnectionRoute{{ServerNames: []string{"db"}, Backends: []model.Backend{
			{Namespace: "shop", Service: "web", Port: 80, Weight: 1}, {Namespace: "shop", Service: "web", Port: 80, Labels: map[string]string{"v": "1"}, Weight: 1}}}}}), rows...)...)
		n := 0
		for _, r := range p.Rows(plan.Clusters) {
			if c := r.Value.(*plan.Cluster); strings.HasPrefix(c.Name, "tcp/") {
				n++
				if c.Checked || c.Policy != nil || c.App != model.AppTCP {
					t.Errorf("%s: %+v", name, c)
				}
			}
		}
		// One cluster for all endpoints of a backend: no policy tells them apart.
		if n != 2 || len(p.Get(plan.Endpoints, "tcp/shop/web:80").(*plan.ClusterEndpoints).Backends) != 2 {
			t.Errorf("%s: %d clusters", name, n)
		}
	}
}

func TestConnectionsByServerName(t *testing.T) {
	p := store(database(model.Frontend{App: model.AppTLS, Connections: []model.ConnectionRoute{
		{ServerNames: []string{"a.example.com", "*.b.example.com"}, Backends: []model.Backend{to("db2", 1)}}, {}}})...)
	if s := p.Get(plan.Services, "TCP/10.96.0.9:5432").(*plan.Service); s.Mode != plan.TLS {
		t.Errorf("service %+v", s)
	}
	cs := table(t, p, "tcp/shop/db:5432").Connections
	if len(cs) != 2 || !slices.Equal(cs[0].ServerNames, []string{"a.example.com", "*.b.example.com"}) || cs[1].Clusters != nil {
		t.Errorf("connections %+v", cs)
	}
	want := []plan.Mode{plan.HTTP, plan.TLS}
	for _, m := range plan.Modes() {
		if has := p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[m] != ""; has != slices.Contains(want, m) {
			t.Errorf("listener for %s: %v", m, has)
		}
	}
}

func undeclared(name string, n byte, wait time.Duration) []input {
	own := []model.Backend{{Namespace: "shop", Service: name, Port: 9000, Weight: 1}}
	return []input{service(name, fmt.Sprintf("10.96.1.%d", n), 9000, ""), endpoints(name, 9000, 9000, "10.244.1.2"),
		frontend("red", model.Frontend{Service: name, Port: 9000, App: model.AppDetect, DetectTimeout: wait,
			Routes: []model.Route{{Backends: own}}, Connections: []model.ConnectionRoute{{Backends: own}}})}
}

func TestDetection(t *testing.T) {
	p := store(append(world(), undeclared("any", 1, time.Second)...)...)
	for key, name := range map[string]string{"10.96.1.1:9000": "shop/any:9000", "tcp|10.96.1.1:9000": "tcp/shop/any:9000"} {
		if sc, _ := p.Get(plan.Scopes, key).(*plan.Scope); sc == nil || sc.RouteTable != name {
			t.Errorf("%s: %+v", key, sc)
		}
	}
	c := p.Get(plan.Clusters, table(t, p, "shop/any:9000").Routes[0].Clusters[0].Name).(*plan.Cluster)
	if c.App != model.AppDetect || !c.Checked {
		t.Errorf("cluster %+v", c)
	}
	if got := table(t, p, "tcp/shop/any:9000").Connections[0].Clusters[0].Name; got != "tcp/shop/any:9000" {
		t.Errorf("connections to %s", got)
	}
	l := p.Get(plan.Listeners, p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[plan.Detect]).(*plan.Listener)
	if l.Mode != plan.Detect || l.DetectTimeout != time.Second || !strings.HasPrefix(l.Name, "out/detect/") {
		t.Errorf("listener %+v", l)
	}
}

// A port whose protocol is found out is judged by request at its pods: who asks for
// more than the rule allows is denied, HTTP or not.
func TestDetectedPortsAreGuardedByRequest(t *testing.T) {
	rule := from("client")
	rule.To = []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/ok"}}}}
	p := store(append(append(world(), undeclared("any", 1, 0)...), allow("p", web, rule))...)
	if got := actions(p); !slices.Contains(got, "client 9000TCP check") || !slices.Contains(got, "any 9000TCP refuse") {
		t.Errorf("verdicts %q", got)
	}
	if p.Get(plan.Scopes, "in|10.244.1.2:9000") == nil {
		t.Error("the inbound listener does not know the port")
	}
	c := p.Get(plan.Clusters, table(t, p, "shop/any:9000").Routes[0].Clusters[0].Name).(*plan.Cluster)
	if c.Policy == nil {
		t.Errorf("requests are not judged here: %+v", c)
	}
}

func TestDetectTimeouts(t *testing.T) {
	waits := map[string]time.Duration{"a": 0, "b": time.Second, "c": 3 * time.Second, "d": 4 * time.Second, "e": 2 * time.Second}
	rows, n := world(), byte(0)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		n++
		rows = append(rows, undeclared(name, n, waits[name])...)
	}
	p := store(rows...)
	n = 0
	var got []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		n++
		s := p.Get(plan.Services, fmt.Sprintf("TCP/10.96.1.%d:9000", n)).(*plan.Service)
		l := p.Get(plan.Listeners, p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[s.Mode]).(*plan.Listener)
		d, _ := p.Get(plan.Diagnostics, "service/shop/"+name).([]model.Diagnostic)
		got = append(got, fmt.Sprintf("%s %s %s %d", name, s.Mode, l.DetectTimeout, len(d)))
	}
	// The two shortest and the longest are kept; the others wait longer and say so.
	check(t, got, "a detect3 0s 0", "b detect 1s 0", "c detect3 0s 1", "d detect3 0s 1", "e detect2 2s 0")
}

// Listeners stay while one service of the mode is left.
func TestListenersOfAMode(t *testing.T) {
	p := store(append(append(world(), undeclared("a", 1, 0)...), undeclared("b", 2, 0)...)...)
	name := func() string { return p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[plan.Detect] }
	first := name()
	p.Delete("route/red", "shop/a:9000")
	p.Run()
	if name() != first || first == "" {
		t.Errorf("listener %q became %q", first, name())
	}
	p.Delete("service", "shop/b")
	p.Run()
	if name() != "" || p.Get(plan.Listeners, first) != nil {
		t.Error("the last service has gone, the listener has not")
	}
}

// moreRows are for the test of edits: hosts, connections, detection, headless services.
func moreRows() []input {
	headlessWeb := named(headless("web", 80, model.AppHTTP))
	tcp := func(c ...model.ConnectionRoute) input {
		return frontend("blue", model.Frontend{Service: "web", Port: 80, App: model.AppTCP, Connections: c})
	}
	web := model.Backend{Namespace: "shop", Service: "web", Port: 80, Weight: 1}
	host := func(ns string, c model.Choice) input {
		f := &model.Frontend{Namespace: ns, Host: "www.example.com", Port: 80, Choice: c, Routes: []model.Route{{Backends: []model.Backend{web}}}}
		return input{"route/red", f.Key(), f}
	}
	rows := []input{
		defaults("red", model.ByAuthority, model.UnknownPass), defaults("red", model.ByAuthority, model.UnknownRefuse), defaults("blue", model.ByDestination, ""),
		namespace(model.Namespace{Mesh: "red"}), namespace(model.Namespace{Mesh: "red", Choice: model.Choice{Basis: model.ByDestination}}),
		named(service("web", "10.96.0.1", 80, model.AppHTTP)), headlessWeb, headlessWeb,
		named(headless("peers", 81, model.AppHTTP)), endpoints("peers", 81, 8080, "10.244.1.2", "10.244.2.2"),
		tcp(model.ConnectionRoute{ServerNames: []string{"a"}, Backends: []model.Backend{web}}),
		tcp(model.ConnectionRoute{SourceLabels: map[string]string{"v": "2"}, Backends: []model.Backend{web}}),
		host("shop", model.Choice{}), host("other", model.Choice{Unknown: model.UnknownRefuse}),
	}
	for i, wait := range []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second} {
		rows = append(rows, undeclared(fmt.Sprintf("u%d", i), byte(i), wait)...)
	}
	return rows
}
