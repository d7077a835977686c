// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
)

// world is the lab.
type world struct{ *twonodes.Lab }

// lives returns the lab with the application in it, which goes with the test.
func lives(t *testing.T) *world {
	t.Helper()
	w := &world{twonodes.Lives(t)}
	app := app(t)
	t.Cleanup(func() {
		w.mend(t) // as long as an agent is dead, nothing can be taken away
		w.Change(t, lab.Delete, app)
	})
	w.Change(t, lab.Apply, app)
	w.awaitEnvoys(t)
	return w
}

func app(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("app.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// mend starts what a test has left dead.
func (w *world) mend(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*twonodes.Patience)
	defer cancel()
	for _, node := range w.Nodes() {
		for _, what := range []string{"agent", "proxy"} {
			if err := lab.Start(ctx, w.Name, node, what); err != nil {
				t.Errorf("start %s of %s: %v", what, node, err)
			}
		}
	}
	if err := w.Applied(ctx); err != nil {
		t.Error(err)
	}
	w.awaitEnvoys(t)
}

// awaitEnvoys waits until each node has an Envoy that serves.
func (w *world) awaitEnvoys(t *testing.T) {
	t.Helper()
	for _, node := range w.Nodes() {
		w.awaitStatus(t, node, "an Envoy that serves", func(s *status) bool {
			return s.Proxy != nil && s.Proxy.Envoy.Connected && s.Proxy.Envoy.State == "LIVE"
		})
	}
}

// Kinds of streams: which part of the node they need.
const (
	byKernel = "kernel" // nothing but the kernel
	byProxy  = "proxy"  // Envoy, too
)

// storm is load of every kind from both nodes, and requests that must not come through.
type storm struct {
	t       *testing.T
	began   time.Time
	clients map[string]func() traffic.Result
}

func (w *world) storm(t *testing.T) *storm {
	t.Helper()
	s := &storm{t: t, began: time.Now(), clients: map[string]func() traffic.Result{}}
	for i, on := range []string{"a", "b"} {
		six := i == 1
		at := func(service string, port int) string {
			return netip.AddrPortFrom(w.Address(t, "faults", service, six), uint16(port)).String()
		}
		back := []string{"back-a", "back-b"}
		const ms = time.Millisecond
		s.clients["client-"+on] = w.Client(t, "faults/client-"+on, []traffic.Stream{
			{Name: byProxy + " kept", Addr: at("web", 80), Host: "web", Method: "GET", Path: "/api/x", Keep: true, Workers: 4, Every: 25 * ms, Want: 200, By: back},
			{Name: byProxy + " fresh", Addr: at("web", 80), Host: "web", Method: "GET", Path: "/api/x", Workers: 3, Every: 60 * ms, Want: 200, By: back},
			{Name: byProxy + " streams", Kind: traffic.GRPC, Addr: at("rpc", 80), Host: "rpc", Keep: true, Last: 5 * time.Second, Workers: 4, Every: 40 * ms},
			{Name: byKernel + " long", Kind: traffic.TCP, Addr: at("raw", 9000), Keep: true, Workers: 4, Every: 20 * ms},
			{Name: byKernel + " fresh", Kind: traffic.TCP, Addr: at("raw", 9000), Workers: 3, Every: 40 * ms},
			{Name: byKernel + " datagrams", Kind: traffic.UDP, Addr: at("names", 53), Keep: true, Workers: 3, Every: 25 * ms, Timeout: 2 * time.Second},
		})
		s.clients["forbidden-"+on] = w.Client(t, "faults/client-"+on, []traffic.Stream{
			{Name: "forbidden path", Addr: at("web", 80), Host: "web", Method: "GET", Path: "/private", Keep: true, Workers: 1, Every: 50 * ms, Forbid: true},
			{Name: "forbidden method", Addr: at("web", 80), Host: "web", Method: "DELETE", Path: "/api/x", Workers: 1, Every: 80 * ms, Timeout: time.Second, Forbid: true},
		})
		pod := netip.AddrPortFrom(w.podAddress(t, "back-b", six), 8080).String()
		s.clients["stranger-"+on] = w.Client(t, "faults/stranger-"+on, []traffic.Stream{
			{Name: "forbidden identity", Addr: at("web", 80), Host: "web", Method: "GET", Path: "/api/x", Keep: true, Workers: 1, Every: 50 * ms, Timeout: time.Second, Forbid: true},
			{Name: "forbidden identity by stream", Kind: traffic.GRPC, Addr: at("rpc", 80), Host: "rpc", Keep: true, Workers: 1, Every: 100 * ms, Timeout: time.Second, Forbid: true},
			{Name: "forbidden identity at a pod", Addr: pod, Host: "web", Method: "GET", Path: "/api/x", Workers: 1, Every: 80 * ms, Timeout: 500 * ms, Forbid: true},
			{Name: "forbidden identity over TCP", Kind: traffic.TCP, Addr: at("raw", 9000), Workers: 1, Every: 50 * ms, Timeout: 300 * ms, Forbid: true},
			{Name: "forbidden identity over UDP", Kind: traffic.UDP, Addr: at("names", 53), Keep: true, Workers: 1, Every: 50 * ms, Timeout: 200 * ms, Forbid: true},
		})
	}
	time.Sleep(time.Second) // connections are open
	return s
}

// podAddress is of the first pod of a Deployment.
func (w *world) podAddress(t *testing.T, deployment string, six bool) netip.Addr {
	t.Helper()
	for _, p := range w.Status.Pods {
		if p.Namespace == "faults" && p.Workload == deployment {
			for _, a := range p.Addresses {
				if a.Is6() == six {
					return a
				}
			}
		}
	}
	t.Fatalf("no pod of %s", deployment)
	return netip.Addr{}
}

// account is what came of a storm.
type account struct {
	t       *testing.T
	sent    map[string]int
	failed  []traffic.Failure
	slowest time.Duration
	rate    float64
}

// end stops the load. What was forbidden and came through fails the test, always.
func (s *storm) end() *account {
	s.t.Helper()
	a := &account{t: s.t, sent: map[string]int{}}
	total := 0
	took := time.Since(s.began)
	for _, who := range slices.Sorted(maps.Keys(s.clients)) {
		r := s.clients[who]()
		for name, n := range r.Sent {
			a.sent[name] += n
			total += n
			if n < 5 {
				s.t.Errorf("%s: just %d %s", who, n, name)
			}
		}
		for i, v := range r.Violations {
			if i < 5 {
				s.t.Errorf("FORBIDDEN, and came through: %s: %v", who, v)
			}
		}
		if n := len(r.Violations); n > 0 {
			s.t.Errorf("%s: %d that are forbidden came through", who, n)
		}
		for _, f := range r.Failures {
			f.Stream = who + " " + f.Stream
			a.failed = append(a.failed, f)
		}
		a.slowest = max(a.slowest, r.Slowest)
	}
	slices.SortFunc(a.failed, func(x, y traffic.Failure) int {
		return cmp.Or(x.Began.Compare(y.Began), cmp.Compare(x.Stream, y.Stream))
	})
	a.rate = float64(total) / took.Seconds()
	byName := map[string]int{}
	for _, f := range a.failed {
		byName[f.Stream]++
	}
	s.t.Logf("%d requests in %.0f s, %.0f a second: %v; the slowest took %v; %d failed: %v", total, took.Seconds(), a.rate, a.sent, a.slowest.Round(time.Millisecond), len(a.failed), byName)
	if a.rate < 200 { // of 1,100, where nobody else wants the processors
		s.t.Errorf("%.0f requests a second", a.rate)
	}
	return a
}

// want fails the test for each failure that is not explained.
func (a *account) want(what string, explained func(traffic.Failure) bool) (n int) {
	a.t.Helper()
	bad := 0
	for _, f := range a.failed {
		if explained != nil && explained(f) {
			n++
			continue
		}
		if bad++; bad <= 10 {
			a.t.Errorf("%s: %v", what, f)
		}
	}
	if bad > 0 {
		a.t.Errorf("%s: %d failed that must not", what, bad)
	}
	return n
}

// none: nothing may have failed.
func (a *account) none(what string) {
	a.t.Helper()
	a.want(what, nil)
}

// needs says whether a failure is of a stream that needs a part of the node.
func needs(f traffic.Failure, part string) bool { return strings.Contains(f.Stream, " "+part+" ") }

// answered sends one request after the other from a client until one is answered, and
// returns how long that took.
func (w *world) answered(t *testing.T, pod, service string, port int, within time.Duration) time.Duration {
	t.Helper()
	return w.answeredBy(t, pod, service, port, within, "back-a", "back-b")
}

func (w *world) answeredBy(t *testing.T, pod, service string, port int, within time.Duration, by ...string) time.Duration {
	t.Helper()
	begin := time.Now()
	addr := net.JoinHostPort(w.Address(t, "faults", service, false).String(), fmt.Sprint(port))
	for time.Since(begin) < within {
		r := w.Once(t, pod, traffic.Stream{Name: "once", Addr: addr, Host: service, Method: "GET", Path: "/api/x", Workers: 1, Once: true, Want: 200, By: by, Timeout: time.Second})
		if len(r.Failures) == 0 {
			return time.Since(begin)
		}
	}
	t.Errorf("%s gets no answer of %s in %v", pod, service, within)
	return within
}

type failure = traffic.Failure

// narrowed says whether a failure may be that of a client whose permissions were taken away.
func (a *account) narrowed(f failure) bool {
	return strings.HasPrefix(f.Stream, "client-") && !strings.Contains(f.Stream, "datagrams")
}

// passes asks once.
func (w *world) passes(t *testing.T, client, path string) bool {
	t.Helper()
	addr := net.JoinHostPort(w.Address(t, "faults", "web", false).String(), "80")
	r := w.Once(t, "faults/"+client, traffic.Stream{Name: "once", Addr: addr, Host: "web", Method: "GET", Path: path, Workers: 1, Once: true, Want: 200, By: []string{"back-a", "back-b"}, Timeout: time.Second})
	return len(r.Failures) == 0
}
