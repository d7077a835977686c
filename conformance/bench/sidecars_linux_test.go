// SPDX-License-Identifier: Apache-2.0

// Package bench measures the node against what it replaces, side by side in one run.
package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/lab/load"
)

// app is a client on one node and a server on the other.
const app = `
apiVersion: v1
kind: Namespace
metadata: {name: bench, labels: {fairlead.io/capture: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: bench}
spec: {nodeName: node-1, containers: [{name: main, image: fairlead/load}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: bench, labels: {app: server}}
spec: {nodeName: node-2, containers: [{name: main, image: fairlead/echo, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: bench}
spec: {selector: {app: server}, ipFamilies: [IPv4], ports: [{name: http, port: 80, targetPort: 8080}]}
`

// sidecar is an Envoy as injection would put it beside an application: what the pod
// sends to port 8080 passes one listener, what it receives there another.
const sidecar = `
node: {id: sidecar, cluster: sidecar}
static_resources:
  listeners:
  - name: outbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
    listener_filters: [{name: envoy.filters.listener.original_dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: out, route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: original, timeout: 0s}}]}]},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
  - name: inbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: in, route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app, timeout: 0s}}]}]},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    upstream_bind_config: {socket_options: [{level: 1, name: 36, int_value: 100, state: STATE_PREBIND}]}
  - name: app
    type: STATIC
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]}
`

// redirect sends a pod's traffic through its sidecar, Envoy's own excepted.
const redirect = `
table ip sidecar {
  chain out { type nat hook output priority -100; meta mark 100 return; ip daddr 127.0.0.0/8 return; tcp dport 8080 redirect to :15001; }
  chain in { type nat hook prerouting priority -100; tcp dport 8080 redirect to :15006; }
}`

// side is one of the two that are compared.
type side struct {
	name string // of its lab
	url  string
	pids []int // its Envoys
	p50  []float64
	p99  []float64
	cpu  []float64 // ms per request
}

// BenchmarkNodeAgainstSidecars compares one node Envoy, with routes and the kernel's
// redirect, with two sidecars that do nothing but forward. Rounds take turns.
func BenchmarkNodeAgainstSidecars(b *testing.B) {
	need.Root(b)
	envoy := need.Envoy(b)
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	binary := filepath.Join(dir, "fairlead")
	if out, err := exec.Command("go", "build", "-o", binary, "fairlead.io/fairlead/cmd/fairlead").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	node := startNode(b, binary, envoy)
	cars := startSidecars(b, dir, binary, envoy)
	for b.Loop() {
		for range 3 {
			for _, s := range []*side{node, cars} {
				s.round(b, binary)
			}
		}
	}
	b.ReportMetric(median(node.p50)/median(cars.p50), "p50-ratio")
	b.ReportMetric(median(node.p99)/median(cars.p99), "p99-ratio")
	b.ReportMetric(median(node.cpu)/median(cars.cpu), "cpu/request-ratio")
	b.ReportMetric(0, "ns/op")
}

func up(b *testing.B, o lab.Options) {
	b.Helper()
	file := filepath.Join(b.TempDir(), "app.yaml")
	if err := os.WriteFile(file, []byte(app), 0o600); err != nil {
		b.Fatal(err)
	}
	o.Files = []string{file}
	b.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(b.Context()), o.Name); err != nil {
			b.Error(err)
		}
	})
	if _, err := lab.Up(b.Context(), o); err != nil {
		b.Fatal(err)
	}
}

func startNode(b *testing.B, binary, envoy string) *side {
	b.Helper()
	s := &side{name: "bench-node", url: "http://server/"}
	up(b, lab.Options{Name: s.name, Binary: binary, EnvoyPath: envoy})
	dirs, err := lab.RunDirs(s.name)
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range dirs {
		st, err := agent.NewClient(filepath.Join(d, agent.Socket)).Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if st.Proxy == nil || st.Proxy.Envoy.PID == 0 {
			b.Fatalf("no Envoy on %s: %s", st.Node, st.ProxyError)
		}
		s.pids = append(s.pids, st.Proxy.Envoy.PID)
	}
	return s
}

func startSidecars(b *testing.B, dir, binary, envoy string) *side {
	b.Helper()
	s := &side{name: "bench-cars"}
	up(b, lab.Options{Name: s.name, Binary: binary, NoAgent: true})
	st, err := lab.StatusOf(s.name)
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(dir, "sidecar.yaml")
	if err := os.WriteFile(config, []byte(sidecar), 0o600); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	for _, p := range st.Pods {
		pod := p.Namespace + "/" + p.Name
		if p.Name == "server" {
			s.url = "http://" + p.Addresses[0].String() + ":8080/"
		}
		if code, err := lab.Exec(ctx, s.name, pod, []string{"nft", "-f", "-"}, lab.Stdio{In: strings.NewReader(redirect), Err: os.Stderr}); err != nil || code != 0 {
			b.Fatalf("redirect of %s: %d, %v", pod, code, err)
		}
		pidFile := filepath.Join(dir, p.Name+".pid")
		wg.Go(func() {
			_, _ = lab.Exec(ctx, s.name, pod, []string{"sh", "-c", `echo $$ >"$0"; exec "$@"`, pidFile, envoy, "-c", config, "--disable-hot-restart", "--log-level", "error"}, lab.Stdio{Err: os.Stderr})
		})
		s.pids = append(s.pids, waitPID(b, pidFile))
	}
	return s
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

// round sends 600 requests a second for five seconds over kept connections.
func (s *side) round(b *testing.B, binary string) {
	b.Helper()
	before := cpu(b, s.pids)
	var out bytes.Buffer
	code, err := lab.Exec(b.Context(), s.name, "bench/client", []string{binary, "lab-load", "--url", s.url, "--rate", "600", "--duration", "5s", "--connections", "8", "-4"}, lab.Stdio{Out: &out, Err: os.Stderr})
	if err != nil || code != 0 {
		b.Fatalf("load in %s: %d, %v\n%s", s.name, code, err, out.String())
	}
	used := cpu(b, s.pids) - before
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var sum load.Summary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &sum); err != nil || !sum.Final || sum.OK == 0 {
		b.Fatalf("load in %s: %v, %+v", s.name, err, sum)
	}
	s.p50, s.p99 = append(s.p50, sum.P50), append(s.p99, sum.P99)
	s.cpu = append(s.cpu, float64(used.Milliseconds())/float64(sum.Requests))
}

// cpu is the processor time that processes have used.
func cpu(b *testing.B, pids []int) time.Duration {
	b.Helper()
	var ticks int
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		ticks += user + system
	}
	return time.Duration(ticks) * 10 * time.Millisecond // clock ticks are 10 ms on Linux
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
