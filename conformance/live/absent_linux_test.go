// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab"
)

// absence are the manifests of the tests without an Envoy: a service that is steered,
// and one that is guarded by request.
func absence(t *testing.T) txtar.File {
	t.Helper()
	const ns = "absent"
	base, err := os.ReadFile("../cases/base/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := "apiVersion: v1\nkind: Namespace\nmetadata: {name: $ns, labels: {fairlead.io/capture: enabled}}\n---\n" + string(base) + `
---
apiVersion: v1
kind: Service
metadata: {name: closed, namespace: $ns}
spec:
  selector: {app: closed}
  ports: [{name: http, port: 80, targetPort: http}, {name: tcp, port: 9000}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: closed, namespace: $ns}
spec:
  replicas: 2
  selector: {matchLabels: {app: closed}}
  template:
    metadata: {labels: {app: closed}}
    spec:
      containers: [{name: main, image: fairlead/echo, ports: [{name: http, containerPort: 8080}, {name: tcp, containerPort: 9000}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: $ns}
spec:
  hosts: [web]
  http:
  - headers: {request: {set: {x-route: web}}}
    route: [{destination: {host: web-v1}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: $ns}
spec:
  selector: {matchLabels: {app: closed}}
  rules: [{from: [{source: {principals: [cluster.local/ns/$ns/sa/client]}}], to: [{operation: {methods: [GET], ports: ["8080"]}}]}]
`
	return txtar.File{Name: "absent.yaml", Data: []byte(strings.ReplaceAll(text, "$ns", ns))}
}

// loseEnvoy kills a node's proxy and Envoy, so that nobody starts another.
func (w *world) loseEnvoy(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	st, err := w.agents[node].Status(ctx)
	if err != nil || st.Proxy == nil || len(st.Proxy.Generations) == 0 {
		t.Fatalf("%s: %v, %+v", node, err, st.Proxy)
	}
	if err := lab.Stop(ctx, labName, node, "proxy", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, g := range st.Proxy.Generations {
		if err := syscall.Kill(g.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
}

// restartAgents has the agents start with other arguments.
func (w *world) restartAgents(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	for _, node := range w.nodes() {
		if err := errors.Join(lab.Stop(ctx, labName, node, "agent", syscall.SIGTERM), lab.Start(ctx, labName, node, "agent", args...)); err != nil {
			t.Error(err)
		}
	}
	if err := w.applied(ctx); err != nil {
		t.Error(err)
	}
}

// TestHoldsWithoutEnvoy takes a node's Envoy away: what needs it waits until there is
// one again, everything else goes on, and nothing forbidden gets through.
func TestHoldsWithoutEnvoy(t *testing.T) {
	w := lives(t)
	app := absence(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	t.Cleanup(func() { w.delete(t, app); w.nothingLeft(t) })
	w.apply(t, app)
	w.loseEnvoy(ctx, t, "node-1")
	w.runText(t, "absent", `
		client GET http://web/ timeout=400ms -> timeout
		client GET http://closed/ timeout=400ms -> timeout
		client POST http://closed/ v6 timeout=400ms -> timeout
		client tcp://closed:9000 timeout=400ms -> failed
		other GET http://web/ *4 -> 200 v1 header.x-route=web
		other GET http://closed/ -> 403|503
		other GET http://{closed-1}:8080/ timeout=400ms -> failed|403`)
	started := make(chan error, 1)
	go func() {
		time.Sleep(500 * time.Millisecond)
		started <- lab.Start(ctx, labName, "node-1", "proxy")
	}()
	begin := time.Now()
	w.runText(t, "absent", `client GET http://web/ timeout=20s -> 200 v1 header.x-route=web`)
	t.Logf("a request that waited was answered after %v", time.Since(begin).Round(10*time.Millisecond))
	if err := <-started; err != nil {
		t.Error(err)
	}
	w.runText(t, "absent", `
		client GET http://web/ *10 -> 200 v1 header.x-route=web peer=self
		client GET http://closed/ *10 v6 eventually -> 200
		client POST http://closed/ -> 403`)
}

// TestBypassesWithoutEnvoy does the same where agents may do without: new connections
// are balanced by the kernel, and what is forbidden stays so.
func TestBypassesWithoutEnvoy(t *testing.T) {
	w := lives(t)
	app := absence(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w.restartAgents(ctx, t, "--when-proxy-absent=bypass")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := lab.Start(ctx, labName, "node-1", "proxy"); err != nil {
			t.Error(err)
		}
		w.restartAgents(ctx, t)
		w.delete(t, app)
		w.nothingLeft(t)
	})
	w.apply(t, app)
	w.runText(t, "absent", `client GET http://web/ *4 -> 200 v1 header.x-route=web`)
	other := generate(t, "absent/other", "--url", "http://web/", "--rate", "100", "--connections", "4", "--fresh", "0.3", "-4", "-6")
	forbidden := []*generator{
		generate(t, "absent/client", "--url", "http://closed/", "--method", "POST", "--forbid", "--rate", "20", "--connections", "2", "--fresh", "1", "--timeout", "500ms", "-4", "-6"),
		generate(t, "absent/other", "--url", "http://closed/", "--forbid", "--rate", "20", "--connections", "2", "--fresh", "1", "--timeout", "500ms", "-4", "-6"),
		generate(t, "absent/client", "--url", "http://closed:9000/", "--forbid", "--rate", "20", "--connections", "2", "--fresh", "1", "--timeout", "500ms", "-4", "-6"),
	}
	begin := time.Now()
	w.loseEnvoy(ctx, t, "node-1")
	w.runText(t, "absent", `client GET http://web/ timeout=300ms eventually -> 200`)
	t.Logf("the kernel balances after %v", time.Since(begin).Round(10*time.Millisecond))
	w.runText(t, "absent", `
		client GET http://web/ *40 -> 200 v1 50% v2 50% header.x-route= peer=self
		client GET http://web/ *40 v6 -> 200 v1 50% v2 50% header.x-route= peer=self
		client GET http://web-v2/ *4 -> 200 v2
		client POST http://closed/ *4 timeout=300ms -> 403|failed
		client tcp://closed:9000 *4 timeout=300ms -> refused
		other GET http://closed/ *4 -> 403|503
		other GET http://web/ *4 -> 200 v1 header.x-route=web`)
	st, err := w.agents["node-1"].Status(ctx)
	if err != nil || st.BypassedSince == nil {
		t.Errorf("node-1 does not say that it does without: %v, %+v", err, st)
	}
	begin = time.Now()
	if err := lab.Start(ctx, labName, "node-1", "proxy"); err != nil {
		t.Fatal(err)
	}
	w.runText(t, "absent", `client GET http://web/ *10 eventually -> 200 v1 header.x-route=web`)
	t.Logf("Envoy routes again after %v", time.Since(begin).Round(10*time.Millisecond))
	if sum := other.end(t); sum.Failed > 0 || sum.OK == 0 {
		t.Errorf("%s: %d of %d failed: %v", other.what, sum.Failed, sum.Requests, sum.Failures)
	}
	for _, g := range forbidden {
		if sum := g.end(t); sum.Violations > 0 || sum.OK == 0 {
			t.Errorf("%s: %d of %d got through: %v", g.what, sum.Violations, sum.Requests, sum.Refusals)
		}
	}
	w.runText(t, "absent", `
		client GET http://closed/ *4 -> 200
		client POST http://closed/ *4 -> 403`)
}
