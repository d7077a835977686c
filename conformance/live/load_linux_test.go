// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/lab/load"
	"fairlead.io/fairlead/xds/serve"
)

// generator is a load generator that runs in a pod.
type generator struct {
	what   string
	stop   context.CancelFunc
	done   chan struct{}
	out    bytes.Buffer
	stderr bytes.Buffer
	err    error
}

func generate(t *testing.T, place string, args ...string) *generator {
	ctx, stop := context.WithCancel(context.Background())
	g := &generator{what: place + ": load " + strings.Join(args, " "), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		_, g.err = lab.Exec(ctx, labName, place, append([]string{"load"}, args...), lab.Stdio{Out: &g.out, Err: &g.stderr})
	}()
	t.Cleanup(func() { stop(); <-g.done })
	return g
}

// end stops the generator and returns its account.
func (g *generator) end(t *testing.T) load.Summary {
	t.Helper()
	g.stop()
	<-g.done
	var last load.Summary
	lines := bytes.Split(bytes.TrimSpace(g.out.Bytes()), []byte("\n"))
	err := g.err
	if errors.Is(err, context.Canceled) {
		err = nil // as it was told to
	}
	if err = errors.Join(err, json.Unmarshal(lines[len(lines)-1], &last)); err != nil || !last.Final {
		t.Errorf("%s: ended without an account: %v %s", g.what, err, g.stderr.String())
	}
	return last
}

// storm is load from both nodes that must not fail, and requests that must not get
// through: of a wrong method, to a wrong path, and by a wrong identity.
type storm struct {
	begin              time.Time
	allowed, forbidden []*generator
	refusals           []string // how what is forbidden may be refused
}

func (w *world) storm(t *testing.T) *storm {
	s := &storm{begin: time.Now(), refusals: []string{"status 403"}}
	for _, p := range []string{"shop/frontend-1", "shop/frontend-2"} {
		s.allowed = append(s.allowed, generate(t, p, "--url", "http://reviews/api/x", "--rate", "290", "--connections", "8", "--fresh", "0.3", "-4", "-6"))
		s.forbidden = append(s.forbidden,
			generate(t, p, "--url", "http://reviews/api/x", "--method", "POST", "--forbid", "--rate", "10", "--connections", "2", "--fresh", "0.5", "-4", "-6"),
			generate(t, p, "--url", "http://reviews/private", "--forbid", "--rate", "10", "--connections", "2", "--fresh", "0.5", "-4", "-6"))
	}
	s.forbidden = append(s.forbidden, generate(t, "shop/batch", "--url", "http://reviews/api/x", "--forbid", "--rate", "20", "--connections", "2", "--fresh", "0.5", "-4", "-6"))
	return s
}

// end stops everything and looks at the accounts.
func (s *storm) end(t *testing.T) {
	t.Helper()
	took := time.Since(s.begin).Seconds()
	var sent, answered uint64
	by := map[string]uint64{}
	for _, g := range s.allowed {
		sum := g.end(t)
		sent += sum.Requests
		answered += sum.OK
		for k, n := range sum.By {
			by[k] += n
		}
		if sum.Failed > 0 || sum.OK == 0 {
			t.Errorf("%s: %d of %d failed: %v; of idle connections %d were cut", g.what, sum.Failed, sum.Requests, sum.Failures, sum.IdleReset)
		}
	}
	for _, g := range s.forbidden {
		sum := g.end(t)
		sent += sum.Requests
		if sum.Violations > 0 || sum.OK == 0 {
			t.Errorf("%s: %d of %d got through; refused were %v", g.what, sum.Violations, sum.Requests, sum.Refusals)
		}
		for class := range sum.Refusals {
			if !slices.Contains(s.refusals, class) {
				t.Errorf("%s: refused by %v, want %v alone", g.what, sum.Refusals, s.refusals)
			}
		}
	}
	t.Logf("%d requests in %.0f s, %d allowed ones answered by %v", sent, took, answered, by)
	if rate := float64(sent) / took; rate < 100 { // of 650, where nobody else wants the processors
		t.Errorf("%.0f requests a second, want 100", rate)
	}
	if improbable(int(by["reviews-v1"]), int(answered), 0.75) {
		t.Errorf("answered by %v, want three quarters by v1", by)
	}
}

// written is what a node has written to its kernel and its Envoy.
type written struct {
	kernel map[string]uint64
	envoy  serve.Counters
}

func (w *world) written(t *testing.T) map[string]written {
	t.Helper()
	out := map[string]written{}
	for _, n := range w.nodes() {
		s, err := w.agents[n].Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		out[n] = written{s.Writes, s.Feed.Counters}
	}
	return out
}

