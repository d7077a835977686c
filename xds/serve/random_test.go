// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// envoy behaves as Envoy does: it wants all clusters, scopes and listeners, the
// endpoints of its clusters and the routes of its scopes; it takes good resources
// (of a rejected response, some), and keeps what it has over a lost connection.
type envoy struct {
	t       *testing.T
	connect func() *client
	rand    *rand.Rand

	mu  sync.Mutex
	has map[string]map[string]string // type, name, version
	// endpoints and routes that it asked for
	wants map[string]map[string]bool
	end   func()
}

// session runs one connection until end is called.
func (e *envoy) session() {
	c := e.connect()
	ctx, cancel := context.WithCancel(e.t.Context())
	var done sync.WaitGroup
	e.end = func() { cancel(); done.Wait(); c.close() }
	for _, typ := range []string{lds, cds, eds, srd, rds} {
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: typ, InitialResourceVersions: maps.Clone(e.has[typ])}
		if typ == eds || typ == rds {
			for n := range e.wants[typ] {
				req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
			}
			if len(req.ResourceNamesSubscribe) == 0 {
				continue // asked for when something leads there
			}
		}
		c.send(req)
	}
	done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-c.got:
				e.take(c, m)
			}
		}
	})
}

func (e *envoy) take(c *client, m *discovery.DeltaDiscoveryResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	bad := ""
	for _, r := range m.Resources {
		if strings.HasPrefix(r.Version, "bad") {
			bad += r.Name + " "
		}
	}
	led := map[string]string{cds: eds, srd: rds}[m.TypeUrl]
	var sub, unsub []string
	has := e.has[m.TypeUrl]
	for _, r := range m.Resources {
		if strings.HasPrefix(r.Version, "bad") || bad != "" && e.rand.IntN(2) == 0 {
			continue
		}
		has[r.Name] = r.Version
		switch m.TypeUrl {
		case cds:
			sub = e.want(eds, r.Name, sub)
		case srd:
			var s route.ScopedRouteConfiguration
			if err := proto.Unmarshal(r.Resource.Value, &s); err != nil {
				e.t.Error(err)
			}
			sub = e.want(rds, s.RouteConfigurationName, sub)
		}
	}
	for _, n := range m.RemovedResources {
		delete(has, n)
		if m.TypeUrl == cds {
			unsub = append(unsub, n)
			delete(e.has[eds], n)
			delete(e.wants[eds], n)
		}
	}
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
	if bad != "" {
		req.ErrorDetail = &status.Status{Message: "bad: " + bad}
	}
	// The stream may be over: the next one says what was taken.
	c.stream.Send(req)
	if len(sub)+len(unsub) > 0 {
		c.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: led, ResourceNamesSubscribe: sub, ResourceNamesUnsubscribe: unsub})
	}
}

// want adds a name to those to ask for, if it is new.
func (e *envoy) want(typ, name string, sub []string) []string {
	if e.wants[typ][name] {
		return sub
	}
	e.wants[typ][name] = true
	return append(sub, name)
}

// TestRandomChanges: after any sequence of pushes, rejections and reconnections a
// client has the last good version of everything that it wants.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomChanges(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func randomChanges(t *testing.T, rnd *rand.Rand) {
	s := serve.New(serve.Options{StandIn: func(typ, name string) (xds.Resource, bool) {
		return resource(typ, name, "none"), typ == rds || typ == eds
	}}, nil)
	e := &envoy{t: t, connect: start(t, s), rand: rand.New(rand.NewPCG(rnd.Uint64(), 2)), has: map[string]map[string]string{}, wants: map[string]map[string]bool{eds: {}, rds: {}}}
	for _, typ := range xds.Types() {
		e.has[typ] = map[string]string{}
	}
	good := map[string]map[string]string{} // what a client must have
	set := map[string]map[string]bool{}
	for _, typ := range xds.Types() {
		good[typ], set[typ] = map[string]string{}, map[string]bool{}
	}
	s.Expect(time.Minute) // the client is not there for moments
	e.session()
	version := 0
	for range 60 {
		if rnd.IntN(8) == 0 {
			e.end()
			e.session()
		}
		changes := map[string]serve.Change{}
		for range 1 + rnd.IntN(6) {
			typ := []string{cds, rds, lds}[rnd.IntN(3)]
			name := fmt.Sprint("n", rnd.IntN(8))
			if _, twice := changes[typ+name]; twice {
				continue
			}
			if set[typ][name] && rnd.IntN(4) == 0 {
				changes[typ+name] = serve.Change{Type: typ, Name: name}
				delete(set[typ], name)
				delete(good[typ], name)
				continue
			}
			version++
			v := fmt.Sprint("v", version)
			if rnd.IntN(4) == 0 {
				v = "bad" + v
			} else {
				good[typ][name] = v
			}
			set[typ][name] = true
			changes[typ+name] = serve.Set(resource(typ, name, v))
		}
		for i := range 8 { // one scope for each of the routes, from the start
			n := fmt.Sprint("n", i)
			changes[srd+n] = serve.Set(scope(t, n, n))
		}
		var all []serve.Change
		for _, c := range changes {
			all = append(all, c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		o, err := s.Push(ctx, all)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range o.Rejected {
			if !strings.HasPrefix(r.Version, "bad") || !strings.Contains(r.Detail, r.Name) {
				t.Errorf("rejected %+v", r)
			}
		}
		e.mu.Lock()
		for _, typ := range []string{cds, lds} {
			if !maps.Equal(e.has[typ], good[typ]) {
				t.Errorf("%s: has %v, want %v", xds.Short(typ), e.has[typ], good[typ])
			}
		}
		for n, v := range good[rds] {
			if got := e.has[rds][n]; got != v {
				t.Errorf("routes %s: has %s, want %s", n, got, v)
			}
		}
		e.mu.Unlock()
		if t.Failed() {
			break
		}
	}
	e.end()
}
