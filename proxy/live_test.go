// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func has(h http.Header, name, value string) bool { return strings.Join(h.Values(name), ",") == value }

func TestRoutesOfEachKind(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	server(t, serverB, nil)

	with := func(m model.RouteMatch, change func(*plan.Route)) plan.Route {
		route := to("b")
		route.Match = m
		if change != nil {
			change(&route)
		}
		return route
	}
	header := func(m model.NamedMatch) model.RouteMatch { return model.RouteMatch{Headers: []model.NamedMatch{m}} }
	query := func(n string, m model.StringMatch) model.RouteMatch {
		return model.RouteMatch{Query: []model.NamedMatch{{Name: n, Match: m}}}
	}
	post, https, authority := exact("POST"), exact("https"), exact("api.shop:80")
	// Each is the first route of a service; the second goes to a.
	cases := []struct {
		name    string
		route   plan.Route
		yes, no []string // "METHOD path", headers
	}{
		{"path exact", with(pathMatch(model.Exact, "/a"), nil), []string{"GET /a?x=1"}, []string{"GET /a/"}},
		{"path exact ignoring case", with(model.RouteMatch{Path: &model.StringMatch{Kind: model.Exact, Value: "/Ab", IgnoreCase: true}}, nil),
			[]string{"GET /aB"}, []string{"GET /ac"}},
		{"path prefix", with(pathMatch(model.Prefix, "/a"), nil), []string{"GET /abc"}, []string{"GET /b/a"}},
		{"path regex", with(pathMatch(model.Regex, "/v[0-9]+"), nil), []string{"GET /v12?q"}, []string{"GET /v12/x"}},
		{"path regex ignoring case", with(model.RouteMatch{Path: &model.StringMatch{Kind: model.Regex, Value: "/v.", IgnoreCase: true}}, nil),
			[]string{"GET /V1"}, []string{"GET /V12"}},
		{"method", with(model.RouteMatch{Method: &post}, nil), []string{"POST /"}, []string{"GET /"}},
		{"scheme", with(model.RouteMatch{Scheme: &https}, nil), []string{"GET /", "x-forwarded-proto: https"}, []string{"GET /"}},
		{"authority", with(model.RouteMatch{Authority: &authority}, nil), []string{"GET /", "host: api.shop:80"}, []string{"GET /", "host: api.shop"}},
		{"header exact", with(header(model.NamedMatch{Name: "x-user", Match: exact("bob")}), nil), []string{"GET /", "X-User: bob"}, []string{"GET /", "x-user: bobby"}},
		{"header ignoring case", with(header(model.NamedMatch{Name: "x-user", Match: model.StringMatch{Kind: model.Prefix, Value: "BO", IgnoreCase: true}}), nil),
			[]string{"GET /", "X-User: bob"}, []string{"GET /", "x-user: abob"}},
		{"header present", with(header(model.NamedMatch{Name: "x-user", Match: model.StringMatch{Kind: model.Present}}), nil),
			[]string{"GET /", "x-user;"}, []string{"GET /"}},
		{"header not present", with(header(model.NamedMatch{Name: "x-user", Match: model.StringMatch{Kind: model.Present}, Not: true}), nil),
			[]string{"GET /"}, []string{"GET /", "x-user: bob"}},
		{"header not exact, missing", with(header(model.NamedMatch{Name: "x-user", Match: exact("bob"), Not: true}), nil),
			[]string{"GET /", "x-user: eve"}, []string{"GET /"}},
		{"header not exact, missing is empty", with(header(model.NamedMatch{Name: "x-user", Match: exact("bob"), Not: true, MissingEmpty: true}), nil),
			[]string{"GET /"}, []string{"GET /", "x-user: bob"}},
		{"header suffix", with(header(model.NamedMatch{Name: "x-user", Match: model.StringMatch{Kind: model.Suffix, Value: "@x"}}), nil),
			[]string{"GET /", "x-user: bob@x"}, []string{"GET /", "x-user: bob@xy"}},
		{"header regex is of the whole", with(header(model.NamedMatch{Name: "x-user", Match: model.StringMatch{Kind: model.Regex, Value: "b.b"}}), nil),
			[]string{"GET /", "x-user: bob"}, []string{"GET /", "x-user: bobby"}},
		{"query exact", with(query("v", exact("2")), nil), []string{"GET /?a&v=2"}, []string{"GET /?v=22"}},
		{"query present", with(query("v", model.StringMatch{Kind: model.Present}), nil), []string{"GET /?v"}, []string{"GET /?w"}},
		{"source namespace", with(model.RouteMatch{SourceNamespace: "shop"}, nil), []string{"GET /"}, []string{"FROM beta", "GET /"}},
		{"source predicate", with(model.RouteMatch{SourceLabels: map[string]string{"app": "x"}}, func(p *plan.Route) { p.SourceSelects = "p2" }),
			[]string{"GET /"}, []string{"FROM beta", "GET /"}},
	}
	all := rows(clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "b"}, serverB))
	for i, c := range cases {
		all = append(all, service(i+1, c.route, to("a"))...)
	}
	r.push(append(all, listeners()...)...)
	for i, c := range cases {
		for want, lines := range map[string][]string{serverB: c.yes, serverA: c.no} {
			from := alpha
			if lines[0] == "FROM beta" {
				from, lines = beta, lines[1:]
			}
			method, path, _ := strings.Cut(lines[0], " ")
			headers := append([]string(nil), lines[1:]...)
			for i, h := range headers {
				headers[i] = strings.Replace(h, ";", ":", 1)
			}
			if got := r.do(from, vip(i+1), method, path, headers...); got.Server != want {
				t.Errorf("%s: %q went to %q (%d), want %q", c.name, lines, got.Server, got.Status, want)
			}
		}
	}
}

