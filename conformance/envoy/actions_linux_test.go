// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fetchFor sends a request for a host without following redirects.
func fetchFor(t testing.TB, dst, method, host, path string, headers ...string) *http.Response {
	t.Helper()
	q, err := http.NewRequest(method, "http://h"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = host
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		q.Header.Add(k, v)
	}
	resp, err := httpFrom(t, alpha, dst, false).Transport.RoundTrip(q)
	if err != nil {
		t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	resp.Body.Close()
	return resp
}

// A redirect keeps what is not set. The request's port stays, unless another host or
// port is set, or the scheme becomes another than that whose own port it is. What
// replaces a prefix comes before the rest of the path as it is; no slash is put right.
// The query stays, unless the new path has one.
func TestRedirects(t *testing.T) {
	p := start(t, front())
	p.push(routesOf(t, "r", `
  - {match: {path: /scheme}, redirect: {scheme_redirect: https}}
  - {match: {path: /port}, redirect: {port_redirect: 8443, scheme_redirect: https}}
  - {match: {path: /own-port}, redirect: {port_redirect: 443, scheme_redirect: https}}
  - {match: {path: /host}, redirect: {host_redirect: other}}
  - {match: {path: /host-port}, redirect: {host_redirect: "other:81"}}
  - {match: {path: /path}, redirect: {path_redirect: /new}}
  - {match: {path: /query}, redirect: {path_redirect: "/new?a=b"}}
  - {match: {path: /bare}, redirect: {path_redirect: new}}
  - {match: {prefix: /old}, redirect: {prefix_rewrite: /new}}
  - {match: {path_separated_prefix: /a}, redirect: {prefix_rewrite: /}}
  - {match: {path_separated_prefix: /b}, redirect: {regex_rewrite: {pattern: {regex: "^/b/?"}, substitution: /}}}
  - {match: {path: /exact}, redirect: {prefix_rewrite: /new}}
  - {match: {path: /host-and-port}, redirect: {host_redirect: other, port_redirect: 81, response_code: PERMANENT_REDIRECT}, response_headers_to_add: [{header: {key: x-a, value: b}}]}
`), scopeTo(t, vip(0, 1, 80), "r", false))
	for _, c := range []struct{ host, path, want string }{
		{"web", "/scheme?q=1", "301 https://web/scheme?q=1"},
		{"web:8080", "/scheme", "301 https://web:8080/scheme"},
		{"web:80", "/scheme", "301 https://web/scheme"},
		{"web:443", "/scheme", "301 https://web:443/scheme"},
		{"[fd00::1]:8080", "/scheme", "301 https://[fd00::1]:8080/scheme"},
		{"web:8080", "/port", "301 https://web:8443/port"},
		{"[fd00::1]", "/port", "301 https://[fd00::1]:8443/port"},
		{"web:8080", "/own-port", "301 https://web:443/own-port"},
		{"web", "/own-port", "301 https://web:443/own-port"},
		{"web:8080", "/host", "301 http://other/host"},
		{"web:8080", "/host-port", "301 http://other:81/host-port"},
		{"web:8080", "/path?q=1", "301 http://web:8080/new?q=1"},
		{"web", "/query?q=1", "301 http://web/new?a=b"},
		{"web", "/bare", "301 http://web/new"},
		{"web", "/old?q=1", "301 http://web/new?q=1"},
		{"web", "/older/x", "301 http://web/newer/x"},
		{"web", "/a/x", "301 http://web//x"},
		{"web", "/a", "301 http://web/"},
		{"web", "/b/x?q=1", "301 http://web/x?q=1"},
		{"web", "/b/", "301 http://web/"},
		{"web", "/b", "301 http://web/"},
		{"web", "/ab", "404 "},
		{"web", "/exact?q=1", "301 http://web/new?q=1"},
		{"web:80", "/host-and-port", "308 http://other:81/host-and-port b"},
	} {
		resp := fetchFor(t, vip(0, 1, 80), "GET", c.host, c.path)
		got := strings.TrimSuffix(fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("Location"), resp.Header.Get("X-A")), " ")
		equal(t, c.host+c.path, got, c.want)
	}
}

