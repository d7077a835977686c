// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/serve"
)

// evictAfter is how long Envoys keep what nobody uses.
const evictAfter = 2 * time.Second

// patience bounds all that has to come.
const patience = 20 * time.Second

// node is an agent's part, without a kernel, and a node proxy with a real Envoy.
type node struct {
	t        *testing.T
	dir      string
	pipe     *pipeline.Pipeline
	renderer *agent.Renderer
	feed     *serve.Server
	kernel   *kernel
	want     map[resourceKey]xds.Resource // as rendered
	spoilt   map[resourceKey]bool         // of these something else was fed
	proxy    *exec.Cmd
	stop     func()
}

type resourceKey struct{ typ, name string }

func compareKeys(a, b resourceKey) int {
	return cmp.Or(strings.Compare(a.typ, b.typ), strings.Compare(a.name, b.name))
}

// start starts a node that has nothing of an earlier one.
func start(t *testing.T, k *kernel, inputs []objects.Input) *node {
	t.Helper()
	n := &node{t: t, kernel: k, want: map[resourceKey]xds.Resource{}, spoilt: map[resourceKey]bool{}}
	var err error
	if n.dir, err = os.MkdirTemp("", "fl"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(n.dir, 0o755); err != nil { // Envoy's user has to get there
		t.Fatal(err)
	}
	if n.pipe, err = pipeline.New(pipeline.Options{Node: "node-1"}); err != nil {
		t.Fatal(err)
	}
	if n.renderer, err = agent.NewRenderer(); err != nil {
		t.Fatal(err)
	}
	n.take(n.renderer.Take(n.pipe.Load(inputs...)))
	n.feed = serve.New(serve.Options{StandIn: proxy.StandIn}, n.renderer.All())
	unfeed := listen(t, proxy.PathsIn(n.dir).Feed, -1, n.feed.Register)
	logs := accesslog.New(1000)
	unlog := listen(t, proxy.PathsIn(n.dir).AccessLog, proxy.DefaultUID, logs.Register)
	reading, stopReading := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	reader.Go(func() { // as the agent does
		for reading.Err() == nil {
			select {
			case <-logs.Records():
			case <-reading.Done():
			}
		}
	})
	n.startProxy()
	n.stop = sync.OnceFunc(func() {
		n.endProxy()
		unfeed()
		unlog()
		stopReading()
		reader.Wait()
		if t.Failed() {
			for _, log := range proxy.PathsIn(n.dir).Log {
				b, _ := os.ReadFile(log)
				t.Logf("%s:\n%.8000s", log, b)
			}
		}
		os.RemoveAll(n.dir)
	})
	t.Cleanup(n.stop)
	n.waitFor("the proxy to have everything", func() bool {
		s, err := proxy.ReadStatus(t.Context(), n.dir)
		return err == nil && s.Feed.Synced && s.Envoy.Connected && s.Envoy.State == "LIVE"
	})
	if _, err := n.feed.Push(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	n.tellKernel()
	n.waitFor("the listeners", func() bool {
		return len(n.admin().listeners()) == len(n.pipe.Rows(plan.Listeners))
	})
	return n
}

// listen serves on a socket until the returned function is called.
func listen(t *testing.T, path string, uid int, register func(*grpc.Server)) (stop func()) {
	t.Helper()
	l, err := proxy.Listen(path, uid)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(serve.GRPCOptions()...)
	register(g)
	var done sync.WaitGroup
	done.Go(func() { _ = g.Serve(l) }) // until it is stopped
	return func() { g.Stop(); done.Wait() }
}

const proxyVariable = "FAIRLEAD_CHAOS_PROXY" // run folder and Envoy

// runProxy is the process of a node proxy.
func runProxy() error {
	dir, envoy, _ := strings.Cut(os.Getenv(proxyVariable), " ")
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	return proxy.Run(ctx, proxy.Options{Node: "node-1", RunDir: dir, EnvoyPath: envoy, Concurrency: 2, DrainTime: time.Second, EvictAfter: evictAfter,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
}

func (n *node) startProxy() {
	n.proxy = exec.Command("/proc/self/exe")
	n.proxy.Env = append(os.Environ(), roleVariable+"="+roleProxy, proxyVariable+"="+n.dir+" "+need.Envoy(n.t))
	n.proxy.Stderr = os.Stderr
	n.proxy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose end would be the parent's
	if err := n.proxy.Start(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) endProxy() {
	_ = n.proxy.Process.Signal(syscall.SIGTERM) // or it has ended, which Wait tells
	if err := n.proxy.Wait(); err != nil {
		n.t.Errorf("proxy: %v", err)
	}
	runtime.UnlockOSThread()
}

func (n *node) waitFor(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	n.t.Fatalf("waited in vain: %s", what)
}

func (n *node) status() proxy.Status {
	n.t.Helper()
	s, err := proxy.ReadStatus(n.t.Context(), n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// take keeps what is wanted up to date.
func (n *node) take(changes []serve.Change) (sets, deletes []serve.Change) {
	for _, c := range changes {
		k := resourceKey{c.Type, c.Name}
		delete(n.spoilt, k)
		if c.Resource != nil {
			n.want[k] = *c.Resource
			sets = append(sets, c)
		} else {
			delete(n.want, k)
			deletes = append(deletes, c)
		}
	}
	return sets, deletes
}

// load makes the inputs the configuration and brings what that changes where it
// belongs, in the agent's order.
func (n *node) load(inputs []objects.Input) {
	n.t.Helper()
	sets, deletes := n.take(n.renderer.Take(n.pipe.Load(inputs...)))
	n.push(sets)
	n.tellKernel()
	n.push(deletes)
}

func (n *node) push(changes []serve.Change) {
	n.t.Helper()
	if len(changes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	o, err := n.feed.Push(ctx, changes)
	if err == nil && o.Clients != 1 {
		err = errors.New("no proxy")
	}
	if err != nil {
		n.t.Fatalf("push of %s: %v", describe(changes), err)
	}
	for _, r := range o.Rejected {
		if !n.spoilt[resourceKey{r.Type, r.Name}] {
			n.t.Errorf("rejected: %+v", r)
		}
	}
}

func describe(changes []serve.Change) string {
	var out []string
	for _, c := range changes {
		out = append(out, fmt.Sprint(xds.Short(c.Type), " ", c.Name))
	}
	return strings.Join(out, ", ")
}

func (n *node) tellKernel() {
	n.t.Helper()
	if err := n.kernel.become(redirected(n.pipe, n.renderer.Ports())); err != nil {
		n.t.Fatal(err)
	}
}

// process is what a process holds.
type process struct {
	rss         int // KiB
	descriptors int
}

func measure(pid int) (p process, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, err = fmt.Sscanf(rest, "%d kB", &p.rss)
		}
	}
	fds, err2 := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	p.descriptors = len(fds)
	return p, errors.Join(err, err2)
}

// churned are the resources of what changes, sorted.
func (n *node) churned() []resourceKey {
	var out []resourceKey
	for k := range n.want {
		if strings.Contains(k.name, "churn") {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}
