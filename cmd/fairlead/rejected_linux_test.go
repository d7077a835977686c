// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model"
)

func TestStatusOfRejections(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	err := printRejected(&out, []agent.Rejected{
		{Type: "RouteConfiguration", Name: "shop/web:80", Version: "v", Detail: "missing ): (b+", Since: now.Add(-182 * time.Second), Serving: agent.LastGood,
			Cause: blame.Cause{Field: "spec.http[0].match[0].uri.regex", Value: "/a(b+",
				Sources: []model.Source{{Kind: "VirtualService", Namespace: "shop", Name: "web", File: "web.yaml", Line: 8, Field: "spec.http[0].match[0].uri.regex"}}}},
		{Type: "Listener", Name: "in/http", Detail: "all ports are in use", Since: now, Serving: agent.Nothing},
	}, now)
	want := `
REJECTED
RouteConfiguration shop/web:80 for 3m2s, served: last good
    Envoy: missing ): (b+
    web.yaml:8: VirtualService shop/web spec.http[0].match[0].uri.regex
    look at spec.http[0].match[0].uri.regex: "/a(b+"
Listener in/http for 0s, served: nothing
    not rendered: all ports are in use
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, cmp.Diff(want, out.String()))
	}
	out.Reset()
	if err := printRejected(&out, nil, now); err != nil || out.Len() != 0 {
		t.Errorf("of none: %v, %q", err, out.String())
	}
}

func TestStatusOfWhatIsWaitedFor(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := &agent.Status{AckLimit: "5s", WhenProxyAbsent: agent.Bypass, BypassedSince: &at}
	for i := range waitingShown + 2 {
		s.Waiting = append(s.Waiting, agent.Waiting{Type: "Cluster", Name: fmt.Sprint("c", i), Since: at})
	}
	rows := waitingRows(s)
	if n := len(rows); n != waitingShown+2 || rows[0][1] != "Cluster c0: not acknowledged since 12:00:00, longer than 5s" || rows[n-2][1] != "2 more" ||
		rows[n-1][1] != "bypass: the kernel balances instead, since 12:00:00" {
		t.Errorf("rows %q", rows)
	}
	if rows := waitingRows(&agent.Status{WhenProxyAbsent: agent.Hold}); len(rows) != 1 || rows[0][1] != "hold" {
		t.Errorf("rows %q", rows)
	}
}

// fakeAgent answers on the API socket of a run folder.
func fakeAgent(t *testing.T, flows []hubble.Flow) (run string) {
	t.Helper()
	run = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(run, agent.Socket))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/flows" || r.URL.Query().Get("pod") != "web" || r.URL.Query().Get("last") != "2" {
			http.NotFound(w, r)
			return
		}
		for _, f := range flows {
			_ = json.NewEncoder(w).Encode(f)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return run
}

// The filter is the agents' to apply, and of all nodes the last flows are shown.
func TestObserveCountsWhatItShows(t *testing.T) {
	at := func(second int, node string) hubble.Flow {
		return hubble.Flow{Time: time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC), Node: node}
	}
	runs := []string{fakeAgent(t, []hubble.Flow{at(1, "a1"), at(4, "a4")}), fakeAgent(t, []hubble.Flow{at(2, "b2"), at(3, "b3")})}
	var out bytes.Buffer
	q := agent.FlowQuery{Last: 2}
	q.Pod = "web"
	if err := observe(t.Context(), &out, askedAt(runs), q, "table"); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Count(s, "\n") != 2 || !strings.Contains(s, "b3") || !strings.Contains(s, "a4") || strings.Index(s, "b3") > strings.Index(s, "a4") {
		t.Errorf("observed\n%s", s)
	}
}
