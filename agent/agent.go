// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/serve"
)

const (
	// ackLimit bounds how long the kernel waits for Envoy's acknowledgement. Policy
	// must not wait for ever: after it the kernel is written, listeners that were
	// not acknowledged stay without redirect, and the push is tried again.
	ackLimit = 5 * time.Second
	// tick is how often the agent looks after what is not as it should be.
	tick = 200 * time.Millisecond
	// flowsKept is how many flows an observer that comes late still sees.
	flowsKept = 8192
)

// Options of Run.
type Options struct {
	Node     string
	Source   string // folder of objects
	RunDir   string // sockets and state; one for each node, shared with the proxy
	Bpffs    string // folder on a BPF file system for pinned maps and links
	Cgroup   string // cgroup2 folder of the node's processes
	NetnsDir string // folder of the pods' network namespaces
	Uplinks  []string
	Pipeline pipeline.Options
	Log      *slog.Logger
}

// agent is one run. Its state belongs to the goroutine of loop; mu guards what
// others read.
type agent struct {
	opts    Options
	log     *slog.Logger
	ports   *ports
	res     *resources
	feed    *serve.Server
	kernel  *datapath.Datapath
	flows   *hubble.Ring
	alog    *accesslog.Server
	retry   map[resourceKey]serve.Change // not acknowledged yet
	resync  bool                         // the kernel's maps are not as wanted
	started time.Time

	mu       sync.Mutex
	pipe     *pipeline.Pipeline
	proxyOK  bool // Envoy has acknowledged everything, once
	revision string
	applied  string
	problem  string
	// Copies for status of what the loop owns.
	portsCopy map[string]uint16
	badCopy   map[string]string
}

// Run is the agent of a node. It returns when the context ends, leaving kernel and
// proxy as they are, or with an error if it cannot start.
func Run(ctx context.Context, o Options) error {
	if _, err := os.Stat(o.Source); err != nil {
		return fmt.Errorf("read source: %w; nothing was changed", err)
	}
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	o.Pipeline.Node = o.Node
	pipe, err := pipeline.New(o.Pipeline)
	if err != nil {
		return err
	}
	p, err := openPorts(filepath.Join(o.RunDir, "ports.json"), time.Now)
	if err != nil {
		return err
	}
	a := &agent{opts: o, log: o.Log, ports: p, res: newResources(o.Log, p), pipe: pipe, flows: hubble.NewRing(flowsKept),
		alog: accesslog.New(flowsKept), retry: map[resourceKey]serve.Change{}, started: time.Now()}
	return a.run(ctx)
}

