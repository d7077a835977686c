// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
	"fairlead.io/fairlead/xds/serve"
)

const (
	// An Envoy that runs has what it needs, perhaps newer than the file: the agent
	// has this long to speak first.
	agentFirst = 3 * time.Second
	saveDelay  = 200 * time.Millisecond
	// What could not be saved is tried again after this time.
	saveAgain = 5 * time.Second
	// An Envoy that runs connects within this time; what the agent sends meanwhile
	// is answered when Envoy has answered it.
	envoyConnects = 5 * time.Second
	// A request that waits for a retry, or in a delay, still finds its cluster when the
	// routes by which it came have changed this long ago.
	clusterLinger = 10 * time.Second
)

// Options of Run.
type Options struct {
	Node      string // name of the node; Envoy's id
	RunDir    string // sockets and state, one folder per node; absolute
	EnvoyPath string // the binary; absolute
	// FeedSocket is the agent's; "" = feed.sock in RunDir.
	FeedSocket  string
	Concurrency int // Envoy's worker threads; 0 = one per core
	// UID is Envoy's user; 0 = DefaultUID if the caller is root, else the caller's.
	UID int
	// DrainTime is how long clients have to finish when their Envoy was replaced, or
	// the proxy stops; 0 = 10 s. Connections that last longer are cut.
	DrainTime time.Duration
	// ReadyTime is how long an Envoy has to get ready to take over from another;
	// 0 = 30 s. One that needs longer is stopped, and the other one serves on.
	ReadyTime time.Duration
	// Standby keeps a second Envoy ready, which takes over when the first one ends
	// unasked. It costs the memory of an Envoy.
	Standby bool
	// EvictAfter is how long what nobody uses stays in Envoy; 0 = 10 min.
	EvictAfter time.Duration
	// Flip tells the kernel the bank that new connections go to. It is called often,
	// also with a bank that the kernel knows, and must not block. An error that is
	// fs.ErrNotExist says that there is nothing to tell yet. nil: nobody is told.
	Flip func(bank int) error
	// Check asks with each value whether Envoy is what it would be if it was started
	// now, and has it replaced if not. nil: nobody asks.
	Check <-chan os.Signal
	Log   *slog.Logger // nil: silent

	// memory that an Envoy may use, in bytes; 0: as much as there is. One that needs more
	// ends, and is started again. nil: 0.
	memory func() uint64
	// beside is what else keeps the proxy from being ready, "" if nothing does; nil: nothing.
	beside func(context.Context) string
	// separate: Envoys of namespaces are other users than the node's.
	separate bool
}

