// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// allow are RBAC rules that allow what one principal and one permission say.
func allow(principal, permission string) string {
	return fmt.Sprintf("rules: {action: ALLOW, policies: {rule: {permissions: [%s], principals: [%s]}}}", permission, principal)
}

const (
	anyPermission = "{any: true}"
	isAlpha       = `{filter_state: {key: fl.identity, string_match: {exact: "spiffe://alpha"}}}`
)

// perRoute is typed_per_filter_config of an RBAC filter.
func perRoute(filter, rules string) string {
	return fmt.Sprintf(`{%s: {"@type": E/filters.http.rbac.v3.RBACPerRoute, rbac: {%s}}}`, filter, rules)
}

// Listeners share scopes and routes. What differs by client is told by the filter
// state that its listener sets: for routes and for policy.
func TestIdentityByListener(t *testing.T) {
	p := start(t, front()+requests(15110, "spiffe://beta", ""))
	p.push(routesOf(t, "r", `
  - match: {prefix: /guarded}
    direct_response: {status: 200}
    typed_per_filter_config: `+perRoute("policy", allow(isAlpha, anyPermission))+`
  - {match: {prefix: /, filter_state: [{key: fl.identity, string_match: {contains: beta}}]}, direct_response: {status: 202}}
  - {match: {prefix: /}, direct_response: {status: 201}}`), scopeTo(t, vip(0, 1, 80), "r", false))
	for _, c := range []struct {
		from, path string
		want       int
	}{
		{alpha, "/", 201}, {beta, "/", 202}, {alpha, "/guarded", 200}, {beta, "/guarded", 403},
	} {
		a, err := fetch(httpFrom(t, c.from, vip(0, 1, 80), false), c.path)
		equal(t, c.from+c.path, fmt.Sprint(a.Status, err), fmt.Sprint(c.want, " <nil>"))
	}
}

// Policy by address knows the peer of the connection, whatever a header says.
func TestPolicyByAddress(t *testing.T) {
	p := start(t, front())
	rules := allow(fmt.Sprintf("{or_ids: {ids: [{direct_remote_ip: {address_prefix: %s, prefix_len: 32}}, {direct_remote_ip: {address_prefix: %q, prefix_len: 128}}]}}", alpha, alpha6), anyPermission)
	p.push(routesOf(t, "r", "[{match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: "+perRoute("policy", rules)+"}]"),
		scopeTo(t, vip(0, 1, 80), "r", false), scopeTo(t, vip6(0, 1, 80), "r", false))
	for _, c := range []struct {
		from, to string
		want     int
	}{
		{alpha, vip(0, 1, 80), 200}, {gamma, vip(0, 1, 80), 403}, {alpha6, vip6(0, 1, 80), 200}, {gamma6, vip6(0, 1, 80), 403},
	} {
		a, err := fetch(httpFrom(t, c.from, c.to, false), "/", "x-forwarded-for: "+alpha)
		equal(t, c.from, fmt.Sprint(a.Status, err), fmt.Sprint(c.want, " <nil>"))
	}
}

// folded are upstream filters of a cluster: RBAC by a name, then the codec.
func folded(name, rules string) string {
	return options(fmt.Sprintf(`explicit_http_config: {http_protocol_options: {}}
    http_filters:
    - {name: %s, typed_config: {"@type": E/filters.http.rbac.v3.RBAC%s}}
    - {name: envoy.filters.http.upstream_codec, typed_config: {"@type": E/filters.http.upstream_codec.v3.UpstreamCodec}}`, name, rules))
}

// The destination's policy can be part of its cluster: it judges the request as it
// was rewritten, knows the client by its listener's filter state, and keeps apart
// clients of one address.
func TestFoldedPolicy(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, front()+requests(15110, "spiffe://beta", "")+requests(15101, "spiffe://beta", ""))
	p.push(edsCluster(t, "a", folded("fold.allow", ", "+allow(isAlpha, "{url_path: {path: {exact: /new}}}")), serverA+":8080")...)
	p.push(routesOf(t, "r", `
  - {match: {prefix: /old}, route: {cluster: a, prefix_rewrite: /new}}
  - {match: {prefix: /new}, route: {cluster: a, prefix_rewrite: /old}}`),
		scopeTo(t, vip(0, 1, 80), "r", false), scopeTo(t, vip(1, 1, 80), "r", false))
	for _, c := range []struct{ from, to, path, want string }{
		{alpha, vip(0, 1, 80), "/old", "200 /new"},
		{alpha, vip(0, 1, 80), "/new", "403 "},
		{beta, vip(0, 1, 80), "/old", "403 "},
		{alpha, vip(1, 1, 80), "/old", "403 "}, // another identity at the same address
		{alpha, vip(0, 1, 80), "/old", "200 /new"},
	} {
		a, err := fetch(httpFrom(t, c.from, c.to, false), c.path)
		equal(t, c.from+" to "+c.to+c.path, fmt.Sprint(a.Status, " ", a.Path, err), c.want+"<nil>")
	}
}

