// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// wantScope expects the next response to be one scope in this form.
func (c *client) wantScope(want string, table string, onDemand bool) {
	c.t.Helper()
	m, got := c.next()
	if got != want {
		c.t.Fatalf("got  %q\nwant %q", got, want)
	}
	var sc route.ScopedRouteConfiguration
	if err := proto.Unmarshal(m.Resources[0].Resource.Value, &sc); err != nil {
		c.t.Fatal(err)
	}
	if sc.RouteConfigurationName != table || sc.OnDemand != onDemand {
		c.t.Errorf("scope %v", &sc)
	}
	c.ack(m)
}

func (c *client) settle() { time.Sleep(250 * time.Millisecond); c.sync() }

func TestEvict(t *testing.T) {
	var told []string
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn, OnReject: func(r serve.Rejection) { told = append(told, r.Name+"@"+r.Version) }},
		slices.Concat(clusters("a", "b"), []xds.Resource{routes(t, "r", 1, "a", "b"), routes(t, "other", 1, "b"), scope(t, "s", "r"), scope(t, "so", "other")}))
	c := start(t, s)()
	c.begin("", " s@r~0 so@other~0")
	c.subscribe(rds, "r")
	c.want("Cluster a@1")
	c.want("Cluster b@1")
	c.want("RouteConfiguration r@1")
	c.subscribe(rds, "other")
	c.want("RouteConfiguration other@1")
	c.settle()

	s.Evict("r", "none")
	c.wantScope("ScopedRouteConfiguration s@r~1", "r~1", true)
	c.quiet() // it has the table until it lets go
	c.unsubscribe(rds, "r")
	c.want("Cluster -a")
	c.sync()
	if got := s.InUse(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("in use: %q", got)
	}
	s.Evict("r") // not there
	push(t, s, set(routes(t, "r", 2, "a"))...).rejected()
	c.quiet()

	// The next request.
	c.subscribe(rds, "r~1")
	c.want("Cluster a@1")
	m, got := c.next()
	if got != "RouteConfiguration r~1@2" {
		t.Fatal(got)
	}
	var body route.RouteConfiguration
	if err := proto.Unmarshal(m.Resources[0].Resource.Value, &body); err != nil || body.Name != "r~1" || len(body.VirtualHosts) != 1 {
		t.Errorf("%v %v", &body, err)
	}
	c.ack(m)
	c.sync()
	if got := s.InUse(); !slices.Equal(got, []string{"other", "r"}) {
		t.Errorf("in use: %q", got)
	}

	// Changes and rejections go by the table's own name.
	p := push(t, s, set(routes(t, "r", 3, "b"))...)
	c.want("RouteConfiguration r~1@3")
	p.rejected()
	c.want("Cluster -a")
	p = push(t, s, set(routes(t, "r", "bad", "b"))...)
	m, _ = c.next()
	c.nack(m, "no")
	p.rejected("r")
	if !slices.Equal(told, []string{"r@bad"}) {
		t.Errorf("told %q", told)
	}
	p = push(t, s, set(routes(t, "r", 4, "b"))...)
	c.want("RouteConfiguration r~1@4")
	p.rejected()

	// A changed scope keeps its name of the table, and eviction goes on to the next.
	sc := scope(t, "s", "r")
	sc.Version = "again"
	p = push(t, s, set(sc)...)
	c.wantScope("ScopedRouteConfiguration s@again~1", "r~1", true)
	p.rejected()
	s.Evict("r")
	c.wantScope("ScopedRouteConfiguration s@again~2", "r~2", true)
	c.unsubscribe(rds, "r~1")
	c.subscribe(rds, "r~2")
	c.want("RouteConfiguration r~2@4")
	c.quiet()
}

func TestRequestsDuringEviction(t *testing.T) {
	s := lazily(clusters("a"), []xds.Resource{routes(t, "r", 1, "a"), scope(t, "s", "r")})
	c := start(t, s)()
	c.begin("", " s@r~0")
	c.subscribe(rds, "r")
	c.want("Cluster a@1")
	c.want("RouteConfiguration r@1")
	c.settle()
	s.Evict("r")
	c.want("ScopedRouteConfiguration s@r~1")
	c.subscribe(rds, "r~1") // before it let go of the other
	c.want("RouteConfiguration r~1@1")
	p := push(t, s, set(routes(t, "r", 2, "a"))...)
	c.want("RouteConfiguration r@2")
	p.waiting()
	c.want("RouteConfiguration r~1@2")
	p.rejected()
	c.unsubscribe(rds, "r")
	c.quiet()
}

