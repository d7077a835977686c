// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// withLimits is the front with a rate limit filter that has nothing to do by itself.
func withLimits() string {
	front := listeners + requests(15100, "spiffe://alpha", `
          original_ip_detection_extensions:
          - name: envoy.http.original_ip_detection.custom_header
            typed_config: {"@type": E/http.original_ip_detection.custom_header.v3.CustomHeaderConfig, header_name: x-dst}`)
	return strings.Replace(front, loadFirst, loadFirst+`
          - {name: limit, typed_config: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}`, 1)
}

// full is a bucket that holds n, and does not fill again while a test lasts.
func full(n int) string {
	return fmt.Sprintf("{max_tokens: %d, tokens_per_fill: %d, fill_interval: 3600s}", n, n)
}

// limitedRoutes are routes "/a" and "/b", and a last one that answers 404, under a limit
// of their virtual host; more is YAML of further fields of it.
func limitedRoutes(t testing.TB, name string, total int, more string) xds.Resource {
	return resource(t, xds.RouteType, fmt.Sprintf(`
name: %s
request_headers_to_remove: [x-dst]
virtual_hosts:
- name: v
  domains: ["*"]
  typed_per_filter_config:
    limit:
      "@type": E/filters.http.local_ratelimit.v3.LocalRateLimit
      stat_prefix: limit
      token_bucket: %s
      filter_enabled: {default_value: {numerator: 100}}
      filter_enforced: {default_value: {numerator: 100}}
      rate_limited_as_resource_exhausted: true
%s
  routes:
  - {match: {prefix: /a}, direct_response: {status: 200}}
  - {match: {prefix: /b}, direct_response: {status: 200}}
  - {match: {prefix: ""}, direct_response: {status: 404}}`, name, full(total), more))
}

// outcomes are the statuses of requests for a path, one after the other.
func outcomes(t testing.TB, c *http.Client, n int, path string, headers ...string) string {
	t.Helper()
	var out []string
	for range n {
		a, err := fetch(c, path, headers...)
		if err != nil {
			t.Error(err)
		}
		out = append(out, fmt.Sprint(a.Status))
	}
	return strings.Join(out, " ")
}

// A limit of a virtual host is one for all of its routes, all workers and connections,
// and holds from the request on that loads the routes. gRPC is told in its own words.
func TestRateLimit(t *testing.T) {
	p := start(t, withLimits())
	p.push(limitedRoutes(t, "r", 4, ""), scopeTo(t, vip(0, 1, 80), "r", true), limitedRoutes(t, "g", 1, ""), scopeTo(t, vip(0, 2, 80), "g", true))
	var got []string
	for _, path := range []string{"/a", "/b", "/none", "/a", "/a", "/b", "/none"} { // each by a connection of its own
		got = append(got, fmt.Sprint(mustFetch(t, vip(0, 1, 80), path).Status))
	}
	equal(t, "all routes", strings.Join(got, " "), "200 200 404 200 429 429 429")

	c := httpFrom(t, alpha, vip(0, 2, 80), true)
	equal(t, "first", outcomes(t, c, 1, "/a", "content-type: application/grpc"), "200")
	a, err := fetch(c, "/a", "content-type: application/grpc")
	equal(t, "gRPC", fmt.Sprintln(a.Status, a.reply.Header.Get("Grpc-Status"), err), "200 8 <nil>\n")

	// A trap: a changed table has new buckets.
	p.push(limitedRoutes(t, "r", 2, ""))
	p.waitFor("a new bucket", func() bool { return mustFetch(t, vip(0, 1, 80), "/a").Status == 200 })
}

