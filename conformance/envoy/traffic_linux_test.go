// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"fairlead.io/fairlead/xds"
)

// placed are endpoints of a cluster in localities, a line for each: "priority weight
// IP:port ...".
func placed(t testing.TB, cluster string, lines ...string) xds.Resource {
	t.Helper()
	text := fmt.Sprintf("cluster_name: %q\nendpoints:\n", cluster)
	for i, line := range lines {
		parts := strings.Fields(line)
		text += fmt.Sprintf("- priority: %s\n  load_balancing_weight: %s\n  locality: {sub_zone: \"%d\"}\n  lb_endpoints:\n", parts[0], parts[1], i)
		for _, at := range parts[2:] {
			host, port, _ := net.SplitHostPort(at)
			text += fmt.Sprintf("  - {endpoint: {address: {socket_address: {address: %q, port_value: %s}}}}\n", host, port)
		}
	}
	return resource(t, xds.EndpointType, text)
}

// servers are who answers so many requests, each by a new connection.
func servers(t testing.TB, n int, dst string, headers ...string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		a := mustFetch(t, dst, "/", headers...)
		name := a.Server
		if a.Status != http.StatusOK {
			name = fmt.Sprint(a.Status)
		}
		got[name]++
	}
	return got
}

// three are servers a, b and c at port 8080.
func three(t testing.TB) []string {
	t.Helper()
	addrs := []string{serverA + ":8080", serverB + ":8080", serverC + ":8080"}
	for i, name := range []string{"a", "b", "c"} {
		httpEcho(t, name, addrs[i])
	}
	return addrs
}

// Requests that agree in what a route hashes by get to one endpoint, by ring and by
// table; a cluster that does not hash takes no notice. Without what is hashed: any.
func TestHashSticks(t *testing.T) {
	addrs := three(t)
	p := start(t, front())
	p.push(edsCluster(t, "ring", "lb_policy: RING_HASH", addrs...)...)
	p.push(edsCluster(t, "table", "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 251}", addrs...)...)
	p.push(edsCluster(t, "plain", "lb_policy: RANDOM", addrs...)...)
	for i, c := range []struct{ cluster, hash string }{
		{"ring", "[{header: {header_name: x-user}}]"},
		{"table", "[{header: {header_name: x-user}}]"},
		{"plain", "[{header: {header_name: x-user}}]"},
		{"ring", "[{connection_properties: {source_ip: true}}]"},
		{"ring", "[{query_parameter: {name: user}}]"},
	} {
		name := fmt.Sprint("r", i)
		p.push(routesOf(t, name, fmt.Sprintf("[{match: {prefix: /}, route: {cluster: %s, timeout: 0s, hash_policy: %s}}]", c.cluster, c.hash)),
			scopeTo(t, vip(0, i, 80), name, false))
	}
	const n = 40
	for i, cluster := range []string{"ring", "table"} {
		hit := map[string]bool{}
		for user := range 12 {
			got := servers(t, 6, vip(0, i, 80), fmt.Sprint("x-user: u", user))
			if len(got) != 1 {
				t.Errorf("%s: user %d got to %v", cluster, user, got)
			}
			for name := range got {
				hit[name] = true
			}
		}
		if len(hit) < 2 {
			t.Errorf("%s: all users got to %v", cluster, hit)
		}
		if got := servers(t, n, vip(0, i, 80)); len(got) < 2 {
			t.Errorf("%s: requests without the header got to %v", cluster, got)
		}
	}
	if got := servers(t, n, vip(0, 2, 80), "x-user: u"); len(got) < 2 {
		t.Errorf("a cluster that does not hash: %v", got)
	}
	if got := servers(t, n, vip(0, 3, 80)); len(got) != 1 {
		t.Errorf("by the source's address: %v", got)
	}
	got := map[string]bool{}
	for range 10 {
		got[mustFetch(t, vip(0, 4, 80), "/?user=u").Server] = true
	}
	if len(got) != 1 {
		t.Errorf("by query parameter: %v", got)
	}
}