func TestActions(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	mirrored := make(chan *http.Request, 10)
	server(t, serverB, func(_ http.ResponseWriter, q *http.Request) bool {
		mirrored <- q
		return false
	})
	edit := model.HeaderEdit{
		Set:    []model.Header{{Name: "x-set", Value: "100%"}, {Name: "x-empty", Value: ""}},
		Add:    []model.Header{{Name: "x-add", Value: "%REQ(x)%"}},
		Remove: []string{"x-gone"},
	}
	cases := []struct {
		name  string
		route func(*plan.Route)
		check func(t *testing.T, got reply)
	}{
		{"request headers", func(p *plan.Route) { p.RequestHeaders = edit }, func(t *testing.T, got reply) {
			if h := got.Headers; !has(h, "x-set", "100%") || !has(h, "x-add", "0,%REQ(x)%") || h.Values("x-gone") != nil || len(h.Values("x-empty")) != 1 {
				t.Errorf("headers %v", h)
			}
		}},
		{"response headers", func(p *plan.Route) { p.ResponseHeaders = edit }, func(t *testing.T, got reply) {
			if h := got.Header; !has(h, "x-set", "100%") || !has(h, "x-add", "%REQ(x)%") {
				t.Errorf("headers %v", h)
			}
		}},
		{"authority by header", func(p *plan.Route) {
			p.RequestHeaders.Set = []model.Header{{Name: ":authority", Value: "new.example"}}
		}, func(t *testing.T, got reply) {
			if got.Host != "new.example" {
				t.Errorf("host %q", got.Host)
			}
		}},
		{"rewrite beats authority by header", func(p *plan.Route) {
			p.RequestHeaders.Set = []model.Header{{Name: ":authority", Value: "new.example"}}
			p.Rewrite = &model.Rewrite{Authority: "rewritten"}
		}, func(t *testing.T, got reply) {
			if got.Host != "rewritten" {
				t.Errorf("host %q", got.Host)
			}
		}},
		{"share's headers and authority", func(p *plan.Route) {
			p.Clusters[0].RequestHeaders = model.HeaderEdit{Set: []model.Header{{Name: ":authority", Value: "share"}, {Name: "x-share", Value: "1"}}}
			p.Clusters[0].ResponseHeaders = model.HeaderEdit{Set: []model.Header{{Name: "x-share", Value: "2"}}}
		}, func(t *testing.T, got reply) {
			if got.Host != "share" || !has(got.Headers, "x-share", "1") || !has(got.Header, "x-share", "2") {
				t.Errorf("got %+v", got)
			}
		}},
		{"rewrite prefix", func(p *plan.Route) {
			p.Match = pathMatch(model.Prefix, "/old")
			p.Rewrite = &model.Rewrite{Path: "/new"}
		}, func(t *testing.T, got reply) {
			if got.Path != "/new/path?q=1" {
				t.Errorf("path %q", got.Path)
			}
		}},
		{"rewrite whole path", func(p *plan.Route) { p.Rewrite = &model.Rewrite{Path: `/new\1%25`} }, func(t *testing.T, got reply) {
			if got.Path != `/new%5C1%25?q=1` {
				t.Errorf("path %q status %d %s", got.Path, got.Status, got.Body)
			}
		}},
		{"rewrite exact", func(p *plan.Route) {
			p.Match = pathMatch(model.Exact, "/old/path")
			p.Rewrite = &model.Rewrite{Path: "/new"}
		}, func(t *testing.T, got reply) {
			if got.Path != "/new?q=1" {
				t.Errorf("path %q", got.Path)
			}
		}},
		{"rewrite by expression", func(p *plan.Route) {
			p.Rewrite = &model.Rewrite{PathRegex: &model.RegexEdit{Match: "^/([a-z]+)/([a-z]+)", Replacement: `/\2/\1`}}
		}, func(t *testing.T, got reply) {
			if got.Path != "/path/old?q=1" {
				t.Errorf("path %q", got.Path)
			}
		}},
		{"direct", func(p *plan.Route) { p.Direct = &model.Direct{Status: 418, Body: "teapot %"} }, func(t *testing.T, got reply) {
			if got.Status != 418 || got.Body != "teapot %" {
				t.Errorf("got %+v", got)
			}
		}},
		{"nowhere", func(p *plan.Route) { p.Clusters = nil }, func(t *testing.T, got reply) {
			if got.Status != 503 {
				t.Errorf("got %+v", got)
			}
		}},
		{"cluster that is not there", func(p *plan.Route) { p.Clusters[0].Name = "missing" }, func(t *testing.T, got reply) {
			if got.Status != 503 {
				t.Errorf("got %+v", got)
			}
		}},
		{"mirror", func(p *plan.Route) { p.Mirrors = []plan.Mirror{{Cluster: "b", PerMillion: 1_000_000}} }, func(t *testing.T, got reply) {
			select {
			case q := <-mirrored:
				if q.Header.Get("x-fl-dst") != "" || q.URL.Path != "/old/path" {
					t.Errorf("mirrored %s %v", q.URL, q.Header)
				}
			case <-time.After(5 * time.Second):
				t.Error("nothing was mirrored")
			}
			if got.Server != serverA {
				t.Errorf("got %+v", got)
			}
		}},
	}
	all := rows(clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "b"}, serverB))
	for i, c := range cases {
		route := to("a")
		c.route(&route)
		all = append(all, service(i+1, route)...)
	}
	r.push(append(all, listeners()...)...)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.check(t, r.get(alpha, vip(i+1), "/old/path?q=1", "x-add: 0", "x-gone: 1", "x-set: 1"))
		})
	}
}

