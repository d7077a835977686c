// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// never is how long a test waits for what must not happen.
const never = 400 * time.Millisecond

// stays fails if something is so within a while.
func stays(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(never); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			t.Errorf("happened: %s", what)
			return
		}
	}
}

// Envoy acknowledges a cluster when it is ready for use: not before its endpoints.
func TestClusterAckedWithEndpoints(t *testing.T) {
	_, s := startScript(t, front())
	a := edsCluster(t, "a", "", serverA+":8080")
	nonce := s.send(a[0])
	s.wait(xds.EndpointType, "a")
	stays(t, "cluster acknowledged without endpoints", func() bool { return s.answered(nonce) })
	s.send(a[1])
	equal(t, "cluster", s.outcome(nonce), "")

	// No endpoints are endpoints, too.
	none := edsCluster(t, "none", "")
	nonce = s.send(none[0])
	s.wait(xds.EndpointType, "none")
	s.send(none[1])
	equal(t, "cluster without endpoints", s.outcome(nonce), "")
}

// A changed cluster becomes ready anew: it waits for its endpoints, which Envoy has
// and does not ask for. Meanwhile the old one serves.
func TestChangedClusterNeedsEndpoints(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p, s := startScript(t, front())
	a := edsCluster(t, "a", "", serverA+":8080")
	s.push(a...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	p.waitFor("route", func() bool { return statusOf(t, vip(0, 1, 80)) == 200 })

	p.asked(xds.EndpointType)
	changed := edsCluster(t, "a", "lb_policy: LEAST_REQUEST", serverA+":8080")
	nonce := s.send(changed[0])
	stays(t, "changed cluster acknowledged without endpoints", func() bool { return s.answered(nonce) })
	equal(t, "meanwhile", statusOf(t, vip(0, 1, 80)), 200)
	equal(t, "endpoints asked for", p.asked(xds.EndpointType), []string(nil))
	s.send(changed[1])
	equal(t, "cluster", s.outcome(nonce), "")
	equal(t, "then", statusOf(t, vip(0, 1, 80)), 200)
}

// hammer sends requests to a service until stop, each by a new connection, and counts
// what comes back by status; 0 is for requests without an answer.
func hammer(t testing.TB, dst string) (stop func() map[int]int) {
	counts := map[int]int{}
	var mu sync.Mutex
	var end atomic.Bool
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			c := httpFrom(t, alpha, dst, false)
			for !end.Load() {
				a, _ := fetch(c, "/")
				mu.Lock()
				counts[a.Status]++
				mu.Unlock()
			}
		})
	}
	stop = sync.OnceValue(func() map[int]int {
		end.Store(true)
		all.Wait()
		return counts
	})
	t.Cleanup(func() { stop() })
	return stop
}

// Services are added without a 503 if their cluster is acknowledged before the scope
// that makes Envoy ask for their routes; and taken away in reverse. Whoever adds
// routes first, or takes the cluster first, has them.
func TestOrder(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	const n = 5
	for _, c := range []struct {
		what       string
		add, taken []string
		errors     bool
	}{
		{"as it should be", []string{"cluster", "scope"}, []string{"scope", "route", "cluster"}, false},
		{"routes first", []string{"scope", "wait", "cluster"}, nil, true},
		{"cluster taken first", []string{"cluster", "scope"}, []string{"cluster", "wait", "scope", "route"}, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			p, s := startScript(t, front())
			for i := range n {
				name := fmt.Sprint("c", i)
				parts := map[string][]xds.Resource{
					"cluster": edsCluster(t, name, "", serverA+":8080"),
					"route":   {to(t, fmt.Sprint("r", i), name)},
					"scope":   {scopeTo(t, vip(0, i, 80), fmt.Sprint("r", i), false)},
				}
				stop := hammer(t, vip(0, i, 80))
				for _, what := range c.add {
					switch what {
					case "wait":
						p.waitFor("route", func() bool { return statusOf(t, vip(0, i, 80)) != 404 })
					case "cluster":
						s.push(parts[what]...)
					case "scope": // makes Envoy ask for routes
						s.push(parts["route"][0], parts["scope"][0])
					}
				}
				p.waitFor("service", func() bool { return statusOf(t, vip(0, i, 80)) == 200 })
				for _, what := range c.taken {
					if what == "wait" {
						p.waitFor("error", func() bool { return statusOf(t, vip(0, i, 80)) == 503 })
						continue
					}
					r := parts[what][0]
					equal(t, "removal", s.outcome(s.remove(r.Type, r.Name)), "")
				}
				if c.taken != nil {
					p.waitFor("service is gone", func() bool { return statusOf(t, vip(0, i, 80)) == 404 })
				}
				got := stop()
				if (got[503] > 0) != c.errors {
					t.Errorf("answers by status: %v", got)
				}
				for s := range got {
					if s != 200 && s != 404 && s != 503 {
						t.Errorf("answers by status: %v", got)
					}
				}
			}
		})
	}
}