func (a *agent) run(ctx context.Context) error {
	kernel, err := datapath.Open(ctx, datapath.Options{PinDir: a.opts.Bpffs, StateDir: a.opts.RunDir, Cgroup: a.opts.Cgroup,
		Uplinks: a.opts.Uplinks, NetnsDir: a.opts.NetnsDir, Log: a.log})
	if err != nil {
		return err
	}
	a.kernel = kernel
	defer kernel.Close()
	inputs := objects.Files([]string{a.opts.Source}, nil)
	a.res.take(a.load(inputs))
	if err := a.syncKernel(ctx); err != nil {
		return err
	}
	a.feed = serve.New(serve.Options{Log: a.log, StandIn: standIn}, a.res.all())
	a.markApplied()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, 8)
	start := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
				cancel()
			}
		})
	}
	changed := make(chan struct{}, 1)
	start("feed", a.serveFeed)
	start("access log", a.serveAccessLog)
	start("api", func(ctx context.Context) error {
		return serveAPI(ctx, filepath.Join(a.opts.RunDir, Socket), a.status, a.flows)
	})
	start("kernel events", func(ctx context.Context) error { return kernel.Events(ctx, a.kernelFlow) })
	start("access records", a.accessRecords)
	start("source", func(ctx context.Context) error {
		return watchFolder(ctx, a.log, a.opts.Source, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	a.log.Info("agent runs", "node", a.opts.Node, "source", a.opts.Source)
	a.loop(ctx, changed)
	cancel()
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (a *agent) loop(ctx context.Context, changed <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			a.reload(ctx)
		case <-t.C:
			a.lookAfter(ctx)
		}
	}
}

// load computes the plan of the inputs.
func (a *agent) load(inputs []objects.Input) []incr.Change {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = Revision(inputs)
	return a.pipe.Load(inputs...)
}

// Revision names the content of a source: it is in Status when the content was
// applied.
func Revision(inputs []objects.Input) string {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%s %d %v\n", in.Name, len(in.Data), in.Err)
		h.Write(in.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// reload reads the source and applies what it changes.
func (a *agent) reload(ctx context.Context) {
	begin := time.Now()
	changes := a.load(objects.Files([]string{a.opts.Source}, nil))
	a.apply(ctx, changes)
	if n := len(changes); n > 0 {
		a.log.Info("configuration changed", "rows", n, "took", time.Since(begin).Round(time.Millisecond))
	}
}

// apply brings changes to Envoy and the kernel: what is new for Envoy first, then
// the kernel, then what Envoy no longer needs.
func (a *agent) apply(ctx context.Context, changes []incr.Change) {
	var sets, deletes []serve.Change
	for _, c := range a.res.take(changes) {
		if c.Resource != nil {
			sets = append(sets, c)
		} else {
			deletes = append(deletes, c)
		}
	}
	ok := a.push(ctx, sets)
	a.writeKernel(ctx, changes)
	ok = a.push(ctx, deletes) && ok && !a.resync
	a.releasePorts(deletes)
	if ok {
		a.markApplied()
	}
}

// push sends changes and those that were not acknowledged before.
func (a *agent) push(ctx context.Context, changes []serve.Change) bool {
	for _, c := range changes {
		a.retry[resourceKey{c.Type, c.Name}] = c
	}
	if len(a.retry) == 0 {
		return true
	}
	all := make([]serve.Change, 0, len(a.retry))
	for _, c := range a.retry {
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y serve.Change) int {
		return compareKeys(resourceKey{x.Type, x.Name}, resourceKey{y.Type, y.Name})
	})
	ctx, cancel := context.WithTimeout(ctx, ackLimit)
	defer cancel()
	out, err := a.feed.Push(ctx, all)
	if err != nil {
		a.note("Envoy has not acknowledged: " + err.Error())
		a.log.Warn("push not acknowledged", "error", err)
		return false
	}
	clear(a.retry)
	for _, r := range out.Rejected {
		a.log.Error("Envoy rejected a resource", "type", xds.Short(r.Type), "name", r.Name, "detail", r.Detail)
	}
	if a.ready() {
		for _, c := range all {
			if c.Type == xds.ListenerType && c.Resource != nil && !slices.ContainsFunc(out.Rejected, func(r serve.Rejection) bool { return r.Type == c.Type && r.Name == c.Name }) {
				a.goLive(c.Name)
			}
		}
	}
	return true
}

// kernelPort is the port that the kernel may send a listener's connections to: its
// own, once Envoy has the listener.
func (a *agent) kernelPort(listener string) uint16 {
	if !a.ports.live(listener) {
		return 0
	}
	return a.ports.get(listener)
}

func (a *agent) writeKernel(ctx context.Context, changes []incr.Change) {
	changes = slices.DeleteFunc(slices.Clone(changes), func(c incr.Change) bool { return !slices.Contains(plan.KernelTables(), c.Table) })
	err := a.kernel.SetInbound(a.kernelPort(plan.InboundListener))
	if err == nil && len(changes) > 0 {
		err = a.kernel.Apply(ctx, changes, a.kernelPort)
	}
	if a.resync = err != nil; a.resync {
		a.kernelFailed(err)
	}
}

func (a *agent) kernelFailed(err error) {
	a.note("kernel: " + err.Error())
	a.log.Error("kernel not written", "error", err)
}

// syncKernel makes the kernel's maps equal to the plan, writing just the difference.
func (a *agent) syncKernel(ctx context.Context) error {
	a.mu.Lock()
	var rows []incr.Row
	for _, t := range plan.KernelTables() {
		rows = append(rows, a.pipe.Rows(t)...)
	}
	a.mu.Unlock()
	if err := a.kernel.SetInbound(a.kernelPort(plan.InboundListener)); err != nil {
		return err
	}
	return a.kernel.Sync(ctx, rows, a.kernelPort)
}

// lookAfter brings on what is not done yet: an Envoy that has only now come, and
// pushes that were not acknowledged.
func (a *agent) lookAfter(ctx context.Context) {
	if !a.ready() {
		if !a.greet(ctx) {
			return
		}
	} else if len(a.retry) == 0 && !a.resync {
		return
	} else if !a.push(ctx, nil) {
		return
	}
	err := a.syncKernel(ctx)
	if a.resync = err != nil; a.resync {
		a.kernelFailed(err)
		return
	}
	a.markApplied()
}

// greet waits for nobody: it reports whether Envoy is there and has acknowledged
// everything, and gives its listeners to the kernel.
func (a *agent) greet(ctx context.Context) bool {
	s, err := proxy.ReadStatus(ctx, a.opts.RunDir)
	if err != nil || !s.Envoy.Connected || !s.Feed.Connected {
		return false
	}
	pctx, cancel := context.WithTimeout(ctx, ackLimit)
	defer cancel()
	out, err := a.feed.Sync(pctx, a.res.all())
	if err != nil || out.Clients == 0 {
		if err != nil {
			a.log.Warn("Envoy has not acknowledged", "error", err)
		}
		return false
	}
	clear(a.retry)
	for k := range a.res.want {
		if k.typ == xds.ListenerType && !slices.ContainsFunc(out.Rejected, func(r serve.Rejection) bool { return r.Type == k.typ && r.Name == k.name }) {
			a.goLive(k.name)
		}
	}
	a.mu.Lock()
	a.proxyOK = true
	a.mu.Unlock()
	a.log.Info("Envoy is ready", "version", s.Envoy.Version, "rejected", len(out.Rejected))
	return true
}

func (a *agent) goLive(listener string) {
	if err := a.ports.setLive(listener); err != nil {
		a.log.Error("port state not saved", "listener", listener, "error", err)
	}
}

func (a *agent) ready() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.proxyOK
}

func (a *agent) markApplied() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied, a.problem = a.revision, ""
	a.portsCopy, a.badCopy = maps.Clone(a.ports.state.Used), map[string]string{}
	for k, why := range a.res.bad {
		a.badCopy[xds.Short(k.typ)+" "+k.name] = why
	}
}