// sameWritten compares what the nodes have written with before.
func (w *world) sameWritten(t *testing.T, what string, before map[string]written) {
	t.Helper()
	for node, a := range w.written(t) {
		if b := before[node]; !maps.Equal(a.kernel, b.kernel) {
			t.Errorf("%s: %s wrote to the kernel: %v before, %v after", what, node, b.kernel, a.kernel)
		} else if a.envoy != b.envoy {
			t.Errorf("%s: %s wrote to Envoy: %+v before, %+v after", what, node, b.envoy, a.envoy)
		}
	}
}

// shop are the manifests of the demonstration.
func shop(t *testing.T, name string) txtar.File {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "demo", name))
	if err != nil {
		t.Fatal(err)
	}
	return txtar.File{Name: name, Data: b}
}

// owner is the shop's namespace with a word on who owns its routes.
func owner(plane string) txtar.File {
	return txtar.File{Name: "namespace.yaml", Data: fmt.Appendf(nil,
		"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {istio-injection: enabled}\n  annotations: {fairlead.io/control-plane: %s, fairlead.io/route-by: destination}\n", plane)}
}

// length is how long the storms of a test last.
func length() time.Duration {
	if testing.Short() {
		return 16 * time.Second
	}
	return 60 * time.Second
}

// TestSwapUnderLoad swaps control planes that say the same, by a word on ownership
// and by applying the one and deleting the other, while requests flow.
func TestSwapUnderLoad(t *testing.T) {
	w := lives(t)
	app, istio, smi := shop(t, "app.yaml"), shop(t, "istio.yaml"), shop(t, "smi.yaml")
	t.Cleanup(func() { w.delete(t, istio, smi, app); w.nothingLeft(t) })
	w.apply(t, app, istio)
	s := w.storm(t)
	pause := length() / 8
	time.Sleep(pause)
	w.retired(t)
	before := w.written(t)
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"istio, smi applied too", func() { w.apply(t, smi) }},
		{"istio deleted", func() { w.delete(t, istio) }},
		{"istio applied again", func() { w.apply(t, istio) }},
		{"istio owns", func() { w.apply(t, owner("istio")) }},
		{"smi owns", func() { w.apply(t, owner("smi")) }},
		{"istio owns again", func() { w.apply(t, owner("istio")) }},
		{"smi deleted", func() { w.delete(t, smi) }},
	} {
		step.do()
		time.Sleep(pause)
		w.sameWritten(t, step.what, before)
	}
	s.end(t)
}

// TestAgentKilled kills the agents of both nodes under load: kernel and proxy go on,
// also for a service that nobody has used yet, and the next agent takes over.
func TestAgentKilled(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	fresh := txtar.File{Name: "fresh.yaml", Data: []byte(`apiVersion: v1
kind: Service
metadata: {name: fresh, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 8000, targetPort: http}]}
`)}
	t.Cleanup(func() {
		w.startAgents(t) // as long as one is dead, nothing can be taken away
		w.delete(t, istio, fresh, app)
		w.nothingLeft(t)
	})
	w.apply(t, app, istio, fresh)
	s := w.storm(t)
	time.Sleep(2 * time.Second)
	var wg sync.WaitGroup
	for _, node := range w.nodes() {
		wg.Go(func() {
			if err := lab.Stop(context.Background(), labName, node, "agent", syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.runText(t, "shop", `
		frontend-1 GET http://fresh:8000/api/x *20 keepalive v4 -> 200 pods>1 peer=self
		frontend-2 GET http://fresh:8000/api/x *20 v6 -> 200 pods>1 peer=self
		frontend-1 POST http://fresh:8000/api/x *5 -> 403
		batch GET http://fresh:8000/api/x *5 -> 403
		batch GET http://{reviews-v1}:8080/api/x -> 403
		outside GET http://{reviews-v2}:8080/api/x -> 403`)
	time.Sleep(length() / 12)
	w.startAgents(t)
	time.Sleep(2 * time.Second)
	w.runText(t, "shop", `frontend-1 GET http://fresh:8000/api/x *20 keepalive -> 200 pods>1 peer=self`)
	s.end(t)
	// The new agents are in command: what they are told has effect.
	closed := txtar.File{Name: "closed.yaml", Data: []byte(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews, namespace: shop}
spec: {}
`)}
	w.apply(t, closed)
	w.runText(t, "shop", `
		frontend-1 GET http://reviews/api/x *4 -> 403
		frontend-2 GET http://reviews/api/x *4 -> 403`)
	w.delete(t, txtar.File{Name: "closed.yaml", Data: closed.Data[:bytes.Index(closed.Data, []byte("---"))]})
}

func (w *world) startAgents(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, node := range w.nodes() {
		if err := lab.Start(ctx, labName, node, "agent"); err != nil {
			t.Error(err)
		}
	}
	if err := w.applied(ctx); err != nil {
		t.Error(err)
	}
}
