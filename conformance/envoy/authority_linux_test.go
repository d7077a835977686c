// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"fairlead.io/fairlead/xds"
)

// A request goes to the scope of the address that the client had dialled. If its
// Host is none of that frontend's names, the frontend's virtual host for all other
// names asks a resolver, which is an external authorization server: the answer
// overwrites the header that the scope is looked up by and clears the cached route,
// so that the filters behind it, and the router, see the routes of another scope.
//
//	on_demand ─► authority ─► on_demand ─► policy ─► router
//	  loads       x-dst =      loads the
//	  the first   other key    other
//
// All filters are enabled in the chain and told by routes what to do: see
// TestPolicyOnFirstRequest for why. The resolver's is switched off twice for the
// frontend's own names: FilterConfig leaves it out of the chain, which saves what it
// costs to make one, and ExtAuthzPerRoute, at the level above, makes it do nothing
// in the chain of a request that had no route yet.
func authorityBootstrap(filters string) string {
	return authorityListener(15100, filters) + `
  clusters:
  - name: authority
    type: STATIC
    connect_timeout: 1s
    # The default of three retries at once would fail requests while the resolver is away.
    circuit_breakers: {thresholds: [{max_requests: 100000, max_pending_requests: 100000, max_retries: 100000}]}
    load_assignment:
      cluster_name: authority
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "%d/authority.sock"}}}}]}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": E/upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`
}

func authorityListener(port int, filters string) string {
	return `
static_resources:
  listeners:
  - name: out` + loopback(port) + `
    - name: envoy.filters.listener.set_filter_state
      typed_config:
        "@type": E/filters.listener.set_filter_state.v3.Config
        on_accept: [{object_key: client, factory_key: envoy.hashable_string, format_string: {text_format_source: {inline_string: "alpha"}}}]
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": E/filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_protocol_options: {accept_http_10: true, default_host_for_http_10: none}
          upgrade_configs: [{upgrade_type: websocket}]
          strip_trailing_host_dot: true
          stream_idle_timeout: 0s
          early_header_mutation_extensions:
          - name: destination
            typed_config:
              "@type": E/http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations: [{append: {append_action: OVERWRITE_IF_EXISTS_OR_ADD, header: {key: x-dst, value: "%DOWNSTREAM_LOCAL_ADDRESS%"}}}]
          scoped_routes:
            name: scopes
            rds_config_source: {ads: {}, resource_api_version: V3}
            scope_key_builder: {fragments: [{header_value_extractor: {name: x-dst, index: 0}}]}
            scoped_rds: {scoped_rds_config_source: {ads: {}, resource_api_version: V3}}
          access_log:
          - name: file
            typed_config:
              "@type": E/access_loggers.file.v3.FileAccessLog
              path: "%d/access.log"
              log_format: {text_format_source: {inline_string: "%RESPONSE_CODE% %ROUTE_NAME% %DYNAMIC_METADATA(envoy.filters.http.ext_authz:frontend)%\n"}}
          http_filters:` + filters + `
          - {name: envoy.filters.http.router, typed_config: {"@type": E/filters.http.router.v3.Router}}`
}

const (
	loadFirst = `
          - {name: envoy.filters.http.on_demand, typed_config: {"@type": E/filters.http.on_demand.v3.OnDemand}}`
	loadOther = `
          - {name: load_other, typed_config: {"@type": E/filters.http.on_demand.v3.OnDemand}}`
	policy = `
          - {name: policy, typed_config: {"@type": E/filters.http.rbac.v3.RBAC}}`
	policyDisabled = `
          - {name: policy, disabled: true, typed_config: {"@type": E/filters.http.rbac.v3.RBAC}}`
	// No header is sent to the resolver: the list of allowed ones names none that is.
	authority = `
          - name: authority
            typed_config:
              "@type": E/filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              clear_route_cache: true
              status_on_error: {code: 503}
              allowed_headers: {patterns: [{exact: x-none}]}
              grpc_service:
                envoy_grpc: {cluster_name: authority}
                timeout: 3s
                initial_metadata: [{key: x-client, value: "%FILTER_STATE(client:PLAIN)%"}]
                retry_policy:
                  retry_on: connect-failure,unavailable,reset
                  num_retries: 1000
                  retry_back_off: {base_interval: 0.025s, max_interval: 0.1s}`
	byAuthority = loadFirst + authority + loadOther + policy
)

const denied = `policy: {"@type": E/filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}}`

