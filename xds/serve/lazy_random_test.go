// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// lazyEnvoy behaves as Envoy does with scopes on demand: it asks for a route table
// when a request comes, or at once if its scope is eager, drops it when no scope
// leads there, asks for clusters by name when a connection comes, once for good, and
// keeps what it has over a lost connection.
type lazyEnvoy struct {
	t    *testing.T
	rand *rand.Rand

	mu     sync.Mutex
	c      *client
	has    map[string]map[string]string // type, name, version
	scopes map[string]*heldScope
	routes map[string][]string        // clusters of the tables that it has
	wants  map[string]map[string]bool // endpoints, routes and clusters that it asked for
	serves map[string]string          // the endpoints of its clusters
	must   map[string]bool            // clusters that are there, whatever is under way
	end    func()
}

type heldScope struct {
	table string
	eager bool
	used  bool // a request came
}

func newLazyEnvoy(t *testing.T, rnd *rand.Rand) *lazyEnvoy {
	e := &lazyEnvoy{t: t, rand: rnd, has: map[string]map[string]string{}, scopes: map[string]*heldScope{},
		routes: map[string][]string{}, wants: map[string]map[string]bool{eds: {}, rds: {}, cds: {}}, serves: map[string]string{}}
	for _, typ := range xds.Types() {
		e.has[typ] = map[string]string{}
	}
	return e
}

func (e *lazyEnvoy) session(c *client) {
	ctx, cancel := context.WithCancel(e.t.Context())
	var done sync.WaitGroup
	e.end = func() { cancel(); done.Wait(); c.close() }
	e.mu.Lock()
	e.c = c
	for _, typ := range []string{lds, cds, eds, srd, rds} {
		req := &discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n1"}, TypeUrl: typ, InitialResourceVersions: maps.Clone(e.has[typ])}
		if typ == eds || typ == rds {
			if req.ResourceNamesSubscribe = slices.Collect(maps.Keys(e.wants[typ])); len(req.ResourceNamesSubscribe) == 0 {
				continue
			}
		}
		if typ == cds && len(e.wants[cds]) > 0 {
			req.ResourceNamesSubscribe = append(slices.Collect(maps.Keys(e.wants[cds])), "*")
		}
		c.send(req)
	}
	e.mu.Unlock()
	done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-c.got:
				e.take(m)
			}
		}
	})
}

func (e *lazyEnvoy) take(m *discovery.DeltaDiscoveryResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
	for _, r := range m.Resources {
		if strings.HasPrefix(r.Version, "bad") {
			req.ErrorDetail = &status.Status{Message: "bad: " + r.Name}
		}
	}
	for _, r := range m.Resources {
		if strings.HasPrefix(r.Version, "bad") || req.ErrorDetail != nil && e.rand.IntN(2) == 0 {
			continue
		}
		e.set(m.TypeUrl, r)
	}
	for _, n := range m.RemovedResources {
		delete(e.has[m.TypeUrl], n)
		switch m.TypeUrl {
		case srd:
			delete(e.scopes, n)
		case cds:
			delete(e.serves, n)
			if e.wants[cds][n] {
				e.t.Errorf("cluster %s was asked for and is taken away", n)
			}
		}
	}
	e.check()
	var more *discovery.DeltaDiscoveryRequest
	switch m.TypeUrl {
	case cds:
		more = e.wanted(eds, slices.Compact(slices.Sorted(maps.Values(e.serves))))
	case srd:
		more = e.wantedTables()
	}
	reqs := []*discovery.DeltaDiscoveryRequest{req, more}
	if e.rand.IntN(2) == 0 {
		slices.Reverse(reqs)
	}
	for _, r := range reqs {
		if r != nil {
			e.c.stream.Send(r) // the stream may be over: the next one says what was taken
		}
	}
}

func (e *lazyEnvoy) set(typ string, r *discovery.Resource) {
	switch typ {
	case cds:
		e.serves[r.Name] = r.Name
		var m cluster.Cluster
		if err := proto.Unmarshal(r.Resource.Value, &m); err == nil && strings.HasPrefix(r.Name, "tcp|") {
			if m.Name != r.Name {
				e.t.Errorf("cluster %s is called %s", r.Name, m.Name)
			}
			if e.serves[r.Name] = cmp.Or(m.GetEdsClusterConfig().GetServiceName(), r.Name); m.EdsClusterConfig == nil {
				delete(e.serves, r.Name)
			}
		}
	case eds:
		if !e.wants[eds][r.Name] {
			return
		}
	case srd:
		var m route.ScopedRouteConfiguration
		if err := proto.Unmarshal(r.Resource.Value, &m); err != nil {
			e.t.Error(err)
		}
		now := &heldScope{table: m.RouteConfigurationName, eager: !m.OnDemand}
		if old := e.scopes[r.Name]; old != nil && old.table == now.table && old.eager == now.eager {
			now.used = old.used
		}
		e.scopes[r.Name] = now
	case rds:
		var m route.RouteConfiguration
		if err := proto.Unmarshal(r.Resource.Value, &m); err != nil || m.Name != r.Name {
			e.t.Errorf("routes %s are called %s: %v", r.Name, m.Name, err)
		}
		if !e.wants[rds][r.Name] {
			return
		}
		e.routes[r.Name] = nil
		for _, v := range m.GetVirtualHosts() {
			for _, r2 := range v.GetRoutes() {
				e.routes[r.Name] = append(e.routes[r.Name], r2.GetRoute().GetCluster())
			}
		}
	}
	e.has[typ][r.Name] = r.Version
}