// A cluster that is not there is no reason to reject routes: theirs answers 503 and
// the others serve. (If Envoy is told to validate, it rejects all of them.)
func TestUnknownCluster(t *testing.T) {
	p := start(t, front())
	routes := `
  - {match: {prefix: /there}, direct_response: {status: 204}}
  - {match: {prefix: /}, route: {cluster: nowhere}}`
	r := routesOf(t, "r", routes)
	p.push(r, scopeTo(t, vip(0, 1, 80), "r", false))
	equal(t, "known", mustFetch(t, vip(0, 1, 80), "/there").Status, 204)
	equal(t, "unknown", mustFetch(t, vip(0, 1, 80), "/").Status, 503)

	strict := resource(t, xds.RouteType, `
name: r
validate_clusters: true
virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: nowhere}}]}]`)
	if o := p.pushOutcome(strict); len(o.Rejected) != 1 {
		t.Error("Envoy was told to validate, and accepted")
	}
}

// To say that there are no routes of a name is no answer: a scope that is not on
// demand keeps its listener closed, longer than without any answer, and a request
// that waits for its routes goes on waiting. Only routes help.
func TestNoSuchRoutes(t *testing.T) {
	s := newScript(t)
	s.greet = []string{xds.ClusterType, xds.ListenerType}
	p := launch(t, setup{bootstrap: front(), register: s.register})
	s.waitFor("scopes are asked for", func() bool { return s.first()[xds.ScopeType] != nil })
	s.send(scopeTo(t, vip(0, 1, 80), "eager", false), scopeTo(t, vip(0, 2, 80), "lazy", true))
	s.wait(xds.RouteType, "eager")
	s.remove(xds.RouteType, "eager")
	// Without any answer it would wait for the initial_fetch_timeout, which is 1 s.
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if p.live() {
			t.Fatal("live without routes")
		}
	}
	s.send(direct(t, "eager", 200))
	p.waitLive()
	equal(t, "routes", statusOf(t, vip(0, 1, 80)), 200)

	c := httpFrom(t, alpha, vip(0, 2, 80), false)
	answer := make(chan int, 1)
	go func() { a, _ := fetch(c, "/"); answer <- a.Status }()
	s.wait(xds.RouteType, "lazy")
	s.remove(xds.RouteType, "lazy")
	stays(t, "request answered without routes", func() bool { return len(answer) > 0 })
	s.send(direct(t, "lazy", 500))
	equal(t, "stand-in", <-answer, 500)
}