// scopeOf leads the i-th service to routes, which Envoy asks for when it needs them.
func scopeOf(t testing.TB, i int, routes string) xds.Resource {
	return scopeTo(t, vip(0, i, 80), routes, true)
}

func scopeTo(t testing.TB, key, routes string, onDemand bool) xds.Resource {
	return resource(t, xds.ScopeType, fmt.Sprintf(`
name: %q
route_configuration_name: %q
on_demand: %v
key: {fragments: [{string_key: %[1]q}]}`, key, routes, onDemand))
}

// frontend is the i-th service by the names "host<i>" and "*.host<i>", served by
// cluster a; perRoute is YAML of typed_per_filter_config. Other hosts are resolved.
func frontend(t testing.TB, i int, perRoute string) []xds.Resource {
	name := fmt.Sprintf("r%d", i)
	return []xds.Resource{scopeOf(t, i, name), resource(t, xds.RouteType, fmt.Sprintf(`
name: %[1]s
ignore_port_in_host_matching: true
request_headers_to_remove: [x-dst]
typed_per_filter_config:
  authority: {"@type": E/filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}
virtual_hosts:
- name: own
  typed_per_filter_config:
    authority: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
  domains: ["host%[2]d", "*.host%[2]d"]
  routes:
  - name: %[1]s
    match: {prefix: /}
    route: {cluster: a, timeout: 0s}
    response_headers_to_add: [{header: {key: x-frontend, value: %[1]s}}]
    typed_per_filter_config: {%[3]s}
- name: other
  domains: ["*"]
  typed_per_filter_config:
    authority: {"@type": E/filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {context_extensions: {frontend: %[1]s}}}
  routes:
  - {match: {prefix: /}, direct_response: {status: 421}}`, name, i, perRoute))}
}

// resolver answers which scope a host belongs to.
type resolver struct {
	auth.UnimplementedAuthorizationServer
	mu   sync.Mutex
	got  []*auth.CheckRequest
	meta []metadata.MD
}

func (r *resolver) Check(ctx context.Context, q *auth.CheckRequest) (*auth.CheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r.mu.Lock()
	r.got, r.meta = append(r.got, q), append(r.meta, md)
	r.mu.Unlock()
	host := q.GetAttributes().GetRequest().GetHttp().GetHost()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if i := strings.LastIndex(strings.ToLower(host), "host"); i >= 0 {
		if n, err := strconv.Atoi(host[i+4:]); err == nil {
			meta, err := structpb.NewStruct(map[string]any{"frontend": fmt.Sprintf("r%d", n)})
			return &auth.CheckResponse{
				Status:          &status.Status{},
				DynamicMetadata: meta,
				HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{Headers: []*core.HeaderValueOption{{
					Header:       &core.HeaderValue{Key: "x-dst", Value: vip(0, n, 80)},
					AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
				}}}},
			}, err
		}
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: 7},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &envoytype.HttpStatus{Code: envoytype.StatusCode_BadGateway},
		}},
	}, nil
}

// asked returns what was asked since the last call.
func (r *resolver) asked() []*auth.CheckRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// serve answers Envoy until stop, or the end of the test.
func (r *resolver) serve(p *proxy) (stop func()) {
	p.t.Helper()
	sock := filepath.Join(p.dir, "authority.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(sock, 0o666); err != nil {
		p.t.Fatal(err)
	}
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, r)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	stop = sync.OnceFunc(func() { g.Stop(); done.Wait() })
	p.t.Cleanup(stop)
	return stop
}

// startAuthority runs services 1 to n, of which those with an odd number deny
// everything, on cluster a.
func startAuthority(t testing.TB, n int) (*proxy, *resolver, func()) {
	bodyServer(t, "a", serverA+":8080")
	p := start(t, authorityBootstrap(byAuthority))
	r := &resolver{}
	stop := r.serve(p)
	p.push(edsCluster(t, "a", bothProtocols, serverA+":8080")...)
	for i := 1; i <= n; i++ {
		perRoute := ""
		if i%2 == 1 {
			perRoute = denied
		}
		p.push(frontend(t, i, perRoute)...)
	}
	return p, r, stop
}

const bothProtocols = `typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": E/upstreams.http.v3.HttpProtocolOptions
    use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}`

