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

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// byName is a listener with a chain for each pattern of names, none for each
// destination: the cluster's name is the pattern and the address that the client
// had dialled. So there are as many names of clusters as there is configuration
// for, whatever clients ask for, and the name that a client says never gets into one.
func byName(t testing.TB, patterns ...string) xds.Resource {
	chain := func(match, pattern string) string {
		return strings.NewReplacer("MATCH", match, "PATTERN", pattern).Replace(`
- MATCH
  name: "PATTERN"
  filters:
  - name: cluster
    typed_config:
      "@type": E/filters.network.set_filter_state.v3.Config
      on_new_connection:
      - {object_key: envoy.tcp_proxy.cluster, format_string: {text_format_source: {inline_string: "tls|PATTERN|%DOWNSTREAM_LOCAL_ADDRESS%"}}}
  - name: envoy.filters.network.tcp_proxy
    typed_config:
      "@type": E/filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: tls
      cluster: none
      idle_timeout: 0s
      on_demand: {odcds_config: {ads: {}, resource_api_version: V3}, timeout: 1s}`)
	}
	text := "name: out/tls" + strings.ReplaceAll(loopback(15101)+keepSource+inspectTLS, "\n    ", "\n")
	if len(patterns) > 0 {
		text += "\nfilter_chains:"
	}
	for _, p := range patterns {
		text += chain(fmt.Sprintf("filter_chain_match: {server_names: [%q]}", p), p)
	}
	// The one without a match.
	text += "\ndefault_filter_chain:" + strings.Replace(chain("", ""), "\n- \n", "\n", 1)
	return resource(t, xds.ListenerType, text)
}

// TLS is routed by the name that the client asks for: exact, by wildcard, or by what
// catches the rest, which takes clients without a name too.
func TestTLSByName(t *testing.T) {
	for i, name := range []string{"exact", "wildcard", "rest"} {
		tlsGreet(t, name, fmt.Sprintf("%s:%d", serverA, 9000+i))
	}
	tlsGreet(t, "six", "["+serverA6+"]:9000")
	p := start(t, "")
	p.listener(byName(t, "example.com", "*.example.com"))
	set := func(pattern, addr string, endpoints ...string) {
		t.Helper()
		p.push(edsCluster(t, "tls|"+pattern+"|"+addr, "", endpoints...)...)
	}
	set("example.com", vip(1, 1, 443), serverA+":9000")
	set("*.example.com", vip(1, 1, 443), serverA+":9001")
	set("", vip(1, 1, 443))
	set("example.com", vip(1, 2, 443), serverA+":9002")
	set("", vip(1, 2, 443), serverA+":9002")
	set("example.com", vip6(1, 1, 443), "["+serverA6+"]:9000")

	for _, c := range []struct{ what, from, to, sni, want string }{
		{"exact", alpha, vip(1, 1, 443), "example.com", "exact " + alpha},
		{"other case", alpha, vip(1, 1, 443), "EXAMPLE.com", "exact " + alpha},
		{"wildcard", alpha, vip(1, 1, 443), "a.example.com", "wildcard " + alpha},
		{"wildcard, more labels", alpha, vip(1, 1, 443), "b.a.example.com", "wildcard " + alpha},
		{"IPv6", alpha6, vip6(1, 1, 443), "example.com", "six " + alpha6},
		{"the rest", alpha, vip(1, 2, 443), "other.org", "rest " + alpha},
		{"the rest, a name of another destination", alpha, vip(1, 2, 443), "example.com", "rest " + alpha},
		{"the rest, no name", alpha, vip(1, 2, 443), "", "rest " + alpha},
		{"unknown name", alpha, vip(1, 1, 443), "other.org", ""},
		{"no name", alpha, vip(1, 1, 443), "", ""},
		{"a name with a port", alpha, vip(1, 1, 443), "example.com:443", ""},
		{"a name that is none", alpha, vip(1, 1, 443), "a b|example.com\r\nx: y", ""},
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
}

// A further pattern is a change in place: no connection through the listener ends,
// not even those of the chains that gave way to it.
func TestTLSNameAdded(t *testing.T) {
	tlsGreet(t, "rest", serverA+":9000")
	tlsGreet(t, "exact", serverA+":9001")
	p := startWith(t, "", serve.New(serve.Options{}, nil), "--concurrency", "2", "--drain-time-s", "1")
	p.listener(byName(t, "*.example.com"))
	p.push(edsCluster(t, "tls|*.example.com|"+vip(1, 1, 443), "", serverA+":9000")...)
	p.push(edsCluster(t, "tls|a.example.com|"+vip(1, 1, 443), "", serverA+":9001")...)
	open := tls.Client(dial(t, alpha, vip(1, 1, 443)), &tls.Config{ServerName: "a.example.com", InsecureSkipVerify: true})
	r := bufio.NewReader(open)
	if line, err := r.ReadString('\n'); err != nil || line != "rest "+alpha+"\n" {
		t.Fatalf("before: %q, %v", line, err)
	}
	for _, patterns := range [][]string{{"*.example.com", "a.example.com"}, {"a.example.com", "*.example.com", "b.example.org"}} {
		p.listener(byName(t, patterns...))
		p.waitFor("the new chain", func() bool {
			got, err := tlsLine(t, alpha, vip(1, 1, 443), "a.example.com")
			return err == nil && got == "exact "+alpha
		})
	}
	time.Sleep(1500 * time.Millisecond) // longer than the drain time that the test sets
	if _, err := io.WriteString(open, "ping\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "ping\n" {
		t.Fatalf("after: %q, %v", line, err)
	}
}
