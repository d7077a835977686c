// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/proxy"
)

const inboundName = "inbound"

// inboundServer guards web with Linkerd's means, or counts what comes to it.
func inboundServer(more string) txtar.File {
	return txtar.File{Name: "server.yaml", Data: []byte(`apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: inbound}
spec: {podSelector: {matchLabels: {app: web}}, port: http, proxyProtocol: HTTP/1, accessPolicy: all-unauthenticated}
---
` + more)}
}

const (
	inboundRoute = `apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: web, namespace: inbound}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules: [{matches: [{path: {value: /open}}]}]
`
	inboundLimit = `apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: web, namespace: inbound}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: web}
  total: {requestsPerSecond: 60}
  identity: {requestsPerSecond: 20}
  overrides: [{requestsPerSecond: 5, clientRefs: [{kind: ServiceAccount, name: other}]}]
`
	inboundPolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: inbound}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
`
)

// inboundLab has two clients and one that is not captured, and a pod of web on each node.
func inboundLab(t *testing.T) *world {
	w := lives(t)
	base, err := os.ReadFile("../cases/base/guarded.yaml")
	if err != nil {
		t.Fatal(err)
	}
	app := txtar.File{Name: "app.yaml", Data: []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: inbound, labels: {fairlead.io/capture: enabled}}\n---\n" +
		strings.ReplaceAll(string(base), "$ns", inboundName))}
	t.Cleanup(func() { w.delete(t, app); w.nothingLeft(t) })
	w.apply(t, app)
	return w
}

// TestInboundComesAndGoes gives a port routes of its own and takes them away, on both
// nodes, with a policy of another plane and without: no request fails that is allowed
// all the while, also while Envoy is replaced, and what is refused throughout never gets
// through.
func TestInboundComesAndGoes(t *testing.T) {
	w := inboundLab(t)
	policy := txtar.File{Name: "policy.yaml", Data: []byte(inboundPolicy)}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	w.apply(t, policy)
	var allowed, forbidden []*generator
	for _, p := range []string{"inbound/client", "inbound/other"} {
		load := func(more ...string) *generator {
			return generate(t, p, append([]string{"--url", "http://web/open", "--connections", "4", "--fresh", "0.3", "-4", "-6"}, more...)...)
		}
		allowed = append(allowed, load("--rate", "150"))
		forbidden = append(forbidden, load("--rate", "20", "--method", "POST", "--forbid"))
	}
	for n := range rounds {
		w.apply(t, inboundServer(inboundRoute))
		if n%3 == 2 {
			w.replaceEnvoys(t)
		}
		time.Sleep(time.Second)
		w.delete(t, inboundServer(inboundRoute))
		time.Sleep(time.Second)
	}
	for _, g := range allowed {
		if s := g.end(t); s.Failed > 0 || s.OK == 0 {
			t.Errorf("%s: %d of %d failed: %v", g.what, s.Failed, s.Requests, s.Failures)
		}
	}
	for _, g := range forbidden {
		if s := g.end(t); s.Violations > 0 || s.OK == 0 {
			t.Errorf("%s: %d of %d got through; refused were %v", g.what, s.Violations, s.Requests, s.Refusals)
		}
	}
	w.delete(t, policy)

	// The port was open in between: nobody knew of a policy, and connections went straight.
	open := generate(t, "inbound/client", "--url", "http://web/open", "--rate", "150", "--connections", "8", "--fresh", "0.3", "-4", "-6")
	for range rounds {
		w.apply(t, inboundServer(inboundRoute))
		time.Sleep(time.Second / 2)
		w.delete(t, inboundServer(inboundRoute))
		time.Sleep(time.Second / 2)
	}
	if s := open.end(t); s.Failed > 0 || s.OK == 0 {
		t.Errorf("%s: %d of %d failed: %v", open.what, s.Failed, s.Requests, s.Failures)
	}
}

// TestInboundLimits counts what gets through in some seconds to two pods with limits:
// from the same node and from another, together and by identity, from the first request on.
func TestInboundLimits(t *testing.T) {
	w := inboundLab(t)
	limit := inboundServer(inboundLimit)
	w.apply(t, limit)
	t.Cleanup(func() { w.delete(t, limit) })
	const seconds, pods = 4, 2
	for _, c := range []struct {
		from string
		rate string
		each float64 // per second and pod; 0: all get through
	}{
		{"inbound/client", "30", 0},
		{"inbound/client", "100", 20},
		{"inbound/other", "100", 5},
	} {
		time.Sleep(1100 * time.Millisecond) // buckets are full
		g := generate(t, c.from, "--url", "http://web/", "--rate", c.rate, "--connections", "4", "--fresh", "0.3", "-4", "-6")
		begin := time.Now()
		time.Sleep(seconds * time.Second)
		s := g.end(t)
		took := time.Since(begin).Seconds()
		for why := range s.Failures {
			if why != "status 429" {
				t.Errorf("%s: %v", g.what, s.Failures)
			}
		}
		if c.each == 0 {
			if s.Failed > 0 || s.OK == 0 {
				t.Errorf("%s: %d of %d failed: %v", g.what, s.Failed, s.Requests, s.Failures)
			}
			continue
		}
		// A full bucket each at first. Both are asked more than they take.
		low, high := pods*c.each*(seconds-1), pods*c.each*(took+1)+1
		if ok := float64(s.OK); ok < low || ok > high {
			t.Errorf("%s: %.0f got through in %.1f s, want %.0f to %.0f", g.what, ok, took, low, high)
		}
	}
	for _, n := range w.nodes() {
		w.toldAsLimited(t, n)
	}
}

// toldAsLimited looks for a flow that says which limit refused a request.
func (w *world) toldAsLimited(t *testing.T, node string) {
	t.Helper()
	told := false
	err := w.agents[node].Flows(t.Context(), agent.FlowQuery{Last: 1000, Filter: hubble.Filter{Verdict: "denied"}}, func(f hubble.Flow) error {
		told = told || f.Reason == "rate-limit" && f.HTTP.Status == http.StatusTooManyRequests && strings.Contains(strings.Join(f.DecidedBy, ";"), "HTTPLocalRateLimitPolicy inbound/web")
		return nil
	})
	if err != nil || !told {
		t.Errorf("%s: no flow tells of the limit (%v)", node, err)
	}
}

// replaceEnvoys starts other Envoys on both nodes, as for a new version.
func (w *world) replaceEnvoys(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range w.nodes() {
		if _, err := proxy.Replace(ctx, filepath.Join(w.run, n), true); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
}