func (o *Options) complete() error {
	var err error
	if o.RunDir == "" || o.EnvoyPath == "" || o.Node == "" {
		return errors.New("run proxy: node, run folder and Envoy's path must be given")
	}
	if o.RunDir, err = filepath.Abs(o.RunDir); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	if o.EnvoyPath, err = filepath.Abs(o.EnvoyPath); err != nil {
		return fmt.Errorf("run proxy: find envoy: %w", err)
	}
	if _, err := os.Stat(o.EnvoyPath); err != nil {
		return fmt.Errorf("run proxy: find envoy: %w", err)
	}
	if o.UID == 0 {
		if o.UID = os.Geteuid(); o.UID == 0 {
			o.UID, o.separate = DefaultUID, true
		}
	}
	if o.DrainTime == 0 {
		o.DrainTime = 10 * time.Second
	}
	if o.ReadyTime == 0 {
		o.ReadyTime = 30 * time.Second
	}
	if o.EvictAfter == 0 {
		o.EvictAfter = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FeedSocket == "" {
		o.FeedSocket = PathsIn(o.RunDir).Feed
	}
	return nil
}

func (o *Options) memoryNow() uint64 {
	if o.memory == nil {
		return 0
	}
	return o.memory()
}

// proxy is one run.
type proxy struct {
	opts   Options
	paths  Paths
	log    *slog.Logger
	server *serve.Server
	feed   *feed
	envoys *supervisor

	charge charge
	saving sync.Mutex // held while the state is written, and while another takes charge

	names     *authority.Index
	authority *authority.Server
	sockets   *sockets

	ready chan struct{} // closed when Envoy may be served
	once  sync.Once
	dirty chan struct{}

	stateErr  error                 // why the saved state was not used
	saveErr   atomic.Pointer[error] // why the state is not saved; nil: it is
	following bool                  // the state is of the proxy in charge, and of now
	evicted   atomic.Uint64
}

// Run runs the node proxy until ctx ends; then it drains and stops Envoy. An
// error means that it could not run, or could not stop cleanly.
func Run(ctx context.Context, opts Options) error {
	if err := opts.complete(); err != nil {
		return err
	}
	p := &proxy{
		opts: opts, paths: PathsIn(opts.RunDir), log: opts.Log,
		ready: make(chan struct{}), dirty: make(chan struct{}, 1),
	}
	if err := prepare(opts.RunDir, p.paths, opts.UID); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	own, err := lockOwn(ctx, p.paths.OwnLock)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	defer own.Close()
	if err := sweepOwn(opts.RunDir); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	p.charge.paths = p.paths
	defer p.charge.end()
	inCharge, err := p.charge.take()
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	saved, err := p.load(ctx, inCharge)
	p.stateErr = err
	if err != nil && !errors.Is(err, errNoState) {
		p.log.Warn("saved state not used, waiting for the agent", "error", err)
	}
	if p.envoys, err = newSupervisor(&p.opts, p.paths); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	p.envoys.charge = inCharge
	p.newAuthority(saved.resources)
	p.feed = &feed{
		node: opts.Node, name: filepath.Base(p.paths.Own), socket: opts.FeedSocket, names: p.names, log: p.log,
		connected: p.envoys.tell, changed: p.markDirty, synced: p.serveEnvoy, inUse: p.inUse,
	}
	p.server = serve.New(serve.Options{
		Log: p.log, StandIn: StandIn, OnReject: p.rejected, OnContest: p.contested,
		Client: func(n *core.Node) string { return clientName(bankOf(n)) },
		Adapt:  adapt, Static: staticClusters(p.paths),
		Lazy: true, InUse: saved.inUse, OnUse: p.markDirty, Candidates: render.Candidates,
		ClusterLinger: min(clusterLinger, opts.EvictAfter),
	}, saved.resources)
	p.feed.server = p.server
	p.envoys.served, p.envoys.expect, p.envoys.tables = p.ready, p.expect, p.server.InUse
	p.sockets = p.newSockets()
	p.envoys.open, p.envoys.shut, p.envoys.leave = p.sockets.open, p.sockets.shut, p.leave
	p.envoys.askRoom = func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, peerLimit)
		defer cancel()
		if err := call(ctx, p.paths.Control, http.MethodPost, "/room", &struct{}{}); err != nil {
			p.log.Debug("room not asked for", "error", err)
		}
	}
	p.envoys.contested = func(bank int) []serve.Rejection { return p.server.Contested(clientName(bank)) }
	return p.run(ctx)
}

// rejected is told of what no Envoy of this proxy takes. It must not block.
func (p *proxy) rejected(r serve.Rejection) {
	p.charge.refused(r)
	p.feed.rejected(r)
	p.envoys.letGo()
}

// inUse reports whether the Envoy that serves has what another one rejects: one that is to
// replace it, say, and may never do so. It must not block.
func (p *proxy) inUse(r serve.Rejection) bool {
	return slices.Contains(r.Accepted, clientName(int(p.envoys.serves.Load())))
}

// contested is told of what some Envoys of this proxy have and others reject. It must not
// block.
func (p *proxy) contested(r serve.Rejection) {
	if !p.inUse(r) {
		p.feed.rejected(r)
	}
}

// load reads what there is to begin with: of another proxy, if that is in charge.
func (p *proxy) load(ctx context.Context, inCharge bool) (state, error) {
	if p.paths.isGivenBack() {
		return state{}, errNoState // what there is, and what another proxy still does, was another installation's
	}
	if !inCharge {
		ctx, cancel := context.WithTimeout(ctx, peerLimit)
		defer cancel()
		st, err := readPeerState(ctx, p.paths.Control)
		if err == nil && len(st.resources) > 0 {
			p.log.Info("another proxy is in charge: getting ready to take over")
			p.following = true
			return st, nil
		}
		p.log.Info("another proxy is in charge, but tells nothing", "error", err)
	}
	return loadState(p.paths.State)
}