// TestScopesWaitForTablesUnderWay: Envoy forgets requests that wait for a table when
// its scope changes.
func TestScopesWaitForTablesUnderWay(t *testing.T) {
	s := lazily(clusters("a"), []xds.Resource{routes(t, "r", 1, "a"), routes(t, "q", 1), scope(t, "s", "r"), scope(t, "s2", "r"), scope(t, "s3", "q")})
	c := start(t, s)()
	c.begin("", " s@r~0 s2@r~0 s3@q~0")
	c.subscribe(rds, "r")
	m, got := c.next()
	if got != "Cluster a@1" {
		t.Fatal(got)
	}
	s.Evict("r") // it is not there yet
	done := make(chan serve.Outcome, 1)
	s.Apply([]serve.Change{serve.Set(scope(t, "s", "q")), {Type: srd, Name: "s2"}, {Type: srd, Name: "s3"}},
		func(o serve.Outcome) { done <- o })
	c.want("ScopedRouteConfiguration -s3")
	c.quiet()
	c.ack(m)
	m, got = c.next()
	if got != "RouteConfiguration r@1" {
		t.Fatal(got)
	}
	c.quiet()
	c.ack(m)
	c.want("ScopedRouteConfiguration s@q~0")
	if len(done) > 0 {
		t.Error("settled before the last answer")
	}
	c.want("ScopedRouteConfiguration -s2")
	<-done
	c.unsubscribe(rds, "r")
	c.want("Cluster -a")
}

func TestTablesThatLookLikeAliases(t *testing.T) {
	s := lazily([]xds.Resource{routes(t, "r", 1), routes(t, "r~1", 1), scope(t, "s", "r"), scope(t, "s1", "r~1")})
	c := start(t, s)()
	c.subscribe(srd)
	m, got := c.next()
	if got != "ScopedRouteConfiguration s@r~0 s1@r~1~0" {
		t.Fatal(got)
	}
	var sc route.ScopedRouteConfiguration
	if err := proto.Unmarshal(m.Resources[1].Resource.Value, &sc); err != nil || sc.RouteConfigurationName != "r~1~0" {
		t.Errorf("%v %v", &sc, err)
	}
	c.ack(m)
	c.subscribe(rds, "r", "r~1~0")
	c.want("RouteConfiguration r@1 r~1~0@1")
	c.sync()
	s.Evict("r")
	c.wantScope("ScopedRouteConfiguration s@r~1", "r~1", true)
	p := push(t, s, set(routes(t, "r", 2), routes(t, "r~1", 3))...)
	c.want("RouteConfiguration r@2")
	c.want("RouteConfiguration r~1~0@3")
	p.rejected()
}

func TestNewClientIsWarmed(t *testing.T) {
	s := lazily(clusters("a", "b", "c"), []xds.Resource{routes(t, "r", 1, "a"), routes(t, "q", 1, "b"), routes(t, "x", 1, "c"),
		scope(t, "s", "r"), scope(t, "sq", "q"), scope(t, "sx", "x")})
	connect := start(t, s)
	c := connect()
	c.begin("", " s@r~0 sq@q~0 sx@x~0")
	c.subscribe(rds, "r", "q")
	c.want("Cluster a@1")
	c.want("Cluster b@1")
	c.want("RouteConfiguration r@1")
	c.want("RouteConfiguration q@1")
	c.sync()

	serve.SetWarmFor(s, 600*time.Millisecond)
	d := connect()
	d.begin(" a@1 b@1", " s@r~0! sq@q~0! sx@x~0")
	d.subscribe(rds, "r")
	d.want("RouteConfiguration r@1")
	p := push(t, s, set(scope(t, "s2", "r"))...) // a client that asked is told in the same form
	c.want("ScopedRouteConfiguration s2@r~0")
	d.want("ScopedRouteConfiguration s2@r~0!")
	p.rejected()
	// What it does not ask for in time it does not use.
	d.want("Cluster -b")

	// A warmed table is evicted as another.
	c.close()
	s.Evict("r")
	d.want("ScopedRouteConfiguration s@r~1")
	d.want("ScopedRouteConfiguration s2@r~1")
	d.unsubscribe(rds, "r")
	d.want("Cluster -a")
	d.quiet()
}