// A prefix of segments takes the path and what is below it. What replaces a prefix comes
// before the rest of the path as it is; where nothing is to be left of it, an expression
// can do so.
func TestSegments(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(routesOf(t, "r", `
  - {match: {path_separated_prefix: /a/b}, route: {cluster: a, prefix_rewrite: /c}}
  - {match: {path_separated_prefix: /A, case_sensitive: false}, route: {cluster: a, regex_rewrite: {pattern: {regex: "^(?i:/A)/?"}, substitution: /}}}
  - {match: {path_separated_prefix: /d}, route: {cluster: a, prefix_rewrite: /}}
  - {match: {prefix: /}, route: {cluster: a, prefix_rewrite: /all/}}`), scopeTo(t, vip(0, 1, 80), "r", false))
	for path, want := range map[string]string{
		"/a/b": "/c", "/a/b/": "/c/", "/a/b/x?q=/a/b": "/c/x?q=/a/b", "/a/bx": "/bx", "/a": "/", "/a?q": "/?q", "/a/": "/", "/A/x": "/x",
		"/ab": "/all/ab", "/": "/all/", "/d/x": "//x",
	} {
		equal(t, path, mustFetch(t, vip(0, 1, 80), path).Path, want)
	}
}

// Faults hold for routes that answer by themselves, too, and each share by itself. A
// status of gRPC, also 0, is an answer of gRPC to who asks by gRPC; others get 200.
func TestFaults(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	fault := `{"@type": E/filters.http.fault.v3.HTTPFault`
	chain := loadFirst + "\n          - {name: fault, typed_config: " + fault + "}}"
	p := start(t, strings.Replace(front(), loadFirst, chain, 1))
	p.push(edsCluster(t, "a", bothProtocols, serverA+":8080")...)
	all := "percentage: {numerator: 1000000, denominator: MILLION}"
	of := func(what string) string {
		return "typed_per_filter_config: {fault: " + fault + ", disable_downstream_cluster_stats: true, " + what + "}}"
	}
	p.push(routesOf(t, "r", `
  - {match: {path: /delay}, route: {cluster: a, timeout: 0.2s}, `+of("delay: {fixed_delay: 0.5s, "+all+"}")+`}
  - {match: {path: /both}, direct_response: {status: 200}, `+of("delay: {fixed_delay: 0.5s, "+all+"}, abort: {http_status: 555, "+all+"}")+`}
  - {match: {path: /redirect}, redirect: {path_redirect: /x}, `+of("abort: {http_status: 418, "+all+"}")+`}
  - {match: {path: /grpc}, route: {cluster: a}, `+of("abort: {grpc_status: 14, "+all+"}")+`}
  - {match: {path: /ok}, route: {cluster: a}, `+of("abort: {grpc_status: 0, "+all+"}")+`}
  - {match: {path: /half}, route: {cluster: a}, `+of("abort: {http_status: 418, percentage: {numerator: 500000, denominator: MILLION}}")+`}
  - {match: {path: /never}, route: {cluster: a}, `+of("abort: {http_status: 418, percentage: {numerator: 0, denominator: MILLION}}")+`}
`), scopeTo(t, vip(0, 1, 80), "r", true))
	for _, c := range []struct {
		path, want string
		delayed    bool
		headers    []string
	}{
		{"/delay", "200", true, nil}, // which is not in the route's timeout
		{"/both", "555", true, nil},
		{"/redirect", "418", false, nil},
		{"/grpc", "200", false, nil},
		{"/grpc", "200 14", false, []string{"content-type: application/grpc"}},
		{"/ok", "200 0", false, []string{"content-type: application/grpc"}},
		{"/ok", "200", false, nil},
		{"/never", "200", false, nil},
	} {
		begin := time.Now()
		resp := fetchFor(t, vip(0, 1, 80), "GET", "h", c.path, append(c.headers, "x-envoy-downstream-service-cluster: mine")...)
		got := strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("Grpc-Status")))
		equal(t, c.path, got, c.want)
		if (time.Since(begin) >= 500*time.Millisecond-early) != c.delayed {
			t.Errorf("%s: after %v", c.path, time.Since(begin))
		}
	}
	if s := p.get("/stats?filter=mine"); s != "" {
		t.Errorf("a client has counters made: %s", s)
	}
	const n = 400
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	aborted := 0
	for range n {
		a, err := fetch(c, "/half")
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == 418 {
			aborted++
		}
	}
	near(t, "aborted", aborted, n, 0.5)
}

// near checks a count of n by chance; it is wrong once in a million.
func near(t testing.TB, what string, got, n int, p float64) {
	t.Helper()
	if math.Abs(float64(got)-p*float64(n)) > 5*math.Sqrt(p*(1-p)*float64(n)) {
		t.Errorf("%s: %d of %d, and %g was said", what, got, n, p)
	}
}