// bodyServer is an HTTP/1.1 and h2c server that answers with its name and how long
// the body was; after the time in x-wait; line by line for x-stream; and to a
// WebSocket handshake with the first line that comes.
func bodyServer(t testing.TB, name, addr string) {
	t.Helper()
	httpServer(t, addr, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Dst") != "" {
			w.WriteHeader(http.StatusInternalServerError) // ours alone
			return
		}
		switch {
		case q.Header.Get("Upgrade") == "websocket":
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
			line, _ := rw.ReadString('\n')
			fmt.Fprintf(c, "%s %s", name, line)
		case q.Header.Get("X-Stream") != "":
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			rc.Flush()
			for lines := bufio.NewScanner(q.Body); lines.Scan(); rc.Flush() {
				fmt.Fprintf(w, "%s %s\n", name, lines.Text())
			}
		default:
			d, _ := time.ParseDuration(q.Header.Get("X-Wait"))
			time.Sleep(d)
			n, err := io.Copy(io.Discard, q.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "%s %d %s", name, n, q.Host)
		}
	})
}

// httpFrom is a client at an address that connects to dst whatever the URL says.
func httpFrom(t testing.TB, from, dst string, h2 bool) *http.Client {
	var ps http.Protocols
	ps.SetHTTP1(!h2)
	ps.SetUnencryptedHTTP2(h2)
	tr := &http.Transport{
		Protocols:           &ps,
		MaxIdleConnsPerHost: 100,
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dialErr(ctx, from, dst) },
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// ask sends a request and returns its outcome: status, frontend, body.
func ask(c *http.Client, method, host string, body io.Reader, headers ...string) (string, error) {
	q, err := http.NewRequest(method, "http://"+host+"/", body)
	if err != nil {
		return "", err
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		q.Header.Add(k, v)
	}
	resp, err := c.Do(q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		b = nil
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("X-Frontend"), b)), err
}

// plain hides what a body is, so that it is sent without a length.
type plain struct{ io.Reader }

// The scope is selected anew, whether or not the routes of either are loaded, with
// bodies of any size, and the resolver is asked once. The policy that holds is that
// of the frontend which serves.
func TestAuthorityReselectsScope(t *testing.T) {
	p, r, _ := startAuthority(t, 80)
	p.asked(xds.RouteType)
	next := 0
	free := func(odd bool) int { // a service that was not used yet
		next += 2
		if odd {
			return next - 1
		}
		return next
	}
	const large = 3 << 20 // more than Envoy buffers for a stream
	for _, h2 := range []bool{false, true} {
		for _, body := range []struct {
			what string
			size int
			make func() io.Reader
		}{
			{"none", 0, func() io.Reader { return nil }},
			{"small", 5, func() io.Reader { return strings.NewReader("hello") }},
			{"large", large, func() io.Reader { return strings.NewReader(strings.Repeat("x", large)) }},
			{"chunks", large, func() io.Reader { return plain{strings.NewReader(strings.Repeat("x", large))} }},
		} {
			from, to, deny := free(false), free(false), free(true)
			for _, c := range []struct {
				what     string
				from, to int
				want     string
				load     []string
			}{
				{"neither is loaded", from, to, "200", []string{fmt.Sprint("r", from), fmt.Sprint("r", to)}},
				{"both are loaded", from, to, "200", nil},
				{"the other is not loaded and denies", from, deny, "403", []string{fmt.Sprint("r", deny)}},
				{"the other denies", from, deny, "403", nil},
			} {
				what := fmt.Sprintf("h2 %v, body %s, %s", h2, body.what, c.what)
				method := "POST"
				if body.size == 0 {
					method = "GET"
				}
				host := fmt.Sprintf("x.host%d", c.to)
				got, err := ask(httpFrom(t, alpha, vip(0, c.from, 80), h2), method, host, body.make())
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				want := fmt.Sprintf("200 r%d a %d %s", c.to, body.size, host)
				if c.want == "403" { // said by the routes of the frontend that denies
					want = fmt.Sprintf("403 r%d", c.to)
				}
				equal(t, what, got, want)
				equal(t, what+": asked for", p.asked(xds.RouteType), c.load)
				if n := len(r.asked()); n != 1 {
					t.Errorf("%s: resolver was asked %d times", what, n)
				}
			}
		}
	}
	c := httpFrom(t, alpha, vip(0, 2, 80), false)
	for _, s := range []struct{ what, host, want string }{
		{"refused", "nowhere", "502"},
		{"own name", "x.host2", "200 r2 a 0 x.host2"},
		{"a scope that is not there", "x.host99", "404"},
	} {
		got, err := ask(c, "GET", s.host, nil)
		if err != nil {
			t.Errorf("%s: %v", s.what, err)
		}
		equal(t, s.what, got, s.want)
	}
	equal(t, "asked for own names", len(r.asked()), 2)
}