// A cookie is handed out to who has none, if it has a lifetime; who brings it gets to
// the endpoint that the first answer came from. Two policies combine.
func TestHashCookie(t *testing.T) {
	addrs := three(t)
	p := start(t, front())
	p.push(edsCluster(t, "ring", "lb_policy: RING_HASH", addrs...)...)
	p.push(routesOf(t, "r", `[{match: {prefix: /}, route: {cluster: ring, timeout: 0s, hash_policy: [
  {cookie: {name: session, path: /p, ttl: 60s, attributes: [{name: SameSite, value: Strict}]}}]}}]`), scopeTo(t, vip(0, 1, 80), "r", false))
	p.push(routesOf(t, "both", `[{match: {prefix: /}, route: {cluster: ring, timeout: 0s, hash_policy: [{header: {header_name: a}}, {header: {header_name: b}}]}}]`),
		scopeTo(t, vip(0, 2, 80), "both", false))
	first := mustFetch(t, vip(0, 1, 80), "/")
	cookies := first.reply.Cookies()
	if len(cookies) != 1 || cookies[0].Name != "session" || cookies[0].Path != "/p" || cookies[0].MaxAge != 60 || cookies[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("cookies %v", first.reply.Header["Set-Cookie"])
	}
	for range 10 {
		a := mustFetch(t, vip(0, 1, 80), "/", "cookie: session="+cookies[0].Value)
		equal(t, "with the cookie", a.Server, first.Server)
		equal(t, "cookies of who has one", len(a.reply.Cookies()), 0)
	}
	apart := map[string]bool{}
	for i := range 20 {
		got := servers(t, 3, vip(0, 2, 80), "a: same", fmt.Sprint("b: ", i))
		if len(got) != 1 {
			t.Errorf("two headers: %v", got)
		}
		for name := range got {
			apart[name] = true
		}
	}
	if len(apart) < 2 {
		t.Errorf("requests that agree in one of two headers got to %v", apart)
	}
}

// Connections are hashed by their source's address if the cluster hashes; others take
// no notice.
func TestTCPHash(t *testing.T) {
	for i, a := range []string{serverA, serverB, serverC} {
		listen(t, a+":9000", greet(string(rune('a'+i))))
	}
	p := start(t, listeners+strings.ReplaceAll(opaque(15100, "a"), "stat_prefix:", "hash_policy: [{source_ip: {}}]\n          stat_prefix:"))
	all := []string{serverA + ":9000", serverB + ":9000", serverC + ":9000"}
	p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), "lb_policy: RING_HASH", all...)...)
	p.push(edsCluster(t, "tcp|a|"+vip(0, 2, 80), "lb_policy: RANDOM", all...)...)
	reach := func(from, to string) string {
		c := dial(t, from, to)
		defer c.Close()
		name, _, _ := strings.Cut(readLine(t, c), " ")
		return name
	}
	for _, from := range []string{alpha, gamma} {
		first := reach(from, vip(0, 1, 80))
		for range 10 {
			equal(t, "from "+from, reach(from, vip(0, 1, 80)), first)
		}
	}
	weighted := "lb_policy: RING_HASH\ncommon_lb_config: {locality_weighted_lb_config: {}}"
	p.push(edsCluster(t, "tcp|a|"+vip(0, 3, 80), weighted, all...)...)
	closedSoon(t, "a locality without weight, where localities have weights", dial(t, alpha, vip(0, 3, 80)))
	p.push(resource(t, xds.EndpointType, fmt.Sprintf("cluster_name: %q\nendpoints: [{load_balancing_weight: 1, lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: 9000}}}}]}]",
		"tcp|a|"+vip(0, 3, 80), serverA)))
	closedSoon(t, "a weight without locality", dial(t, alpha, vip(0, 3, 80)))
	p.push(placed(t, "tcp|a|"+vip(0, 3, 80), "0 1 "+strings.Join(all, " ")))
	p.waitFor("a locality with weight", func() bool {
		c := dial(t, alpha, vip(0, 3, 80))
		defer c.Close()
		_, err := bufio.NewReader(c).ReadString('\n')
		return err == nil
	})
	got := map[string]bool{}
	for range 40 {
		got[reach(alpha, vip(0, 2, 80))] = true
	}
	if len(got) < 2 {
		t.Errorf("a cluster that does not hash: %v", got)
	}
}

// failing is a server that can be told to fail.
func failing(t testing.TB, name, addr string) *atomic.Bool {
	t.Helper()
	var fails atomic.Bool
	httpServer(t, addr, func(w http.ResponseWriter, q *http.Request) {
		if fails.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s %s\n%s %s %s\n", name, q.RemoteAddr, q.Method, q.URL.Path, q.Proto)
	})
	return &fails
}

