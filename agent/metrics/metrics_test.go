// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds/serve"
)

var update = flag.Bool("update", false, "write testdata/metrics.txt and docs/reference/metrics.md anew")

// full is a status in which nothing is at rest.
func full() *agent.Status {
	since := time.Unix(1, 0)
	served := serve.Status{Resources: map[string]int{"Cluster": 3}, Counters: serve.Counters{Resources: 5, Responses: 4, Bytes: 700, Acks: 3, Nacks: 1}}
	return &agent.Status{
		Node: "node-1", Objects: 12, Revision: "b", Applied: "a", Problem: "no Envoy is connected", Errors: 2, Warnings: 1,
		APIServer: &kube.Health{Problems: []kube.Problem{{What: "away"}}},
		Peers:     []kube.Peer{{Node: "node-2"}, {Node: "node-3", Behind: "silent"}},
		Rejected:  []agent.Rejected{{Type: "Cluster"}, {Type: "Cluster"}}, Waiting: []agent.Waiting{{Type: "Listener"}},
		BypassedSince: &since, Plugin: &agent.PluginStatus{Waiting: 1}, Feed: served,
		Proxy: &proxy.Status{
			Envoy:       proxy.EnvoyStatus{State: "LIVE", Connected: true, Starts: 2, Restarts: 1},
			Generations: []proxy.Generation{{Role: proxy.Active, Connections: 7}, {Role: proxy.Draining, Connections: 2}},
			Feed:        proxy.FeedStatus{Connected: true, Synced: true}, Served: served,
			Authority: authority.Counters{Resolved: 3, Passed: 2, Refused: 1}, InUse: 4, Evicted: 1,
		},
		Kernel: datapath.Status{
			Cgroup:     datapath.Attached{Reason: "no cgroup2"},
			Interfaces: []datapath.Attached{{Name: "eth0"}, {Name: "eth1", Reason: "no such interface"}},
			Host:       []datapath.Need{{Name: "rule", OK: true}}, Features: []datapath.Need{{Name: "tcx"}},
			Pods: []datapath.PodStatus{{Name: "a/ready", Ready: true, Guarded: true}, {Name: "a/guarded", Guarded: true}, {Name: "a/open"}, {Name: "a/observed", Observed: true, Ready: true}},
			Maps: []datapath.MapStatus{{Name: "fl_pods", Entries: 3, Max: 65536}}, Counters: map[string]uint64{"policy": 9, "direct": 80, "observed": 2},
		},
		Writes: map[string]uint64{"fl_pods": 6}, Flows: agent.FlowCounts{Seen: 90, LostKernel: 1, LostAccessLog: 2, LostObservers: 3},
	}
}

// Every metric has the value that the status says.
func TestMetrics(t *testing.T) {
	const file = "testdata/metrics.txt"
	got := text(t, full())
	if problems, err := promlint.New(strings.NewReader(got)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("names against Prometheus' conventions: %v, %v", problems, err)
	}
	same(t, file, got)
}

// Of what is not there nothing is told: a proxy that is away has no Envoys, not 0 of them.
func TestAway(t *testing.T) {
	got := text(t, &agent.Status{Node: "node-1"})
	for _, never := range []string{"fairlead_proxy_envoy", "fairlead_apiserver", `by="proxy"`, "fairlead_agent_plugin"} {
		if strings.Contains(got, never) {
			t.Errorf("it tells of %s:\n%s", never, got)
		}
	}
	for _, want := range []string{"fairlead_proxy_up 0\n", "fairlead_agent_applied 0\n", `fairlead_datapath_drops_total{reason="policy"} 0`} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %s:\n%s", want, got)
		}
	}
}

// The reference has every metric.
func TestReference(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Metrics

Each agent tells its node's on ` + "`/metrics`" + `, and what its node's Envoy counts, by Envoy's own names, on ` + "`/metrics/envoy`" + `, if
it is told where: ` + "`fairlead agent --metrics ADDRESS`" + `, ` + "`metrics.enabled`" + ` in the chart. They are of the moment when they are asked
for. Counters begin at 0 with the process that counts: the agent, the proxy; those of the kernel outlive both. An agent that
does not answer is an error to who asks: Prometheus' own ` + "`up`" + ` says so.

| Metric | Type | Labels | |
|---|---|---|---|
`)
	for _, f := range families {
		kind := "gauge"
		if f.kind == counter {
			kind = "counter"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, kind, strings.Join(f.labels, ", "), f.help)
	}
	b.WriteString(`
Beside them are those of Go's runtime and of the agent's process, as Prometheus' client library has them.

This page is written by ` + "`go test ./agent/metrics -update`" + `.
`)
	same(t, "../../docs/reference/metrics.md", b.String())
}

// text is what Prometheus is told of a status.
func text(t *testing.T, s *agent.Status) string {
	t.Helper()
	all := prometheus.NewPedanticRegistry()
	all.MustRegister(collector{s})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(all, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	return w.Body.String()
}

func same(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is not what it should be (-file +now); write it anew by -update:\n%s", file, d)
	}
}

func TestHandler(t *testing.T) {
	down := errors.New("it has not answered for 20s")
	for _, c := range []struct {
		path string
		node Node
		code int
		want string
	}{
		{"/metrics", Node{Status: func(context.Context) (*agent.Status, error) { return full(), nil }}, 200, "fairlead_agent_objects 12\n"},
		{"/metrics", Node{Status: func(context.Context) (*agent.Status, error) { return full(), nil }}, 200, "process_resident_memory_bytes"},
		{"/metrics", Node{Status: func(context.Context) (*agent.Status, error) { return nil, down }}, 503, down.Error()},
		{"/metrics/envoy", Node{Envoy: func(context.Context) ([]byte, error) { return []byte("envoy_server_live 1\n"), nil }}, 200, "envoy_server_live 1\n"},
		{"/metrics/envoy", Node{Envoy: func(context.Context) ([]byte, error) { return nil, down }}, 503, down.Error()},
		{"/", Node{}, 404, "not found"},
	} {
		w := httptest.NewRecorder()
		Handler(c.node).ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s\nwant %d %s", c.path, w.Code, w.Body, c.code, c.want)
		}
	}
}

// An address that another process has is taken as soon as it is free.
func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Serve(ctx, l.Addr().String(), Handler(Node{Envoy: func(context.Context) ([]byte, error) { return []byte("x 1\n"), nil }}), slog.New(slog.DiscardHandler))
	}()
	time.Sleep(50 * time.Millisecond) // it finds the address taken
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + l.Addr().String() + "/metrics/envoy")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}
