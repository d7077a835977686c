// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/serve"
)

// subject is a layout that a running Envoy has.
type subject struct {
	b      *testing.B
	layout layout
	n      int // services, those added included
	held   map[[2]string]xds.Resource

	dir    string
	socket string        // that resources are fed into
	feed   *serve.Server // what feeds them
	unfeed func()
	envoy  *envoy // the one that serves, as last looked up

	// find looks up the Envoy that serves.
	find func() *envoy
	// crash kills the Envoy that serves and has another one started.
	crash func()
	// sent is what Envoys were sent so far.
	sent func() serve.Counters

	startedAt time.Time
}

// startOurs runs the product on n services: an agent's side that feeds the node proxy,
// which runs its Envoy.
func startOurs(b *testing.B, n int, standby bool) *subject {
	b.Helper()
	return startProxy(b, ours{b}, n, standby, flip)
}

// startProxy is the same with another layout and redirect.
func startProxy(b *testing.B, l layout, n int, standby bool, flip func(bank int) error) *subject {
	b.Helper()
	s := newSubject(b, l, n)
	s.socket = proxy.PathsIn(s.dir).Feed
	s.startFeed(-1)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	s.startedAt = time.Now()
	go func() {
		ended <- proxy.Run(ctx, proxy.Options{
			Node: "n1", RunDir: s.dir, EnvoyPath: need.Envoy(b), Concurrency: workers,
			DrainTime: 2 * time.Second, Standby: standby, Flip: flip,
		})
	}()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("proxy: %v", err)
		}
	})
	s.find = func() *envoy {
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			st, err := proxy.ReadStatus(b.Context(), s.dir)
			if err != nil {
				continue
			}
			for _, g := range st.Generations {
				if g.Role == proxy.Active && g.Ready {
					return &envoy{b, g.PID, proxy.PathsIn(s.dir).Admin[g.Bank]}
				}
			}
		}
		b.Fatal("no Envoy serves")
		return nil
	}
	s.crash = func() { s.kill() }
	s.sent = func() serve.Counters { return s.status().Served.Counters }
	return s
}

// startPlain runs an Envoy that has all of a layout from the server that feeds it.
func startPlain(b *testing.B, l layout, n int) *subject {
	b.Helper()
	s := startPlainFeed(b, l, n)
	s.startedAt = time.Now()
	start := func() (*envoy, *exec.Cmd) { return s.runPlain("envoy") }
	e, cmd := start()
	s.find = func() *envoy { return e }
	s.crash = func() {
		end(cmd)
		e, cmd = start()
	}
	s.sent = func() serve.Counters { return s.feed.Counters() }
	return s
}

// startPlainFeed is the server of a layout's resources, without an Envoy.
func startPlainFeed(b *testing.B, l layout, n int) *subject {
	b.Helper()
	s := newSubject(b, l, n)
	paths := proxy.PathsIn(s.dir)
	if err := os.Mkdir(paths.Envoy, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.Chown(paths.Envoy, proxy.DefaultUID, proxy.DefaultUID); err != nil {
		b.Fatal(err)
	}
	s.socket = paths.XDS[0]
	s.startFeed(proxy.DefaultUID)
	return s
}

// runPlain starts an Envoy of that server. Its files have a name of its own.
func (s *subject) runPlain(name string) (*envoy, *exec.Cmd) {
	s.b.Helper()
	paths := proxy.PathsIn(s.dir)
	paths.Admin[0] = filepath.Join(filepath.Dir(paths.Admin[0]), name+".sock")
	bootstrap, err := proxy.Bootstrap("n1", 0, paths)
	if err != nil {
		s.b.Fatal(err)
	}
	config := filepath.Join(s.dir, name+".json")
	if err := os.WriteFile(config, bootstrap, 0o644); err != nil {
		s.b.Fatal(err)
	}
	return run(s.b, config, paths.Admin[0])
}

func newSubject(b *testing.B, l layout, n int) *subject {
	b.Helper()
	needNetwork(b)
	s := &subject{b: b, layout: l, n: n, dir: folder(b), held: map[[2]string]xds.Resource{}}
	for _, r := range l.all(n) {
		s.held[[2]string{r.Type, r.Name}] = r
	}
	b.Cleanup(func() { s.unfeed() })
	s.takeAccessLogs()
	return s
}

// takeAccessLogs is the agent's part: Envoy's logs are read, and forgotten.
func (s *subject) takeAccessLogs() {
	logs := accesslog.New(1000)
	g := grpc.NewServer()
	logs.Register(g)
	l, err := proxy.Listen(proxy.PathsIn(s.dir).AccessLog, proxy.DefaultUID)
	if err != nil {
		s.b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = g.Serve(l) }) // until it is stopped
	all.Go(func() {
		for {
			select {
			case <-logs.Records():
			case <-ctx.Done():
				return
			}
		}
	})
	s.b.Cleanup(func() { cancel(); g.Stop(); all.Wait() })
}

