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
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/lab/load"
)

// base is a client on one node and a server on the other.
const base = `
apiVersion: v1
kind: Namespace
metadata: {name: bench, labels: {fairlead.io/capture: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: bench}
spec: {serviceAccountName: client, nodeName: node-1, containers: [{name: main, image: fairlead/load}]}
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

// routes are three for the service.
const routes = `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: bench}
spec:
  hosts: [server]
  http:
  - {match: [{uri: {prefix: /api/}}], route: [{destination: {host: server}}]}
  - {match: [{uri: {prefix: /static/}}], route: [{destination: {host: server}}]}
  - {route: [{destination: {host: server}}]}
`

// folds is a policy that the client's node judges for the server's.
const folds = `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: internal, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules: [{to: [{operation: {paths: [/internal*]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: client, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/bench/sa/client]}}], to: [{operation: {methods: [GET]}}]}]
`

// staysThere is one that only the server's node can judge, as routes decide there.
const staysThere = `
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: server, namespace: bench}
spec: {podSelector: {matchLabels: {app: server}}, port: http, proxyProtocol: HTTP/1}
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: read, namespace: bench}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: server}]
  rules: [{matches: [{method: GET}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: read, namespace: bench}
spec:
  targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: read}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: client}]
`

// layout is one of those that are compared.
type layout struct {
	lab    string
	client string // pod that sends
	url    string
	pids   []int      // its Envoys
	told   func() int // entries of the access log that its Envoys wrote since the last call; nil: nobody counts

	p50, p99 []float64 // ms, by round
	cpu      []float64 // of its Envoys, ms for each request
	hops     []float64 // entries of the access log for each request
}

// rig is what the layouts share.
type rig struct {
	b      *testing.B
	dir    string
	binary string
	envoy  string
}

func newRig(b *testing.B) *rig {
	b.Helper()
	need.Root(b)
	r := &rig{b: b, envoy: need.Envoy(b)}
	// Short, for sockets.
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	r.dir, r.binary = dir, filepath.Join(dir, "fairlead")
	if out, err := exec.Command("go", "build", "-o", r.binary, "fairlead.io/fairlead/cmd/fairlead").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return r
}

// up starts a lab, which is taken down at the end.
func (r *rig) up(o lab.Options, manifests string) {
	r.b.Helper()
	file := filepath.Join(r.dir, o.Name+".yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
		r.b.Fatal(err)
	}
	o.Files, o.Binary, o.EnvoyPath = []string{file}, r.binary, r.envoy
	r.b.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(r.b.Context()), o.Name); err != nil {
			r.b.Error(err)
		}
	})
	if _, err := lab.Up(r.b.Context(), o); err != nil {
		r.b.Fatal(err)
	}
}

// addresses are those of the pods of a lab, by name.
func (r *rig) addresses(name string) map[string]string {
	r.b.Helper()
	st, err := lab.StatusOf(name)
	if err != nil {
		r.b.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range st.Pods {
		out[p.Name] = p.Addresses[0].String()
	}
	return out
}

// startNodes is the product in a lab of its own.
func startNodes(b *testing.B, r *rig, name, manifests string) *layout {
	b.Helper()
	l := &layout{lab: name, client: "bench/client", url: "http://server/"}
	r.up(lab.Options{Name: name}, manifests)
	for _, c := range r.agents(name) {
		st, err := c.Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if st.Proxy == nil || st.Proxy.Envoy.PID == 0 {
			b.Fatalf("no Envoy on %s: %s", st.Node, st.ProxyError)
		}
		l.pids = append(l.pids, st.Proxy.Envoy.PID)
	}
	return l
}

// agents are those of a lab's nodes.
func (r *rig) agents(name string) []*agent.Client {
	r.b.Helper()
	dirs, err := lab.RunDirs(name)
	if err != nil {
		r.b.Fatal(err)
	}
	var out []*agent.Client
	for _, d := range dirs {
		out = append(out, agent.NewClient(filepath.Join(d, agent.Socket)))
	}
	return out
}

// round sends 600 requests a second for some seconds over kept connections.
func (l *layout) round(r *rig) {
	r.b.Helper()
	if l.told != nil {
		l.told()
	}
	before := cpu(r.b, l.pids)
	sum := l.send(r, "--rate", "600", "--duration", "4s", "--connections", "8")
	used := cpu(r.b, l.pids) - before
	l.p50, l.p99 = append(l.p50, sum.P50), append(l.p99, sum.P99)
	l.cpu = append(l.cpu, float64(used.Milliseconds())/float64(sum.Requests))
	if l.told != nil {
		time.Sleep(1500 * time.Millisecond) // Envoy keeps entries for a second
		l.hops = append(l.hops, float64(l.told())/float64(sum.Requests))
	}
}

// send runs the load generator in the client's pod. All requests must be answered by 200.
func (l *layout) send(r *rig, args ...string) load.Summary {
	r.b.Helper()
	var out bytes.Buffer
	code, err := lab.Exec(r.b.Context(), l.lab, l.client, append([]string{r.binary, "lab-load", "--url", l.url, "-4"}, args...), lab.Stdio{Out: &out, Err: os.Stderr})
	if err != nil || code != 0 {
		r.b.Fatalf("load in %s: %d, %v\n%s", l.lab, code, err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var sum load.Summary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &sum); err != nil || !sum.Final || sum.OK == 0 {
		r.b.Fatalf("load in %s: %v, %+v", l.lab, err, sum)
	}
	return sum
}

// refused checks that a layout judges: what its policy forbids is answered by 403, or by
// 404 where a route of the server refuses.
func (l *layout) refused(r *rig, status int) {
	r.b.Helper()
	l.send(r, "--method", "POST", "--expect", strconv.Itoa(status), "--rate", "20", "--duration", "500ms")
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

// ratio is the median of the rounds' ratios.
func ratio(a, b []float64) float64 {
	var out []float64
	for i := range a {
		out = append(out, a[i]/b[i])
	}
	return median(out)
}

// BenchmarkNodeAgainstSidecars compares one node Envoy, and two where the policy does not
// fold, with two sidecars that do the same: three routes, two rules of policy, an access log.
// The client's and the server's own time is in all of them: direct is what is left of a
// request without any Envoy. Rounds take turns; figures are medians of the rounds' ratios.
func BenchmarkNodeAgainstSidecars(b *testing.B) {
	const rounds = 11
	r := newRig(b)
	one := startNodes(b, r, "bench-one", base+routes+folds)
	two := startNodes(b, r, "bench-two", base+routes+staysThere)
	cars := startSidecars(b, r)
	r.up(lab.Options{Name: "bench-none", NoAgent: true}, base)
	none := &layout{lab: "bench-none", client: "bench/client", url: "http://" + r.addresses("bench-none")["server"] + ":8080/"}
	one.refused(r, 403)
	two.refused(r, 404)
	cars.refused(r, 403)
	for b.Loop() {
		for range rounds {
			for _, l := range []*layout{one, two, cars, none} {
				l.round(r)
			}
		}
	}
	if hops := median(cars.hops); hops < 1.9 || hops > 2.1 {
		b.Errorf("sidecars wrote %.2f entries of the access log for each request", hops)
	}
	for _, l := range []struct {
		name string
		*layout
	}{{"one", one}, {"two", two}} {
		b.ReportMetric(ratio(l.p50, cars.p50), l.name+"-p50-ratio")
		b.ReportMetric(ratio(l.p99, cars.p99), l.name+"-p99-ratio")
		b.ReportMetric(ratio(l.cpu, cars.cpu), l.name+"-cpu-ratio")
	}
	b.ReportMetric(ratio(none.p50, cars.p50), "none-p50-ratio")
	b.ReportMetric(ratio(none.p99, cars.p99), "none-p99-ratio")
	b.ReportMetric(median(cars.p50)*1000, "cars-p50-us")
	b.ReportMetric(median(one.p50)*1000, "one-p50-us")
	b.ReportMetric(0, "ns/op")
}