func TestUseIsKeptForTheNextClient(t *testing.T) {
	var told atomic.Int64
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn, InUse: []string{"r", "gone"}, OnUse: func() { told.Add(1) }},
		slices.Concat(clusters("a", "b"), []xds.Resource{routes(t, "r", 1, "a"), routes(t, "q", 1, "b"), scope(t, "s", "r"), scope(t, "sq", "q")}))
	inUse := func(want ...string) {
		t.Helper()
		eventually(t, "use", func() bool { return slices.Equal(s.InUse(), want) })
	}
	inUse("gone", "r")
	connect := start(t, s)
	c := connect()
	c.begin(" a@1", " s@r~0! sq@q~0")
	c.close() // before it could ask
	inUse("gone", "r")
	serve.SetWarmFor(s, 300*time.Millisecond)
	c = connect()
	c.begin(" a@1", " s@r~0! sq@q~0")
	c.subscribe(rds, "r", "q")
	c.want("Cluster b@1")
	m, l := c.next()
	for l == "RouteConfiguration r@1" { // does not wait for the other's cluster
		c.ack(m)
		m, l = c.next()
	}
	c.ack(m)
	inUse("q", "r")
	c.unsubscribe(rds, "r")
	inUse("q")
	c.close()
	eventually(t, "end of a client", func() bool { return len(s.Status().Clients) == 0 })
	inUse("q")
	if told.Load() < 5 {
		t.Errorf("told %d times", told.Load())
	}
	push(t, s, serve.Change{Type: rds, Name: "q"}).rejected()
	inUse()
}

func TestLazyClientComesBack(t *testing.T) {
	all := slices.Concat(clusters("a", "b", "c", "d"), []xds.Resource{
		routes(t, "r", 1, "a"), routes(t, "changed", 2, "b"), routes(t, "evicted", 1, "d"), routes(t, "new", 1),
		scope(t, "s", "r"), scope(t, "sc", "changed"), scope(t, "se", "evicted"), scope(t, "sn", "new"), scope(t, "slost", "lost"),
	})
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn}, all) // knows nothing of the client
	c := start(t, s)()
	c.back(cds, false, "a@1", "c@1", "gone@1")
	c.back(srd, false, "s@r~3!", "sc@changed~0", "se@evicted~2", "slost@lost~0", "sgone@g~0")
	c.back(rds, true, "r~3@1", "changed@1", "lost@1")
	seen := map[string]bool{}
	for range 4 {
		m, l := c.next()
		seen[l] = true
		c.ack(m)
	}
	// Nothing of what is the same.
	for _, want := range []string{"Cluster", "Cluster b@1", "RouteConfiguration changed@2", "ScopedRouteConfiguration sn@new~0"} {
		if !seen[want] {
			t.Errorf("no %q in %v", want, seen)
		}
	}
	// What vanished or is not needed goes last and in reverse.
	c.want("ScopedRouteConfiguration -sgone")
	c.want("RouteConfiguration lost@500")
	c.want("Cluster -c -gone")
	c.quiet()
	if got, want := s.InUse(), []string{"changed", "lost", "r"}; !slices.Equal(got, want) {
		t.Errorf("in use %q, want %q", got, want)
	}
	// It goes on as if it had never been away.
	c.subscribe(rds, "evicted~2")
	c.want("Cluster d@1")
	c.want("RouteConfiguration evicted~2@1")
	s.Evict("r")
	c.wantScope("ScopedRouteConfiguration s@r~4", "r~4", true)
	p := push(t, s, set(routes(t, "r", "bad"))...)
	m, got := c.next()
	if got != "RouteConfiguration r~3@bad" {
		t.Fatal(got)
	}
	c.nack(m, "no") // what it had before the server came serves on
	p.rejected("r")
	c.quiet()
}