// startFeed makes a new feed of everything there is.
func (s *subject) startFeed(uid int) {
	s.b.Helper()
	all := make([]xds.Resource, 0, len(s.held))
	for _, r := range s.held {
		all = append(all, r)
	}
	s.feed = serve.New(serve.Options{StandIn: proxy.StandIn}, all)
	g := grpc.NewServer(serve.GRPCOptions()...)
	s.feed.Register(g)
	l, err := proxy.Listen(s.socket, uid)
	if err != nil {
		s.b.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { _ = g.Serve(l) }) // until it is stopped
	s.unfeed = func() { g.Stop(); done.Wait() }
}

// reconnect has the feed come back as that of an agent that was started anew.
func (s *subject) reconnect() {
	s.b.Helper()
	uid := proxy.DefaultUID
	if s.ours() {
		uid = -1
	}
	s.unfeed()
	s.startFeed(uid)
}

func (s *subject) ours() bool { _, is := s.layout.(ours); return is }

func (s *subject) status() proxy.Status {
	s.b.Helper()
	st, err := proxy.ReadStatus(s.b.Context(), s.dir)
	if err != nil {
		s.b.Fatal(err)
	}
	return st
}

// memoryOfBoth waits until two Envoys are ready, and is their resident memory in MB.
func (s *subject) memoryOfBoth() float64 {
	s.b.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		sum := 0
		for _, g := range s.status().Generations {
			if !g.Ready {
				sum = 0
				break
			}
			e := &envoy{s.b, g.PID, proxy.PathsIn(s.dir).Admin[g.Bank]}
			e.settle()
			sum += e.rss()
		}
		if len(s.status().Generations) == proxy.Banks && sum > 0 {
			return mb(sum)
		}
	}
	s.b.Fatal("no second Envoy")
	return 0
}

func (s *subject) kill() {
	s.b.Helper()
	if err := syscall.Kill(s.envoy.pid, syscall.SIGKILL); err != nil {
		s.b.Fatal(err)
	}
}

// push feeds resources and returns when Envoy has answered.
func (s *subject) push(rs ...xds.Resource) {
	s.b.Helper()
	s.pushing(rs...)()
}

// pushing feeds resources; the returned function waits until Envoy has answered. For
// listeners it does not: the feed waits for the scopes of those, and other layouts have
// none.
func (s *subject) pushing(rs ...xds.Resource) (wait func()) {
	done := make(chan error, 1)
	var first, listeners []serve.Change
	for _, c := range s.changes(rs) {
		if c.Type == xds.ListenerType {
			listeners = append(listeners, c)
		} else {
			first = append(first, c)
		}
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		o, err := s.feed.Push(ctx, first)
		if err == nil && len(o.Rejected) > 0 {
			err = fmt.Errorf("rejected: %+v", o.Rejected)
		}
		s.feed.Apply(listeners, nil)
		done <- err
	}()
	return func() {
		s.b.Helper()
		if err := <-done; err != nil {
			s.b.Fatal(err)
		}
	}
}

func (s *subject) changes(rs []xds.Resource) []serve.Change {
	var all []serve.Change
	for _, r := range rs {
		s.held[[2]string{r.Type, r.Name}] = r
		all = append(all, serve.Set(r))
	}
	return all
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(int(q*float64(len(v))), len(v)-1)]
}
