// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// named is a server that tells clients apart by their node's cluster, and what it told
// of rejections.
func named(initial ...xds.Resource) (*serve.Server, func() []string) {
	s, told, _ := contested(initial...)
	return s, told
}

// contested is named, with what it told of rejections by some.
func contested(initial ...xds.Resource) (s *serve.Server, told, contests func() []string) {
	var mu sync.Mutex
	var all, some []string
	s = serve.New(serve.Options{StandIn: standIn, Client: func(n *core.Node) string { return n.GetCluster() },
		OnReject: func(r serve.Rejection) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, r.Name+"@"+r.Version)
		},
		OnContest: func(r serve.Rejection) {
			mu.Lock()
			defer mu.Unlock()
			some = append(some, fmt.Sprintf("%s@%s by %v, not %v", r.Name, r.Version, r.Clients, r.Accepted))
		}}, initial)
	read := func(list *[]string) func() []string {
		return func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(*list)
		}
	}
	return s, read(&all), read(&some)
}

func (c *client) subscribeAs(name, typ string, names ...string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n1", Cluster: name}, TypeUrl: typ, ResourceNamesSubscribe: names})
}

// refuse expects the next response to be this, and rejects it.
func (c *client) refuse(want string) {
	c.t.Helper()
	m, got := c.next()
	if got != want {
		c.t.Fatalf("got  %q\nwant %q", got, want)
	}
	c.nack(m, "not by me")
}

// TestClientsJudgeForThemselves: what one client rejects stays with the one that took
// it, and with those that come while it is there.
func TestClientsJudgeForThemselves(t *testing.T) {
	s, told := named(resource(rds, "r", 1))
	connect := start(t, s)
	old := connect()
	old.subscribeAs("old", rds, "r")
	old.want("RouteConfiguration r@1")
	p := push(t, s, set(resource(rds, "r", 2))...)
	old.want("RouteConfiguration r@2")
	p.rejected()

	next := connect()
	next.subscribeAs("next", rds, "r")
	next.refuse("RouteConfiguration r@2")
	next.refuse("RouteConfiguration r@1")
	next.want("RouteConfiguration r@500")
	next.sync()
	bad := s.Status().Rejected
	if len(bad) != 1 || bad[0].Version != "2" || !slices.Equal(bad[0].Clients, []string{"next"}) || !slices.Equal(bad[0].Accepted, []string{"old"}) || bad[0].Kept != "" {
		t.Errorf("rejected %+v", bad)
	}
	if got := s.Contested("next"); len(got) != 1 || len(s.Contested("old")) != 0 {
		t.Errorf("contested %+v", got)
	}
	if got := s.Resources(); len(got) != 1 || got[0].Version != "2" {
		t.Errorf("for those that come: %+v", got)
	}
	old.subscribe(rds, "r") // again
	old.want("RouteConfiguration r@2")
	third := connect()
	third.subscribeAs("third", rds, "r")
	third.want("RouteConfiguration r@2")
	third.close()
	old.quiet()
	next.quiet()
	if got := told(); len(got) != 0 {
		t.Errorf("told %q, though there is one that has it", got)
	}

	// Of a change both have to say something.
	p = push(t, s, set(resource(rds, "r", 3))...)
	m, _ := old.next()
	next.refuse("RouteConfiguration r@3")
	p.waiting()
	next.quiet() // it has the stand-in
	old.ack(m)
	p.rejected("r")
	if got := p.out.Rejected[0]; !slices.Equal(got.Accepted, []string{"old"}) || len(told()) != 0 {
		t.Errorf("rejected %+v, told %q", got, told())
	}

	// What nobody has any more is rejected.
	old.close()
	eventually(t, "news of it", func() bool { return slices.Equal(told(), []string{"r@3"}) })
	last := connect()
	last.subscribeAs("last", rds, "r")
	last.want("RouteConfiguration r@500")
	last.sync()
	if got := s.Contested("next"); len(got) != 0 {
		t.Errorf("contested %+v", got)
	}
}

// TestContests: whoever wants to know what one client has and another rejects is told,
// whichever of them answers first.
func TestContests(t *testing.T) {
	s, told, contests := contested(resource(rds, "r", 1))
	connect := start(t, s)
	a, b := connect(), connect()
	for name, c := range map[string]*client{"a": a, "b": b} {
		c.subscribeAs(name, rds, "r")
		c.want("RouteConfiguration r@1")
		c.sync()
	}
	push(t, s, set(resource(rds, "r", 2))...)
	b.want("RouteConfiguration r@2")
	b.sync()
	a.refuse("RouteConfiguration r@2")
	eventually(t, "news", func() bool { return slices.Contains(contests(), "r@2 by [a], not [b]") })

	push(t, s, set(resource(rds, "r", 3))...)
	a.refuse("RouteConfiguration r@3")
	a.sync()
	if got := contests(); slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, "r@3") }) {
		t.Errorf("told %q before b has said anything", got)
	}
	b.want("RouteConfiguration r@3")
	eventually(t, "news", func() bool { return slices.Contains(contests(), "r@3 by [a], not [b]") })
	if got := told(); len(got) != 0 {
		t.Errorf("told %q, though there is one that has it", got)
	}
}

