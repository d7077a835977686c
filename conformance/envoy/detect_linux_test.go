// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// detect is a listener that tells HTTP from other bytes: a client that says nothing
// for the timeout is taken for one that waits for its server.
// first and last are listener filters before and after the inspectors.
func detect(port int, first, last string) string {
	return strings.NewReplacer("NAME", fmt.Sprintf("out/detect/%d", port)).Replace(`
  - name: NAME` + loopback(port) + first + inspectTLS + `
    - {name: envoy.filters.listener.http_inspector, typed_config: {"@type": E/filters.listener.http_inspector.v3.HttpInspector}}` + last + `
    listener_filters_timeout: 1s
    continue_on_listener_filters_timeout: true
    filter_chains:
    - filter_chain_match: {transport_protocol: raw_buffer, application_protocols: [http/1.0, http/1.1, h2c]}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": E/filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: detect
          codec_type: AUTO
          http_protocol_options: {accept_http_10: true, default_host_for_http_10: none}
          route_config:
            virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "http %DOWNSTREAM_LOCAL_ADDRESS%"}}}]}]
          http_filters:
          - {name: envoy.filters.http.router, typed_config: {"@type": E/filters.http.router.v3.Router}}
    default_filter_chain:
      filters:
      - name: cluster
        typed_config:
          "@type": E/filters.network.set_filter_state.v3.Config
          on_new_connection:
          - {object_key: envoy.tcp_proxy.cluster, format_string: {text_format_source: {inline_string: "tcp|a|%DOWNSTREAM_LOCAL_ADDRESS%"}}}
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": E/filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: detect, cluster: none}
`)
}

// HTTP/1.0, 1.1 and 2 with prior knowledge go to the connection manager, all else
// through, TLS with HTTP in its ALPN too; servers that speak first wait for the
// timeout, and no longer. What follows an inspector that timed out is skipped: the
// filter that keeps the client's address must come first. An HTTP/1.0 request without
// a host needs one by default, or it is refused.
func TestDetect(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	tlsGreet(t, "tls", serverA+":9001")
	p := start(t, "static_resources:\n  listeners:"+detect(15102, keepSource, "")+detect(15104, "", keepSource))
	p.push(edsCluster(t, "tcp|a|"+vip(2, 1, 80), "", serverA+":9000")...)
	p.push(edsCluster(t, "tcp|a|"+vip(4, 1, 80), "", serverA+":9000")...)
	p.push(edsCluster(t, "tcp|a|"+vip(2, 1, 443), "", serverA+":9001")...)

	for _, c := range []struct{ what, send, want string }{
		{"HTTP/1.1", "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00"},
		{"a first line that is not of HTTP", "EHLO example.com\r\n", "a " + alpha + "\nEHLO example.com\r\n"},
		{"bytes", "\x00\x01\x02\x03 no text at all", "a " + alpha + "\n\x00\x01\x02\x03"},
	} {
		conn, begin := dial(t, alpha, vip(2, 1, 80)), time.Now()
		io.WriteString(conn, c.send)
		b := make([]byte, len(c.want))
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != c.want {
			t.Errorf("%s: %q, %v", c.what, b, err)
		}
		if d := time.Since(begin); d > soon {
			t.Errorf("%s: after %v", c.what, d)
		}
	}
	// Without ALPN, and with: the TLS inspector says http/1.1 as the HTTP one does.
	for _, alpn := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}} {
		c := tls.Client(dial(t, alpha, vip(2, 1, 443)), &tls.Config{ServerName: "example.com", NextProtos: alpn, InsecureSkipVerify: true})
		line, err := bufio.NewReader(c).ReadString('\n')
		equal(t, fmt.Sprint("TLS with ALPN ", alpn), fmt.Sprint(line, err), "tls "+alpha+"\n<nil>")
	}

	begin := time.Now()
	equal(t, "server speaks first", readLine(t, dial(t, alpha, vip(2, 1, 80))), "a "+alpha)
	if d := time.Since(begin); d < soon || d > 5*time.Second {
		t.Errorf("server spoke after %v", d)
	}

	if line := readLine(t, dial(t, alpha, vip(4, 1, 80))); line == "a "+alpha {
		t.Error("a listener filter behind inspectors that timed out took effect")
	}
}
