// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators/objects"
)

// serveHTTP serves on a unix socket until the test ends.
func serveHTTP(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
}

// The agent says what the command line says of the same files, and what it knows
// beyond that.
func TestExplainFromARunningAgent(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "policy.yaml": thePolicy})
	r.opts.RunDir = t.TempDir()
	r.reload(t.Context())
	r.reject = badRegex
	r.write("routes.yaml", theRoutes)
	r.reload(t.Context())

	offline, err := pipeline.New(pipeline.Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	offline.Load(objects.Files([]string{r.opts.Source}, nil)...)
	target := explain.Target{Namespace: "shop", Name: "web"}
	want, err := explain.Explain(offline, target)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	socket := filepath.Join(r.opts.RunDir, Socket)
	go func() { done <- serveAPI(ctx, socket, answers{explain: r.explain}, r.flows) }()
	c := NewClient(socket)
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.http.CloseIdleConnections()
	}()
	var got *Explanation
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) { // until it listens
		if got, err = c.Explain(ctx, target); err == nil || !strings.Contains(err.Error(), "is it running") || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if a, b := asJSON(t, got.Answer), asJSON(t, want); a != b {
		t.Errorf("the agent says\n%s\nthe command line\n%s", a, b)
	}
	if len(got.Frontends) != 1 || got.Pod == nil || !got.Pod.Local || got.Node != "n1" {
		t.Errorf("answer %+v", got.Answer)
	}
	live := got.Live
	if live == nil || len(live.Rejected) != 1 || live.Rejected[0].Field != "spec.http[0].match[0].uri.regex" || live.InUseError == "" || len(live.InUse) != 0 {
		t.Fatalf("live %+v", live)
	}
	if port := live.Ports[got.Pod.Listeners["http"]]; !inRange(port) || len(live.Ports) != 1 {
		t.Errorf("ports %v", live.Ports)
	}
	if _, err := c.Explain(ctx, explain.Target{Namespace: "shop", Name: "none"}); err == nil || err.Error() != "there is no service, host or pod shop/none; there are shop/web" {
		t.Errorf("error %v", err)
	}

	// With a proxy it is known what is in use.
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	mux.HandleFunc("/in-use", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`["shop/other:80", "shop/web:80"]`))
	})
	serveHTTP(t, proxy.PathsIn(r.opts.RunDir).Control, mux)
	if got, err = c.Explain(ctx, target); err != nil || !reflect.DeepEqual(got.Live.InUse, []string{"shop/web:80"}) || got.Live.InUseError != "" {
		t.Errorf("live %+v, %v", got.Live, err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