// Preflight requests of origins that match are answered, others go on, or are answered
// without permission. Answers to the requests themselves get headers. An exact "*" is any
// origin. A trap: routes that answer by themselves do so without it.
func TestCORS(t *testing.T) {
	httpServer(t, hostPort(serverA, 8080), func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("x-server", q.Method)
		w.Header().Set("access-control-allow-origin", "server")
	})
	policy := `{"@type": E/filters.http.cors.v3.Cors`
	chain := loadFirst + "\n          - {name: cors, typed_config: " + policy + "}}"
	p := start(t, strings.Replace(front(), loadFirst, chain, 1))
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	of := func(what string) string {
		return "typed_per_filter_config: {cors: " + policy + "Policy, " + what + "}}"
	}
	const o = `allow_origin_string_match: [{exact: "http://o"}], `
	p.push(routesOf(t, "r", `
  - {match: {path: /all}, route: {cluster: a}, `+of(o+`allow_methods: "GET,PUT", allow_headers: "x-a,x-b", expose_headers: x-c, max_age: "60", allow_credentials: true`)+`}
  - {match: {path: /answered}, route: {cluster: a}, `+of(o+`forward_not_matching_preflights: false`)+`}
  - {match: {path: /any}, route: {cluster: a}, `+of(`allow_origin_string_match: [{exact: "*"}]`)+`}
  - {match: {path: /direct}, direct_response: {status: 202}, `+of(o+`max_age: "0"`)+`}
  - {match: {path: /moved}, redirect: {path_redirect: /x}, `+of(o+`max_age: "0"`)+`}
  - {match: {path: /none}, route: {cluster: a}, `+of("max_age: '1'")+`}
`), scopeTo(t, vip(0, 1, 80), "r", true))
	for _, c := range []struct{ method, path, origin, want string }{
		{"OPTIONS", "/all", "http://o", "200 origin=http://o methods=GET,PUT headers=x-a,x-b expose=x-c age=60 credentials=true"},
		{"GET", "/all", "http://o", "200 server=GET origin=http://o expose=x-c credentials=true"},
		{"OPTIONS", "/all", "http://x", "200 server=OPTIONS origin=server"},
		{"GET", "/all", "http://x", "200 server=GET origin=server"},
		{"GET", "/all", "", "200 server=GET origin=server"},
		{"OPTIONS", "/answered", "http://o", "200 origin=http://o"},
		{"OPTIONS", "/answered", "http://x", "200"},
		{"GET", "/answered", "http://x", "200 server=GET origin=server"},
		{"OPTIONS", "/any", "http://x", "200 origin=http://x"},
		{"GET", "/any", "http://x", "200 server=GET origin=http://x"},
		{"OPTIONS", "/direct", "http://o", "202"},
		{"GET", "/direct", "http://o", "202"},
		{"OPTIONS", "/moved", "http://o", "301"},
		{"OPTIONS", "/none", "http://o", "200 server=OPTIONS origin=server"},
	} {
		headers := []string{"access-control-request-method: PUT"}
		if c.origin != "" {
			headers = append(headers, "origin: "+c.origin)
		}
		if c.method != "OPTIONS" {
			headers = headers[1:]
		}
		resp := fetchFor(t, vip(0, 1, 80), c.method, "h", c.path, headers...)
		got := fmt.Sprint(resp.StatusCode)
		for _, h := range []struct{ name, header string }{{"server", "X-Server"}, {"origin", "Access-Control-Allow-Origin"},
			{"methods", "Access-Control-Allow-Methods"}, {"headers", "Access-Control-Allow-Headers"}, {"expose", "Access-Control-Expose-Headers"},
			{"age", "Access-Control-Max-Age"}, {"credentials", "Access-Control-Allow-Credentials"}} {
			if v := resp.Header.Get(h.header); v != "" {
				got += " " + h.name + "=" + v
			}
		}
		equal(t, c.method+" "+c.path+" from "+c.origin, got, c.want)
	}
}

