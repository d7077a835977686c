// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// Requests are split by the weights of a route's clusters.
func TestWeightedClusters(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	httpEcho(t, "b", hostPort(serverB, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(edsCluster(t, "b", "", serverB+":8080")...)
	p.push(routesOf(t, "r", "[{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 80, request_headers_to_add: [{header: {key: x-part, value: a}}]}, {name: b, weight: 20}]}}}]"),
		scopeTo(t, vip(0, 1, 80), "r", false))
	const n = 400
	got := map[string]int{}
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	for range n {
		a, err := fetch(c, "/")
		if err != nil {
			t.Fatal(err)
		}
		got[a.Server]++
		if h := a.Header.Get("X-Part"); (h == "a") != (a.Server == "a") {
			t.Errorf("server %s got x-part %q", a.Server, h)
		}
	}
	// Wrong once in a million by chance: five standard deviations.
	if math.Abs(float64(got["a"])-0.8*n) > 5*math.Sqrt(0.8*0.2*n) {
		t.Errorf("80/20 of %d: %v", n, got)
	}
}

// Each route has its own timeout, and zero is none. A gRPC client's own deadline
// holds if it is shorter.
func TestRouteTimeouts(t *testing.T) {
	bodyServer(t, "a", hostPort(serverA, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "a", bothProtocols, serverA+":8080")...)
	for i, d := range []string{"0.2s", "0s", "30s"} {
		r := fmt.Sprint("r", i)
		p.push(routesOf(t, r, fmt.Sprintf("[{match: {prefix: /}, route: {cluster: a, timeout: %s, max_grpc_timeout: %[1]s}}]", d)), scopeTo(t, vip(0, i, 80), r, false))
	}
	var all sync.WaitGroup
	const grpc = "content-type: application/grpc"
	for _, c := range []struct {
		i       int
		headers []string
		want    string
	}{
		{0, nil, "504"},
		{1, nil, "200  a 0 h"},
		{2, nil, "200  a 0 h"},
		// The answer of gRPC is in a header.
		{0, []string{grpc, "grpc-timeout: 30S"}, "200"},
		{1, []string{grpc, "grpc-timeout: 200m"}, "200"},
		{2, []string{grpc, "grpc-timeout: 200m"}, "200"},
		{2, []string{grpc}, "200  a 0 h"},
	} {
		all.Go(func() {
			begin := time.Now()
			got, err := ask(httpFrom(t, alpha, vip(0, c.i, 80), true), "GET", "h", nil, append(c.headers, "X-Wait: 2s")...)
			what := fmt.Sprintf("route %d, %q", c.i, c.headers)
			equal(t, what, fmt.Sprint(got, err), c.want+"<nil>")
			if d := time.Since(begin); (d < 2*time.Second) != (c.want != "200  a 0 h") {
				t.Errorf("%s: after %v", what, d)
			}
		})
	}
	all.Wait()
}

// Each route has its own mirrors, whose answers, and absence, nobody notices.
func TestMirrors(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	mirrored := make(chan string, 10)
	httpServer(t, hostPort(serverB, 8080), func(w http.ResponseWriter, q *http.Request) {
		mirrored <- q.Host + q.URL.Path
		w.WriteHeader(500)
	})
	p := start(t, front())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(edsCluster(t, "b", "", serverB+":8080")...)
	p.push(edsCluster(t, "dead", "", serverC+":8080")...)
	p.push(routesOf(t, "r", `
  - {match: {prefix: /all}, route: {cluster: a, request_mirror_policies: [{cluster: b, runtime_fraction: {default_value: {numerator: 1000000, denominator: MILLION}}}]}}
  - {match: {prefix: /dead}, route: {cluster: a, request_mirror_policies: [{cluster: dead}, {cluster: nowhere}]}}
  - {match: {prefix: /}, route: {cluster: a}}`), scopeTo(t, vip(0, 1, 80), "r", false))
	for _, path := range []string{"/none", "/dead", "/all"} {
		a := mustFetch(t, vip(0, 1, 80), path)
		equal(t, path, fmt.Sprint(a.Status, a.Server), "200a")
	}
	equal(t, "mirrored", receive(t, "mirrored request", mirrored), "h-shadow/all")
	if len(mirrored) > 0 {
		t.Errorf("mirrored too: %s", <-mirrored)
	}
}

// Bodies of more than 4096 bytes are taken if the table says so, and expressions of
// more than 100 instructions if the runtime does.
func TestLimits(t *testing.T) {
	body := fmt.Sprintf("[{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: %s}}}]", strings.Repeat("x", 5000))
	regex := fmt.Sprintf(`[{match: {safe_regex: {regex: "%s|/"}}, direct_response: {status: 200}}]`, strings.Repeat("abcdefgh", 30))
	larger := func(name string) xds.Resource {
		return resource(t, xds.RouteType, fmt.Sprintf("name: %s\nmax_direct_response_body_size_bytes: 5000\nvirtual_hosts: [{name: v, domains: [\"*\"], routes: %s}]", name, body))
	}
	const runtime = "\nlayered_runtime: {layers: [{name: fl, static_layer: {re2.max_program_size.error_level: 32768}}]}"
	for _, c := range []struct {
		what      string
		bootstrap string
		routes    func(name string) xds.Resource
		want      int
	}{
		{"body", front(), func(n string) xds.Resource { return routesOf(t, n, body) }, 1},
		{"body, larger allowed", front(), larger, 0},
		{"expression", front(), func(n string) xds.Resource { return routesOf(t, n, regex) }, 1},
		{"expression, larger allowed", front() + runtime, func(n string) xds.Resource { return routesOf(t, n, regex) }, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := start(t, c.bootstrap)
			o := p.pushOutcome(c.routes("r"), scopeTo(t, vip(0, 1, 80), "r", false))
			equal(t, "rejected", len(o.Rejected), c.want)
			if c.want == 0 {
				equal(t, "status", statusOf(t, vip(0, 1, 80)), 200)
			}
		})
	}
}