func TestSplitsByWeight(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	server(t, serverB, nil)
	route := to("a", "b")
	route.Clusters[0].Weight = 9
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "b"}, serverB), service(1, route), listeners())...)
	b := 0
	for range 500 {
		if r.get(alpha, vip(1), "/").Server == serverB {
			b++
		}
	}
	if b < 23 || b > 77 { // 50 ± 4 standard deviations
		t.Errorf("%d of 500 requests went to the tenth", b)
	}
}

func TestTimeoutAndRetry(t *testing.T) {
	r := newRig(t)
	var tries atomic.Int32
	server(t, serverA, func(w http.ResponseWriter, q *http.Request) bool {
		switch q.URL.Path {
		case "/slow":
			time.Sleep(400 * time.Millisecond)
		case "/flaky":
			if tries.Add(1) < 3 {
				w.WriteHeader(503)
				return true
			}
		}
		return false
	})
	slow, quick, retried := to("a"), to("a"), to("a")
	quick.Timeout = 100 * time.Millisecond
	retried.Retry = &model.Retry{Attempts: 3, StatusCodes: []uint32{503}, AvoidPrevious: true, OtherLocations: true, Backoff: time.Millisecond}
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, slow), service(2, quick), service(3, retried), listeners())...)
	if got := r.get(alpha, vip(1), "/slow"); got.Status != 200 {
		t.Errorf("no timeout: %d", got.Status)
	}
	if got := r.get(alpha, vip(2), "/slow"); got.Status != 504 {
		t.Errorf("timeout: %d", got.Status)
	}
	if got := r.get(alpha, vip(1), "/flaky"); got.Status != 503 {
		t.Errorf("without retry: %d", got.Status)
	}
	tries.Store(0)
	if got := r.get(alpha, vip(3), "/flaky"); got.Status != 200 || tries.Load() != 3 {
		t.Errorf("with retry: %d after %d tries", got.Status, tries.Load())
	}
}

