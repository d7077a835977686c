// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// strictEnvoy is an Envoy that rejects regular expressions of more than 100
// instructions, which are few; the user that Envoys run as can read it.
func strictEnvoy(t *testing.T) []byte {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(need.Envoy(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "envoy")
	writeBinary(t, path, b)
	limit := `{"layered_runtime": {"layers": [{"name": "strict", "static_layer": {"re2.max_program_size.error_level": 100}}]}}`
	return fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\" --config-yaml '%s'\n", path, limit)
}

// TestEnvoysDiffer: an Envoy that rejects what the one before it serves does not take
// over, unless it is told to; then each goes by what it takes itself, and the agent
// hears of it when the other one is gone.
func TestEnvoysDiffer(t *testing.T) {
	path := linkEnvoy(t)
	opts := flipping(t)
	opts.EnvoyPath, opts.DrainTime = path, 4*time.Second
	r := newRigWith(t, opts)
	server(t, serverA, nil)
	server(t, serverA6, nil)
	long := to("a")
	long.ID, long.Match = "long", pathMatch(model.Regex, "/(a{40}|b{40}|c{40})")
	table := service(1, long, to("a"))
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA+" "+serverA6), table, service(2, to("a")), listeners())...)
	r.wantStatus(1, 200)
	r.wantStatus(2, 200)
	first := r.alone()
	l := r.load(1, "/")

	writeBinary(t, path, strictEnvoy(t))
	done := r.replace(false)
	if done.State != ReplacementFailed || !strings.HasPrefix(done.Error, "the new envoy rejects what the one that serves accepts: RouteConfiguration svc-1: ") {
		t.Errorf("%+v", done)
	}
	r.waitFor("end of the new one", func() bool { s := r.status(); return len(s.Generations) == 1 && len(s.Served.Rejected) == 0 })
	if g := r.alone(); g.PID != first.PID {
		t.Errorf("first %+v, then %+v", first, g)
	}
	if bad := r.agent.Status().Rejected; len(bad) > 0 {
		t.Errorf("the agent was told of %+v", bad)
	}
	l.wantNone(t)

	kept, err := dialer(alpha).Dial("tcp", vip(1))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	ask := func() int {
		t.Helper()
		fmt.Fprint(kept, "GET / HTTP/1.1\r\nhost: web\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(kept), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := ask(); got != 200 {
		t.Error(got)
	}
	if done := r.replace(true); done.State != ReplacementDone {
		t.Fatalf("%+v", done)
	}
	bad := r.status().Served.Rejected
	if len(bad) != 1 || bad[0].Name != "svc-1" || !slices.Equal(bad[0].Clients, []string{"bank 1"}) || !slices.Equal(bad[0].Accepted, []string{"bank 0"}) {
		t.Errorf("rejected %+v", bad)
	}
	r.wantStatus(1, 500)
	r.wantStatus(2, 200)
	if got := ask(); got != 200 {
		t.Errorf("the old one answers %d while it drains", got)
	}
	r.waitFor("the agent to know", func() bool {
		bad := r.agent.Status().Rejected
		return len(bad) == 1 && bad[0].Name == "svc-1" && strings.Contains(bad[0].Detail, "regex")
	})
	r.alone()
	r.wantStatus(1, 500)
	r.push(service(1, to("a"))...)
	r.wantStatus(1, 200)
}