const ejecting = `outlier_detection: {consecutive_5xx: 3, enforcing_consecutive_5xx: 100, enforcing_success_rate: 0, interval: 0.2s, base_ejection_time: 2s, max_ejection_percent: MAX}
common_lb_config: {healthy_panic_threshold: {value: 0}}`

// An endpoint that fails so many times in a row is out of use, as long as is said, and
// no more of them than is said, though statistics of clusters are off. Workers are told
// at once of the first; of further ones together, a second later.
func TestOutlierEjects(t *testing.T) {
	fails := failing(t, "a", serverA+":8080")
	other := failing(t, "b", serverB+":8080")
	p := start(t, front())
	both := []string{serverA + ":8080", serverB + ":8080"}
	p.push(edsCluster(t, "all", "lb_policy: ROUND_ROBIN\n"+strings.ReplaceAll(ejecting, "MAX", "100"), both...)...)
	p.push(edsCluster(t, "half", "lb_policy: ROUND_ROBIN\n"+strings.ReplaceAll(ejecting, "MAX", "50"), both...)...)
	p.push(to(t, "r1", "all"), scopeTo(t, vip(0, 1, 80), "r1", false))
	p.push(to(t, "r2", "half"), scopeTo(t, vip(0, 2, 80), "r2", false))
	fails.Store(true)
	p.waitFor("the failing endpoint is out of use", func() bool { return servers(t, 10, vip(0, 1, 80))["500"] == 0 })
	fails.Store(false)
	p.waitFor("it is back", func() bool { return servers(t, 10, vip(0, 1, 80))["a"] > 0 })

	fails.Store(true)
	other.Store(true)
	p.waitFor("all are out of use", func() bool { return servers(t, 4, vip(0, 1, 80))["503"] == 4 })
	for range 20 {
		servers(t, 4, vip(0, 2, 80))
	}
	if got := servers(t, 10, vip(0, 2, 80)); got["500"] != 10 {
		t.Errorf("where half may be out of use: %v", got)
	}
}

// A lower priority is used when those before have no healthy endpoint; an empty
// priority is passed over.
func TestPrioritiesFailOver(t *testing.T) {
	fails := failing(t, "a", serverA+":8080")
	failing(t, "b", serverB+":8080")
	p := start(t, front())
	cluster := edsCluster(t, "near", strings.ReplaceAll(ejecting, "MAX", "100"))[0]
	p.push(cluster, placed(t, "near", "0 1 "+serverA+":8080", "1 1 "+serverB+":8080"))
	p.push(to(t, "r", "near"), scopeTo(t, vip(0, 1, 80), "r", false))
	equal(t, "near", servers(t, 20, vip(0, 1, 80)), map[string]int{"a": 20})
	fails.Store(true)
	p.waitFor("the other priority", func() bool { return servers(t, 10, vip(0, 1, 80))["b"] == 10 })
	fails.Store(false)
	p.waitFor("the first priority again", func() bool { return servers(t, 10, vip(0, 1, 80))["a"] == 10 })
	p.push(placed(t, "near", "0 1", "1 1 "+serverB+":8080"))
	p.waitFor("the only one", func() bool { return servers(t, 10, vip(0, 1, 80))["b"] == 10 })
}

// Localities have shares of the requests by their weight, and endpoints of theirs; but
// for clusters that choose at random, where each endpoint has as much as any other.
func TestLocalityShares(t *testing.T) {
	three(t)
	p := start(t, front())
	cluster := edsCluster(t, "near", "lb_policy: ROUND_ROBIN\ncommon_lb_config: {locality_weighted_lb_config: {}}")[0]
	p.push(cluster, placed(t, "near", "0 80 "+serverA+":8080", "0 20 "+serverB+":8080 "+serverC+":8080"))
	p.push(edsCluster(t, "weights", "lb_policy: LEAST_REQUEST", serverA+":8080 3", serverB+":8080")...)
	p.push(edsCluster(t, "random", "lb_policy: RANDOM", serverA+":8080 3", serverB+":8080")...)
	for i, name := range []string{"near", "weights", "random"} {
		p.push(to(t, name, name), scopeTo(t, vip(0, i, 80), name, false))
	}
	const n = 400
	for i, share := range []float64{0.8, 0.75, 0.5} {
		got := servers(t, n, vip(0, i, 80))
		if math.Abs(float64(got["a"])-share*n) > 5*math.Sqrt(share*(1-share)*n) {
			t.Errorf("share %v of %d: %v", share, n, got)
		}
	}
}