// TestClientCameWithWhatItRejects: one that was begun with a version, and finds out later
// that it is bad, has none from before: it is sent the last good one.
func TestClientCameWithWhatItRejects(t *testing.T) {
	s, _ := named(resource(rds, "r", 1))
	connect := start(t, s)
	old := connect()
	old.subscribeAs("old", rds, "r")
	old.want("RouteConfiguration r@1")
	p := push(t, s, set(resource(rds, "r", 2))...)
	old.want("RouteConfiguration r@2")
	p.rejected()

	next := connect()
	next.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n1", Cluster: "next"}, TypeUrl: rds,
		ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: map[string]string{"r": "2"}})
	next.want("RouteConfiguration")
	next.subscribe(rds, "r") // anew: its answer is the verdict
	next.refuse("RouteConfiguration r@2")
	next.want("RouteConfiguration r@1")
	next.sync()
}

// TestClientsKeepTheirLastGood: a client that rejects more than one change keeps what it
// had, and those that come when the others are gone get that.
func TestClientsKeepTheirLastGood(t *testing.T) {
	s, _ := named(resource(cds, "c", 1))
	connect := start(t, s)
	old, next := connect(), connect()
	old.subscribeAs("old", cds)
	old.want("Cluster c@1")
	next.subscribeAs("next", cds)
	next.want("Cluster c@1")
	for v := range 4 {
		p := push(t, s, set(resource(cds, "c", 2+v))...)
		old.want(fmt.Sprint("Cluster c@", 2+v))
		next.refuse(fmt.Sprint("Cluster c@", 2+v))
		p.rejected("c")
	}
	next.quiet()
	old.close()
	eventually(t, "end of a client", func() bool { return len(s.Status().Clients) == 1 })
	next.quiet()
	if bad := s.Status().Rejected; len(bad) != 1 || bad[0].Kept != "1" || len(bad[0].Accepted) != 0 {
		t.Errorf("rejected %+v", bad)
	}
	last := connect()
	last.subscribeAs("last", cds)
	last.want("Cluster c@1")
	push(t, s, serve.Change{Type: cds, Name: "c"})
	last.want("Cluster -c")
	next.want("Cluster -c")
}

// TestRejectedByOneThatIsGone: a client that rejects something and goes leaves no trace
// where another one has it.
func TestRejectedByOneThatIsGone(t *testing.T) {
	s, told := named(resource(cds, "c", 1))
	connect := start(t, s)
	old := connect()
	old.subscribeAs("old", cds)
	first, _ := old.next() // which it answers late
	for n := range 3 {
		next := connect()
		next.subscribeAs("next", cds)
		next.refuse("Cluster c@1")
		next.sync()
		if n := len(s.Status().Rejected); n != 1 {
			t.Errorf("%d rejected", n)
		}
		next.close()
		eventually(t, "end of a client", func() bool { return len(s.Status().Clients) == 1 })
		if n == 0 {
			old.ack(first)
			old.sync()
		}
		if bad := s.Status().Rejected; len(bad) != 0 {
			t.Errorf("rejected %+v", bad)
		}
	}
	old.quiet()
	if len(told()) != 0 {
		t.Errorf("told %q", told())
	}
}

// TestUnjudgedVersionOfALazyClient: in place of a bad version that is used first there
// is the one before it, which nobody has used either.
func TestUnjudgedVersionOfALazyClient(t *testing.T) {
	s := lazily(clusters("a"), []xds.Resource{routes(t, "r", 1, "a"), scope(t, "s", "r"), resource(cds, "b", 1), routes(t, "q", 1, "b"), scope(t, "s2", "q")})
	c := start(t, s)()
	c.begin("", " s@r~0 s2@q~0")
	push(t, s, set(routes(t, "r", "bad", "a"), resource(cds, "b", "bad"))...).rejected()
	c.subscribe(rds, "r")
	c.want("Cluster a@1")
	c.refuse("RouteConfiguration r@bad")
	c.want("RouteConfiguration r@1")
	c.subscribe(rds, "q")
	c.refuse("Cluster b@bad")
	c.want("Cluster b@1")
	c.want("RouteConfiguration q@1")
	c.sync()
	if bad := s.Status().Rejected; len(bad) != 2 || bad[0].Kept != "1" || bad[1].Kept != "1" {
		t.Errorf("rejected %+v", bad)
	}

	// Bad ones after one another: the last one that was not rejected.
	push(t, s, set(routes(t, "r", "worse", "a"))...)
	c.refuse("RouteConfiguration r@worse")
	c.quiet()
}

