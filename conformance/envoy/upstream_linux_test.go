// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"fairlead.io/fairlead/xds"
)

// options are a cluster's HTTP options.
func options(text string) string {
	return `typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": E/upstreams.http.v3.HttpProtocolOptions
    ` + text
}

// Servers see the client's address, of either family. It needs an endpoint of the
// same family: an endpoint with both addresses serves both, and one with another
// serves nobody.
func TestSourceOfRequests(t *testing.T) {
	httpEcho(t, "four", hostPort(serverA, 8080))
	httpEcho(t, "six", hostPort(serverA6, 8080))
	p := start(t, front())
	both := edsCluster(t, "both", "", serverA+":8080")
	both[1] = resource(t, xds.EndpointType, fmt.Sprintf(`
cluster_name: both
endpoints:
- lb_endpoints:
  - endpoint:
      address: {socket_address: {address: %q, port_value: 8080}}
      additional_addresses: [{address: {socket_address: {address: %q, port_value: 8080}}}]`, serverA, serverA6))
	p.push(both...)
	p.push(edsCluster(t, "four", "", serverA+":8080")...)
	p.push(edsCluster(t, "six", "", hostPort(serverA6, 8080))...)
	for i, name := range []string{"both", "four", "six"} {
		p.push(to(t, "r-"+name, name), scopeTo(t, vip(0, i, 80), "r-"+name, false), resource(t, xds.ScopeType, fmt.Sprintf(
			"{name: %q, route_configuration_name: r-%s, key: {fragments: [{string_key: %[1]q}]}}", vip6(0, i, 80), name)))
	}
	for _, c := range []struct{ from, to, want string }{
		{alpha, vip(0, 0, 80), "200 four " + alpha},
		{alpha6, vip6(0, 0, 80), "200 six " + alpha6},
		{gamma, vip(0, 1, 80), "200 four " + gamma},
		{gamma6, vip6(0, 2, 80), "200 six " + gamma6},
		{alpha, vip(0, 2, 80), "503  "},
		{alpha6, vip6(0, 1, 80), "503  "},
	} {
		a, err := fetch(httpFrom(t, c.from, c.to, false), "/")
		equal(t, c.from+" to "+c.to, fmt.Sprintf("%d %s %s %v", a.Status, a.Server, a.Client, err), c.want+" <nil>")
	}
}

// gauge is a number that Envoy gives for the only endpoint of a cluster.
func (p *proxy) gauge(cluster, name string) int {
	p.t.Helper()
	for _, line := range strings.Split(p.get("/clusters"), "\n") {
		parts := strings.Split(line, "::")
		if len(parts) == 4 && parts[0] == cluster && parts[2] == name {
			n, err := strconv.Atoi(parts[3])
			if err != nil {
				p.t.Fatal(err)
			}
			return n
		}
	}
	p.t.Fatalf("cluster %s has no %s", cluster, name)
	return 0
}

