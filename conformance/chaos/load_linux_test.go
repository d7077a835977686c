// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/lab/load"
)

// startServers plays all pods of node-2: who answers is told by the port.
func startServers(t *testing.T, c *churn) {
	t.Helper()
	ports := maps.Clone(stillServers)
	for _, g := range c.groups {
		ports[g.service("a")], ports[g.service("b")] = g.server("a"), g.server("b")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for name, port := range ports {
		s := echo.New(echo.Facts{Pod: name, Deployment: name}, slog.New(slog.DiscardHandler))
		all.Go(func() {
			if err := s.Run(ctx, echo.Port{Number: port, Kind: "auto"}); err != nil {
				t.Errorf("server of %s: %v", name, err)
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
}

// account is of one kind of load.
type account struct {
	requests, failed atomic.Int64
	mu               sync.Mutex
	by               map[string]uint64
	first            []string // failures
}

func (a *account) fail(format string, args ...any) {
	a.failed.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.first) < 10 {
		a.first = append(a.first, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func (a *account) answered(by string) {
	a.requests.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = map[string]uint64{}
	}
	a.by[by]++
}

// still is load on what no change touches.
type still struct {
	t        *testing.T
	cancel   context.CancelFunc
	all      sync.WaitGroup
	accounts map[string]*account
}

func loadStill(t *testing.T) *still {
	ctx, cancel := context.WithCancel(context.Background())
	s := &still{t: t, cancel: cancel, accounts: map[string]*account{}}
	t.Cleanup(func() { cancel(); s.all.Wait() })
	begin := func(what string, run func(ctx context.Context, a *account)) {
		a := &account{}
		s.accounts[what] = a
		s.all.Go(func() { run(ctx, a) })
	}
	host := func(ip string) string { return net.JoinHostPort(ip, "80") }
	begin("requests to their host", requests([]string{webIP, webIP6}, "web.still", "web"))
	begin("requests to another host", requests([]string{otherIP, otherIP6}, "web.still.svc.cluster.local:80", "web"))
	begin("requests by destination", requests([]string{splitIP, splitIP6}, "whatever", "split-a", "split-b"))
	begin("forbidden requests", func(ctx context.Context, a *account) {
		repeat(ctx, a, func(r load.Result) error {
			if r.Status != 403 {
				return fmt.Errorf("forbidden: %+v", r)
			}
			return nil
		}, load.Request{URL: "http://" + host(webIP), SourceAddress: beta}, load.Request{URL: "http://" + host(webIP6), SourceAddress: beta6, KeepAlive: true, Repeat: 3},
			load.Request{URL: "http://" + host(otherIP), Host: "web.still", SourceAddress: beta})
	})
	begin("connections", func(ctx context.Context, a *account) {
		repeat(ctx, a, answeredBy("raw-a", "raw-b"), load.Request{URL: "tcp://" + rawIP + ":9000", SourceAddress: alpha}, load.Request{URL: "tcp://[" + rawIP6 + "]:9000", SourceAddress: alpha6})
	})
	begin("one connection", longConnection)
	begin("one stream of gRPC", longStream)
	return s
}

// requests sends some over connections that stay and some over fresh ones.
func requests(ips []string, host string, by ...string) func(context.Context, *account) {
	return func(ctx context.Context, a *account) {
		var urls []string
		for _, ip := range ips {
			urls = append(urls, "http://"+net.JoinHostPort(ip, "80")+"/alpha")
		}
		sum, err := load.Run(ctx, load.Options{URLs: urls, Rate: 60, Connections: 4, Fresh: 0.4, Host: host}, nil)
		if err != nil {
			a.fail("%v", err)
			return
		}
		a.requests.Store(int64(sum.Requests))
		a.by = maps.Clone(sum.By)
		if sum.Failed > 0 || sum.IdleReset > 0 {
			a.fail("failed: %v, cut: %d", sum.Failures, sum.IdleReset)
			a.failed.Store(int64(sum.Failed + sum.IdleReset))
		}
		for _, name := range by {
			if sum.By[name] == 0 {
				a.fail("nothing was answered by %s", name)
			}
			delete(sum.By, name)
		}
		if len(sum.By) > 0 {
			a.fail("wrong answers: %v", sum.By)
		}
	}
}

func answeredBy(names ...string) func(load.Result) error {
	return func(r load.Result) error {
		if r.Answer != nil {
			for _, n := range names {
				if r.Answer.Deployment == n {
					return nil
				}
			}
		}
		return fmt.Errorf("want an answer by %v: %+v", names, r)
	}
}

// repeat sends requests in turn, and judges what comes of each.
func repeat(ctx context.Context, a *account, judge func(load.Result) error, all ...load.Request) {
	for i := 0; ctx.Err() == nil; i++ {
		results, err := load.Do(context.WithoutCancel(ctx), all[i%len(all):i%len(all)+1])
		if err != nil {
			a.fail("%v", err)
			return
		}
		for _, r := range results {
			by := ""
			if r.Answer != nil {
				by = r.Answer.Deployment
			}
			a.answered(by)
			if err := judge(r); err != nil {
				a.fail("%v", err)
			}
		}
		sleep(ctx, 15*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// longConnection talks all the time over one connection.
func longConnection(ctx context.Context, a *account) {
	c, err := net.DialTimeout("tcp", rawIP+":9000", patience)
	if err != nil {
		a.fail("%v", err)
		return
	}
	defer c.Close()
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("ping %d", n)
		got := make([]byte, len(text))
		c.SetDeadline(time.Now().Add(patience))
		_, err := io.WriteString(c, text)
		if err == nil {
			_, err = io.ReadFull(c, got)
		}
		if err != nil || string(got) != text {
			a.fail("message %d: %q %v", n, got, err)
			return
		}
		a.answered("raw")
		sleep(ctx, 50*time.Millisecond)
	}
}

// longStream talks all the time over one stream of gRPC.
func longStream(ctx context.Context, a *account) {
	err := func() error {
		conn, err := grpc.NewClient("passthrough:"+rpcIP+":80", grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		stream, err := conn.NewStream(context.WithoutCancel(ctx), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/a.Service/Stream")
		if err != nil {
			return err
		}
		for ctx.Err() == nil {
			var got wrapperspb.StringValue
			if err := stream.SendMsg(&wrapperspb.StringValue{Value: "hello"}); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if err := stream.RecvMsg(&got); err != nil {
				return err
			}
			if !strings.Contains(got.Value, `"deployment":"rpc"`) {
				return fmt.Errorf("answer %s", got.Value)
			}
			a.answered("rpc")
			sleep(ctx, 50*time.Millisecond)
		}
		return nil
	}()
	if err != nil {
		a.fail("%v", err)
	}
}

// end stops the load and looks at the accounts.
func (s *still) end() {
	s.t.Helper()
	s.cancel()
	s.all.Wait()
	for _, what := range slices.Sorted(maps.Keys(s.accounts)) {
		a := s.accounts[what]
		s.t.Logf("%s: %d, %d failed; answered by %v", what, a.requests.Load(), a.failed.Load(), a.by)
		if a.failed.Load() > 0 || a.requests.Load() < 20 {
			s.t.Errorf("%s: %d of %d failed: %s", what, a.failed.Load(), a.requests.Load(), strings.Join(a.first, "\n"))
		}
	}
}

// walk asks for services that change, at random, until the context ends: so Envoy
// takes up what changes and lets it go. Nobody but their own backends may answer.
type walk struct {
	kernel *kernel
	owner  map[netip.Addr]*group

	asked    atomic.Int64
	mu       sync.Mutex
	statuses map[string]int
	wrong    []string
}

func newWalk(k *kernel, c *churn) *walk {
	w := &walk{kernel: k, owner: map[netip.Addr]*group{}, statuses: map[string]int{}}
	for _, g := range c.groups {
		for _, ab := range []string{"a", "b"} {
			v4, v6 := g.ip(ab)
			w.owner[netip.MustParseAddr(v4)], w.owner[netip.MustParseAddr(v6)] = g, g
		}
	}
	return w
}

func (w *walk) run(ctx context.Context, rng *rand.Rand) {
	paths := []string{"/", "/x/y", "/v1/7", "/alpha"}
	for ; ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		all := w.kernel.paths()
		at := all[rng.IntN(len(all))]
		g := w.owner[at.to.Addr()]
		if g == nil {
			continue
		}
		req := load.Request{URL: "http://" + at.to.String() + paths[rng.IntN(len(paths))], SourceAddress: at.from.String(), Timeout: "2s",
			Headers: map[string]string{"x-user": fmt.Sprint("u-", rng.IntN(10))}}
		if rng.IntN(4) == 0 { // by another name than that of the address, or by the same one
			req.Host = g.service([]string{"a", "b"}[rng.IntN(2)]) + "." + g.ns
		}
		results, err := load.Do(context.WithoutCancel(ctx), []load.Request{req})
		w.asked.Add(1)
		w.mu.Lock()
		for _, r := range results {
			key := r.Error
			if r.Status != 0 {
				key = fmt.Sprint(r.Status)
			}
			w.statuses[key]++
			if r.Answer != nil && r.Answer.Deployment != g.service("a") && r.Answer.Deployment != g.service("b") {
				w.wrong = append(w.wrong, fmt.Sprintf("%+v was answered by %s", req, r.Answer.Deployment))
			}
		}
		if err != nil {
			w.wrong = append(w.wrong, err.Error())
		}
		w.mu.Unlock()
	}
}

// askAll asks for everything that there is, once.
func (k *kernel) askAll() {
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, at := range k.paths() {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			scheme := "http"
			if at.to.Port() == 9000 {
				scheme = "tcp"
			}
			_, _ = load.Do(context.Background(), []load.Request{{URL: scheme + "://" + at.to.String(), SourceAddress: at.from.String(), Timeout: "3s"}}) // to ask is enough
		})
	}
	all.Wait()
}