func (a *agent) note(problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problem = problem
}

// releasePorts gives back the ports of listeners that Envoy no longer has.
func (a *agent) releasePorts(deleted []serve.Change) {
	for _, c := range deleted {
		if c.Type == xds.ListenerType {
			if err := a.ports.release(c.Name); err != nil {
				a.log.Error("port not given back", "listener", c.Name, "error", err)
			}
		}
	}
}

// serveFeed serves the node's resources to the proxy.
func (a *agent) serveFeed(ctx context.Context) error {
	return a.serveGRPC(ctx, proxy.PathsIn(a.opts.RunDir).Feed, -1, a.feed.Register)
}

// serveAccessLog takes Envoy's access log.
func (a *agent) serveAccessLog(ctx context.Context) error {
	uid := -1
	if os.Geteuid() == 0 {
		uid = proxy.DefaultUID
	}
	return a.serveGRPC(ctx, proxy.PathsIn(a.opts.RunDir).AccessLog, uid, a.alog.Register)
}

func (a *agent) serveGRPC(ctx context.Context, path string, uid int, register func(*grpc.Server)) error {
	l, err := proxy.Listen(path, uid)
	if err != nil {
		return err
	}
	g := grpc.NewServer(serve.GRPCOptions()...)
	register(g)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		g.Stop()
	}()
	err = g.Serve(l)
	<-stopped
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

func (a *agent) status() Status {
	s := Status{Node: a.opts.Node, Uptime: time.Since(a.started).Round(time.Second).String(), Source: a.opts.Source,
		Pods: map[string]string{}, Feed: a.feed.Status(), Writes: a.kernel.Stats()}
	var err error
	if s.Kernel, err = a.kernel.Status(); err != nil {
		s.KernelError = err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p, err := proxy.ReadStatus(ctx, a.opts.RunDir); err == nil {
		s.Proxy = &p
	} else {
		s.ProxyError = err.Error()
	}
	for _, p := range s.Kernel.Pods {
		s.Pods[p.Name] = "ready"
		if !p.Ready {
			s.Pods[p.Name] = "pending: " + p.Reason
		}
	}
	seen, lost := a.flows.Counts()
	s.Flows = FlowCounts{Seen: seen, LostKernel: s.Kernel.Lost, LostAccessLog: a.alog.Lost(), LostObservers: lost}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Objects, s.Revision, s.Applied, s.Problem = a.pipe.Objects(), a.revision, a.applied, a.problem
	for _, d := range a.pipe.Diagnostics() {
		if d.IsError() {
			s.Errors++
		} else if d.Effect != model.Cosmetic {
			s.Warnings++
		}
	}
	s.Ports, s.Unrenderable = a.portsCopy, a.badCopy
	return s
}
