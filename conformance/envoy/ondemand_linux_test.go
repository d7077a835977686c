// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// The first request asks for its routes; the server sends the clusters that they name,
// as targets and for mirrors, unasked, waits until they are acknowledged, and then
// answers. So first requests, however many at once, are as good as later ones.
func TestFirstRequest(t *testing.T) {
	bodyServer(t, "a", hostPort(serverA, 8080))
	bodyServer(t, "b", hostPort(serverB, 8080))
	var mirrored atomic.Int32
	httpServer(t, hostPort(serverC, 8080), func(http.ResponseWriter, *http.Request) { mirrored.Add(1) })
	p, s := startScript(t, front())
	s.push(scopeTo(t, vip(0, 1, 80), "r", true), scopeTo(t, vip(0, 2, 80), "unused", true))
	equal(t, "asked for before", p.asked(xds.RouteType), []string(nil))

	const n = 20
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			got, err := ask(httpFrom(t, alpha, vip(0, 1, 80), false), "POST", "h", strings.NewReader("hello"))
			if err != nil || !strings.HasSuffix(got, " 5 h") {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	s.wait(xds.RouteType, "r")
	time.Sleep(100 * time.Millisecond) // all of them wait
	for name, server := range map[string]string{"a": serverA, "b": serverB, "m": serverC} {
		s.push(edsCluster(t, name, "", server+":8080")...)
	}
	s.push(routesOf(t, "r", "[{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 1}]}, request_mirror_policies: [{cluster: m}]}}]"))
	all.Wait()
	equal(t, "asked for", p.asked(xds.RouteType), []string{"r"})
	p.waitFor("mirrored requests", func() bool { return mirrored.Load() == n })
}

// When a scope leads to another name, Envoy lets go of the first one, and says so.
// Without a scope the key is not there; connections stay.
func TestEvictionIsTold(t *testing.T) {
	p, s := startScript(t, front())
	s.push(scopeTo(t, vip(0, 1, 80), "r~0", true))
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	got := make(chan string, 1)
	get := func() {
		a, err := fetch(c, "/")
		got <- fmt.Sprint(a.Status, err)
	}
	go get()
	s.wait(xds.RouteType, "r~0")
	s.push(direct(t, "r~0", 200))
	equal(t, "first", <-got, "200 <nil>")
	s.push(scopeTo(t, vip(0, 1, 80), "r~1", true))
	s.waitFor("let go", func() bool { return len(s.dropped(xds.RouteType)) > 0 })
	equal(t, "let go", s.dropped(xds.RouteType), []string{"r~0"})
	if strings.Contains(p.get("/config_dump?resource=dynamic_route_configs"), "r~0") {
		t.Error("the routes are still there")
	}
	go get()
	s.wait(xds.RouteType, "r~1")
	s.push(direct(t, "r~1", 200))
	equal(t, "again", <-got, "200 <nil>")
	equal(t, "removal", s.outcome(s.remove(xds.ScopeType, vip(0, 1, 80))), "")
	p.waitFor("no scope", func() bool { go get(); return <-got == "404 <nil>" })
	if n := strings.Count(p.get("/stats?filter=127.0.0.1_15100.downstream_cx_total"), "downstream_cx_total: 1\n"); n != 1 {
		t.Error("more than one connection for all requests")
	}
}

// A connection manager's idle time ends requests that wait for routes; routes say how
// long theirs may be silent, for ever with 0.
func TestIdleStreams(t *testing.T) {
	httpServer(t, hostPort(serverA, 8080), func(http.ResponseWriter, *http.Request) { time.Sleep(2500 * time.Millisecond) })
	_, s := startScript(t, strings.Replace(front(), "stream_idle_timeout: 0s", "stream_idle_timeout: 1s", 1))
	s.push(scopeTo(t, vip(0, 1, 80), "never", true), scopeTo(t, vip(0, 2, 80), "r", true))
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	got, err := fetch(c, "/")
	equal(t, "without routes", fmt.Sprint(got.Status, err), "504 <nil>")
	s.push(edsCluster(t, "a", "", serverA+":8080")...)
	go func() {
		s.wait(xds.RouteType, "r")
		s.push(routesOf(t, "r", "[{match: {prefix: /}, route: {cluster: a, timeout: 0s, idle_timeout: 0s}}]"))
	}()
	got, err = fetch(httpFrom(t, alpha, vip(0, 2, 80), false), "/")
	equal(t, "silent for longer", fmt.Sprint(got.Status, err), "200 <nil>")
}

// Clients that go away while the cluster of their connection is awaited harm nobody.
func TestTCPResets(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p, s := startScript(t, opaqueListeners())
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			c, err := dialErr(t.Context(), alpha, vip(0, i%12, 80))
			if err != nil {
				t.Error(err)
				return
			}
			c.SetLinger(0)
			time.Sleep(time.Duration(i%5) * 500 * time.Microsecond)
			c.Close()
		})
	}
	for i := range 12 {
		name := "tcp|a|" + vip(0, i, 80)
		s.wait(xds.ClusterType, name)
		s.push(edsCluster(t, name, "", serverA+":9000")...)
	}
	all.Wait()
	for i := range 12 {
		equal(t, "afterwards", readLine(t, dial(t, alpha, vip(0, i, 80))), "a "+alpha)
	}
	if p.hasEnded() {
		t.Errorf("envoy ended: %v", p.cmd.ProcessState)
	}
}

// A cluster is made ready for workers when it is first used. What changed before that
// counts.
func TestClusterBeforeUse(t *testing.T) {
	httpEcho(t, "b", hostPort(serverB, 8080))
	p := start(t, front())
	inflated := func() string { return p.get("/stats?filter=worker_.*clusters_inflated") }
	before := inflated()
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(edsCluster(t, "a", "", serverB+":8080")[1])
	p.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	equal(t, "clusters made ready before use", inflated(), before)
	a := mustFetch(t, vip(0, 1, 80), "/")
	equal(t, "first use", fmt.Sprint(a.Status, a.Server), "200b")
	if inflated() == before {
		t.Errorf("clusters made ready by use: %s", before)
	}
}
