// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

func lazyRoutes(t testing.TB, name, cluster string) xds.Resource {
	return resource(t, xds.RouteType, fmt.Sprintf(`
name: %q
request_headers_to_remove: [x-dst]
virtual_hosts:
- {name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: %s, timeout: 0s}}]}`, name, cluster))
}

// Routes that nobody uses any more are evicted by an update of their scope, in
// place, to another name of the same routes: Envoy drops the old name at once and
// asks for the new one when the next request comes. Requests that come meanwhile
// wait for it, and those that are under way end as they began.
func TestEvictUnderLoad(t *testing.T) {
	bodyServer(t, "a", serverA+":8080")
	p := start(t, authorityListener(15100, loadFirst))
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(lazyRoutes(t, "r~0", "a"), scopeOf(t, 1, "r~0"))
	p.asked(xds.RouteType)

	var stop atomic.Bool
	var short, long atomic.Int64
	var all sync.WaitGroup
	defer func() { stop.Store(true); all.Wait() }() // also of a test that ended early
	load := func(n *atomic.Int64, headers ...string) {
		c := httpFrom(t, alpha, vip(0, 1, 80), false)
		all.Go(func() {
			for !stop.Load() {
				if got, err := ask(c, "POST", "h", strings.NewReader("hello"), headers...); err != nil || got != "200  a 5 h" {
					t.Errorf("%s, %v", got, err)
					return
				}
				n.Add(1)
			}
		})
	}
	for range 10 {
		load(&short)
		load(&long, "X-Wait: 200ms")
	}
	p.waitFor("load", func() bool { return short.Load() > 100 && long.Load() > 0 })

	const evictions = 200
	want := []string{"r~0"}
	for i := 1; i <= evictions; i++ {
		name := fmt.Sprintf("r~%d", i)
		old := lazyRoutes(t, want[i-1], "a")
		p.push(lazyRoutes(t, name, "a"), scopeOf(t, 1, name))
		want = append(want, name)
		p.remove(old)
		before := short.Load()
		p.waitFor("requests after an eviction", func() bool { return short.Load() > before+10 })
	}
	stop.Store(true)
	all.Wait()
	equal(t, "asked for", p.asked(xds.RouteType), want)
	t.Logf("%d requests, %d of them long, %d evictions", short.Load()+long.Load(), long.Load(), evictions)
}

// What is evicted costs nothing: its clusters can go, while requests that use them
// are under way, changes of it are not sent, and its memory is free. It comes back
// with the next request.
func TestEvictFrees(t *testing.T) {
	const n = 100
	bodyServer(t, "a", serverA+":8080")
	p := start(t, authorityListener(15100, loadFirst))
	cluster := func(i int) []xds.Resource { return edsCluster(t, fmt.Sprint("c", i), "", serverA+":8080") }
	for i := range n {
		p.push(lazyRoutes(t, fmt.Sprintf("r%d~0", i), fmt.Sprint("c", i)), scopeOf(t, i+1, fmt.Sprintf("r%d~0", i)))
	}
	use := func(version int) {
		t.Helper()
		for i := range n {
			p.push(cluster(i)...)
			p.push(lazyRoutes(t, fmt.Sprintf("r%d~%d", i, version), fmt.Sprint("c", i)))
			c := httpFrom(t, alpha, vip(0, i+1, 80), false)
			got, err := ask(c, "GET", "h", nil)
			if err != nil || got != "200  a 0 h" {
				t.Fatalf("service %d: %s, %v", i, got, err)
			}
			c.CloseIdleConnections()
		}
	}
	evict := func(version int) {
		t.Helper()
		for i := range n {
			next := fmt.Sprintf("r%d~%d", i, version)
			p.push(lazyRoutes(t, next, fmt.Sprint("c", i)), scopeOf(t, i+1, next))
			p.remove(append(cluster(i), lazyRoutes(t, fmt.Sprintf("r%d~%d", i, version-1), ""))...)
		}
	}
	clusters := func() int { return strings.Count(p.get("/clusters"), "::observability_name::c") }

	// The first round makes what stays, such as statistics.
	use(0)
	evict(1)
	idle := p.allocated()
	use(1)
	equal(t, "clusters in use", clusters(), n)
	used := p.allocated()

	under, client := make(chan string, 1), httpFrom(t, alpha, vip(0, 1, 80), false)
	go func() {
		got, err := ask(client, "POST", "h", strings.NewReader("hello"), "X-Wait: 1s")
		under <- fmt.Sprint(got, err)
	}()
	time.Sleep(200 * time.Millisecond)
	evict(2)
	equal(t, "request under way", <-under, "200  a 5 h<nil>")
	equal(t, "clusters evicted", clusters(), 0)
	p.waitFor("memory is free", func() bool { return p.allocated()-idle < (used-idle)/5 })
	t.Logf("%d B for each of the used, %d B after eviction", (used-idle)/n, (p.allocated()-idle)/n)

	before := p.feed.Counters().Resources
	for i := range n {
		p.push(lazyRoutes(t, fmt.Sprintf("r%d~2", i), "other"))
	}
	equal(t, "sent of the unused", p.feed.Counters().Resources-before, uint64(0))
	use(2)
}

