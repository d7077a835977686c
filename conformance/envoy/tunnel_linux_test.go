// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// A tunnel gives connections the routes of requests: a TCP proxy makes each a
// CONNECT request to an internal listener, whose connection manager looks up the
// scope of the destination, routes by authority and by the client's filter state,
// and ends the tunnel.
//
//	client ─► tunnelIn: tcp_proxy ═CONNECT═► connect: HCM, scopes ─► server
//
// The addresses cross by filter state, and make a pool of their own for each
// connection; the one request ends it.
func tunnelIn(port int, identity, authority, inspectors string) string {
	return strings.NewReplacer("PORT", fmt.Sprint(port), "IDENTITY", identity, "AUTHORITY", authority).Replace(`
  - name: out/tunnel/PORT` + loopback(port) + `
    - name: envoy.filters.listener.set_filter_state
      typed_config:
        "@type": E/filters.listener.set_filter_state.v3.Config
        on_accept:
        - {object_key: fl.identity, factory_key: envoy.hashable_string, shared_with_upstream: ONCE, format_string: {text_format_source: {inline_string: "IDENTITY"}}}
        - {object_key: envoy.filters.listener.original_dst.local_ip, shared_with_upstream: ONCE, format_string: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS%"}}}
        - {object_key: envoy.filters.listener.original_dst.remote_ip, shared_with_upstream: ONCE, format_string: {text_format_source: {inline_string: "%DOWNSTREAM_REMOTE_ADDRESS%"}}}` + inspectors + `
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": E/filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tunnel
          cluster: connect
          idle_timeout: 0s
          tunneling_config: {hostname: "AUTHORITY"}`)
}

const inspectTLS = `
    - {name: envoy.filters.listener.tls_inspector, typed_config: {"@type": E/filters.listener.tls_inspector.v3.TlsInspector}}`

// tunnelEnd is the internal listener, and the cluster that leads to it. codec is
// HTTP1 or HTTP2.
func tunnelEnd(codec string) (listener, cluster string) {
	protocol := "http2_protocol_options: {allow_connect: true}"
	if codec == "HTTP1" {
		protocol = "http_protocol_options: {}"
	}
	listener = strings.NewReplacer("CODEC", codec).Replace(`
  - name: connect
    internal_listener: {}
    listener_filters:
    - {name: envoy.filters.listener.original_dst, typed_config: {"@type": E/filters.listener.original_dst.v3.OriginalDst}}` + keepSource + `
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": E/filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: connect
          codec_type: CODEC
          http2_protocol_options: {allow_connect: true}
          stream_idle_timeout: 0s
          upgrade_configs: [{upgrade_type: CONNECT}]
          early_header_mutation_extensions:
          - name: destination
            typed_config:
              "@type": E/http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations: [{append: {append_action: OVERWRITE_IF_EXISTS_OR_ADD, header: {key: x-dst, value: "tcp|%DOWNSTREAM_LOCAL_ADDRESS%"}}}]
          scoped_routes:
            name: scopes
            rds_config_source: {ads: {}, resource_api_version: V3}
            scope_key_builder: {fragments: [{header_value_extractor: {name: x-dst, index: 0}}]}
            scoped_rds: {scoped_rds_config_source: {ads: {}, resource_api_version: V3}}
          http_filters:
          - {name: envoy.filters.http.on_demand, typed_config: {"@type": E/filters.http.on_demand.v3.OnDemand}}
          - {name: envoy.filters.http.router, typed_config: {"@type": E/filters.http.router.v3.Router}}
          access_log:
          - name: file
            typed_config:
              "@type": E/access_loggers.file.v3.FileAccessLog
              path: "%d/connect.log"
              log_format: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(:AUTHORITY)% %ROUTE_NAME% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% rx=%BYTES_RECEIVED% tx=%BYTES_SENT% %FILTER_STATE(fl.identity:PLAIN)%\n"}}`)
	cluster = `
  - name: connect
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: connect
      endpoints: [{lb_endpoints: [{endpoint: {address: {envoy_internal_address: {server_listener_name: connect}}}}]}]
    circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, max_connection_pools: 4294967295}]}
    transport_socket:
      name: envoy.transport_sockets.internal_upstream
      typed_config:
        "@type": E/transport_sockets.internal_upstream.v3.InternalUpstreamTransport
        transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {"@type": E/transport_sockets.raw_buffer.v3.RawBuffer}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": E/upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_requests_per_connection: 1}
        explicit_http_config: {` + protocol + `}`
	return listener, cluster
}