// StandIn is what is served for routes and endpoints that are missing, or were bad from
// the start: routes that answer 500, and no endpoints. So it is with clusters of
// connections: those without endpoints close what comes.
func StandIn(typeURL, name string) (xds.Resource, bool) {
	var r xds.Resource
	var err error
	switch {
	case typeURL == xds.ClusterType && render.OfConnections(name):
		r, err = render.NoCluster(name)
	case typeURL == xds.RouteType:
		r, err = render.RouteTable500(name)
	case typeURL == xds.EndpointType:
		r, err = render.NoEndpoints(name)
	default:
		return xds.Resource{}, false
	}
	return r, err == nil
}

func (p *proxy) run(ctx context.Context) error {
	control, err := Listen(p.paths.Own, -1)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	defer control.Close()
	defer os.Remove(p.paths.Own)
	adopted, err := p.envoys.adopt(ctx)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	switch {
	case p.stateErr != nil: // only the agent knows
	case p.following, !adopted && p.charge.held():
		p.serveEnvoy()
	default:
		t := time.AfterFunc(agentFirst, p.serveEnvoy)
		defer t.Stop()
	}

	// Envoy is stopped before what it depends on.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var all sync.WaitGroup
	var errs [3]error
	all.Go(func() { p.feed.run(background) })
	all.Go(func() { p.save(background) })
	all.Go(func() { p.evict(background) })
	all.Go(func() { p.check(background) })
	all.Go(func() { p.watchFolder(background, &all) })
	all.Go(func() { errs[0] = p.serveControl(background, control) })
	all.Go(func() { errs[1] = p.sockets.run(background) })
	all.Go(func() { p.pursue(ctx) })
	errs[2] = p.envoys.run(ctx)
	stop()
	all.Wait()
	return errors.Join(errs[:]...)
}

// serveEnvoy lets Envoy have what there is. Before that nobody can judge what the
// agent sends, and the agent sends the next type when the one before is answered.
func (p *proxy) serveEnvoy() {
	p.once.Do(func() {
		close(p.ready)
		if err := p.sockets.begin(); err != nil {
			p.log.Error("envoy not served", "error", err)
		}
		p.expect()
		p.envoys.poke()
	})
}

// expect is told that an Envoy is about to connect that new connections go to.
func (p *proxy) expect() {
	if !p.charge.held() {
		return
	}
	select {
	case <-p.ready:
		p.server.Expect(envoyConnects)
	default:
	}
}

// check has Envoy replaced if what it would be started from has changed.
func (p *proxy) check(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.opts.Check:
		}
		if _, err := p.envoys.replace(ctx, false); err != nil && ctx.Err() == nil {
			p.log.Error("envoy not replaced", "error", err)
		}
	}
}

func (p *proxy) markDirty() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// save writes the state a little after it changed, and once more at the end. It
// takes a tenth of its time at most.
func (p *proxy) save(ctx context.Context) {
	pause := saveDelay
	for {
		select {
		case <-ctx.Done():
			select {
			case <-p.dirty:
				p.saveNow()
			default:
			}
			return
		case <-p.dirty:
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		began := time.Now()
		p.saveNow()
		pause = max(saveDelay, 10*time.Since(began))
		if p.saveErr.Load() != nil { // there may be room later, though nothing changes
			pause = max(pause, saveAgain)
			p.markDirty()
		}
	}
}

func (p *proxy) saveNow() {
	p.saving.Lock()
	defer p.saving.Unlock()
	if p.charge.held() { // two writers would spoil it
		p.saveState()
	}
}

func (p *proxy) saveState() {
	select {
	case <-p.ready:
	default:
		return // a part of the configuration must not pass for the whole
	}
	if p.paths.isGivenBack() {
		p.markDirty() // if an agent takes the node up, it is saved
		return
	}
	err := saveState(p.paths.State, state{p.server.Resources(), p.server.InUse()})
	if err == nil {
		if p.saveErr.Swap(nil) != nil {
			p.log.Info("state is saved again")
		}
		return
	}
	if p.saveErr.Swap(&err) == nil {
		p.log.Error("state not saved: a proxy that is started now would begin with an older one", "error", err)
	}
}