// A limit behind the policy counts what goes on alone: nothing that is refused, that no
// route takes, or whose route has a limit that is not switched on. Trap: a route cannot do
// without a bucket.
func TestRateLimitBehindPolicy(t *testing.T) {
	chain := loadFirst + `
          - {name: policy, typed_config: {"@type": E/filters.http.rbac.v3.RBAC}}
          - {name: limit, typed_config: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}`
	p := start(t, strings.Replace(withLimits(), loadFirst+`
          - {name: limit, typed_config: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}`, chain, 1))
	const off = `limit: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit, token_bucket: {max_tokens: 4294967295, tokens_per_fill: 4294967295, fill_interval: 1s}}`
	table := func(redirect string) string {
		return `
name: r
request_headers_to_remove: [x-dst]
virtual_hosts:
- name: v
  domains: ["*"]
  typed_per_filter_config:
    limit:
      "@type": E/filters.http.local_ratelimit.v3.LocalRateLimit
      stat_prefix: limit
      token_bucket: ` + full(2) + `
      filter_enabled: {default_value: {numerator: 100}}
      filter_enforced: {default_value: {numerator: 100}}
  routes:
  - {match: {prefix: /a}, direct_response: {status: 200}}
  - {match: {prefix: /closed}, direct_response: {status: 200}, typed_per_filter_config: ` + perRoute("policy", "rules: {action: ALLOW}") + `}
  - {match: {prefix: /old}, redirect: {path_redirect: /none}, typed_per_filter_config: {` + redirect + `}}`
	}
	p.push(resource(t, xds.RouteType, table(off)), scopeTo(t, vip(0, 1, 80), "r", true))
	var got []string
	for _, path := range []string{"/old", "/closed", "/none", "/closed", "/old", "/a", "/none", "/a", "/a", "/closed", "/old"} {
		got = append(got, fmt.Sprint(mustFetch(t, vip(0, 1, 80), path).Status))
	}
	none := `limit: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}`
	if o := p.pushOutcome(resource(t, xds.RouteType, table(none))); len(o.Rejected) != 1 {
		t.Error("a route may do without a bucket")
	}
	equal(t, "counted", strings.Join(got, " "), "404 403 404 403 404 200 404 200 429 403 404")
}

// Limits by the address of the connection, whatever a header says: of some addresses
// together, and of all others together. The limit of all comes on top.
func TestRateLimitByAddress(t *testing.T) {
	describe := func(key, match string) string {
		return fmt.Sprintf("{actions: [{remote_address_match: {descriptor_key: client, descriptor_value: %s, address_matcher: {%s}}}]}", key, match)
	}
	known := fmt.Sprintf("{address_prefix: %q, prefix_len: 32}, {address_prefix: %q, prefix_len: 128}", alpha, alpha6)
	more := "      descriptors:\n"
	for key, n := range map[string]int{"one": 3, "other": 2} {
		more += fmt.Sprintf("      - {entries: [{key: client, value: %s}], token_bucket: %s}\n", key, full(n))
	}
	more += "      rate_limits:\n      - " + describe("one", "ranges: ["+known+"]") +
		"\n      - " + describe("other", "invert_match: true, ranges: ["+known+"]") + "\n"
	p := start(t, withLimits())
	for i, total := range []int{100, 4} {
		name := fmt.Sprint("r", i)
		p.push(limitedRoutes(t, name, total, more), scopeTo(t, vip(0, i, 80), name, true), scopeTo(t, vip6(0, i, 80), name, true))
	}
	from := func(addr, dst string) *http.Client { return httpFrom(t, addr, dst, false) }
	equal(t, "known", outcomes(t, from(alpha, vip(0, 0, 80)), 2, "/a"), "200 200")
	equal(t, "by its other address", outcomes(t, from(alpha6, vip6(0, 0, 80)), 2, "/a"), "200 429")
	equal(t, "another", outcomes(t, from(beta, vip(0, 0, 80)), 1, "/a", "x-forwarded-for: "+alpha), "200")
	equal(t, "a third", outcomes(t, from(gamma6, vip6(0, 0, 80)), 2, "/a"), "200 429")
	equal(t, "known, as another", outcomes(t, from(alpha, vip(0, 0, 80)), 1, "/a", "x-forwarded-for: "+gamma), "429")

	equal(t, "of all, known", outcomes(t, from(alpha, vip(0, 1, 80)), 3, "/a"), "200 200 200")
	equal(t, "of all, others", outcomes(t, from(beta, vip(0, 1, 80)), 2, "/a"), "200 429")
}

// Buckets fill evenly: half a second after one is empty, half of a second's requests
// pass, and no more than a second's after a long rest.
func TestRateLimitFills(t *testing.T) {
	p := start(t, withLimits())
	r := strings.ReplaceAll(`{"max_tokens": N, "tokens_per_fill": N, "fill_interval": "1s"}`, "N", "20")
	p.push(resource(t, xds.RouteType, `
name: r
request_headers_to_remove: [x-dst]
virtual_hosts:
- name: v
  domains: ["*"]
  typed_per_filter_config: {limit: {"@type": E/filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit, token_bucket: `+r+`, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}
  routes: [{match: {prefix: ""}, direct_response: {status: 200}}]`), scopeTo(t, vip(0, 1, 80), "r", false))
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	passed := func(n int) int { return strings.Count(outcomes(t, c, n, "/"), "200") }
	begin := time.Now()
	first := passed(100)
	rest := time.Second / 2
	time.Sleep(rest)
	second := passed(100)
	within := time.Since(begin)
	if low, high := 20+8, 20+int(within.Seconds()*20)+1; first+second < low || first+second > high {
		t.Errorf("%d and %d of 20 a second passed in %s", first, second, within)
	}
}