// Routes and endpoints that something refers to do not go when the server says so.
func TestRemovalOfUsedIgnored(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	_, s := startScript(t, front())
	s.push(edsCluster(t, "a", "", serverA+":8080")...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	equal(t, "before", statusOf(t, vip(0, 1, 80)), 200)
	for _, r := range [][2]string{{xds.RouteType, "r"}, {xds.EndpointType, "a"}} {
		equal(t, "removal of "+r[1], s.outcome(s.remove(r[0], r[1])), "")
		time.Sleep(50 * time.Millisecond)
		equal(t, "after removal of "+r[1], statusOf(t, vip(0, 1, 80)), 200)
	}
}

// Envoy does not start before the first answers for clusters and listeners. Answers
// by nothing will do; clusters are taken whenever they come, unasked.
func TestFirstAnswers(t *testing.T) {
	s := newScript(t)
	p := launch(t, setup{bootstrap: "", register: s.register})
	s.waitFor("clusters are asked for", func() bool { return s.first()[xds.ClusterType] != nil })
	q := s.first()[xds.ClusterType]
	// No names in the first request of a type are all of them.
	equal(t, "names of clusters", q.GetResourceNamesSubscribe(), []string(nil))
	equal(t, "bank", q.GetNode().GetMetadata().GetFields()["bank"].GetNumberValue(), 1.0)
	stays(t, "live without clusters", p.live)
	s.say(xds.ClusterType)
	s.waitFor("listeners are asked for", func() bool { return s.first()[xds.ListenerType] != nil })
	stays(t, "live without listeners", p.live)
	s.say(xds.ListenerType)
	p.waitLive()

	a := edsCluster(t, "a", "", serverA+":8080")
	s.push(a...)
	p.waitFor("cluster", func() bool { return strings.Contains(p.get("/clusters"), "a::"+serverA+":8080::") })

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream.nodes != 1 || s.stream.count < 5 {
		t.Errorf("%d of %d requests have the node", s.stream.nodes, s.stream.count)
	}
}

// Envoy that comes back says what it has, by name and version, so that it need not
// be sent again, and what it wants. It comes back soon. Meanwhile, and when it is
// answered by nothing, all goes on.
func TestReconnect(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	listen(t, serverA+":9000", greet("tcp"))
	_, s := startScript(t, front()+opaque(15101, "a"))
	named := edsCluster(t, "tcp|a|"+vip(1, 1, 80), "", serverA+":9000")
	a := edsCluster(t, "a", "", serverA+":8080")
	routes, scope := to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", true)
	unused := scopeTo(t, vip(0, 2, 80), "unused", true)
	s.push(a...)
	s.push(scope, unused)
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	first := make(chan int, 1)
	go func() { a, _ := fetch(c, "/"); first <- a.Status }()
	s.wait(xds.RouteType, "r")
	s.push(routes)
	equal(t, "first request", <-first, 200)
	conn := dial(t, alpha, vip(1, 1, 80))
	s.wait(xds.ClusterType, named[0].Name)
	s.push(named...)
	equal(t, "first connection", readLine(t, conn), "tcp "+alpha)

	stop := hammer(t, vip(0, 1, 80))
	s.cut()
	time.Sleep(3 * time.Second)
	s.accept()
	accepts := time.Now()
	s.waitFor("envoy is back", func() bool { return len(s.first()) == 5 })
	// The pause between attempts is at most a second, as the bootstrap says, and does
	// not grow to the 30 s that it would.
	if d := time.Since(accepts); d > 3*time.Second {
		t.Errorf("back after %v", d)
	}
	has, wants := map[string]map[string]string{}, map[string][]string{}
	for typ, q := range s.first() {
		if v := q.GetInitialResourceVersions(); len(v) > 0 {
			has[xds.Short(typ)] = v
		}
		if names := q.GetResourceNamesSubscribe(); len(names) > 0 {
			slices.Sort(names)
			wants[xds.Short(typ)] = names
		}
	}
	versions := func(rs ...xds.Resource) map[string]string {
		m := map[string]string{}
		for _, r := range rs {
			m[r.Name] = r.Version
		}
		return m
	}
	cluster, endpoint := xds.Short(xds.ClusterType), xds.Short(xds.EndpointType)
	route, scopes := xds.Short(xds.RouteType), xds.Short(xds.ScopeType)
	equal(t, "has", has, map[string]map[string]string{
		cluster: versions(a[0], named[0]), endpoint: versions(a[1], named[1]), route: versions(routes), scopes: versions(scope, unused),
	})
	// All clusters, and one by its name.
	equal(t, "wants", wants, map[string][]string{
		cluster: {"*", named[0].Name}, endpoint: {"a", named[1].Name}, route: {"r"},
	})
	for _, typ := range []string{xds.ClusterType, xds.ListenerType, xds.ScopeType} {
		equal(t, "nothing new", s.outcome(s.say(typ)), "")
	}
	for got := range stop() {
		equal(t, "requests all the while", got, 200)
	}
	equal(t, "then", statusOf(t, vip(0, 1, 80)), 200)
	echoes(t, "connection", conn)
}

// A service moves to another cluster without an error, that cluster being there and
// ready before the route changes, and the first one going afterwards. Requests that
// are under way end as they began.
func TestMoveToOtherCluster(t *testing.T) {
	bodyServer(t, "a", hostPort(serverA, 8080))
	bodyServer(t, "b", hostPort(serverB, 8080))
	p, s := startScript(t, front())
	a := edsCluster(t, "a", "", serverA+":8080")
	s.push(a...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	p.waitFor("service", func() bool { return statusOf(t, vip(0, 1, 80)) == 200 })
	stop := hammer(t, vip(0, 1, 80))
	slow := make(chan string, 1)
	go func() {
		got, err := ask(httpFrom(t, alpha, vip(0, 1, 80), false), "GET", "h", nil, "X-Wait: 500ms")
		slow <- fmt.Sprint(got, err)
	}()
	time.Sleep(100 * time.Millisecond)
	s.push(edsCluster(t, "b", "", serverB+":8080")...)
	s.push(to(t, "r", "b"))
	equal(t, "removal", s.outcome(s.remove(xds.ClusterType, "a")), "")
	p.waitFor("cluster is gone", func() bool { return !strings.Contains(p.get("/clusters"), "a::"+serverA) })
	time.Sleep(50 * time.Millisecond)
	for got := range stop() {
		equal(t, "requests all the while", got, 200)
	}
	equal(t, "request under way", <-slow, "200  a 0 h<nil>")
	got, err := ask(httpFrom(t, alpha, vip(0, 1, 80), false), "GET", "h", nil)
	equal(t, "then", fmt.Sprint(got, err), "200  b 0 h<nil>")
}