// tunnels is a bootstrap: TLS by SNI at 15101 and 15111, opaque at 15100.
func tunnels(codec string) string {
	end, cluster := tunnelEnd(codec)
	return `
bootstrap_extensions:
- {name: envoy.bootstrap.internal_listener, typed_config: {"@type": E/bootstrap.internal_listener.v3.InternalListener}}
static_resources:
  clusters:` + cluster + `
  listeners:` + end +
		tunnelIn(15100, "alpha", "%DOWNSTREAM_LOCAL_ADDRESS%", "") +
		tunnelIn(15101, "alpha", "%REQUESTED_SERVER_NAME%", inspectTLS) +
		tunnelIn(15111, "beta", "%REQUESTED_SERVER_NAME%", inspectTLS)
}

func tunnelScope(t testing.TB, addr, routes string) xds.Resource {
	return resource(t, xds.ScopeType, fmt.Sprintf(`
name: "tcp|%[1]s"
route_configuration_name: %[2]s
on_demand: true
key: {fragments: [{string_key: "tcp|%[1]s"}]}`, addr, routes))
}

// tunnelRoutes are routes by authority: each of hosts is "domain action" or "domain
// action match", with YAML of RouteAction and RouteMatch fields, separated by tabs.
func tunnelRoutes(t testing.TB, name string, hosts ...string) xds.Resource {
	text := fmt.Sprintf("name: %s\nvalidate_clusters: false\nrequest_headers_to_remove: [x-dst]\nvirtual_hosts:\n", name)
	seen := ""
	for i, h := range hosts {
		parts := append(strings.Split(h, "\t"), "")
		if parts[0] != seen {
			text += fmt.Sprintf("- name: v%d\n  domains: [%q]\n  routes:\n", i, parts[0])
			seen = parts[0]
		}
		text += fmt.Sprintf("  - {name: r%d, match: {connect_matcher: {}%s}, route: {%s, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}\n", i, parts[2], parts[1])
	}
	return resource(t, xds.RouteType, text)
}

// tlsGreet is a TLS server that says who it is and who the client is, and echoes.
func tlsGreet(t testing.TB, name, addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	listen(t, addr, func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		s := tls.Server(c, config)
		fmt.Fprintf(s, "%s %s\n", name, host)
		io.Copy(s, s)
	})
}

// tlsLine is what a TLS server says to a client that asks for a name.
func tlsLine(t testing.TB, from, to, sni string) (string, error) {
	t.Helper()
	c := dial(t, from, to)
	defer c.Close()
	line, err := bufio.NewReader(tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true})).ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// TLS is routed by the name that the client asks for: exact, by wildcard, or by what
