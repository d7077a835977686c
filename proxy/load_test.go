// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/serve"
)

// load keeps requests for a path going, over connections that stay and over fresh
// ones, in both families, until stopped. Anything but 200 is a failure.
type load struct {
	sent, failed atomic.Int64
	stop         func()
}

// fail counts a failure, and tells of the first ones.
func (l *load) fail(t testing.TB, format string, args ...any) {
	if l.failed.Add(1) <= 20 {
		t.Logf(format, args...)
	}
}

func (r *rig) load(n int, path string) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	l.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	r.t.Cleanup(l.stop)
	one := func(from, dst string, keep bool) {
		var c net.Conn
		var br *bufio.Reader
		for ctx.Err() == nil {
			if c == nil {
				var err error
				if c, err = dialer(from).Dial("tcp", dst); err != nil {
					l.fail(r.t, "dial: %v", err)
					continue
				}
				c.SetDeadline(time.Now().Add(30 * time.Second))
				br = bufio.NewReader(c)
			}
			l.sent.Add(1)
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nhost: web\r\n\r\n", path)
			resp, err := http.ReadResponse(br, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err != nil || resp.StatusCode != 200 {
				l.fail(r.t, "request: %+v %v", resp, err)
			}
			if err != nil || !keep || resp.Close {
				c.Close()
				c = nil
			}
			time.Sleep(2 * time.Millisecond)
		}
		if c != nil {
			c.Close()
		}
	}
	for _, keep := range []bool{true, false} {
		for range 2 {
			all.Go(func() { one(alpha, vip(n), keep) })
			all.Go(func() { one(alpha6, vip6(n), keep) })
		}
	}
	return l
}

// TestChangesUnderLoad: policy, endpoints, clusters and routes change while
// requests flow; none fails, and none that is forbidden gets through.
func TestChangesUnderLoad(t *testing.T) {
	r := newRig(t)
	var leaked atomic.Int64
	watch := func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/forbidden" {
			leaked.Add(1)
		}
		return false
	}
	server(t, serverA, watch)
	server(t, serverA6, watch)
	server(t, serverB, watch)
	policy := func(v int) *plan.Policy {
		return allow(model.AuthRule{From: identity(alphaID), To: paths(model.Exact, "/ok", fmt.Sprintf("/v%d", v))})
	}
	both, one := serverA+" "+serverA6, []string{serverA + " " + serverA6, serverB}
	// serverB has no v6 address: a v6 client's request for it fails, so it is only
	// ever a backend beside the other, for the change of endpoints, of clients by v4.
	r.push(rows(clusterOf(plan.Cluster{Name: "c0", Policy: policy(0), Checked: true}, both), service(1, to("c0")),
		clusterOf(plan.Cluster{Name: "v4", Policy: policy(0), Checked: true}, one...), service(2, to("v4")), listeners())...)
	r.wantStatus(1, 403)
	l := r.load(1, "/ok")
	probing, stop := context.WithCancel(t.Context())
	var prober sync.WaitGroup
	prober.Go(func() {
		for probing.Err() == nil {
			got, err := rawRequest(t.Context(), alpha, vip(1), "GET /forbidden HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
			if err != nil || got.Status != 403 {
				t.Errorf("forbidden request: %d %v", got.Status, err)
			}
		}
	})
	for v := range 60 {
		name := fmt.Sprintf("c%d", v)
		next := fmt.Sprintf("c%d", v+1)
		r.push(clusterOf(plan.Cluster{Name: name, Policy: policy(v + 1), Checked: true}, both)...)
		if got := r.get(alpha, vip(1), fmt.Sprintf("/v%d", v+1)); got.Status != 200 {
			t.Errorf("a permission that was pushed does not hold: %d", got.Status)
		}
		r.push(clusterOf(plan.Cluster{Name: "v4", Policy: policy(v + 1), Checked: true}, one[v%2])...)
		if got := r.get(alpha, vip(2), "/ok"); got.Status != 200 {
			t.Errorf("endpoints that were pushed are not there: %d", got.Status)
		}
		// To a new cluster, in one push with the end of the old one.
		var changes []serve.Change
		for _, res := range resources(t, rows(clusterOf(plan.Cluster{Name: next, Policy: policy(v + 1), Checked: true}, both), service(1, to(next)))...) {
			changes = append(changes, serve.Set(res))
		}
		for _, res := range resources(t, clusterOf(plan.Cluster{Name: name}, both)...) {
			changes = append(changes, serve.Change{Type: res.Type, Name: res.Name})
		}
		slices.Reverse(changes)
		if o, err := r.agent.Push(t.Context(), changes); err != nil || len(o.Rejected) > 0 {
			t.Fatal(o, err)
		}
	}
	stop()
	prober.Wait()
	l.stop()
	if n := l.failed.Load(); n > 0 || l.sent.Load() < 100 {
		t.Errorf("%d of %d requests failed", n, l.sent.Load())
	}
	if n := leaked.Load(); n > 0 {
		t.Errorf("%d forbidden requests got through", n)
	}
	t.Logf("%d requests", l.sent.Load())
}

func TestGRPC(t *testing.T) {
	r := newRig(t)
	ln, err := net.Listen("tcp", serverA)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, health.NewServer())
	var done sync.WaitGroup
	done.Go(func() { g.Serve(ln) })
	t.Cleanup(func() { g.Stop(); done.Wait() })
	r.push(rows(
		clusterOf(plan.Cluster{Name: "open", App: model.AppGRPC}, serverA), service(1, to("open")),
		clusterOf(plan.Cluster{Name: "shut", App: model.AppGRPC, Policy: allow()}, serverA), service(2, to("shut")),
		listeners())...)
	for n, want := range map[int]codes.Code{1: codes.OK, 2: codes.PermissionDenied} {
		conn, err := grpc.NewClient("passthrough:"+vip(n), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
				return dialer(alpha).DialContext(ctx, "tcp", a)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if got := status.Code(err); got != want {
			t.Errorf("service %d: %v, want %v", n, err, want)
		}
	}
}

// TestSameAgainCostsNothing: what is the same is sent to nobody.
func TestSameAgainCostsNothing(t *testing.T) {
	r := newRig(t)
	all := rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners())
	r.push(all...)
	feed, served := r.agent.Counters(), r.status().Served.Counters
	for range 100 {
		r.push(all...)
	}
	if _, err := r.agent.Sync(t.Context(), resources(t, all...)); err != nil {
		t.Fatal(err)
	}
	if r.agent.Counters() != feed || r.status().Served.Counters != served {
		t.Errorf("%+v %+v, before %+v %+v", r.agent.Counters(), r.status().Served.Counters, feed, served)
	}
}

func TestOneProxyPerFolder(t *testing.T) {
	r := newRig(t)
	err := Run(t.Context(), Options{Node: "n2", RunDir: r.dir, EnvoyPath: "/bin/true"})
	if err == nil || !strings.HasPrefix(err.Error(), "run proxy: lock run folder: another proxy runs on "+r.dir+", in the same pid namespace") {
		t.Errorf("error %v", err)
	}
}
