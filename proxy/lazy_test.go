// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// sleepy is a server that answers a path "/1s" after that time.
func sleepy(w http.ResponseWriter, q *http.Request) bool {
	if d, err := time.ParseDuration(strings.TrimPrefix(q.URL.Path, "/")); err == nil {
		w.(http.Flusher).Flush()
		select {
		case <-time.After(d):
		case <-q.Context().Done():
		}
	}
	return false
}

// has are the route tables and the clusters of services that the Envoy in a bank has.
func (r *rig) has(bank int) (tables, clusters []string) {
	r.t.Helper()
	a := newAdmin(PathsIn(r.dir).Admin[bank])
	byName, err := a.routeTables(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range byName {
		n, _, _ = strings.Cut(n, "~")
		tables = append(tables, n)
	}
	use, err := a.usage(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range use {
		if strings.HasPrefix(n, "c-") {
			clusters = append(clusters, n)
		}
	}
	slices.Sort(tables)
	slices.Sort(clusters)
	return slices.Compact(tables), clusters
}

// services are n of them, each with a cluster of its own.
func services(n int) (all []any) {
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("c-%d", i)
		all = append(all, clusterOf(plan.Cluster{Name: name}, serverA+" "+serverA6)...)
		all = append(all, service(i, to(name))...)
	}
	return all
}

// TestEvictsUnderLoad: what nobody uses goes, with its clusters; what is used, or has
// a long request under way, stays; and what went is back with the next request. None
// of them fails.
func TestEvictsUnderLoad(t *testing.T) {
	r := newRigWith(t, Options{EvictAfter: time.Second})
	server(t, serverA, sleepy)
	server(t, serverA6, nil)
	answers := plan.Route{ID: "direct", Direct: &model.Direct{Status: 200, Body: "hello"}}
	r.push(rows(services(3), service(4, answers), clusterOf(plan.Cluster{Name: "c-5"}, serverA), service(5, to("c-5")), listeners())...)
	if tables, clusters := r.has(0); tables != nil || clusters != nil {
		t.Errorf("before any request: %q %q", tables, clusters)
	}
	l := r.load(1, "/")
	for n := 2; n <= 4; n++ {
		r.wantStatus(n, 200)
	}
	long := make(chan error, 1)
	go func() {
		got, err := rawRequest(t.Context(), alpha, vip(3), "GET /4s HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
		if err == nil && (got.Status != 200 || got.Server != serverA) {
			err = fmt.Errorf("answer %+v", got)
		}
		long <- err
	}()
	want := func(when string, tables, clusters []string) {
		t.Helper()
		var gotTables, gotClusters []string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			gotTables, gotClusters = r.has(0)
			if slices.Equal(gotTables, tables) && slices.Equal(gotClusters, clusters) {
				return
			}
		}
		t.Fatalf("%s: tables %q, clusters %q", when, gotTables, gotClusters)
	}
	want("all that was asked for", []string{"svc-1", "svc-2", "svc-3", "svc-4"}, []string{"c-1", "c-2", "c-3"})
	want("what is used", []string{"svc-1", "svc-3"}, []string{"c-1", "c-3"})
	r.waitFor("status", func() bool { s := r.status(); return s.InUse == 2 && s.Evicted == 2 })
	for n := 2; n <= 4; n++ {
		r.wantStatus(n, 200)
	}
	if err := <-long; err != nil {
		t.Errorf("the long request: %v", err)
	}
	want("what is used at last", []string{"svc-1"}, []string{"c-1"})
	l.wantNone(t)
	r.waitFor("status", func() bool { s := r.status(); return s.InUse == 1 && s.Evicted == 5 })
}

// TestEvictionRaces: requests come for services that are just about to go.
func TestEvictionRaces(t *testing.T) {
	const limit = 100 * time.Millisecond
	r := newRigWith(t, Options{EvictAfter: limit})
	server(t, serverA, sleepy)
	server(t, serverA6, nil)
	const n = 20
	r.push(rows(services(n), listeners())...)
	var all sync.WaitGroup
	var sent, failed atomic.Int64
	end := time.Now().Add(4 * time.Second)
	for i := 1; i <= n; i++ {
		all.Go(func() {
			for time.Now().Before(end) {
				path := []string{"/", "/", "/20ms"}[rand.IntN(3)]
				got, err := rawRequest(t.Context(), alpha, vip(i), "GET "+path+" HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
				if sent.Add(1); err != nil || got.Status != 200 {
					failed.Add(1)
					t.Errorf("service %d: %d %s %v", i, got.Status, got.Body, err)
				}
				time.Sleep(limit/2 + rand.N(2*limit))
			}
		})
	}
	all.Wait()
	s := r.status()
	if failed.Load() > 0 || s.Evicted < 50 {
		t.Errorf("%d of %d requests failed, %d evicted", failed.Load(), sent.Load(), s.Evicted)
	}
	t.Logf("%d requests, %d evicted", sent.Load(), s.Evicted)
}

// TestNewEnvoyIsWarm: an Envoy that follows another one has what that one used before
// the first request, and no more; also after a restart of everything.
func TestNewEnvoyIsWarm(t *testing.T) {
	r := newRigWith(t, flipping(t))
	server(t, serverA, nil)
	server(t, serverA6, nil)
	r.push(rows(services(6), listeners())...)
	r.wantStatus(2, 200)
	r.wantStatus(5, 200)
	warm := func(when string, bank int) {
		t.Helper()
		tables, clusters := r.has(bank)
		if !slices.Equal(tables, []string{"svc-2", "svc-5"}) || !slices.Equal(clusters, []string{"c-2", "c-5"}) {
			t.Errorf("%s: %q %q", when, tables, clusters)
		}
	}
	warm("in use", 0)
	if done := r.replace(true); done.State != ReplacementDone {
		t.Errorf("%+v", done)
	}
	warm("next", 1)

	pid := r.alone().PID
	r.kill(pid)
	r.another(pid)
	r.alone()
	warm("restarted", 1)

	r.stop()
	r.startProxy(need.Envoy(t))
	r.alone()
	warm("all restarted", 1)
	r.stop()
	r.feed.Stop()
	r.startProxy(need.Envoy(t))
	r.alone()
	warm("without the agent", 1)
	r.wantStatus(3, 200)
}