// Upstream connections are shared by the connections of one client address, and not
// with others; those that idle are closed.
func TestPoolsBySource(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p, s := startScript(t, front(), "--concurrency", "1")
	s.push(edsCluster(t, "a", options("common_http_protocol_options: {idle_timeout: 3s}\n    explicit_http_config: {http_protocol_options: {}}"), serverA+":8080")...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	get := func(from string) {
		t.Helper()
		for range 3 {
			a, err := fetch(httpFrom(t, from, vip(0, 1, 80), false), "/")
			equal(t, from, fmt.Sprint(a.Client, err), from+"<nil>")
		}
	}
	get(alpha)
	if n := p.gauge("a", "cx_total"); n != 1 {
		t.Errorf("%d connections of one client", n)
	}
	get(gamma)
	if n := p.gauge("a", "cx_total"); n != 2 {
		t.Errorf("%d connections of two clients", n)
	}
	p.waitFor("idle connections are closed", func() bool { return p.gauge("a", "cx_active") == 0 })
}

// Socket options of a cluster are set before the address is bound: source ports
// come from the range that is given, and packets have the mark.
func TestSourcePortsAndMark(t *testing.T) {
	const low, high, mark = 63264, 65535, 0x300
	ports := make(chan int, 10)
	serve := func(c *net.TCPConn) { ports <- c.RemoteAddr().(*net.TCPAddr).Port }
	listen(t, serverA+":9000", serve)
	listen(t, hostPort(serverA6, 9000), serve)
	nft(t, fmt.Sprintf(`table inet marks { chain out { type filter hook output priority 0
tcp dport 9000 tcp flags syn / syn,ack meta mark & 0xf00 == %#x counter
}
}`, mark))
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "marks").Run() })

	p := start(t, opaqueListeners())
	for name, addr := range map[string]string{vip(0, 1, 80): serverA, vip6(0, 1, 80): serverA6} {
		rs := edsCluster(t, "tcp|a|"+name, "", hostPort(addr, 9000))
		rs[0] = resource(t, xds.ClusterType, fmt.Sprintf(`
name: %q
type: EDS
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
upstream_bind_config:
  socket_options:
  - {level: 0, name: 51, int_value: %d, state: STATE_PREBIND}
  - {level: 1, name: 36, int_value: %d, state: STATE_PREBIND}`, rs[0].Name, high<<16|low, mark))
		p.push(rs...)
	}
	for range 3 {
		for from, to := range map[string]string{alpha: vip(0, 1, 80), alpha6: vip6(0, 1, 80)} {
			dial(t, from, to)
			if port := receive(t, "connection", ports); port < low || port > high {
				t.Errorf("source port %d", port)
			}
		}
	}
	out, err := exec.Command("nft", "list", "table", "inet", "marks").Output()
	if err != nil || !strings.Contains(string(out), "packets 6 ") {
		t.Errorf("%v, %s", err, out)
	}
}