// The many that come at once, before anything is loaded, fare as one.
func TestAuthorityAtOnce(t *testing.T) {
	p, r, _ := startAuthority(t, 4)
	p.asked(xds.RouteType)
	var all sync.WaitGroup
	for range 50 {
		c := httpFrom(t, alpha, vip(0, 2, 80), false)
		all.Go(func() {
			got, err := ask(c, "POST", "x.host4", strings.NewReader("hello"))
			if err != nil || got != "200 r4 a 5 x.host4" {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	all.Wait()
	equal(t, "asked for", p.asked(xds.RouteType), []string{"r2", "r4"})
	equal(t, "checks", len(r.asked()), 50)
}

// WebSocket handshakes are resolved as other requests are.
func TestAuthorityWebSocket(t *testing.T) {
	startAuthority(t, 8)
	for _, what := range []string{"first", "again"} {
		for _, to := range [][2]int{{2, 2}, {2, 4}, {6, 8}} {
			host := fmt.Sprintf("x.host%d", to[1])
			c := dial(t, alpha, vip(0, to[0], 80))
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nhost: %s\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", host)
			in := bufio.NewReader(c)
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Errorf("WebSocket %v, %s: %v, %v", to, what, resp, err)
				continue
			}
			io.WriteString(c, "ping\n")
			line, err := in.ReadString('\n')
			if line != "a ping\n" {
				t.Errorf("WebSocket %v, %s: %q, %v", to, what, line, err)
			}
		}
	}
}

// Streams of HTTP/2 that talk both ways before either side ends, as gRPC's do, are
// not held back.
func TestAuthorityStreamsHTTP2(t *testing.T) {
	startAuthority(t, 8)
	for _, what := range []string{"first", "again"} {
		for _, to := range [][2]int{{2, 2}, {2, 4}, {6, 8}} {
			if err := talk(httpFrom(t, alpha, vip(0, to[0], 80), true), fmt.Sprintf("x.host%d", to[1])); err != nil {
				t.Errorf("stream %v, %s: %v", to, what, err)
			}
		}
	}
}

func talk(c *http.Client, host string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body, out := io.Pipe()
	defer out.Close()
	q, err := http.NewRequestWithContext(ctx, "POST", "http://"+host+"/", body)
	if err != nil {
		return err
	}
	q.Header.Set("X-Stream", "1")
	resp, err := c.Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	in := bufio.NewReader(resp.Body)
	for i := range 100 {
		if _, err := fmt.Fprintf(out, "%d\n", i); err != nil {
			return err
		}
		line, err := in.ReadString('\n')
		if line != fmt.Sprintf("a %d\n", i) {
			return fmt.Errorf("line %d: %q, %v", i, line, err)
		}
	}
	return nil
}

// Hosts are compared without case and port, and the dot at the end is taken off.
// What is no path or no host at all is refused before anybody is asked. A scope
// that has no virtual host for the name uses its own for all others, and the
// resolver is not asked again.
func TestAuthorityHosts(t *testing.T) {
	_, r, _ := startAuthority(t, 4)
	for _, c := range []struct {
		request, want, checked string // the host that the resolver was asked for; "-" for none
	}{
		{"GET / HTTP/1.1\r\nhost: host2\r\n", "200 r2 a 0 host2", "-"},
		{"GET / HTTP/1.1\r\nhost: HOST2\r\n", "200 r2 a 0 HOST2", "-"},
		{"GET / HTTP/1.1\r\nhost: host2:80\r\n", "200 r2 a 0 host2:80", "-"},
		{"GET / HTTP/1.1\r\nhost: host2.\r\n", "200 r2 a 0 host2", "-"},
		{"GET / HTTP/1.1\r\nhost: host4\r\n", "200 r4 a 0 host4", "host4"},
		{"GET / HTTP/1.1\r\nhost: HOST4:8080\r\n", "200 r4 a 0 HOST4:8080", "HOST4:8080"},
		{"GET / HTTP/1.1\r\nhost: host4.\r\n", "200 r4 a 0 host4", "host4"},
		{"GET / HTTP/1.1\r\nhost: host4.:80\r\n", "200 r4 a 0 host4:80", "host4:80"},
		{"GET http://host2/ HTTP/1.1\r\nhost: host4\r\n", "200 r2 a 0 host2", "-"},
		{"GET http://host4/ HTTP/1.1\r\nhost: host2\r\n", "200 r4 a 0 host4", "host4"},
		{"GET / HTTP/1.1\r\nhost: host2\r\nhost: host4\r\n", "421", "host2,host4"}, // a scope without that name
		{"GET / HTTP/1.1\r\nhost: \r\n", "502", ""},
		{"GET / HTTP/1.1\r\nhost: [fd96::1]:80\r\n", "502", "[fd96::1]:80"},
		{"GET / HTTP/1.0\r\n", "502", "none"},
		{"GET / HTTP/1.0\r\nhost: host4\r\n", "200 r4 a 0 host4", "host4"},
		{"GET / HTTP/1.1\r\nhost: host4\r\nx-dst: 1.2.3.4:5\r\nX-Dst: 6\r\nconnection: x-dst\r\nx-ext-authz: ok\r\n", "200 r4 a 0 host4", "host4"},
		{"GET / HTTP/1.1\r\n", "400", "-"},
		{"GET / HTTP/1.1\r\nhost: a b\r\n", "400", "-"},
		{"OPTIONS * HTTP/1.1\r\nhost: host4\r\n", "404", "-"},
	} {
		conn := dial(t, alpha, vip(0, 2, 80))
		io.WriteString(conn, c.request+"connection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%q: %v", c.request, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			b = nil
		}
		got := strings.TrimSpace(fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("X-Frontend"), b))
		equal(t, c.request, got, c.want)
		checked := "-"
		for _, q := range r.asked() {
			checked = q.GetAttributes().GetRequest().GetHttp().GetHost()
		}
		equal(t, c.request+": checked", checked, c.checked)
	}
}

// What the resolver is told: the request line, both addresses, what the frontend
// and the listener say; no headers. What it says goes to the access log.
func TestAuthorityRequest(t *testing.T) {
	p, r, _ := startAuthority(t, 4)
	got, err := ask(httpFrom(t, alpha, vip(0, 2, 80), false), "POST", "x.host4:81", strings.NewReader("hello"), "X-Secret: s")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "answer", got, "200 r4 a 5 x.host4:81")
	a := r.asked()[0].GetAttributes()
	q := a.GetRequest().GetHttp()
	source, destination := a.GetSource().GetAddress().GetSocketAddress(), a.GetDestination().GetAddress().GetSocketAddress()
	equal(t, "source", source.GetAddress(), alpha)
	equal(t, "destination", net.JoinHostPort(destination.GetAddress(), fmt.Sprint(destination.GetPortValue())), vip(0, 2, 80))
	equal(t, "request", []string{q.GetMethod(), q.GetHost(), q.GetPath(), q.GetProtocol()}, []string{"POST", "x.host4:81", "/", "HTTP/1.1"})
	equal(t, "headers", len(q.GetHeaders()), 0)
	equal(t, "body", q.GetBody()+string(q.GetRawBody()), "")
	equal(t, "frontend", a.GetContextExtensions(), map[string]string{"frontend": "r2"})
	equal(t, "client", r.meta[0].Get("x-client"), []string{"alpha"})
	if n := proto.Size(a); n > 250 {
		t.Errorf("%d bytes", n)
	}
	equal(t, "log", p.logged("access.log"), "200 r4 r4")
}

// While the resolver is away requests wait for it, for as long as the timeout says,
// and go on as soon as it is back. Requests with own names do not notice.
func TestAuthorityResolverAway(t *testing.T) {
	p, r, stop := startAuthority(t, 4)
	if got, err := ask(httpFrom(t, alpha, vip(0, 2, 80), false), "GET", "host4", nil); err != nil || got != "200 r4 a 0 host4" {
		t.Fatalf("%s, %v", got, err)
	}
	stop()
	begin := time.Now()
	var all sync.WaitGroup
	for range 20 {
		c := httpFrom(t, alpha, vip(0, 2, 80), false)
		all.Go(func() {
			got, err := ask(c, "POST", "host4", strings.NewReader("hello"))
			if err != nil || got != "200 r4 a 5 host4" {
				t.Errorf("waiting: %s, %v after %v", got, err, time.Since(begin))
			}
		})
	}
	own := httpFrom(t, alpha, vip(0, 2, 80), false)
	for time.Since(begin) < time.Second {
		if got, err := ask(own, "GET", "host2", nil); err != nil || got != "200 r2 a 0 host2" {
			t.Fatalf("own name: %s, %v", got, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop = r.serve(p)
	back := time.Now()
	all.Wait()
	if d := time.Since(back); d > time.Second {
		t.Errorf("requests went on %v after the resolver was back", d)
	}
	stop()
	begin = time.Now()
	got, err := ask(own, "GET", "host4", nil)
	if d := time.Since(begin); err != nil || got != "503" || d < 2500*time.Millisecond || d > 5*time.Second {
		t.Errorf("away for good: %s, %v after %v", got, err, d)
	}
}

// A trap: the request that loads its routes goes on with the filter chain that was
// made while it had none. A filter that is disabled in the chain and switched on by
// the route is not in it: policy would not hold for the first request. A filter
// that is enabled, with nothing to do unless the route says so, holds always.
func TestPolicyOnFirstRequest(t *testing.T) {
	for _, c := range []struct {
		what, filter, first string
	}{
		{"enabled", policy, "403"},
		{"disabled", policyDisabled, "200"},
	} {
		t.Run(c.what, func(t *testing.T) {
			bodyServer(t, "a", serverA+":8080")
			p := start(t, authorityListener(15100, loadFirst+c.filter))
			p.push(edsCluster(t, "a", "", serverA+":8080")...)
			for i, body := range []io.Reader{nil, strings.NewReader("hello")} {
				name := fmt.Sprintf("r%d", i+1)
				p.push(scopeOf(t, i+1, name), resource(t, xds.RouteType, fmt.Sprintf(`
name: %s
request_headers_to_remove: [x-dst]
virtual_hosts:
- {name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {%s}}]}`, name, denied)))
				client := httpFrom(t, alpha, vip(0, i+1, 80), false)
				for _, want := range []string{c.first, "403"} {
					got, err := ask(client, "POST", "h", body)
					if err != nil {
						t.Fatal(err)
					}
					equal(t, "status", got[:3], want)
				}
			}
		})
	}
}

// Clients that go away while the resolver or the routes are awaited harm nobody.
func TestAuthorityResets(t *testing.T) {
	p, _, _ := startAuthority(t, 80)
	var all sync.WaitGroup
	for i := range 40 {
		for _, d := range []time.Duration{0, 300, 600, 1000, 1500} {
			all.Go(func() {
				c, err := dialErr(t.Context(), alpha, vip(0, 2*i+2, 80))
				if err != nil {
					t.Error(err)
					return
				}
				c.SetLinger(0)
				fmt.Fprintf(c, "POST / HTTP/1.1\r\nhost: host%d\r\ncontent-length: 10\r\n\r\nhello", (2*i+40)%80+2)
				time.Sleep(d * time.Microsecond)
				c.Close()
			})
		}
	}
	all.Wait()
	got, err := ask(httpFrom(t, alpha, vip(0, 2, 80), false), "GET", "host4", nil)
	if err != nil || got != "200 r4 a 0 host4" {
		t.Errorf("afterwards: %s, %v", got, err)
	}
	if p.hasEnded() {
		t.Errorf("envoy ended: %v", p.cmd.ProcessState)
	}
}

// cpu is the time that Envoy's threads have run.
func (p *proxy) cpu(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel's posix-timers.h.
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|2), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkAuthority says what Envoy pays for a request: with the router alone, with
// all filters for one of the frontend's own names, and for a name that is resolved.
func BenchmarkAuthority(b *testing.B) {
	bodyServer(b, "a", serverA+":8080")
	for _, c := range []struct{ what, filters, host string }{
		{"router", "", "host2"},
		{"on_demand", loadFirst + loadOther, "host2"},
		{"own", byAuthority, "host2"},
		{"other", byAuthority, "host4"},
	} {
		b.Run(c.what, func(b *testing.B) {
			p := start(b, authorityBootstrap(c.filters))
			(&resolver{}).serve(p)
			p.push(edsCluster(b, "a", bothProtocols, serverA+":8080")...)
			for _, i := range []int{2, 4} {
				rs := frontend(b, i, "")
				p.push(scopeTo(b, vip(0, i, 80), fmt.Sprint("r", i), false), rs[1])
			}
			client := httpFrom(b, alpha, vip(0, 2, 80), false)
			want := "200 r" + c.host[4:] + " a 0 " + c.host
			request := func() {
				if got, err := ask(client, "GET", c.host, nil); err != nil || got != want {
					b.Fatalf("%s, %v", got, err)
				}
			}
			for range 200 {
				request()
			}
			before := p.cpu(b)
			for b.Loop() {
				request()
			}
			b.ReportMetric(float64(p.cpu(b)-before)/1e3/float64(b.N), "envoy-us/op")
		})
	}
}
