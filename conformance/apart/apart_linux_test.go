// SPDX-License-Identifier: Apache-2.0

package apart

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/proxy"
)

// The namespaces of TestApart: the same application twice. apartNS gets a proxy of its own.
const (
	sharedNS = "shop"
	apartNS  = "store"
)

// TestApart gives a namespace its own Envoy under load, has all kinds of things happen to
// that, and takes it away again: the other namespace's requests know nothing of it, and
// the namespace's own lose none to the moves.
func TestApart(t *testing.T) {
	w := &world{twonodes.Lives(t)}
	app := manifests(t)
	w.beStrict(t)
	other := strings.NewReplacer("namespace: shop", "namespace: store", "name: shop\n", "name: store\n", "/ns/shop/", "/ns/store/").
		Replace(app[strings.Index(app, "kind: Namespace")-len("apiVersion: v1\n"):])
	own := strings.Replace(other, "fairlead.io/route-by: destination", "fairlead.io/route-by: destination\n    fairlead.io/proxy: own\n    fairlead.io/proxy-memory: 256Mi", 1)
	t.Cleanup(func() { w.Change(t, lab.Delete, app+"\n---\n"+own) })
	w.Change(t, lab.Apply, app+"\n---\n"+other)
	for _, node := range w.Nodes() {
		w.awaitOwn(t, node, 0)
	}

	l := w.loadApart(t)
	defer l.judge() // also after a phase that was not to its end
	l.phase("both share an Envoy", func() { time.Sleep(time.Second) })
	l.phase("one gets its own", func() {
		w.Change(t, lab.Apply, own)
		for _, node := range w.Nodes() {
			w.awaitOwn(t, node, 1)
		}
		time.Sleep(3 * time.Second)
	})
	if t.Failed() {
		t.FailNow()
	}
	for _, node := range w.Nodes() {
		s := w.own(t, node)
		if n := s.Proxy.Generations[0].Connections; n == 0 {
			t.Errorf("%s: no connection passes the namespace's Envoy", node)
		}
		w.testUsers(t, node, s)
		all, err := w.Agents[node].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run := w.RunDir(node)
		for _, e := range []struct {
			what     string
			pid, uid int
			paths    proxy.Paths
		}{{"the shared Envoy", all.Proxy.Envoy.PID, proxy.DefaultUID, proxy.PathsIn(run)}, {"the namespace's Envoy", s.Proxy.Envoy.PID, s.UID, proxy.PathsIn(proxy.Own{Slot: s.Slot}.Dir(run))}} {
			testPrivileges(t, node+": "+e.what, e.pid, e.uid)
			testSockets(t, node+": "+e.what, e.pid, e.paths)
		}
	}
	l.phase("its Envoy is replaced", func() {
		for _, node := range w.Nodes() {
			dir := proxy.Own{Slot: w.own(t, node).Slot}.Dir(w.RunDir(node))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			r, err := proxy.Replace(ctx, dir, true)
			cancel()
			if err != nil || r.State != proxy.ReplacementDone {
				t.Errorf("%s: %+v, %v", node, r, err)
			}
		}
		time.Sleep(2 * time.Second)
		for _, node := range w.Nodes() {
			for _, g := range w.own(t, node).Proxy.Generations {
				if (g.Role == proxy.Active) != (g.Bank == 1) {
					t.Errorf("%s: bank %d is %s", node, g.Bank, g.Role)
				}
				if g.Role == proxy.Active && g.Connections == 0 {
					t.Errorf("%s: no connection passes the new Envoy", node)
				}
			}
		}
	})
	l.phase("its Envoy is killed", func() {
		for _, node := range w.Nodes() {
			before := w.own(t, node).Proxy.Envoy
			w.signal(t, before.PID, syscall.SIGKILL)
			w.until(t, node, "another Envoy of the namespace", func(s *agent.Status) bool {
				e := s.Own[0].Proxy.Envoy
				return e.PID != before.PID && e.Connected && e.Restarts == before.Restarts+1
			})
		}
		time.Sleep(500 * time.Millisecond)
	}, apartNS)
	l.phase("its Envoy is stopped", func() {
		node := w.nodeOf(t, apartNS, "frontend-1")
		pid := w.own(t, node).Proxy.Envoy.PID
		w.signal(t, pid, syscall.SIGSTOP)
		began := time.Now()
		w.Change(t, lab.Apply, otherRoute(sharedNS, 50))
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("a change took %v to apply while a namespace's Envoy hangs", took)
		}
		began = time.Now()
		w.Change(t, lab.Apply, otherRoute(sharedNS, 75))
		t.Logf("with a namespace's Envoy that hangs a change took %v", time.Since(began).Round(time.Millisecond))
		time.Sleep(time.Second)
		if syscall.Kill(pid, 0) == nil {
			w.signal(t, pid, syscall.SIGCONT)
		}
		w.awaitOwn(t, node, 1)
		time.Sleep(500 * time.Millisecond)
	}, apartNS)
	l.phase("it rejects what it is given", func() {
		// Some 120 instructions, of which a strict Envoy takes 100.
		w.Change(t, lab.Apply, strings.Replace(otherRoute(apartNS, 75), "  http:\n", "  http:\n  - match: [{uri: {regex: \"/(a{40}|b{40}|c{40})\"}}]\n    route: [{destination: {host: reviews-v1, port: {number: 80}}}]\n", 1))
		for _, node := range w.Nodes() {
			w.until(t, node, "rejection in the namespace's proxy", func(s *agent.Status) bool {
				if len(s.Rejected) > 0 {
					t.Errorf("%s: the shared proxy tells of %+v", node, s.Rejected)
				}
				return len(s.Own[0].Rejected) > 0 && s.Own[0].Rejected[0].Serving == agent.LastGood && s.Own[0].Rejected[0].Cause.Sources != nil
			})
		}
		time.Sleep(500 * time.Millisecond)
		w.Change(t, lab.Apply, otherRoute(apartNS, 75))
		for _, node := range w.Nodes() {
			w.until(t, node, "end of that", func(s *agent.Status) bool { return len(s.Own[0].Rejected) == 0 })
		}
	})
	l.phase("its Envoy has no more memory", func() {
		node := w.nodeOf(t, apartNS, "frontend-1")
		before := w.own(t, node).Proxy.Envoy
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", before.PID))
		if want := regexp.MustCompile(`Max data size +268435456 +268435456 `); err != nil || !want.Match(limits) {
			t.Errorf("its memory is not bounded by 256 MiB: %v\n%s", err, limits)
		}
		// As if a leak had taken all of it; a client asks for more.
		bound := w.dataOf(t, before.PID) + 1<<20
		if err := asUser(w.own(t, node).UID, true, func() error {
			return unix.Prlimit(before.PID, unix.RLIMIT_DATA, &unix.Rlimit{Cur: bound, Max: bound}, nil)
		}); err != nil {
			t.Fatal(err)
		}
		end := w.hold(t, apartNS+"/frontend-1", net.JoinHostPort(w.Address(t, apartNS, "reviews", false).String(), "80"))
		w.exhaust(t, before.PID)
		end()
		w.until(t, node, "another Envoy of the namespace", func(s *agent.Status) bool {
			e := s.Own[0].Proxy.Envoy
			return e.PID != before.PID && e.Connected
		})
		time.Sleep(500 * time.Millisecond)
	}, apartNS)
	l.phase("it shares again", func() {
		w.Change(t, lab.Apply, other)
		for _, node := range w.Nodes() {
			w.awaitOwn(t, node, 0)
		}
		time.Sleep(2 * time.Second)
	})
	for _, node := range w.Nodes() {
		s, err := w.Agents[node].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Proxy.Envoy.Restarts != 0 {
			t.Errorf("%s: the shared Envoy was started again %d times", node, s.Proxy.Envoy.Restarts)
		}
	}
}