// A client's connections to a backend have so many source ports and no more; another
// backend has them all again. One whose connection has ended a second ago can be had again
// if the kernel's tcp_tw_reuse is 1, and else after a minute.
func TestSourcePortsAgain(t *testing.T) {
	const low, ports = 63264, 8
	const server = 9790 // no other test's: ports of its connections are kept for a minute
	for _, addr := range []string{hostPort(serverA, server), hostPort(serverB, server), hostPort(serverA6, server)} {
		listen(t, addr, greet("a"))
	}
	p := start(t, opaqueListeners())
	for name, addr := range map[string]string{vip(0, 1, 80): hostPort(serverA, server), vip(0, 2, 80): hostPort(serverB, server), vip6(0, 1, 80): hostPort(serverA6, server)} {
		rs := edsCluster(t, "tcp|a|"+name, "", addr)
		rs[0] = resource(t, xds.ClusterType, fmt.Sprintf(`
name: %q
type: EDS
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: %d, state: STATE_PREBIND}]}`, rs[0].Name, (low+ports-1)<<16|low))
		p.push(rs...)
	}
	served := func(from, to string) (n int) {
		for range ports {
			c := dial(t, from, to)
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && line != "" {
				n++
			}
			c.Close() // Envoy closes before the server, and keeps the port
		}
		return n
	}
	reuse := func(value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	reuse("2") // the kernel's default: 127.0.0.1 alone
	t.Cleanup(func() { reuse("2") })
	for from, tos := range map[string][]string{alpha: {vip(0, 1, 80), vip(0, 2, 80)}, alpha6: {vip6(0, 1, 80)}} {
		for _, to := range tos {
			equal(t, "connections to "+to, served(from, to), ports)
		}
		time.Sleep(1500 * time.Millisecond)
		equal(t, "connections to "+tos[0]+" a second later", served(from, tos[0]), 0)
	}
	reuse("1")
	for range 2 {
		equal(t, "with reuse", served(alpha, vip(0, 1, 80)), ports)
		equal(t, "with reuse, IPv6", served(alpha6, vip6(0, 1, 80)), ports)
		time.Sleep(1500 * time.Millisecond)
	}
}

// To the address that the client had dialled: requests into a pod of this node, from
// the client's address, by a static cluster. Each pod and port has a scope.
func TestOriginalDestination(t *testing.T) {
	httpEcho(t, "pod", hostPort(pod, 8080))
	httpEcho(t, "pod", hostPort(pod6, 8080))
	inbound := "\n  - name: in" + loopback(inboundPort) + keepSource + `
    filter_chains:
    - filters:` + connectionManager("in|%DOWNSTREAM_LOCAL_ADDRESS%", "")
	p := start(t, listeners+inbound+`
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 4294962760, state: STATE_PREBIND}]}`)
	p.push(to(t, "r", "original"))
	for _, c := range [][2]string{{alpha, hostPort(pod, 8080)}, {alpha6, hostPort(pod6, 8080)}} {
		a, err := fetch(httpFrom(t, c[0], c[1], false), "/")
		equal(t, "without a scope", fmt.Sprint(a.Status, err), "404 <nil>")
		p.push(resource(t, xds.ScopeType, fmt.Sprintf("{name: %q, route_configuration_name: r, key: {fragments: [{string_key: %[1]q}]}}", "in|"+c[1])))
		a, err = fetch(httpFrom(t, c[0], c[1], false), "/")
		equal(t, c[1], fmt.Sprint(a.Status, a.Server, " ", a.Client, err), "200pod "+c[0]+"<nil>")
	}
}

// A port takes HTTP/1 and HTTP/2. Servers are spoken to as the client speaks, or as
// the cluster says whatever the client speaks.
func TestUpstreamProtocol(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, front())
	for i, more := range []string{
		bothProtocols,
		options("explicit_http_config: {http_protocol_options: {}}"),
		options("explicit_http_config: {http2_protocol_options: {}}"),
	} {
		name := fmt.Sprint("c", i)
		p.push(edsCluster(t, name, more, serverA+":8080")...)
		p.push(to(t, "r"+name, name), scopeTo(t, vip(0, i, 80), "r"+name, false))
	}
	const one, two = "HTTP/1.1", "HTTP/2.0"
	for i, want := range [][2]string{{one, two}, {one, one}, {two, two}} {
		for j, h2 := range []bool{false, true} {
			a, err := fetch(httpFrom(t, alpha, vip(0, i, 80), h2), "/")
			if err != nil {
				t.Error(err)
			}
			equal(t, fmt.Sprintf("cluster %d, h2 %v", i, h2), a.Proto, want[j])
		}
	}
}

// The streams of one connection, such as of a gRPC client, are balanced one by one.
func TestBalancePerRequest(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	httpEcho(t, "b", hostPort(serverB, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "c", bothProtocols+"\nlb_policy: LEAST_REQUEST", serverA+":8080", serverB+":8080")...)
	p.push(to(t, "r", "c"), scopeTo(t, vip(0, 1, 80), "r", false))
	var dials atomic.Int32
	c := httpFrom(t, alpha, vip(0, 1, 80), true)
	tr := c.Transport.(*http.Transport)
	connect := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return connect(ctx, network, addr)
	}
	got := map[string]int{}
	for range 60 { // all by one server: once in 10^17 by chance
		a, err := fetch(c, "/", "content-type: application/grpc")
		if err != nil {
			t.Fatal(err)
		}
		got[a.Server]++
	}
	if len(got) != 2 || dials.Load() != 1 {
		t.Errorf("%v by %d connections", got, dials.Load())
	}
}