// More requests than may be under way get 503 at once; those under way go on. The limit
// is of all clients together. A limit of connections holds up what would need another,
// but for one connection of each client (of each worker).
func TestThresholdsRefuse(t *testing.T) {
	release, came := make(chan struct{}), make(chan struct{}, 10)
	httpServer(t, serverA+":8080", func(w http.ResponseWriter, q *http.Request) {
		came <- struct{}{}
		<-release
		io.WriteString(w, "a x\nGET / x\n")
	})
	_, feed := startScript(t, front(), "--concurrency", "1")
	feed.push(edsCluster(t, "requests", "circuit_breakers: {thresholds: [{max_requests: 2}]}", serverA+":8080")...)
	feed.push(edsCluster(t, "connections", "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1}]}", serverA+":8080")...)
	for i, name := range []string{"requests", "connections"} {
		feed.push(to(t, name, name), scopeTo(t, vip(0, i, 80), name, false))
	}
	done := make(chan int, 10)
	ask := func(from, to string) {
		go func() {
			a, err := fetch(httpFrom(t, from, to, false), "/")
			if err != nil {
				a.Status = -1
			}
			done <- a.Status
		}()
	}
	ask(alpha, vip(0, 0, 80))
	ask(gamma, vip(0, 0, 80))
	receive(t, "first", came)
	receive(t, "second", came)
	equal(t, "a third request", statusOf(t, vip(0, 0, 80)), http.StatusServiceUnavailable)

	ask(alpha, vip(0, 1, 80)) // has the connection
	receive(t, "the only connection", came)
	ask(gamma, vip(0, 1, 80)) // another client has one of its own
	receive(t, "another client's connection", came)
	for range 4 {
		ask(alpha, vip(0, 1, 80)) // one waits for the connection
	}
	for range 3 {
		equal(t, "a request beyond those that may wait", receive(t, "a refusal", done), http.StatusServiceUnavailable)
	}
	close(release)
	for range 5 {
		equal(t, "a request that was under way", receive(t, "an answer", done), http.StatusOK)
	}
}

// Connections beyond the limit are closed at once.
func TestTCPThreshold(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, opaqueListeners())
	p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), "circuit_breakers: {thresholds: [{max_connections: 1}]}", serverA+":9000")...)
	first := dial(t, alpha, vip(0, 1, 80))
	readLine(t, first)
	closedSoon(t, "a second connection", dial(t, alpha, vip(0, 1, 80)))
	first.Close()
	p.waitFor("the place is free", func() bool {
		c := dial(t, alpha, vip(0, 1, 80))
		defer c.Close()
		_, err := bufio.NewReader(c).ReadString('\n')
		return err == nil
	})
}

// A cluster that leads to the address dialled can come with the routes, and needs no
// endpoints; its limits hold.
func TestOriginalByPolicy(t *testing.T) {
	httpEcho(t, "a", pod+":61080")
	p := start(t, front())
	p.push(resource(t, xds.ClusterType, `
name: dialled
type: ORIGINAL_DST
lb_policy: CLUSTER_PROVIDED
connect_timeout: 1s
original_dst_lb_config: {use_http_header: true, http_header_name: x-to}
circuit_breakers: {thresholds: [{max_requests: 1000}]}
upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 4294962760, state: STATE_PREBIND}]}`))
	p.push(to(t, "r", "dialled"), scopeTo(t, vip(0, 1, 80), "r", false))
	equal(t, "server", mustFetch(t, vip(0, 1, 80), "/", "x-to: "+pod+":61080").Server, "a")
}

// An upstream connection begins with PROXY and the client's address.
func TestProxyProtocol(t *testing.T) {
	lines := make(chan string, 1)
	listen(t, serverA+":9000", func(c *net.TCPConn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		lines <- line
	})
	p := start(t, opaqueListeners())
	p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), `transport_socket:
  name: envoy.transport_sockets.upstream_proxy_protocol
  typed_config:
    "@type": E/transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
    config: {version: V1}
    transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {"@type": E/transport_sockets.raw_buffer.v3.RawBuffer}}`, serverA+":9000")...)
	c := dial(t, alpha, vip(0, 1, 80))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	line := receive(t, "the first line", lines)
	if want := "PROXY TCP4 " + alpha + " " + strings.Split(vip(0, 1, 80), ":")[0] + " "; !strings.HasPrefix(line, want) {
		t.Errorf("%q does not begin with %q", line, want)
	}
}

