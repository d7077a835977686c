// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"strings"
	"testing"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
)

// service is a cluster, its endpoints, routes and a scope of the i-th service.
func service(t testing.TB, i int) []xds.Resource {
	name := fmt.Sprint("c", i)
	return append(edsCluster(t, name, "", serverA+":8080"), to(t, fmt.Sprint("r", i), name), scopeTo(t, vip(0, i, 80), fmt.Sprint("r", i), false))
}

// Of a rejected response of many resources some may be applied, and some not: it
// depends on the type and on what is wrong. What is good is taken when it is sent
// again without the bad, and what was there of the bad one stays. So rejections
// can be narrowed down by halves.
func TestRejectedBatch(t *testing.T) {
	const n = 10
	httpEcho(t, "a", hostPort(serverA, 8080))
	httpEcho(t, "b", hostPort(serverB, 8080))
	changed := func(i int) map[string]xds.Resource { // leads to b, says 201
		name := fmt.Sprint("c", i)
		eds := edsCluster(t, name, "lb_policy: RANDOM", serverB+":8080")
		return map[string]xds.Resource{
			xds.ClusterType:  eds[0],
			xds.EndpointType: eds[1],
			xds.RouteType:    direct(t, fmt.Sprint("r", i), 201),
		}
	}
	bad := func(text string) func(typ, name string) xds.Resource {
		return func(typ, name string) xds.Resource { return resource(t, typ, strings.ReplaceAll(text, "NAME", name)) }
	}
	for _, c := range []struct {
		what, typ string
		bad       func(typ, name string) xds.Resource
		applied   func(got int) bool // how many of the good ones are applied at once
		named     bool               // the message names the culprit
	}{
		{"routes, content", xds.RouteType, bad(`{name: NAME, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {safe_regex: {regex: "a(b"}}, direct_response: {status: 200}}]}]}`),
			func(got int) bool { return got <= n }, false},
		{"routes, validation", xds.RouteType, bad(`{name: NAME, virtual_hosts: [{name: v, domains: [], routes: []}]}`),
			func(got int) bool { return got == 0 }, false},
		{"endpoints, content", xds.EndpointType, bad(`{cluster_name: NAME, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: no.address, port_value: 1}}}}]}]}`),
			func(got int) bool { return got <= n }, false},
		{"endpoints, validation", xds.EndpointType, bad(`{cluster_name: NAME, endpoints: [{priority: 1000}]}`),
			func(got int) bool { return got == 0 }, false},
		{"clusters, content", xds.ClusterType, bad(`{name: NAME, type: STATIC, load_assignment: {cluster_name: NAME, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: no.address, port_value: 1}}}}]}]}}`),
			func(got int) bool { return got == n }, true},
		{"clusters, validation", xds.ClusterType, bad(`{name: NAME, type: STATIC, connect_timeout: -1s}`),
			func(got int) bool { return got == 0 }, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			p, s := startScript(t, front())
			for i := range n + 1 {
				s.push(service(t, i)...)
			}
			applied := func() int {
				count := 0
				switch c.typ {
				case xds.ClusterType:
					dump := p.get("/config_dump?resource=dynamic_active_clusters")
					count = strings.Count(dump, `"lb_policy": "RANDOM"`)
				default:
					for i := range n {
						if a := mustFetch(t, vip(0, i, 80), "/"); a.Status == 201 || a.Server == "b" {
							count++
						}
					}
				}
				return count
			}
			var batch []xds.Resource
			for i := range n {
				batch = append(batch, changed(i)[c.typ])
			}
			culprit := map[string]string{xds.RouteType: "r10"}[c.typ]
			if culprit == "" {
				culprit = "c10"
			}
			// A refusal of clusters comes as late as their acceptance: when those that are
			// good have their endpoints.
			ready := func() {
				if c.typ == xds.ClusterType {
					var eds []xds.Resource
					for i := range n {
						eds = append(eds, changed(i)[xds.EndpointType])
					}
					s.send(eds...)
				}
			}
			half := n / 2
			mixed := append(append(append([]xds.Resource{}, batch[:half]...), c.bad(c.typ, culprit)), batch[half:]...)
			nonce := s.send(mixed...)
			ready()
			detail := s.outcome(nonce)
			if detail == "" {
				t.Fatal("accepted")
			}
			if c.named && !strings.Contains(detail, culprit) {
				t.Errorf("message does not name %s: %s", culprit, detail)
			}
			got := applied()
			t.Logf("%d of %d applied: %.200q", got, n, detail)
			if !c.applied(got) {
				t.Errorf("%d of %d applied", got, n)
			}
			equal(t, "the bad one", mustFetch(t, vip(0, n, 80), "/").Server, "a")

			nonces := []string{s.send(batch[:half]...), s.send(batch[half:]...)}
			ready()
			for _, nonce := range nonces {
				equal(t, "half", s.outcome(nonce), "")
			}
			equal(t, "applied in halves", applied(), n)
			if s.outcome(s.send(c.bad(c.typ, culprit))) == "" {
				t.Error("the bad one alone is accepted")
			}
			equal(t, "the bad one, alone", mustFetch(t, vip(0, n, 80), "/").Server, "a")
		})
	}
}

// Two scopes of one key are rejected, with all others of the response: so a scope is
// named by its key.
func TestScopesOfOneKey(t *testing.T) {
	_, s := startScript(t, front())
	twin := resource(t, xds.ScopeType, fmt.Sprintf("{name: twin, route_configuration_name: r, key: {fragments: [{string_key: %q}]}}", vip(0, 1, 80)))
	detail := s.outcome(s.send(scopeTo(t, vip(0, 1, 80), "r", true), scopeTo(t, vip(0, 2, 80), "r", true), twin))
	if detail == "" {
		t.Fatal("accepted")
	}
	equal(t, "a scope beside them", statusOf(t, vip(0, 2, 80)), 404)
}

