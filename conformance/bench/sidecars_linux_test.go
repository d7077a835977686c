// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds/accesslog"
)

// sidecar is an Envoy as injection would put it beside an application: what the pod sends to
// port 8080 passes one listener, what it receives there another. It does what the node's
// Envoy does in this benchmark, and no more: three routes, the same policy, an entry of the
// access log by gRPC. A sidecar judges and tells where requests arrive; it tells where they
// leave, too, as meshes of sidecars do by default of their telemetry.
//
// There is neither mutual TLS nor name resolution, which sidecars have besides, and its
// client is recognised by address, which is the cheaper way.
//
// Arguments: the socket of the access log, the client's address, the server's.
const sidecar = `
node: {id: sidecar, cluster: sidecar}
stats_config: {stats_matcher: {exclusion_list: {patterns: [{prefix: "cluster."}, {contains: ".rds."}, {prefix: "vhost."}]}}}
static_resources:
  listeners:
  - name: outbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: out, normalize_path: true, merge_slashes: true,
      route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [
        {match: {path_separated_prefix: /api}, route: {cluster: server, timeout: 0s}},
        {match: {path_separated_prefix: /static}, route: {cluster: server, timeout: 0s}},
        {match: {prefix: /}, route: {cluster: server, timeout: 0s}}]}]},
      access_log: [&log {name: log, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig,
        common_config: {log_name: fl, transport_api_version: V3, buffer_flush_interval: 1s, grpc_service: {envoy_grpc: {cluster_name: als}}}}}],
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
  - name: inbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: in, normalize_path: true, merge_slashes: true,
      route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app, timeout: 0s}}]}]},
      access_log: [*log],
      http_filters: [
        {name: deny, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {internal: {
          permissions: [{url_path: {path: {prefix: /internal}}}], principals: [{any: true}]}}}}},
        {name: allow, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: ALLOW, policies: {client: {
          permissions: [{and_rules: {rules: [{header: {name: ":method", string_match: {exact: GET}}}]}}],
          principals: [{direct_remote_ip: {address_prefix: %[2]s, prefix_len: 32}}]}}}}},
        {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
  clusters:
  - name: server
    type: STATIC
    upstream_bind_config: {source_address: {address: 0.0.0.0, port_value: 0}, socket_options: [{level: 1, name: 36, int_value: 100, state: STATE_PREBIND}]}
    load_assignment: {cluster_name: server, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[3]s, port_value: 8080}}}}]}]}
  - name: app
    type: STATIC
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]}
  - name: als
    type: STATIC
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
    load_assignment: {cluster_name: als, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %[1]s}}}}]}]}
`

// redirect sends a pod's traffic through its sidecar, Envoy's own excepted.
const redirect = `
table ip sidecar {
  chain out { type nat hook output priority -100; meta mark 100 return; ip daddr 127.0.0.0/8 return; tcp dport 8080 redirect to :15001; }
  chain in { type nat hook prerouting priority -100; tcp dport 8080 redirect to :15006; }
}`

// startSidecars puts a sidecar beside the client and one beside the server of a lab in
// which nothing of ours runs.
func startSidecars(b *testing.B, r *rig) *layout {
	b.Helper()
	r.up(lab.Options{Name: "bench-cars", NoAgent: true}, base)
	at := r.addresses("bench-cars")
	l := &layout{lab: "bench-cars", client: "bench/client", url: "http://" + at["server"] + ":8080/", told: takeLogs(b, filepath.Join(r.dir, "als"))}
	config := filepath.Join(r.dir, "sidecar.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, sidecar, filepath.Join(r.dir, "als"), at["client"], at["server"]), 0o600); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	for _, name := range []string{"client", "server"} {
		pod := "bench/" + name
		if code, err := lab.Exec(ctx, l.lab, pod, []string{"nft", "-f", "-"}, lab.Stdio{In: strings.NewReader(redirect), Err: os.Stderr}); err != nil || code != 0 {
			b.Fatalf("redirect of %s: %d, %v", pod, code, err)
		}
		pidFile := filepath.Join(r.dir, name+".pid")
		wg.Go(func() {
			_, _ = lab.Exec(ctx, l.lab, pod, []string{"sh", "-c", `echo $$ >"$0"; exec "$@"`, pidFile, r.envoy, "-c", config,
				"--disable-hot-restart", "--log-level", "error", "--concurrency", strconv.Itoa(runtime.NumCPU())}, lab.Stdio{Err: os.Stderr})
		})
		l.pids = append(l.pids, waitPID(b, pidFile))
	}
	return l
}

func waitPID(b *testing.B, file string) int {
	b.Helper()
	for range 200 {
		if text, err := os.ReadFile(file); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				time.Sleep(500 * time.Millisecond) // Envoy is up after 0.2 s
				return pid
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Fatalf("no process of %s", file)
	return 0
}

// takeLogs is the receiver of the sidecars' access logs, as each of our nodes has one. What
// it returns is how many entries came since it was last asked.
func takeLogs(b *testing.B, socket string) func() int {
	b.Helper()
	logs := accesslog.New(10_000)
	g := grpc.NewServer()
	logs.Register(g)
	l, err := proxy.Listen(socket, -1)
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	var n int
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = g.Serve(l) }) // until it is stopped
	all.Go(func() {
		for {
			select {
			case <-logs.Records():
				mu.Lock()
				n++
				mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	b.Cleanup(func() { cancel(); g.Stop(); all.Wait() })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		defer func() { n = 0 }()
		return n
	}
}