// allocated is Envoy's memory in use, in bytes.
func (p *proxy) allocated() int {
	p.t.Helper()
	var m struct{ Allocated string }
	if err := json.Unmarshal([]byte(p.get("/memory")), &m); err != nil {
		p.t.Fatal(err)
	}
	n, err := strconv.Atoi(m.Allocated)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// A generation that takes over has the routes in use before its listener opens: their
// scopes are not on demand. One without routes holds the listener closed until they
// come, so they must be answered, by a stand-in if need be. Such scopes can be
// evicted later as the others, even by on_demand alone, and made eager again.
func TestWarmScopes(t *testing.T) {
	bodyServer(t, "a", serverA+":8080")
	p := start(t, "")
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	for i := 1; i <= 20; i++ {
		r := fmt.Sprint("r", i)
		p.push(scopeTo(t, vip(0, i, 80), r, i > 5))
		if i != 3 {
			p.push(lazyRoutes(t, r, "a"))
		}
	}
	p.feed.Apply([]serve.Change{serve.Set(dynamicListener(t))}, nil)
	asked := map[string]bool{}
	p.waitFor("routes are asked for", func() bool {
		for _, n := range p.asked(xds.RouteType) {
			asked[n] = true
		}
		return len(asked) >= 5
	})
	equal(t, "asked for", asked, map[string]bool{"r1": true, "r2": true, "r3": true, "r4": true, "r5": true})
	open := func(wait time.Duration) bool {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		c, err := dialErr(ctx, alpha, vip(0, 1, 80))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if open(500 * time.Millisecond) {
		t.Error("the listener opened before all routes were there")
	}
	p.push(lazyRoutes(t, "r3", "a"))
	p.waitFor("listener", func() bool { return open(50 * time.Millisecond) })
	get := func(i int, load ...string) {
		t.Helper()
		got, err := ask(httpFrom(t, alpha, vip(0, i, 80), false), "GET", "h", nil)
		if err != nil || got != "200  a 0 h" {
			t.Errorf("service %d: %s, %v", i, got, err)
		}
		equal(t, fmt.Sprintf("service %d asked for", i), p.asked(xds.RouteType), load)
	}
	for i := 1; i <= 5; i++ {
		get(i)
	}
	get(10, "r10")

	p.push(lazyRoutes(t, "r2~1", "a"), scopeTo(t, vip(0, 2, 80), "r2~1", true))
	equal(t, "asked for after eviction", p.asked(xds.RouteType), []string(nil))
	get(2, "r2~1")
	p.push(scopeTo(t, vip(0, 1, 80), "r1", true))
	equal(t, "asked for after eviction by on_demand", p.asked(xds.RouteType), []string(nil))
	get(1, "r1")
	p.push(scopeTo(t, vip(0, 12, 80), "r12", false))
	p.waitFor("routes of a scope that became eager", func() bool { return len(p.asked(xds.RouteType)) == 1 })
	get(12)
}

// dynamicListener is the listener of authorityListener, without policy, by LDS.
func dynamicListener(t testing.TB) xds.Resource {
	t.Helper()
	text := authorityListener(15100, loadFirst)
	_, text, _ = strings.Cut(text, "  - name: out\n")
	return resource(t, xds.ListenerType, "    name: out\n"+strings.ReplaceAll(text, "%d/access.log", "/dev/null"))
}

// A scope on demand, whose name is its key, costs Envoy about a kilobyte, and a
// memory peak of the response that brings it.
func TestScopeMemory(t *testing.T) {
	const n = 5000
	p := start(t, authorityListener(15100, loadFirst))
	before := p.allocated()
	var rs []xds.Resource
	for i := range n {
		rs = append(rs, scopeTo(t, fmt.Sprintf("10.97.%d.%d:80", i/250, i%250), fmt.Sprint("r", i), true))
	}
	p.push(rs...)
	each := (p.allocated() - before) / n
	t.Logf("%d B for each scope", each)
	if each < 200 || each > 2000 {
		t.Errorf("%d B for each scope", each)
	}
	equal(t, "asked for", p.asked(xds.RouteType), []string(nil))
}