// A WebSocket may be a stream of an HTTP/2 connection (RFC 8441), which the server
// need not know. What no route or upgrade takes, such as CONNECT, is refused.
func TestWebSocketOverHTTP2(t *testing.T) {
	bodyServer(t, "a", hostPort(serverA, 8080))
	p := start(t, front())
	p.push(edsCluster(t, "a", options("explicit_http_config: {http_protocol_options: {}}"), serverA+":8080")...)
	p.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return dialErr(ctx, alpha, vip(0, 1, 80))
	}}
	defer tr.CloseIdleConnections()
	connect := func(protocol string) (*http.Response, io.Writer, func()) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		body, out := io.Pipe()
		q, err := http.NewRequestWithContext(ctx, "CONNECT", "http://h/", body)
		if err != nil {
			t.Fatal(err)
		}
		if protocol != "" {
			q.Header[":protocol"] = []string{protocol}
		}
		resp, err := tr.RoundTrip(q)
		if err != nil {
			t.Fatalf("%q: %v", protocol, err)
		}
		return resp, out, func() { resp.Body.Close(); out.Close(); cancel() }
	}
	resp, out, end := connect("websocket")
	defer end()
	equal(t, "WebSocket", resp.StatusCode, 200)
	io.WriteString(out, "ping\n")
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	equal(t, "WebSocket says", fmt.Sprint(line, err), "a ping\n<nil>")
	for _, protocol := range []string{"", "other"} {
		resp, _, end := connect(protocol)
		if resp.StatusCode < 400 {
			t.Errorf("CONNECT with protocol %q: %s", protocol, resp.Status)
		}
		end()
	}
}

// Requests that are under way end as they began when their cluster changes, its
// endpoints are all replaced, or it goes.
func TestRequestsOutliveChanges(t *testing.T) {
	bodyServer(t, "a", hostPort(serverA, 8080))
	bodyServer(t, "b", hostPort(serverB, 8080))
	p := start(t, front())
	got := make(chan string, 3)
	for i := range 3 {
		name := fmt.Sprint("c", i)
		p.push(edsCluster(t, name, "", serverA+":8080")...)
		p.push(to(t, "r"+name, name), scopeTo(t, vip(0, i, 80), "r"+name, false))
	}
	for i := range 3 {
		go func() {
			s, err := ask(httpFrom(t, alpha, vip(0, i, 80), false), "POST", "h", strings.NewReader("hello"), "X-Wait: 3s")
			got <- fmt.Sprint(s, err)
		}()
	}
	p.waitFor("requests are under way", func() bool {
		return strings.Count(p.get("/clusters"), ":8080::rq_active::1\n") == 3 // not the stream to the server
	})
	p.push(edsCluster(t, "c0", "lb_policy: RANDOM", serverA+":8080")...)
	p.push(edsCluster(t, "c1", "", serverB+":8080")[1])
	p.change(removal(scopeTo(t, vip(0, 2, 80), "", false)), removal(to(t, "rc2", "")), removal(edsCluster(t, "c2", "")[0]))
	for range 3 {
		equal(t, "request", <-got, "200  a 5 h<nil>")
	}
}

// An endpoint that stands in two localities is in the first alone.
func TestEndpointInTwoLocalities(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverB+":9000", greet("b"))
	p := start(t, opaqueListeners())
	name := "tcp|a|" + vip(0, 1, 80)
	cluster := edsCluster(t, name, "common_lb_config: {locality_weighted_lb_config: {}}\nlb_policy: RANDOM")[0]
	p.push(cluster, resource(t, xds.EndpointType, fmt.Sprintf(`
cluster_name: %q
endpoints:
- {locality: {sub_zone: "0"}, load_balancing_weight: 50, lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: 9000}}}}]}
- locality: {sub_zone: "1"}
  load_balancing_weight: 50
  lb_endpoints:
  - {endpoint: {address: {socket_address: {address: %[2]s, port_value: 9000}}}}
  - {endpoint: {address: {socket_address: {address: %[3]s, port_value: 9000}}}}`, name, serverA, serverB)))
	const n = 300
	got := map[string]int{}
	for range n {
		server, _, _ := strings.Cut(readLine(t, dial(t, alpha, vip(0, 1, 80))), " ")
		got[server]++
	}
	// Half of them, and not a quarter; both are more than four deviations from a third.
	if got["b"] < n/3+n/25 || math.Abs(float64(got["b"])-n/2) > 5*math.Sqrt(n*0.25) {
		t.Errorf("of %d: %v", n, got)
	}
}