// A route may take a part of a million of its requests. The same number tells the
// cluster of those that are left, so weights whose sum divides a million can all fall
// on one side.
func TestShareOfRoutes(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	httpEcho(t, "b", hostPort(serverB, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(edsCluster(t, "b", "", serverB+":8080")...)
	part := func(path, action string) string {
		return `
  - {match: {path: ` + path + `, runtime_fraction: {default_value: {numerator: 500000, denominator: MILLION}}}, direct_response: {status: 418}}
  - {match: {path: ` + path + `}, route: {weighted_clusters: {clusters: [` + action + `]}}}`
	}
	p.push(routesOf(t, "r", part("/small", "{name: a, weight: 1}, {name: b, weight: 1}")+
		part("/large", "{name: a, weight: 500000}, {name: b, weight: 500000}")+
		part("/apart", "{name: a, weight: 500001}, {name: b, weight: 500000}")), scopeTo(t, vip(0, 1, 80), "r", false))
	const n = 400
	for path, share := range map[string]float64{"/small": 0.25, "/large": 0, "/apart": 0.25} {
		c := httpFrom(t, alpha, vip(0, 1, 80), false)
		got := map[string]int{}
		for range n {
			a, err := fetch(c, path)
			if err != nil {
				t.Fatal(err)
			}
			got[fmt.Sprint(a.Status, a.Server)]++
		}
		near(t, path+" 418", got["418"], n, 0.5)
		near(t, path+" a", got["200a"], n, share)
		near(t, path+" b", got["200b"], n, 0.5-share)
	}
}

// A request is repeated if its body is not larger than the route's limit, which may be
// above that of the listener. Mirrors do not depend on it.
func TestRetriedBodies(t *testing.T) {
	var tried atomic.Int32
	httpServer(t, hostPort(serverA, 8080), func(w http.ResponseWriter, q *http.Request) {
		n, _ := io.Copy(io.Discard, q.Body)
		tried.Add(1)
		w.Header().Set("x-length", fmt.Sprint(n))
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	mirrored := make(chan int64, 10)
	httpServer(t, hostPort(serverB, 8080), func(_ http.ResponseWriter, q *http.Request) {
		n, _ := io.Copy(io.Discard, q.Body)
		mirrored <- n
	})
	p := start(t, front())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(edsCluster(t, "b", "", serverB+":8080")...)
	route := "route: {cluster: a, timeout: 0s, retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s, max_interval: 0.001s}}"
	p.push(routesOf(t, "r", `
  - {match: {query_parameters: [{name: small, present_match: true}], prefix: ""}, request_body_buffer_limit: 65536, `+route+`, request_mirror_policies: [{cluster: b}]}}
  - {match: {query_parameters: [{name: large, present_match: true}], prefix: ""}, request_body_buffer_limit: 4000000, `+route+`}}
  - {match: {prefix: ""}, `+route+`}}`), scopeTo(t, vip(0, 1, 80), "r", false))
	for _, c := range []struct {
		path  string
		size  int
		tries int32
	}{
		{"/?small", 0, 3}, {"/?small", 65536, 3}, {"/?small", 65537, 1}, {"/?small", 3000000, 1},
		{"/", 100000, 3}, {"/", 3000000, 1},
		{"/?large", 3000000, 3}, {"/?large", 5000000, 1},
	} {
		tried.Store(0)
		q, err := http.NewRequest("POST", "http://h"+c.path, strings.NewReader(strings.Repeat("x", c.size)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := httpFrom(t, alpha, vip(0, 1, 80), false).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		what := fmt.Sprintf("%s, %d bytes", c.path, c.size)
		equal(t, what, fmt.Sprintf("%d %s %d", resp.StatusCode, resp.Header.Get("X-Length"), tried.Load()), fmt.Sprintf("503 %d %d", c.size, c.tries))
		if c.path == "/?small" {
			equal(t, what+" mirrored", receive(t, "mirror", mirrored), int64(c.size))
		}
	}
}

// early is by how much Envoy's timers, which know the time of the loop's last turn, may
// be before their time.
const early = 20 * time.Millisecond

// A route's idle time ends a request on which nothing moves, and none on which answers
// trickle; what has no answer yet gets 504. A trap: for a request that loads its route
// the connection manager's time runs on until something moves.
func TestRouteIdleTime(t *testing.T) {
	httpServer(t, hostPort(serverA, 8080), func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/trickle" {
			for range 10 {
				fmt.Fprintln(w, "a line")
				http.NewResponseController(w).Flush()
				time.Sleep(150 * time.Millisecond)
			}
			return
		}
		select {
		case <-q.Context().Done():
		case <-time.After(5 * time.Second):
		}
	})
	p := start(t, strings.Replace(front(), "stream_idle_timeout: 0s", "stream_idle_timeout: 2s", 1))
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(routesOf(t, "r", "[{match: {prefix: /}, route: {cluster: a, timeout: 0s, idle_timeout: 0.6s}}]"), scopeTo(t, vip(0, 1, 80), "r", true))
	for _, c := range []struct {
		path   string
		status int
		after  time.Duration
	}{{"/silent", 504, 2 * time.Second}, {"/silent", 504, 600 * time.Millisecond}, {"/trickle", 200, 1500 * time.Millisecond}} {
		begin := time.Now()
		a, err := fetch(httpFrom(t, alpha, vip(0, 1, 80), false), c.path)
		if d := time.Since(begin); err != nil || a.Status != c.status || d < c.after-early || d > c.after+time.Second {
			t.Errorf("%s: %d, %v, after %v", c.path, a.Status, err, d)
		}
	}
}