// check: routes have their clusters at all times.
func (e *lazyEnvoy) check() {
	for n, clusters := range e.routes {
		for _, c := range clusters {
			if e.must[c] && e.has[cds][c] == "" {
				e.t.Errorf("routes %s@%s without cluster %s", n, e.has[rds][n], c)
			}
		}
	}
}

func (e *lazyEnvoy) wantedTables() *discovery.DeltaDiscoveryRequest {
	var names []string
	for _, s := range e.scopes {
		if s.eager || s.used {
			names = append(names, s.table)
		}
	}
	return e.wanted(rds, names)
}

// wanted makes a request for exactly these.
func (e *lazyEnvoy) wanted(typ string, names []string) *discovery.DeltaDiscoveryRequest {
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: typ}
	for n := range e.wants[typ] {
		if !slices.Contains(names, n) {
			req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, n)
			delete(e.wants[typ], n)
			delete(e.has[typ], n)
			if typ == rds {
				delete(e.routes, n)
			}
		}
	}
	for _, n := range names {
		if !e.wants[typ][n] {
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
			e.wants[typ][n] = true
		}
	}
	if len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) == 0 {
		return nil
	}
	return req
}

// request comes for a scope.
func (e *lazyEnvoy) request(scope string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.scopes[scope]; s != nil {
		s.used = true
		if req := e.wantedTables(); req != nil {
			e.c.stream.Send(req)
		}
	}
}

// connect comes for a cluster.
func (e *lazyEnvoy) connect(cluster string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.wants[cds][cluster] {
		e.wants[cds][cluster] = true
		e.c.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: []string{cluster}})
	}
}

// asked are the clusters that it asked for.
func (e *lazyEnvoy) asked() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.wants[cds]))
}

// meant is the version that it is to have of a cluster that it asked for.
func meant(want map[string]map[string]string, name string) string {
	for _, c := range candidates(cds, name) {
		if v := want[cds][c]; v != "" && c != name {
			return v + "=" + c
		} else if v != "" {
			return v
		}
	}
	return "none"
}

// tables are the names of those that it asked for, sorted.
func (e *lazyEnvoy) tables() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := map[string]bool{}
	for n := range e.wants[rds] {
		table, _, _ := strings.Cut(n, "~")
		names[table] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// picture is what it has: clusters, endpoints, scopes, and tables by their own names.
// Of what is rejected a client has the version before it, if it was there for that.
func (e *lazyEnvoy) picture(want map[string]map[string]string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var has []string
	for typ, byName := range e.has {
		for n, v := range byName {
			n, _, _ = strings.Cut(n, "~")
			v, _, _ = strings.Cut(v, "~")
			rejected := strings.HasPrefix(want[typ][n], "bad") || typ == cds && e.wants[cds][n] && strings.HasPrefix(meant(want, n), "bad")
			switch {
			case rejected && typ == rds:
				v = "old"
			case rejected, typ == eds && strings.HasPrefix(want[cds][n], "bad"):
				continue
			}
			has = append(has, fmt.Sprintf("%s %s@%s", xds.Short(typ), n, v))
		}
	}
	slices.Sort(has)
	return strings.Join(slices.Compact(has), ", ")
}

// TestRandomLazyChanges: after any sequence of pushes, rejections, requests,
// evictions, reconnections and restarts of the server, a client has what a new one
// has that asks for the same.
func TestRandomLazyChanges(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomLazy(t, rand.New(rand.NewPCG(seed, 3)))
		})
	}
}