// catches the rest, which takes clients without a name too. The routes also know
// the client by its listener.
func TestTunnelTLSByName(t *testing.T) {
	for _, s := range [][2]string{{"exact", serverA + ":9000"}, {"wildcard", serverA + ":9001"}, {"rest", serverA + ":9002"}, {"beta", serverA + ":9003"}, {"six", "[" + serverA6 + "]:9000"}} {
		tlsGreet(t, s[0], s[1])
	}
	p := start(t, tunnels("HTTP2"))
	for i, name := range []string{"exact", "wildcard", "rest", "beta"} {
		p.push(edsCluster(t, name, "", fmt.Sprintf("%s:%d", serverA, 9000+i))...)
	}
	p.push(edsCluster(t, "six", "", "["+serverA6+"]:9000")...)
	p.push(
		tunnelRoutes(t, "strict",
			"example.com\tcluster: beta\t, filter_state: [{key: fl.identity, string_match: {exact: beta}}]",
			"example.com\tcluster: exact",
			"*.example.com\tcluster: wildcard"),
		tunnelRoutes(t, "open", "example.com\tcluster: exact", "*\tcluster: rest"),
		tunnelRoutes(t, "six", "*\tcluster: six"))
	p.push(tunnelScope(t, vip(1, 1, 443), "strict"), tunnelScope(t, vip(1, 2, 443), "open"), tunnelScope(t, vip6(1, 1, 443), "six"))

	for _, c := range []struct{ what, from, to, sni, want string }{
		{"exact", alpha, vip(1, 1, 443), "example.com", "exact " + alpha},
		{"other case", alpha, vip(1, 1, 443), "EXAMPLE.com", "exact " + alpha},
		{"other client", beta, vip(1, 1, 443), "example.com", "beta " + beta},
		{"wildcard", alpha, vip(1, 1, 443), "a.example.com", "wildcard " + alpha},
		{"wildcard, more labels", alpha, vip(1, 1, 443), "b.a.example.com", "wildcard " + alpha},
		{"the rest", alpha, vip(1, 2, 443), "other.org", "rest " + alpha},
		{"no name, the rest", alpha, vip(1, 2, 443), "", "rest " + alpha},
		{"IPv6", alpha6, vip6(1, 1, 443), "example.com", "six " + alpha6},
		{"unknown name", alpha, vip(1, 1, 443), "other.org", ""},
		{"no name", alpha, vip(1, 1, 443), "", ""},
		{"a name with a port", alpha, vip(1, 1, 443), "example.com:443", ""},
		{"a name that is none", alpha, vip(1, 1, 443), "a b.example.com\r\nx: y", ""},
		{"no scope", alpha, vip(1, 3, 443), "example.com", ""},
	} {
		begin := time.Now()
		got, err := tlsLine(t, c.from, c.to, c.sni)
		equal(t, c.what, got, c.want)
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", c.what, err)
		}
		if d := time.Since(begin); d > soon {
			t.Errorf("%s: after %v", c.what, d)
		}
	}
	log := p.logged("connect.log")
	want := fmt.Sprintf("%s %s example.com r1 200 - exact %s:9000 rx=", vip(1, 1, 443), alpha, serverA)
	if !strings.HasPrefix(log, want) || !strings.HasSuffix(log, " alpha") {
		t.Errorf("log: %s, want %s", log, want)
	}
}

// Routes are asked for by the first connection, and again after they were evicted.
func TestTunnelRoutesOnDemand(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, tunnels("HTTP2"))
	p.push(edsCluster(t, "a", "", serverA+":9000")...)
	routes, scope := tunnelRoutes(t, "r", "*\tcluster: a"), tunnelScope(t, vip(0, 1, 80), "r")
	p.push(routes, scope)
	equal(t, "asked for before", p.asked(xds.RouteType), []string(nil))
	equal(t, "first", readLine(t, dial(t, alpha, vip(0, 1, 80))), "a "+alpha)
	equal(t, "asked for", p.asked(xds.RouteType), []string{"r"})
	closedSoon(t, "no scope", dial(t, alpha, vip(0, 2, 80)))

	p.remove(scope)
	closedSoon(t, "scope taken away", dial(t, alpha, vip(0, 1, 80)))
	p.push(scope)
	equal(t, "again", readLine(t, dial(t, alpha, vip(0, 1, 80))), "a "+alpha)
	equal(t, "asked for again", p.asked(xds.RouteType), []string{"r"})
}

