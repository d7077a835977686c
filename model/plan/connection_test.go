// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
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

// streams prints the clusters of connections: name, then endpoints, or shares of them.
func streams(s *incr.Store) []string {
	var out []string
	for _, r := range s.Rows(plan.Clusters) {
		if !strings.HasPrefix(r.Key, "tcp|") && !strings.HasPrefix(r.Key, "tls|") {
			continue
		}
		line := r.Key
		e := s.Get(plan.Endpoints, r.Key).(*plan.ClusterEndpoints)
		add := func(bs []plan.Backend) {
			for _, b := range bs {
				line += fmt.Sprintf(" %s", b.Addrs[0])
			}
		}
		add(e.Backends)
		for _, sh := range e.Shares {
			line += fmt.Sprintf(" %d:", sh.Weight)
			add(sh.Backends)
		}
		out = append(out, line)
	}
	return out
}

// classOf is the class of a local pod, the same in all its listeners.
func classOf(t *testing.T, s *incr.Store, addr string) string {
	t.Helper()
	class := ""
	for _, name := range s.Get(plan.Pods, addr).(*plan.Pod).Listeners {
		l := s.Get(plan.Listeners, name).(*plan.Listener)
		if class == "" {
			class = l.Class
		}
		if l.Class != class || class == "" {
			t.Errorf("%s is of class %q, not %q", name, l.Class, class)
		}
	}
	return class
}

func TestConnectionsBySource(t *testing.T) {
	p := store(database(model.Frontend{Connections: []model.ConnectionRoute{
		{SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{to("db2", 3), to("nobody", 1), to("db", 2), to("db", 0)}},
		{SourceNamespace: "other", Backends: []model.Backend{to("db", 1)}},
		{SourceNamespace: "shop", Backends: []model.Backend{to("db2", 7)}},
	}})...)
	s := p.Get(plan.Services, "TCP/10.96.0.9:5432").(*plan.Service)
	if s.Mode != plan.Opaque || len(s.Backends) != 2 {
		t.Errorf("service %+v", s) // those that are not captured get its own endpoints
	}
	if p.Get(plan.Scopes, "10.96.0.9:5432") != nil {
		t.Error("connections have a scope of requests")
	}
	one, rest := classOf(t, p, "10.244.1.2"), classOf(t, p, "10.244.1.1")
	want := []string{
		"tcp|" + one + "|10.96.0.9:5432 3: 10.244.2.2:5432 2: 10.244.1.2:5432 10.244.2.2:5432", // whoever is not there leaves its share to the others
		"tcp|" + rest + "|10.96.0.9:5432 10.244.2.2:5432",
	}
	slices.Sort(want)
	check(t, streams(p), want...)
	o, _ := p.Get(plan.Origins, "tcp|"+one+"|10.96.0.9:5432").(*plan.Origin)
	if o == nil {
		t.Error("a cluster of connections has no origin")
	}
}

func TestConnectionsOfNobody(t *testing.T) {
	p := store(database(model.Frontend{Connections: []model.ConnectionRoute{
		{SourceNamespace: "other", Backends: []model.Backend{to("db", 1)}}, {SourceNamespace: "shop"}}})...)
	// No route: no cluster, which is closed; nobody behind a route: an empty one.
	check(t, streams(p), "tcp|"+classOf(t, p, "10.244.1.1")+"|10.96.0.9:5432", "tcp|"+classOf(t, p, "10.244.1.2")+"|10.96.0.9:5432")
	p = store(database(model.Frontend{Connections: []model.ConnectionRoute{{SourceNamespace: "other", Backends: []model.Backend{to("db", 1)}}}})...)
	check(t, streams(p))
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
			{Namespace: "shop", Service: "web", Port: 80, Weight: 1}}}}}), rows...)...)
		c, _ := p.Get(plan.Clusters, "tls|db||10.96.0.9:5432").(*plan.Cluster)
		if c == nil || c.Checked || c.Policy != nil || c.App != model.AppTCP {
			t.Errorf("%s: %+v", name, c)
		}
		// One cluster for all endpoints of a backend: no policy tells them apart.
		if e := p.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints); len(e.Backends) != 2 {
			t.Errorf("%s: endpoints %+v", name, e)
		}
	}
}