// otherRoute has a namespace's reviews be shared out otherwise.
func otherRoute(namespace string, percent int) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: %s}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews-v1, port: {number: 80}}
      weight: %d
    - destination: {host: reviews-v2, port: {number: 80}}
      weight: %d
    retries: {attempts: 0}
`, namespace, percent, 100-percent)
}

// apartLoad is load in both namespaces.
type apartLoad struct {
	t      *testing.T
	end    map[string][]func() traffic.Result // by namespace
	phases []apartPhase
}

type apartPhase struct {
	name       string
	began, end time.Time
	mayFail    []string // namespaces
}

func (w *world) loadApart(t *testing.T) *apartLoad {
	l := &apartLoad{t: t, end: map[string][]func() traffic.Result{}}
	for _, ns := range []string{sharedNS, apartNS} {
		for i := range w.Nodes() {
			streams := w.allowedIn(t, ns, i == 1)
			l.end[ns] = append(l.end[ns], w.Client(t, fmt.Sprintf("%s/frontend-%d", ns, i+1), streams))
		}
		l.end[ns] = append(l.end[ns], w.Client(t, ns+"/batch", w.forbiddenIn(t, ns)))
	}
	return l
}

func (l *apartLoad) phase(name string, do func(), mayFail ...string) {
	l.t.Helper()
	p := apartPhase{name: name, began: time.Now(), mayFail: mayFail}
	do()
	p.end = time.Now()
	l.phases = append(l.phases, p)
}

// judge counts failures by phase and namespace. Where a namespace's may fail they are
// those of connections that its Envoy had, or that were made while it was away: nothing
// is ever answered that should not be.
func (l *apartLoad) judge() {
	l.t.Helper()
	failed := map[string]map[string]int{}
	for _, ns := range slices.Sorted(maps.Keys(l.end)) {
		sent, shown := 0, 0
		for _, end := range l.end[ns] {
			r := end()
			for _, n := range r.Sent {
				sent += n
			}
			for _, f := range r.Failures {
				name, may := "between", false
				for _, p := range l.phases {
					if !f.Ended.Before(p.began) && f.Ended.Before(p.end) {
						name, may = p.name, slices.Contains(p.mayFail, ns)
					}
				}
				if failed[name] == nil {
					failed[name] = map[string]int{}
				}
				failed[name][ns]++
				if may && (f.Status == 0 || f.Status == http.StatusServiceUnavailable) {
					continue
				}
				if shown++; shown <= 10 {
					l.t.Errorf("%s, while %s: %s", ns, name, f)
				}
			}
		}
		l.t.Logf("%s: %d requests", ns, sent)
		if sent < 1000 {
			l.t.Errorf("%s: just %d requests", ns, sent)
		}
	}
	for _, p := range l.phases {
		l.t.Logf("%-30s %5.1f s, failed: %s %d, %s %d", p.name, p.end.Sub(p.began).Seconds(), sharedNS, failed[p.name][sharedNS], apartNS, failed[p.name][apartNS])
	}
}

func (w *world) signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("%v to %d: %v", sig, pid, err)
	}
}

// until waits until a node's status is as wanted.
func (w *world) until(t *testing.T, node, what string, is func(*agent.Status) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		s, err := w.Agents[node].Status(ctx)
		if err == nil && len(s.Own) > 0 && s.Own[0].Proxy != nil && is(s) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: no %s: %v, %+v", node, what, err, s.Own)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitOwn waits until as many namespaces have proxies of their own, which have all.
func (w *world) awaitOwn(t *testing.T, node string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		s, err := w.Agents[node].Status(ctx)
		ok := err == nil && len(s.Own) == n
		for _, o := range s.Own {
			ok = ok && o.Problem == "" && o.Proxy != nil && o.Proxy.Envoy.Connected
		}
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not %d proxies of namespaces that have all: %v, %+v", node, n, err, s.Own)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *world) own(t *testing.T, node string) agent.OwnStatus {
	t.Helper()
	s, err := w.Agents[node].Status(t.Context())
	if err != nil || len(s.Own) != 1 || s.Own[0].Proxy == nil {
		t.Fatalf("%s: %v, %+v", node, err, s.Own)
	}
	return s.Own[0]
}

// exhaust has an Envoy ask for memory that it is not given.
func (w *world) exhaust(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for syscall.Kill(pid, 0) == nil && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Errorf("Envoy %d lives on without memory", pid)
	}
}

// nodeOf is the node that a pod is on.
func (w *world) nodeOf(t *testing.T, namespace, pod string) string {
	t.Helper()
	for _, p := range w.Status.Pods {
		if p.Namespace == namespace && p.Name == pod {
			return p.Node
		}
	}
	t.Fatalf("there is no pod %s/%s", namespace, pod)
	return ""
}

// dataOf is what a process has of memory that is its own and that it may write to.
func (w *world) dataOf(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmData:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no VmData in %s", b)
	}
	n, err := strconv.ParseUint(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// testUsers looks whether the two Envoys of a node can get at one another's sockets.
func (w *world) testUsers(t *testing.T, node string, s agent.OwnStatus) {
	t.Helper()
	run := w.RunDir(node)
	shared, own := proxy.PathsIn(run), proxy.PathsIn(proxy.Own{Slot: s.Slot}.Dir(run))
	for _, c := range []struct {
		uid int
		p   proxy.Paths
		may bool
	}{{s.UID, own, true}, {proxy.DefaultUID, shared, true}, {s.UID, shared, false}, {proxy.DefaultUID, own, false}} {
		for _, path := range []string{c.p.XDS[0], c.p.Admin[0], c.p.Authority[0], c.p.AccessLog} {
			err := connectAs(c.uid, path)
			if c.may && err != nil || !c.may && err != unix.EACCES {
				t.Errorf("%s: user %d connects to %s: %v; may it: %v", node, c.uid, path, err, c.may)
			}
		}
		for _, path := range []string{c.p.Feed, c.p.Control, c.p.State} {
			if err := connectAs(c.uid, path); err != unix.EACCES {
				t.Errorf("%s: user %d connects to %s: %v", node, c.uid, path, err)
			}
		}
	}
}

// connectAs connects to a unix socket as another user, without a privilege or a group.
func connectAs(uid int, path string) error {
	done := make(chan error)
	go func() {
		// The thread's rights end with it; the test's main thread is not among those that
		// run this, as it is locked to no goroutine and waits.
		done <- asUser(uid, false, func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		})
	}()
	return <-done
}

func (w *world) allowedIn(t *testing.T, namespace string, six bool) []traffic.Stream {
	t.Helper()
	addr := net.JoinHostPort(w.Address(t, namespace, "reviews", six).String(), "80")
	both := []string{"reviews-v1", "reviews-v2"}
	return []traffic.Stream{
		{Name: "kept", Addr: addr, Host: "reviews", Method: "GET", Path: "/api/x", Keep: true, Workers: 2, Every: 30 * time.Millisecond, Want: 200, By: both},
		{Name: "fresh", Addr: addr, Host: "reviews", Method: "GET", Path: "/api/x", Workers: 2, Every: 40 * time.Millisecond, Want: 200, By: both},
		{Name: "forbidden by method", Addr: addr, Host: "reviews", Method: "POST", Path: "/api/x", Workers: 1, Every: 50 * time.Millisecond, Want: 403},
		{Name: "forbidden by path", Addr: addr, Host: "reviews", Method: "GET", Path: "/private", Keep: true, Workers: 1, Every: 50 * time.Millisecond, Want: 403},
	}
}

func (w *world) forbiddenIn(t *testing.T, namespace string) []traffic.Stream {
	t.Helper()
	addr := net.JoinHostPort(w.Address(t, namespace, "reviews", false).String(), "80")
	return []traffic.Stream{{Name: "forbidden by identity", Addr: addr, Host: "reviews", Method: "GET", Path: "/api/x", Keep: true, Workers: 1, Every: 50 * time.Millisecond, Want: 403}}
}
