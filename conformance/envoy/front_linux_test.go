// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"fairlead.io/fairlead/xds"
)

// requests is a listener for the requests of clients with an identity: their address
// is kept, the address that they dialled finds the scope. more is YAML of further
// fields of the connection manager.
func requests(port int, identity, more string) string {
	return "\n  - name: out/" + fmt.Sprint(port) + loopback(port) + keepSource + strings.ReplaceAll(identified, "IDENTITY", identity) + `
    filter_chains:
    - filters:` + connectionManager("%DOWNSTREAM_LOCAL_ADDRESS%", more)
}

// identified tells routes and policies who the client is.
const identified = `
    - name: envoy.filters.listener.set_filter_state
      typed_config:
        "@type": E/filters.listener.set_filter_state.v3.Config
        on_accept: [{object_key: fl.identity, factory_key: envoy.hashable_string, shared_with_upstream: ONCE, format_string: {text_format_source: {inline_string: "IDENTITY"}}}]`

func connectionManager(key, more string) string {
	return `
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": E/filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          codec_type: AUTO
          stream_idle_timeout: 0s
          http_protocol_options: {accept_http_10: true, default_host_for_http_10: none}
          http2_protocol_options: {allow_connect: true}
          upgrade_configs: [{upgrade_type: websocket}]
          early_header_mutation_extensions:
          - name: destination
            typed_config:
              "@type": E/http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations: [{append: {append_action: OVERWRITE_IF_EXISTS_OR_ADD, header: {key: x-dst, value: "` + key + `"}}}]
          scoped_routes:
            name: scopes
            rds_config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}
            scope_key_builder: {fragments: [{header_value_extractor: {name: x-dst, index: 0}}]}
            scoped_rds: {scoped_rds_config_source: {ads: {}, resource_api_version: V3}}` + more + `
          http_filters:` + loadFirst + policy + `
          - {name: envoy.filters.http.router, typed_config: {"@type": E/filters.http.router.v3.Router, suppress_envoy_headers: true}}`
}

const listeners = "static_resources:\n  listeners:"

// front is the listener that most tests use: of clients "spiffe://alpha" at port 15100.
func front() string { return listeners + requests(15100, "spiffe://alpha", "") }

// routesOf is a route configuration of one virtual host; routes is YAML of a list.
func routesOf(t testing.TB, name, routes string) xds.Resource {
	t.Helper()
	return resource(t, xds.RouteType, fmt.Sprintf(`
name: %q
validate_clusters: false
request_headers_to_remove: [x-dst]
virtual_hosts:
- name: v
  domains: ["*"]
  routes: %s`, name, routes))
}

// direct are routes that answer by themselves.
func direct(t testing.TB, name string, status int) xds.Resource {
	t.Helper()
	return routesOf(t, name, fmt.Sprintf("[{match: {prefix: /}, direct_response: {status: %d}}]", status))
}

// to are routes to a cluster.
func to(t testing.TB, name, cluster string) xds.Resource {
	t.Helper()
	return routesOf(t, name, fmt.Sprintf("[{name: %s, match: {prefix: /}, route: {cluster: %q, timeout: 0s}}]", name, cluster))
}

// answer is a server's or Envoy's own answer to a request.
type answer struct {
	Status int
	Server string // by httpEcho: its name,
	Client string // the address of its client,
	Proto  string // the protocol,
	Path   string
	Header http.Header // and the header that it got
	reply  *http.Response
}

// fetch sends a request for a path by a client. Each header is "name: value".
func fetch(c *http.Client, path string, headers ...string) (answer, error) {
	q, err := http.NewRequest("GET", "http://h"+path, nil)
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		q.Header.Add(k, v)
	}
	resp, err := c.Do(q)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

func readAnswer(resp *http.Response) (answer, error) {
	a := answer{Status: resp.StatusCode, Header: http.Header{}, reply: resp}
	in := bufio.NewReader(resp.Body)
	if resp.StatusCode == http.StatusOK {
		fmt.Fscanln(in, &a.Server, &a.Client)
		var method string
		fmt.Fscanln(in, &method, &a.Path, &a.Proto)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			k, v, _ := strings.Cut(lines.Text(), ": ")
			a.Header.Add(k, v)
		}
	}
	_, err := io.Copy(io.Discard, in)
	return a, err
}

// mustFetch is fetch by a new connection from alpha to a service.
func mustFetch(t testing.TB, dst, path string, headers ...string) answer {
	t.Helper()
	a, err := fetch(httpFrom(t, alpha, dst, false), path, headers...)
	if err != nil {
		t.Errorf("%s%s: %v", dst, path, err)
	}
	return a
}

// statusOf is that of a request by a new connection from alpha.
func statusOf(t testing.TB, dst string) int {
	t.Helper()
	return mustFetch(t, dst, "/").Status
}

// hostPort is the address of an endpoint.
func hostPort(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

// readFrom reads the answer to a GET.
func readFrom(c net.Conn) (answer, error) {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}