func TestConnectionsByServerName(t *testing.T) {
	for name, c := range map[string]struct {
		routes []model.ConnectionRoute
		want   []string // without the destination; $1 is the class of the pod with the label
	}{
		"names": {[]model.ConnectionRoute{{ServerNames: []string{"a.example.com", "*.b.example.com"}, Backends: []model.Backend{to("db2", 1)}}},
			[]string{"tls|*.b.example.com|| 2", "tls|a.example.com|| 2"}},
		"the most specific": {[]model.ConnectionRoute{
			{ServerNames: []string{"*.example.com"}, Backends: []model.Backend{to("db", 1)}},
			{ServerNames: []string{"*.a.example.com", "b.example.com"}, Backends: []model.Backend{to("db2", 1)}},
			{ServerNames: []string{"b.example.com"}},
			{Backends: []model.Backend{to("db", 1)}}},
			[]string{"tls||| 12", "tls|*.a.example.com|| 2", "tls|*.example.com|| 12", "tls|b.example.com|| 2"}},
		"by label": {[]model.ConnectionRoute{
			{ServerNames: []string{"*.example.com"}, Backends: []model.Backend{to("db", 1)}},
			{ServerNames: []string{"a.example.com"}, SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{to("db2", 1)}}},
			// Clients without the label get what the wildcard gives.
			[]string{"tls|*.example.com|| 12", "tls|a.example.com|$1| 2", "tls|a.example.com|$2| 12"}},
		"the rest by label": {[]model.ConnectionRoute{
			{ServerNames: []string{"a.example.com"}, Backends: []model.Backend{to("db", 1)}},
			{SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{to("db2", 1)}}},
			[]string{"tls||$1| 2", "tls|a.example.com|$1| 12", "tls|a.example.com|$2| 12"}},
	} {
		p := store(database(model.Frontend{App: model.AppTLS, Connections: c.routes})...)
		if s := p.Get(plan.Services, "TCP/10.96.0.9:5432").(*plan.Service); s.Mode != plan.TLS {
			t.Errorf("%s: service %+v", name, s)
		}
		var got []string
		fill := strings.NewReplacer(classOf(t, p, "10.244.1.2"), "$1", classOf(t, p, "10.244.1.1"), "$2",
			"10.96.0.9:5432", "", " 10.244.1.2:5432 10.244.2.2:5432", " 12", " 10.244.2.2:5432", " 2")
		for _, line := range streams(p) {
			got = append(got, fill.Replace(line))
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Server names of all services are those of the listener, whose name does not change
// with them.
func TestServerNamesOfListeners(t *testing.T) {
	route := func(names ...string) []model.ConnectionRoute {
		return []model.ConnectionRoute{{ServerNames: names, Backends: []model.Backend{to("db", 1)}}}
	}
	p := store(append(database(model.Frontend{Connections: route("b", "a")}), service("other", "10.96.0.20", 443, model.AppTLS),
		frontend("red", model.Frontend{Service: "other", Port: 443, Connections: route("*.c", "a")}))...)
	name := p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[plan.TLS]
	if l := p.Get(plan.Listeners, name).(*plan.Listener); !slices.Equal(l.ServerNames, []string{"*.c", "a", "b"}) {
		t.Errorf("listener %+v", l)
	}
	p.Delete("route/red", "shop/other:443")
	p.Run()
	if l, _ := p.Get(plan.Listeners, name).(*plan.Listener); l == nil || !slices.Equal(l.ServerNames, []string{"a", "b"}) {
		t.Errorf("listener %+v", l)
	}
	for _, m := range plan.Modes() {
		if has := p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[m] != ""; has != (m == plan.HTTP || m == plan.TLS) {
			t.Errorf("listener for %s: %v", m, has)
		}
	}
}

// Names that no handshake can say must not take the others' listener with them, nor
// become routes for every name.
func TestMalformedServerNames(t *testing.T) {
	bad := []string{"*..com", "*", "*a.com", "a.com.", "A.com", "fd96::1", "a|b", "a%b", "a..b", strings.Repeat("a", 64) + ".com"}
	p := store(database(model.Frontend{Connections: []model.ConnectionRoute{
		{ServerNames: bad, Backends: []model.Backend{to("db", 1)}},
		{ServerNames: []string{"*.", "a_b.com", "*.c-1.com"}, Backends: []model.Backend{to("db2", 1)}}}})...)
	l := p.Get(plan.Listeners, p.Get(plan.Pods, "10.244.1.1").(*plan.Pod).Listeners[plan.TLS]).(*plan.Listener)
	check(t, l.ServerNames, "*.c-1.com", "a_b.com")
	check(t, streams(p), "tls|*.c-1.com||10.96.0.9:5432 10.244.2.2:5432", "tls|a_b.com||10.96.0.9:5432 10.244.2.2:5432")
	ds, _ := p.Get(plan.Diagnostics, "service/shop/db").([]model.Diagnostic)
	if len(ds) != len(bad)+1 {
		t.Errorf("%d diagnostics: %+v", len(ds), ds)
	}
}

// Where no server name is read, routes that ask for one take nothing.
func TestServerNamesOfDetectedPorts(t *testing.T) {
	named := model.ConnectionRoute{ServerNames: []string{"a"}, SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{to("db2", 1)}}
	f := model.Frontend{App: model.AppDetect, Connections: []model.ConnectionRoute{named, {Backends: []model.Backend{to("db", 1)}}}}
	p := store(database(f)...)
	check(t, streams(p), "tcp||10.96.0.9:5432 10.244.1.2:5432 10.244.2.2:5432")
	if p.Len("plan/servername") != 0 {
		t.Error("names for TLS listeners")
	}
	f.Connections = []model.ConnectionRoute{named}
	check(t, streams(store(database(f)...)))
}

// Envoy refuses weights whose sum is more than 32 bits hold.
func TestWeightsOfShares(t *testing.T) {
	sum := func(a, b uint32) (out []uint32) {
		p := store(database(model.Frontend{Connections: []model.ConnectionRoute{
			{ServerNames: []string{"a"}, Backends: []model.Backend{to("db", a), to("db2", b)}}}})...)
		for _, s := range p.Get(plan.Endpoints, "tls|a||10.96.0.9:5432").(*plan.ClusterEndpoints).Shares {
			out = append(out, s.Weight)
		}
		return out
	}
	if got := sum(90, 30); !slices.Equal(got, []uint32{3, 1}) {
		t.Errorf("90:30 became %d", got)
	}
	got := sum(4_000_000_000, 2_000_000_001)
	if len(got) != 2 || uint64(got[0])+uint64(got[1]) > 1<<32-1 {
		t.Fatalf("weights %d", got)
	}
	if part := float64(got[0]) / (float64(got[0]) + float64(got[1])); part < 0.66666 || part > 0.66667 {
		t.Errorf("weights %d", got)
	}
}

// Who dials a pod of a headless service gets that one, unless a route says otherwise.
func TestConnectionsToHeadlessServices(t *testing.T) {
	rows := append(world(), headless("db", 5432, model.AppTCP), endpoints("db", 5432, 5432, "10.244.1.2", "10.244.2.2"),
		service("db2", "10.96.0.10", 5432, ""), endpoints("db2", 5432, 5432, "10.244.2.9"))
	red := func(f model.Frontend) input {
		f.Service, f.Port = "db", 5432
		return frontend("red", f)
	}
	for name, c := range map[string]struct {
		f    model.Frontend
		want []string
	}{
		"itself": {model.Frontend{Connections: []model.ConnectionRoute{{Backends: []model.Backend{to("db", 1)}}}},
			[]string{"tcp||10.244.1.2:5432 10.244.1.2:5432", "tcp||10.244.2.2:5432 10.244.2.2:5432"}},
		"another": {model.Frontend{Backends: []model.Backend{to("db2", 1)}},
			[]string{"tcp||10.244.1.2:5432 10.244.2.9:5432", "tcp||10.244.2.2:5432 10.244.2.9:5432"}},
	} {
		p := store(append(slices.Clone(rows), red(c.f))...)
		if s, _ := p.Get(plan.Services, "TCP/10.244.1.2:5432").(*plan.Service); s == nil || s.Mode != plan.Opaque || !s.Direct {
			t.Errorf("%s: %+v", name, s)
		}
		check(t, streams(p), c.want...)
	}
	if p := store(rows...); p.Get(plan.Services, "TCP/10.244.1.2:5432") != nil {
		t.Error("without routes the proxy is in the way")
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
	if sc, _ := p.Get(plan.Scopes, "10.96.1.1:9000").(*plan.Scope); sc == nil || sc.RouteTable != "shop/any:9000" {
		t.Errorf("scope of requests: %+v", sc)
	}
	check(t, streams(p), "tcp||10.96.1.1:9000 10.244.1.2:9000")
	c := p.Get(plan.Clusters, table(t, p, "shop/any:9000").Routes[0].Clusters[0].Name).(*plan.Cluster)
	if c.App != model.AppDetect || !c.Checked {
		t.Errorf("cluster %+v", c)
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
	ledWeb := web
	ledWeb.Policy = through("a.example")
	host := func(ns string, c model.Choice) input {
		f := &model.Frontend{Namespace: ns, Host: "www.example.com", Port: 80, Choice: c, Routes: []model.Route{{Backends: []model.Backend{web}}}}
		return input{"route/red", f.Key(), f}
	}
	rows := []input{
		defaults("red", model.ByAuthority, model.UnknownPass), defaults("red", model.ByAuthority, model.UnknownRefuse), defaults("blue", model.ByDestination, ""),
		namespace(model.Namespace{Mesh: "red"}), namespace(model.Namespace{Mesh: "red", Choice: model.Choice{Basis: model.ByDestination}}),
		named(service("web", "10.96.0.1", 80, model.AppHTTP)), headlessWeb, headlessWeb,
		named(headless("peers", 81, model.AppHTTP)), endpoints("peers", 81, 8080, "10.244.1.2", "10.244.2.2"),
		tcp(model.ConnectionRoute{ServerNames: []string{"a", "*..b"}, Backends: []model.Backend{web}}),
		tcp(model.ConnectionRoute{SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{web}}, model.ConnectionRoute{SourceNamespace: "shop"}),
		tcp(model.ConnectionRoute{SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{ledWeb}}, model.ConnectionRoute{ServerNames: []string{"a"}, Backends: []model.Backend{ledWeb, web}}),
		host("shop", model.Choice{}), host("other", model.Choice{Unknown: model.UnknownRefuse}),
	}
	for i, wait := range []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second} {
		rows = append(rows, undeclared(fmt.Sprintf("u%d", i), byte(i), wait)...)
	}
	return rows
}