// TestAcceptedVersionStaysBehindUnjudgedOnes: however many versions nobody uses, the one
// that was accepted before them is kept.
func TestAcceptedVersionStaysBehindUnjudgedOnes(t *testing.T) {
	s := lazily(clusters("a"), []xds.Resource{routes(t, "r", 1, "a"), scope(t, "s", "r")})
	c := start(t, s)()
	c.begin("", " s@r~0")
	c.subscribe(rds, "r")
	c.want("Cluster a@1")
	c.want("RouteConfiguration r@1")
	c.unsubscribe(rds, "r")
	c.sync()
	for v := range 5 {
		push(t, s, set(routes(t, "r", 2+v, "a"))...).rejected()
	}
	c.subscribe(rds, "r")
	c.refuse("RouteConfiguration r@6")
	c.refuse("RouteConfiguration r@5")
	c.want("RouteConfiguration r@1")
}

// TestEndpointsComeBeforeTheRejection: Envoy answers a response with a bad cluster only
// when its good ones have endpoints.
func TestEndpointsComeBeforeTheRejection(t *testing.T) {
	var all []xds.Resource
	for _, n := range []string{"a", "b", "bad"} {
		all = append(all, resource(cds, n, 1), resource(eds, n, 1))
	}
	s := serve.New(serve.Options{}, all)
	c := start(t, s)()
	c.subscribe(cds)
	m, _ := c.next()
	c.subscribe(eds, "a", "b")
	c.want("ClusterLoadAssignment a@1 b@1")
	c.nack(m, "bad")
	// Halves: what is in them may be new to the client even now.
	c.want("Cluster a@1")
	first, _ := c.next()
	c.want("ClusterLoadAssignment a@1")
	c.want("ClusterLoadAssignment b@1")
	c.nack(first, "bad")
	for range 2 {
		m, got := c.next()
		if got == "Cluster bad@1" {
			c.nack(m, "bad")
			continue
		}
		c.ack(m)
	}
	c.want("ClusterLoadAssignment b@1")
	eventually(t, "the culprit", func() bool { return len(s.Status().Rejected) == 1 })
}

// picky is a client that takes what it has a taste for.
type picky struct {
	rejects string // versions with one of these letters

	mu  sync.Mutex
	has map[string]string
	end func()
}

func (p *picky) run(t *testing.T, c *client, name string) {
	c.subscribeAs(name, cds)
	first, _ := c.next()
	p.take(c, first)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	p.end = sync.OnceFunc(func() { cancel(); done.Wait(); c.close() })
	done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-c.got:
				p.take(c, m)
			}
		}
	})
	t.Cleanup(p.end)
}

func (p *picky) take(c *client, m *discovery.DeltaDiscoveryResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
	for _, r := range m.Resources {
		if strings.ContainsAny(r.Version, p.rejects) {
			req.ErrorDetail = &status.Status{Message: r.Name}
		} else {
			p.has[r.Name] = r.Version
		}
	}
	for _, n := range m.RemovedResources {
		delete(p.has, n)
	}
	c.stream.Send(req)
}

// TestRandomTastes: of three clients with different tastes, each has the last version
// that it takes, whatever the others do, and one that comes anew has what it would have.
func TestRandomTastes(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 5))
			s, _ := named()
			connect := start(t, s)
			s.Expect(time.Minute)
			all := []*picky{{rejects: "x"}, {rejects: "xy"}, {rejects: "xz"}}
			for i, p := range all {
				p.has = map[string]string{}
				p.run(t, connect(), fmt.Sprint(i))
			}
			want := []map[string]string{{}, {}, {}}
			for step := range 120 {
				changes := map[string]serve.Change{}
				for range 1 + rnd.IntN(4) {
					n := fmt.Sprint("n", rnd.IntN(4))
					if changes[n].Name != "" {
						continue
					}
					if rnd.IntN(8) == 0 {
						changes[n] = serve.Change{Type: cds, Name: n}
						for _, w := range want {
							delete(w, n)
						}
						continue
					}
					v := fmt.Sprint(step) + []string{"", "", "x", "y", "z"}[rnd.IntN(5)]
					changes[n] = serve.Set(resource(cds, n, v))
					for i, p := range all {
						if !strings.ContainsAny(v, p.rejects) {
							want[i][n] = v
						}
					}
				}
				var list []serve.Change
				for _, c := range changes {
					list = append(list, c)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				o, err := s.Push(ctx, list)
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range o.Rejected {
					if by := len(r.Clients); by+len(r.Accepted) != len(all) || by == 3 != strings.Contains(r.Version, "x") {
						t.Errorf("%+v", r)
					}
				}
				for i, p := range all {
					p.mu.Lock()
					if got := fmt.Sprint(p.has); got != fmt.Sprint(want[i]) {
						t.Errorf("step %d: client %d has %s, want %v", step, i, got, want[i])
					}
					p.mu.Unlock()
				}
				if t.Failed() {
					return
				}
				// The one that takes most is followed by another of its kind.
				if rnd.IntN(10) == 0 {
					p := &picky{rejects: "x", has: map[string]string{}}
					p.run(t, connect(), "0")
					eventually(t, "the same", func() bool {
						p.mu.Lock()
						defer p.mu.Unlock()
						return fmt.Sprint(p.has) == fmt.Sprint(want[0])
					})
					all[0].end()
					all[0] = p
					eventually(t, "three", func() bool { return len(s.Status().Clients) == 3 })
				}
			}
		})
	}
}