func TestClientCannotControlTheProxy(t *testing.T) {
	r := newRig(t)
	var tries atomic.Int32
	server(t, serverA, func(w http.ResponseWriter, q *http.Request) bool {
		switch q.URL.Path {
		case "/503":
			tries.Add(1)
			w.WriteHeader(503)
			return true
		case "/slow":
			time.Sleep(300 * time.Millisecond)
		}
		return false
	})
	server(t, serverB, nil)
	onlyBeta := &plan.Policy{Allow: [][]model.AuthRule{{{From: []model.Peer{{IPs: []netip.Prefix{netip.MustParsePrefix(beta + "/32")}}}}}}}
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "b", Policy: onlyBeta}, serverB),
		service(1, to("a")), service(2, to("b")), listeners())...)

	spoofed := []string{
		"x-forwarded-for: " + beta, "x-envoy-internal: true", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 5",
		"x-envoy-upstream-rq-timeout-ms: 50", "x-envoy-upstream-rq-per-try-timeout-ms: 50", "x-envoy-original-path: /evil",
		"x-envoy-original-dst-host: 10.244.2.12:8080", "x-envoy-upstream-alt-stat-name: x", "x-envoy-decorator-operation: x",
		"x-envoy-force-trace: 1", "x-envoy-external-address: " + beta, "x-envoy-expected-rq-timeout-ms: 1",
	}
	if got := r.get(alpha, vip(1), "/slow", spoofed...); got.Status != 200 {
		t.Errorf("a client's timeout header was obeyed: %d %s", got.Status, got.Body)
	} else {
		for name := range got.Headers {
			if strings.HasPrefix(strings.ToLower(name), "x-envoy-") {
				t.Logf("reaches the server: %s: %q", name, got.Headers[name])
			}
		}
	}
	r.get(alpha, vip(1), "/503", spoofed...)
	if n := tries.Load(); n != 1 {
		t.Errorf("a client's retry header was obeyed: %d tries", n)
	}
	if got := r.get(alpha, vip(2), "/", spoofed...); got.Status != 403 {
		t.Errorf("a client's address header was believed: %d", got.Status)
	}
	if got := r.get(beta, vip(2), "/", "x-forwarded-for: "+alpha); got.Status != 200 {
		t.Errorf("the client's own address was not: %d", got.Status)
	}
	for _, headers := range [][]string{
		{"x-fl-dst: " + vip(2)},
		{"x-fl-dst: " + vip(2), "X-FL-DST: " + vip(2)},
		{"x-fl-dst: " + vip(2) + "," + vip(2)},
		{"x-fl-dst: " + vip(2), "connection: x-fl-dst"},
		{"X_FL_DST: " + vip(2)},
	} {
		got := r.get(alpha, vip(1), "/", headers...)
		if got.Server != serverA {
			t.Errorf("%q: went to %q, %d", headers, got.Server, got.Status)
		}
		if got.Headers.Get("x-fl-dst") != "" {
			t.Errorf("%q: the private header reached the server", headers)
		}
	}
}