// Routes that were never accepted make their first request wait, and other requests
// not, whether or not their scope is on demand. Routes that answer 500 in their place are answers at once. Where there were
// routes before, they go on.
func TestRejectedFirstVersion(t *testing.T) {
	_, s := startScript(t, front())
	s.push(direct(t, "fine", 200), scopeTo(t, vip(0, 1, 80), "fine", false))
	s.push(scopeTo(t, vip(0, 2, 80), "bad", true))
	bad := func(name string) xds.Resource {
		return resource(t, xds.RouteType, fmt.Sprintf(`{name: %s, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {safe_regex: {regex: "a(b"}}, direct_response: {status: 200}}]}]}`, name))
	}
	got := make(chan int, 1)
	c := httpFrom(t, alpha, vip(0, 2, 80), false)
	go func() { a, _ := fetch(c, "/"); got <- a.Status }()
	s.wait(xds.RouteType, "bad")
	if s.outcome(s.send(bad("bad"))) == "" {
		t.Fatal("accepted")
	}
	stays(t, "request answered without routes", func() bool { return len(got) > 0 })
	equal(t, "others", statusOf(t, vip(0, 1, 80)), 200)
	equal(t, "stand-in", s.outcome(s.send(direct(t, "bad", 500))), "")
	equal(t, "request that waited", <-got, 500)
	equal(t, "next request", statusOf(t, vip(0, 2, 80)), 500)

	if s.outcome(s.send(bad("fine"))) == "" {
		t.Fatal("accepted")
	}
	equal(t, "accepted before", statusOf(t, vip(0, 1, 80)), 200)

	nonce := s.send(scopeTo(t, vip(0, 3, 80), "eager", false))
	s.wait(xds.RouteType, "eager")
	if s.outcome(s.send(bad("eager"))) == "" {
		t.Fatal("accepted")
	}
	equal(t, "scope", s.outcome(nonce), "")
	c = httpFrom(t, alpha, vip(0, 3, 80), false)
	go func() { a, _ := fetch(c, "/"); got <- a.Status }()
	stays(t, "request answered without routes", func() bool { return len(got) > 0 })
	equal(t, "stand-in", s.outcome(s.send(direct(t, "eager", 500))), "")
	equal(t, "request that waited", <-got, 500)
}

// A listener that is rejected leaves the one that was there, and its connections.
func TestRejectedListener(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	_, s := startScript(t, "")
	l := func(more string) xds.Resource {
		text, _ := strings.CutPrefix(opaque(15100, "a"), "\n  -")
		return resource(t, xds.ListenerType, "   "+strings.ReplaceAll(text, "%d/tcp.log", "/dev/null")+more)
	}
	equal(t, "good", s.outcome(s.send(l(""))), "")
	name := "tcp|a|" + vip(0, 1, 80)
	c := dial(t, alpha, vip(0, 1, 80))
	s.wait(xds.ClusterType, name)
	s.push(edsCluster(t, name, "", serverA+":9000")...)
	equal(t, "before", readLine(t, c), "a "+alpha)
	detail := s.outcome(s.send(l("    filter_chain_matcher: {matcher_list: {matchers: []}}")))
	if !strings.Contains(detail, "out/opaque/15100") {
		t.Errorf("not rejected by name: %q", detail)
	}
	equal(t, "after", readLine(t, dial(t, alpha, vip(0, 1, 80))), "a "+alpha)
	echoes(t, "connection", c)
}

// A trap: what a route says of a filter that the chain does not have is accepted, and
// without effect. Envoy does not tell that a policy has nobody who heeds it.
func TestUnknownFilterAccepted(t *testing.T) {
	p := start(t, front())
	r := routesOf(t, "r", "[{match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: {"+strings.Replace(denied, "policy:", "unknown:", 1)+"}}]")
	known := routesOf(t, "known", "[{match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: {"+denied+"}}]")
	p.push(r, known, scopeTo(t, vip(0, 1, 80), "r", false), scopeTo(t, vip(0, 2, 80), "known", false))
	equal(t, "unknown filter", statusOf(t, vip(0, 1, 80)), 200)
	equal(t, "known filter", statusOf(t, vip(0, 2, 80)), 403)
}

// Envoy checks the rules of fields that go-control-plane's ValidateAll checks: what
// passes there is not rejected for them.
func TestValidatedAlike(t *testing.T) {
	_, s := startScript(t, front())
	s.push(direct(t, "r", 200), scopeTo(t, vip(0, 1, 80), "r", false))
	for _, text := range []string{
		`{name: r, virtual_hosts: [{name: v, domains: []}]}`,
		`{name: r, virtual_hosts: [{name: "", domains: ["*"]}]}`,
		`{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 99}}]}]}`,
		`{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}}]}]}`,
		`{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /, headers: [{name: ""}]}, direct_response: {status: 200}}]}]}`,
		`{name: r, request_headers_to_remove: ["a\nb"]}`,
	} {
		r := resource(t, xds.RouteType, text)
		var m route.RouteConfiguration
		if err := proto.Unmarshal(r.Body, &m); err != nil {
			t.Fatal(err)
		}
		if m.ValidateAll() == nil {
			t.Errorf("valid here: %s", text)
		}
		if s.outcome(s.send(r)) == "" {
			t.Errorf("valid there: %s", text)
		}
	}
}