// New endpoints of a cluster that warms them up get less at first than those that have
// been there for as long as that takes.
func TestWarmUp(t *testing.T) {
	httpEcho(t, "a", serverA+":8080")
	httpEcho(t, "b", serverB+":8080")
	p := start(t, front())
	const window = 3 * time.Second
	warm := "lb_policy: ROUND_ROBIN\nround_robin_lb_config: {slow_start_config: {slow_start_window: 3s, min_weight_percent: {value: 10}}}"
	p.push(edsCluster(t, "warm", warm, serverA+":8080")...)
	p.push(to(t, "r", "warm"), scopeTo(t, vip(0, 1, 80), "r", false))
	servers(t, 1, vip(0, 1, 80))
	time.Sleep(window)
	p.push(edsCluster(t, "warm", warm, serverA+":8080", serverB+":8080")[1])
	if got := servers(t, 40, vip(0, 1, 80)); got["b"] == 0 || got["b"] > 15 {
		t.Errorf("at first: %v", got)
	}
	p.waitFor("even shares", func() bool { got := servers(t, 20, vip(0, 1, 80)); return got["b"] >= 9 })
}

// A chain for one destination has times of its own: silence, or age, ends connections to
// it alone. Such chains come and go without an end to connections of others. But who
// finds chains for its port finds no other: the port needs one for all, too.
func TestChainByDestination(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, "")
	chain := func(name, match, times string) string {
		return strings.NewReplacer("NAME", name, "MATCH", match, "TIMES", times).Replace(`
- name: "NAME"
  filter_chain_match: {MATCH}
  filters:
  - name: cluster
    typed_config:
      "@type": E/filters.network.set_filter_state.v3.Config
      on_new_connection: [{object_key: envoy.tcp_proxy.cluster, format_string: {text_format_source: {inline_string: "tcp|a|%DOWNSTREAM_LOCAL_ADDRESS%"}}}]
  - name: envoy.filters.network.tcp_proxy
    typed_config: {"@type": E/filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: own, cluster: none, on_demand: {odcds_config: {ads: {}, resource_api_version: V3}, timeout: 1s}, TIMES}`)
	}
	own := func(dst, times string) string {
		host, port, _ := net.SplitHostPort(dst)
		return chain(dst, fmt.Sprintf("destination_port: %s, prefix_ranges: [{address_prefix: %s, prefix_len: 32}]", port, host), times)
	}
	l := func(more string) xds.Resource {
		return resource(t, xds.ListenerType, "name: out/opaque"+strings.ReplaceAll(loopback(15100)+keepSource, "\n    ", "\n")+
			"\nfilter_chains:"+chain("all", "", "idle_timeout: 0s")+more)
	}
	for i := range 3 {
		p.push(edsCluster(t, "tcp|a|"+vip(0, i, 80), "", serverA+":9000")...)
	}
	p.listener(l(own(vip(0, 1, 80), "idle_timeout: 1s")))
	closedSoon(t, "another address at the port", dial(t, alpha, vip(0, 0, 80)))
	port := chain("80", "destination_port: 80", "idle_timeout: 0s")
	p.listener(l(port + own(vip(0, 1, 80), "idle_timeout: 1s")))
	open := func(i int) *net.TCPConn {
		c := dial(t, alpha, vip(0, i, 80))
		readLine(t, c)
		return c
	}
	ended := func(c net.Conn) time.Duration {
		begin := time.Now()
		io.Copy(io.Discard, c)
		return time.Since(begin)
	}
	usual := open(0)
	if d := ended(open(1)); d < 500*time.Millisecond || d > 5*time.Second {
		t.Errorf("silent for a second: ended after %s", d)
	}
	p.listener(l(port + own(vip(0, 1, 80), "idle_timeout: 1s") + own(vip(0, 2, 80), "idle_timeout: 0s, max_downstream_connection_duration: 1s")))
	if d := ended(open(2)); d < 500*time.Millisecond || d > 5*time.Second {
		t.Errorf("a second old: ended after %s", d)
	}
	p.listener(l(port))
	if _, err := io.WriteString(usual, "still here\n"); err != nil {
		t.Fatal(err)
	}
	equal(t, "a connection of the others", readLine(t, usual), "still here")
	c := open(1)
	c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); err == io.EOF {
		t.Error("ended by a chain that is gone")
	}
}