// Each connection is split by weight, each cluster with settings of its own, and
// open ones stay where they are when routes or scopes change or go.
func TestTunnelSplitAndChanges(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverB+":9000", greet("b"))
	p := start(t, tunnels("HTTP2"))
	p.push(edsCluster(t, "a", "", serverA+":9000")...)
	p.push(edsCluster(t, "b", "", serverB+":9000")...)
	routes := func(a, b int) xds.Resource {
		return tunnelRoutes(t, "r", fmt.Sprintf("*\tweighted_clusters: {clusters: [{name: a, weight: %d}, {name: b, weight: %d}]}", a, b))
	}
	scope := tunnelScope(t, vip(0, 1, 80), "r")
	p.push(routes(80, 20), scope)
	const n = 400
	got := map[string]int{}
	for range n {
		c := dial(t, alpha, vip(0, 1, 80))
		server, _, _ := strings.Cut(readLine(t, c), " ")
		got[server]++
		c.Close()
	}
	if math.Abs(float64(got["a"])-0.8*n) > 5*math.Sqrt(0.8*0.2*n) {
		t.Errorf("80/20 of %d: %v", n, got)
	}

	p.push(routes(100, 0))
	c := dial(t, alpha, vip(0, 1, 80))
	equal(t, "all to a", readLine(t, c), "a "+alpha)
	p.push(routes(0, 100))
	equal(t, "all to b", readLine(t, dial(t, alpha, vip(0, 1, 80))), "b "+alpha)
	echoes(t, "routes changed", c)
	p.push(tunnelRoutes(t, "r2", "*\tcluster: b"), tunnelScope(t, vip(0, 1, 80), "r2"))
	echoes(t, "scope changed", c)
	p.remove(tunnelScope(t, vip(0, 1, 80), "r2"))
	closedSoon(t, "scope taken away", dial(t, alpha, vip(0, 1, 80)))
	echoes(t, "scope taken away", c)
	p.waitFor("tunnels of closed connections are gone", func() bool {
		return strings.Contains(p.get("/clusters?filter=connect"), "::cx_active::2\n") // c and the one that went to b
	})
}

// What a tunnel does to the ends of connections is why Fairlead uses none. With a
// version that does better, TCP could have the routes of requests.
func TestTunnelCloses(t *testing.T) {
	const large = 64 << 20
	cut := make(chan string, 2)
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverA+":9001", func(c *net.TCPConn) { // ends its half first
		io.WriteString(c, "bye\n")
		c.CloseWrite()
		b, err := io.ReadAll(c)
		cut <- fmt.Sprintf("%s %v", b, err)
	})
	listen(t, serverA+":9002", resetting)
	listen(t, serverA+":9005", func(c *net.TCPConn) { c.Write(make([]byte, large)) })

	for _, codec := range []string{"HTTP1", "HTTP2"} {
		t.Run(codec, func(t *testing.T) {
			p := start(t, tunnels(codec))
			for i := range 6 {
				name := fmt.Sprint("c", i)
				addr := fmt.Sprintf("%s:%d", serverA, 9000+i)
				if i == 4 {
					addr = "10.255.0.1:80"
				}
				p.push(edsCluster(t, name, "", addr)...)
				p.push(tunnelRoutes(t, name, "*\tcluster: "+name), tunnelScope(t, vip(0, i, 80), name))
			}
			// The client ends first: over HTTP/1 the answer is lost, over HTTP/2 only
			// sometimes.
			c := dial(t, alpha, vip(0, 0, 80))
			readLine(t, c)
			io.WriteString(c, "hello")
			c.CloseWrite()
			b, err := io.ReadAll(c)
			if codec == "HTTP1" {
				equal(t, "client ends first", fmt.Sprintf("%s %v", b, err), " <nil>")
			}

			// The server ends first: what the client sends then is lost.
			c = dial(t, alpha, vip(0, 1, 80))
			b, err = io.ReadAll(c)
			equal(t, "server ends first", fmt.Sprintf("%s %v", b, err), "bye\n <nil>")
			io.WriteString(c, "more")
			equal(t, "after the server ended", <-cut, " <nil>")

			// A reset looks like an end.
			c = dial(t, alpha, vip(0, 2, 80))
			readLine(t, c)
			io.WriteString(c, "1")
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("server resets: %v", err)
			}

			closedSoon(t, "refused", dial(t, alpha, vip(0, 3, 80)))
			closedSoon(t, "unreachable", dial(t, alpha, vip(0, 4, 80)))

			// When the server ends, a reader that is slower than the server loses over
			// HTTP/2 what it has not read yet, most often more than half of this.
			lost := false
			for try := 0; try < 3 && !lost; try++ {
				c = dial(t, alpha, vip(0, 5, 80))
				n := 0
				err = nil
				for block := make([]byte, 256<<10); err == nil; time.Sleep(5 * time.Millisecond) {
					var m int
					m, err = c.Read(block)
					n += m
				}
				lost = n < large || err != io.EOF
				if codec == "HTTP1" {
					break
				}
			}
			if lost != (codec == "HTTP2") {
				t.Errorf("slow reader: lost %v, %v", lost, err)
			}
		})
	}
}