func randomLazy(t *testing.T, rnd *rand.Rand) {
	opts := serve.Options{Lazy: true, StandIn: standInForAll, Candidates: candidates, ClusterLinger: time.Duration(rnd.IntN(3)) * 20 * time.Millisecond}
	s := serve.New(opts, nil)
	serve.SetWarmFor(s, 250*time.Millisecond)
	connect := start(t, s)
	e := newLazyEnvoy(t, rand.New(rand.NewPCG(rnd.Uint64(), 2)))
	s.Expect(time.Minute)
	e.session(connect())
	defer func() { e.end() }()

	want := map[string]map[string]string{cds: {}, eds: {}, rds: {}, srd: {}}
	name := func() string { return fmt.Sprint("n", rnd.IntN(8)) }
	connection := func(classes ...string) string {
		return "tcp|" + classes[rnd.IntN(len(classes))] + fmt.Sprint("|n", rnd.IntN(3))
	}
	version := 0
	for step := range 40 {
		switch rnd.IntN(10) {
		case 0:
			e.end()
			e.session(connect())
		case 1: // the server is another, and knows what the one before did
			e.end()
			opts.InUse = s.InUse()
			s = serve.New(opts, s.Resources())
			serve.SetWarmFor(s, 250*time.Millisecond)
			connect = start(t, s)
			s.Expect(time.Minute)
			e.session(connect())
		}
		for range rnd.IntN(4) {
			e.request(name())
		}
		if rnd.IntN(4) == 0 {
			e.connect(connection("a", "b"))
		}
		if rnd.IntN(3) == 0 {
			s.Evict(name(), name(), name())
		}

		changes := map[string]serve.Change{}
		for range 1 + rnd.IntN(6) {
			typ, n := []string{cds, eds, rds, srd}[rnd.IntN(4)], name()
			if (typ == cds || typ == eds) && rnd.IntN(2) == 0 {
				n = connection("a", "b", "")
			}
			if _, twice := changes[typ+n]; twice {
				continue
			}
			if rnd.IntN(4) == 0 {
				changes[typ+n] = serve.Change{Type: typ, Name: n}
				delete(want[typ], n)
				continue
			}
			version++
			v := fmt.Sprint("v", version)
			if rnd.IntN(4) == 0 && typ != srd && typ != eds {
				v = "bad" + v
			}
			r := resource(typ, n, v)
			switch typ {
			case cds:
				if strings.HasPrefix(n, "tcp|") {
					r = connectionCluster(t, n, v)
				}
			case rds:
				r = routes(t, n, v, name(), name())
			case srd:
				r = scope(t, n, name())
				r.Version = v
			}
			changes[typ+n] = serve.Set(r)
			want[typ][n] = v
		}
		e.mu.Lock()
		e.must = map[string]bool{}
		for n, v := range want[cds] {
			_, changed := changes[cds+n]
			e.must[n] = !changed && !strings.HasPrefix(v, "bad")
		}
		e.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := s.Push(ctx, slices.Collect(maps.Values(changes)))
		cancel()
		if err != nil {
			t.Fatal(step, err, e.picture(want))
		}
		if step%4 == 3 {
			compare(t, s, connect, e, want)
			e.compareWith(want)
		}
		if t.Failed() {
			return
		}
	}
	// When all is gone, nothing is kept, but the names that were asked for.
	var gone []serve.Change
	for _, r := range s.Resources() {
		gone = append(gone, serve.Change{Type: r.Type, Name: r.Name})
	}
	for typ, byName := range want { // of those that were bad from the start there is nothing
		for n := range byName {
			gone = append(gone, serve.Change{Type: typ, Name: n})
		}
	}
	if _, err := s.Push(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	if asked := slices.Collect(maps.Keys(e.wants[cds])); len(asked) > 0 {
		clear(e.wants[cds])
		e.c.unsubscribe(cds, asked...)
	}
	e.mu.Unlock()
	eventually(t, "nothing kept", func() bool { return serve.Held(s) == 0 })
}

// compareWith reports what it has in another version than the wanted one. Of what
// was rejected it has an older one, or a stand-in.
func (e *lazyEnvoy) compareWith(want map[string]map[string]string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for typ := range want {
		for n, got := range e.has[typ] {
			if typ == rds {
				n, _, _ = strings.Cut(n, "~")
			}
			w, none := want[typ][n], map[string]string{rds: "500", eds: "none"}[typ]
			if typ == cds && e.wants[cds][n] {
				w = meant(want, n)
			}
			if w == "" {
				w = none
			}
			if got, _, _ = strings.Cut(got, "~"); strings.HasPrefix(w, "bad") && !strings.HasPrefix(got, "bad") {
				continue
			}
			if got != w {
				e.t.Errorf("%s %s@%s, want %s", xds.Short(typ), n, got, w)
			}
		}
	}
}

// compare waits until the client has the same as a new one that asks for the same.
func compare(t *testing.T, s *serve.Server, connect func() *client, e *lazyEnvoy, want map[string]map[string]string) {
	t.Helper()
	// When it has answered this it has done all that was to be done before.
	if _, err := s.Push(t.Context(), set(resource(lds, "l", time.Now().UnixNano()))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "knowledge of use", func() bool { return slices.Equal(s.InUse(), e.tables()) })
	other := newLazyEnvoy(t, rand.New(rand.NewPCG(1, 1)))
	other.session(connect())
	defer func() { other.end() }()
	var a, b string
	for range 1000 {
		// It asks by requests for what it was not told to ask for.
		e.mu.Lock()
		var used []string
		for n, sc := range e.scopes {
			if sc.used || sc.eager {
				used = append(used, n)
			}
		}
		e.mu.Unlock()
		for _, n := range used {
			other.request(n)
		}
		for _, n := range e.asked() {
			other.connect(n)
		}
		if a, b = e.picture(want), other.picture(want); a == b {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("has      %s\nnew one  %s\nin use   %q", a, b, s.InUse())
}
