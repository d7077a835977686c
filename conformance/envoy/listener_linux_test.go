// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// refused reports whether nobody listens at an address.
func refused(t testing.TB, addr string) bool {
	t.Helper()
	from := alpha
	if strings.HasPrefix(addr, "[") {
		from = alpha6
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := dialErr(ctx, from, addr)
	if err == nil {
		c.Close()
		return false
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: %v", addr, err)
	}
	return true
}

// Bound to the loopback addresses, a transparent listener takes what the kernel
// redirects, for both families, and nothing that is sent to it. Bound to any address,
// it is a proxy for everybody.
func TestListenerAddress(t *testing.T) {
	any := strings.NewReplacer("127.0.0.1", "0.0.0.0", `"::1"`, `"::"`).Replace(requests(15101, "spiffe://any", ""))
	p := start(t, front()+any)
	for i, addr := range []string{vip(0, 1, 80), vip6(0, 1, 80), vip(1, 1, 80), vip6(1, 1, 80)} {
		p.push(direct(t, fmt.Sprint("r", i), 200+i), scopeTo(t, addr, fmt.Sprint("r", i), false))
	}
	equal(t, "IPv4", statusOf(t, vip(0, 1, 80)), 200)
	a, err := fetch(httpFrom(t, alpha6, vip6(0, 1, 80), false), "/")
	equal(t, "IPv6", fmt.Sprint(a.Status, err), "201 <nil>")
	for _, addr := range []string{alpha, serverA, alpha6, serverA6} {
		if !refused(t, hostPort(addr, 15100)) {
			t.Errorf("the listener on loopback takes connections to %s", addr)
		}
		if refused(t, hostPort(addr, 15101)) {
			t.Errorf("the listener on any address does not take connections to %s: this trap is none any more", addr)
		}
	}
}

// Connections are spread over the workers, each of which listens for itself.
func TestListenerWorkers(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, opaqueListeners())
	p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), "", serverA+":9000")...)
	const n = 64
	for range n {
		readLine(t, dial(t, alpha, vip(0, 1, 80)))
	}
	var counts []int
	for _, line := range strings.Split(p.get(`/stats?filter=127.0.0.1_15100.worker_.*.downstream_cx_total`), "\n") {
		if _, v, ok := strings.Cut(line, ": "); ok {
			c, err := strconv.Atoi(v)
			if err != nil {
				t.Fatal(err)
			}
			counts = append(counts, c)
		}
	}
	// Less than an eighth for one of two: once in 10^9 by chance.
	if len(counts) != 2 || counts[0]+counts[1] != n || min(counts[0], counts[1]) < n/8 {
		t.Errorf("%d connections by worker: %v", n, counts)
	}
}

// What a client says of the destination is overwritten before the scope is looked
// up, however it says it, and the server does not see that it is a header.
func TestDestinationHeader(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	httpEcho(t, "b", hostPort(serverB, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "a", bothProtocols, serverA+":8080")...)
	p.push(edsCluster(t, "b", bothProtocols, serverB+":8080")...)
	p.push(to(t, "ra", "a"), to(t, "rb", "b"), scopeTo(t, vip(0, 1, 80), "ra", false), scopeTo(t, vip(0, 2, 80), "rb", false))
	other := vip(0, 2, 80)
	for _, h2 := range []bool{false, true} {
		for _, headers := range [][]string{
			nil,
			{"x-dst: " + other},
			{"X-DST: " + other},
			{"x-dst: " + other, "x-dst: " + other},
			{"x-dst: " + other + "," + other},
			{"x-dst: "},
			{"connection: x-dst", "x-dst: " + other},
			{"connection: x-dst"},
			{"te: trailers", "trailer: x-dst", "x-dst: " + other},
		} {
			if h2 && len(headers) > 0 && strings.HasPrefix(headers[0], "connection") {
				continue // not allowed there
			}
			what := fmt.Sprintf("h2 %v, %q", h2, headers)
			got, err := fetch(httpFrom(t, alpha, vip(0, 1, 80), h2), "/", headers...)
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			equal(t, what, fmt.Sprint(got.Status, got.Server), "200a")
			if v := got.Header.Values("X-Dst"); len(v) > 0 {
				t.Errorf("%s: server got %q", what, v)
			}
		}
	}
}

