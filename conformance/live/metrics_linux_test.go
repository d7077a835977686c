// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent/metrics"
	"fairlead.io/fairlead/proxy"
)

// TestMetrics asks nodes as Prometheus does: what the kernel refuses and what Envoy serves
// is counted there.
func TestMetrics(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	t.Cleanup(func() { w.delete(t, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio)
	for _, node := range w.nodes() {
		for name, want := range map[string]float64{
			"fairlead_agent_applied": 1, "fairlead_agent_problem": 0, "fairlead_agent_unguarded_pods": 0,
			"fairlead_proxy_up": 1, "fairlead_proxy_fed": 1, "fairlead_proxy_envoy_live": 1, "fairlead_agent_bypassed": 0,
			`fairlead_datapath_missing{of="programs"}`: 0,
		} {
			for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
				if got := w.metric(t, node, "/metrics", name); got == want {
					break
				} else if time.Now().After(end) {
					t.Errorf("%s: %s is %v, want %v", node, name, got, want)
					break
				}
			}
		}
	}
	sent := w.metric(t, "node-1", "/metrics/envoy", `envoy_http_downstream_rq_total`)
	w.runText(t, "shop", `
		frontend-1 GET http://reviews/api/x *20 -> 200
		frontend-1 GET http://reviews/private *5 -> 403`)
	if got := w.metric(t, "node-1", "/metrics/envoy", `envoy_http_downstream_rq_total`); got < sent+25 {
		t.Errorf("Envoy of frontend-1's node has counted %v requests of 25", got-sent)
	}
	if got := w.metric(t, "node-1", "/metrics", "fairlead_datapath_connections_total"); got == 0 {
		t.Error("the kernel has counted nothing")
	}
	if got := w.metric(t, "node-1", "/metrics", "fairlead_proxy_route_tables"); got == 0 {
		t.Error("Envoy has no route table")
	}
}

// metric is the sum of the samples of a metric, or with labels one of them.
func (w *world) metric(t *testing.T, node, path, name string) float64 {
	t.Helper()
	h := metrics.Handler(metrics.Node{Status: w.agents[node].Status, Envoy: func(ctx context.Context) ([]byte, error) {
		return proxy.ReadMetrics(ctx, filepath.Join(w.run, node))
	}})
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("%s of %s: %d %s", path, node, rec.Code, rec.Body)
	}
	sum, found := 0., false
	for line := range strings.Lines(rec.Body.String()) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " "):]), 64)
		if err != nil {
			t.Fatal(fmt.Errorf("%s of %s: %w", path, node, err))
		}
		sum, found = sum+v, true
	}
	if !found {
		t.Fatalf("%s of %s has no %s:\n%s", path, node, name, rec.Body)
	}
	return sum
}