// A trap: policy in a cluster does not stop requests that are mirrored to it.
func TestFoldedPolicyAndMirrors(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	mirrored := make(chan string, 10)
	httpServer(t, hostPort(serverB, 8080), func(w http.ResponseWriter, q *http.Request) { mirrored <- q.Host })
	p := start(t, front())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(edsCluster(t, "b", folded("fold.allow", ", rules: {action: ALLOW, policies: {}}"), serverB+":8080")...)
	p.push(routesOf(t, "r", "[{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: b}]}}]"), to(t, "rb", "b"),
		scopeTo(t, vip(0, 1, 80), "r", false), scopeTo(t, vip(0, 2, 80), "rb", false))
	equal(t, "directly", statusOf(t, vip(0, 2, 80)), 403)
	equal(t, "the request", statusOf(t, vip(0, 1, 80)), 200)
	equal(t, "mirrored to", receive(t, "mirrored request", mirrored), "h-shadow")
}

// A trap: a filter of the cluster takes the configuration that a route has for a
// filter of its name. So the names of the two are kept apart.
func TestFilterNames(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "same", folded("fold", ""), serverA+":8080")...)
	p.push(edsCluster(t, "other", folded("other", ""), serverA+":8080")...)
	for i, name := range []string{"same", "other"} {
		p.push(routesOf(t, "r-"+name, "[{match: {prefix: /}, route: {cluster: "+name+"}, typed_per_filter_config: {"+strings.Replace(denied, "policy:", "fold:", 1)+"}}]"),
			scopeTo(t, vip(0, i, 80), "r-"+name, false))
	}
	equal(t, "same name", statusOf(t, vip(0, 0, 80)), 403)
	equal(t, "other name", statusOf(t, vip(0, 1, 80)), 200)
}

// Filters that are in the chain with nothing to do are told by routes what to do, also
// for the request that loads the routes. A trap: a chain of filters that comes whole
// with a route does not hold for that one.
func TestFiltersByRoute(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	chain := loadFirst + `
          - {name: fault, typed_config: {"@type": E/filters.http.fault.v3.HTTPFault}}
          - {name: cors, typed_config: {"@type": E/filters.http.cors.v3.Cors}}
          - {name: chain, typed_config: {"@type": E/filters.http.filter_chain.v3.FilterChainConfig}}
          - {name: limit, typed_config: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}`
	p := start(t, strings.Replace(front(), loadFirst, chain, 1))
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	for i, c := range []struct{ name, config, first, second string }{
		{"none", `{}`, `200 "" ""`, `200 "" ""`},
		{"fault", `{fault: {"@type": E/filters.http.fault.v3.HTTPFault, abort: {http_status: 555, percentage: {numerator: 100}}}}`,
			`555 "" ""`, `555 "" ""`},
		{"cors", `{cors: {"@type": E/filters.http.cors.v3.CorsPolicy, allow_origin_string_match: [{exact: "http://o"}]}}`,
			`200 "" "http://o"`, `200 "" "http://o"`},
		{"chain", `{chain: {"@type": E/filters.http.filter_chain.v3.FilterChainConfigPerRoute, filter_chain: {filters: [{name: inner, typed_config: {"@type": E/filters.http.header_mutation.v3.HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-inner, value: "1"}}}]}}}]}}}`,
			`200 "" ""`, `200 "1" ""`},
		{"limit", `{limit: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit, token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}`,
			`200 "" ""`, `429 "" ""`},
	} {
		p.push(routesOf(t, "r-"+c.name, "[{match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: "+c.config+"}]"),
			scopeTo(t, vip(0, i, 80), "r-"+c.name, true))
		for _, want := range []string{c.first, c.second} {
			a := mustFetch(t, vip(0, i, 80), "/", "origin: http://o")
			got := fmt.Sprintf("%d %q %q", a.Status, a.reply.Header.Get("X-Inner"), a.reply.Header.Get("Access-Control-Allow-Origin"))
			equal(t, c.name, got, want)
		}
	}
}