// Clients cannot have Envoy believe that they are within, where they could set
// timeouts and retries by headers: the address is that of the connection, whatever
// x-forwarded-for says, which passes as it came.
func TestClientHeadersPowerless(t *testing.T) {
	bodyServer(t, "slow", hostPort(serverA, 8080))
	httpEcho(t, "a", hostPort(serverB, 8080))
	p := start(t, listeners+requests(15100, "spiffe://alpha", `
          original_ip_detection_extensions:
          - name: envoy.http.original_ip_detection.custom_header
            typed_config: {"@type": E/http.original_ip_detection.custom_header.v3.CustomHeaderConfig, header_name: x-dst}`)+
		requests(15101, "spiffe://trusted", `
          internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}`))
	p.push(edsCluster(t, "slow", "", serverA+":8080")...)
	p.push(edsCluster(t, "a", "", serverB+":8080")...)
	p.push(to(t, "rs", "slow"), to(t, "ra", "a"), scopeTo(t, vip(0, 1, 80), "rs", false), scopeTo(t, vip(0, 2, 80), "ra", false), scopeTo(t, vip(1, 1, 80), "rs", false))
	for _, c := range []struct{ what, dst, want string }{
		{"timeout by header", vip(0, 1, 80), "200  slow 0 h"},
		{"timeout by header, where addresses are trusted", vip(1, 1, 80), "504"},
	} {
		got, err := ask(httpFrom(t, alpha, c.dst, false), "GET", "h", nil, "x-wait: 300ms", "x-envoy-upstream-rq-timeout-ms: 10", "x-forwarded-for: 10.0.0.1")
		equal(t, c.what, fmt.Sprint(got, err), c.want+"<nil>")
	}
	a := mustFetch(t, vip(0, 2, 80), "/", "x-forwarded-for: 10.9.9.9", "x-envoy-internal: true")
	equal(t, "x-forwarded-for", a.Header.Values("X-Forwarded-For"), []string{"10.9.9.9"})
	for name := range a.Header {
		if strings.HasPrefix(name, "X-Envoy-") {
			t.Errorf("server got %s: %q", name, a.Header[name])
		}
	}
}

// Requests mean one path to routes, policy and server: dots and double slashes are
// taken out; escaped slashes, which have two meanings, are refused.
func TestPaths(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, listeners+requests(15100, "spiffe://alpha", `
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST`))
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(routesOf(t, "r", `
  - {match: {path: /secret}, direct_response: {status: 403}}
  - {match: {prefix: /}, route: {cluster: a}}`), scopeTo(t, vip(0, 1, 80), "r", false))
	for _, c := range []struct{ path, want string }{
		{"/a", "200 /a"},
		{"/secret", "403 "},
		{"/a/../secret", "403 "},
		{"/./secret", "403 "},
		{"//secret", "403 "},
		{"/%73ecret", "403 "},
		{"/%2e%2e/secret", "403 "},
		{"/a%2f..%2fsecret", "400 "},
		{"/a%5Csecret", "400 "},
		{"/a?b=/../secret", "200 /a?b=/../secret"},
	} {
		conn := dial(t, alpha, vip(0, 1, 80))
		a, err := exchange(conn, "GET "+c.path+" HTTP/1.1\r\nhost: h\r\n\r\n")
		equal(t, c.path, fmt.Sprint(a.Status, " ", a.Path, err), c.want+"<nil>")
	}
}

// With no timeout for the first bytes inspectors wait for ever, where the default is
// 15 s; a route with a timeout of zero has none, where the default is 15 s; so with
// requests that wait for routes: they do for as long as it takes.
func TestWithoutTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("waits longer than Envoy's default of 15 s")
	}
	bodyServer(t, "a", hostPort(serverA, 8080))
	tlsGreet(t, "tls", serverA+":9000")
	inspect := strings.NewReplacer("15102", "15101", "listener_filters_timeout: 1s", "listener_filters_timeout: 0s").Replace(detect(15102, keepSource, ""))
	_, s := startScript(t, front()+inspect)
	s.push(edsCluster(t, "a", "", serverA+":8080")...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false), scopeTo(t, vip(0, 2, 80), "late", true))

	slow, late := make(chan string, 1), make(chan string, 1)
	get := func(out chan string, dst string, headers ...string) {
		got, err := ask(httpFrom(t, alpha, dst, false), "GET", "h", nil, headers...)
		out <- fmt.Sprint(got, err)
	}
	go get(slow, vip(0, 1, 80), "X-Wait: 16s")
	go get(late, vip(0, 2, 80))
	silent := dial(t, alpha, vip(1, 1, 80))
	time.Sleep(16 * time.Second)
	if len(late) > 0 {
		t.Errorf("request without routes: %s", <-late)
	} else {
		s.push(to(t, "late", "a"))
		equal(t, "routes that came late", <-late, "200  a 0 h<nil>")
	}
	equal(t, "slow server", <-slow, "200  a 0 h<nil>")
	a, err := exchange(silent, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
	equal(t, "client that was silent", fmt.Sprint(a.Status, err), "200 <nil>")
}

// exchange sends text and reads an answer.
func exchange(c net.Conn, text string) (answer, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return answer{}, err
	}
	return readFrom(c)
}

// The scope of a request may be found by the port alone, whatever the address.
func TestScopeByPort(t *testing.T) {
	any := "\n  - name: any" + loopback(15101) + keepSource + "\n    filter_chains:\n    - filters:" + connectionManager("any|%DOWNSTREAM_LOCAL_PORT%", "")
	p := start(t, listeners+any)
	p.push(direct(t, "r", 200), resource(t, xds.ScopeType, `{name: "any|80", route_configuration_name: r, key: {fragments: [{string_key: "any|80"}]}}`))
	for addr, want := range map[string]int{vip(1, 1, 80): 200, vip(1, 2, 80): 200, vip(1, 1, 81): 404} {
		equal(t, addr, statusOf(t, addr), want)
	}
	a, err := fetch(httpFrom(t, alpha6, vip6(1, 1, 80), false), "/")
	equal(t, "IPv6", fmt.Sprint(a.Status, err), "200 <nil>")
}
