// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
	"fairlead.io/fairlead/xds/serve"
)

const (
	// An Envoy that runs has what it needs, perhaps newer than the file: the agent
	// has this long to speak first.
	agentFirst = 3 * time.Second
	saveDelay  = 200 * time.Millisecond
	// An Envoy that runs connects within this time; what the agent sends meanwhile
	// is answered when Envoy has answered it.
	envoyConnects = 5 * time.Second
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
	// DrainTime is how long clients have to finish when the proxy stops; 0 = 10 s.
	DrainTime time.Duration
	Log       *slog.Logger // nil: silent
}

func (o *Options) complete() error {
	var err error
	if o.RunDir == "" || o.EnvoyPath == "" || o.Node == "" {
		return errors.New("run proxy: node, run folder and Envoy's path must be given")
	}
	if o.RunDir, err = filepath.Abs(o.RunDir); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	// The path as the kernel will show it for the running process.
	if o.EnvoyPath, err = filepath.EvalSymlinks(o.EnvoyPath); err != nil {
		return fmt.Errorf("run proxy: find envoy: %w", err)
	}
	if o.EnvoyPath, err = filepath.Abs(o.EnvoyPath); err != nil {
		return fmt.Errorf("run proxy: find envoy: %w", err)
	}
	if o.UID == 0 {
		if o.UID = os.Geteuid(); o.UID == 0 {
			o.UID = DefaultUID
		}
	}
	if o.DrainTime == 0 {
		o.DrainTime = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FeedSocket == "" {
		o.FeedSocket = PathsIn(o.RunDir).Feed
	}
	return nil
}

// proxy is one run.
type proxy struct {
	opts   Options
	paths  Paths
	log    *slog.Logger
	server *serve.Server
	feed   *feed
	runner *runner

	ready chan struct{} // closed when Envoy may be served
	once  sync.Once
	dirty chan struct{}

	mu       sync.Mutex
	envoy    *envoy // nil: none runs
	starts   int
	stateErr error // why the saved state was not used
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
	unlock, err := lock(p.paths.Lock)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	defer unlock()
	saved, err := loadState(p.paths.State)
	p.stateErr = err
	if err != nil && !errors.Is(err, errNoState) {
		p.log.Warn("saved state not used, waiting for the agent", "error", err)
	}
	if p.runner, err = newRunner(opts, p.paths); err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	p.feed = &feed{
		node: opts.Node, socket: opts.FeedSocket, log: p.log,
		changed: p.markDirty, synced: p.serveEnvoy,
	}
	p.server = serve.New(serve.Options{Log: p.log, StandIn: StandIn, OnReject: p.feed.rejected}, saved)
	p.feed.server = p.server
	return p.run(ctx)
}

// StandIn is what is served for routes and endpoints that are missing, or were
// bad from the start: routes that answer 500, and no endpoints.
func StandIn(typeURL, name string) (xds.Resource, bool) {
	var r xds.Resource
	var err error
	switch typeURL {
	case xds.RouteType:
		r, err = render.RouteTable500(name)
	case xds.EndpointType:
		r, err = render.NoEndpoints(name)
	default:
		return xds.Resource{}, false
	}
	return r, err == nil
}

func (p *proxy) run(ctx context.Context) error {
	running, err := p.runner.adopt(ctx)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	control, err := Listen(p.paths.Control, -1)
	if err != nil {
		return fmt.Errorf("run proxy: %w", err)
	}
	switch {
	case p.stateErr != nil: // only the agent knows
	case running == nil:
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
	all.Go(func() { errs[0] = p.serveStatus(background, control) })
	all.Go(func() { errs[1] = p.serveADS(background) })
	errs[2] = p.runner.run(ctx, running, p.setEnvoy)
	stop()
	all.Wait()
	return errors.Join(errs[:]...)
}

// serveEnvoy lets Envoy have what there is. Before that nobody can judge what the
// agent sends, and the agent sends the next type when the one before is answered.
func (p *proxy) serveEnvoy() {
	p.once.Do(func() {
		close(p.ready)
		p.server.Expect(envoyConnects)
	})
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
	}
}

func (p *proxy) saveNow() {
	select {
	case <-p.ready:
	default:
		return // a part of the configuration must not pass for the whole
	}
	if err := saveState(p.paths.State, p.server.Resources()); err != nil {
		p.log.Error("state not saved", "error", err)
	}
}

// serveADS serves Envoy once there is a configuration. Until then there is no
// socket: Envoy keeps what it has and tries again.
func (p *proxy) serveADS(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.ready:
	}
	l, err := Listen(p.paths.XDS, p.opts.UID)
	if err != nil {
		return err
	}
	g := grpc.NewServer(serve.GRPCOptions()...)
	p.server.Register(g)
	stopped := context.AfterFunc(ctx, g.Stop)
	defer stopped()
	if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve envoy: %w", err)
	}
	return nil
}

func (p *proxy) serveStatus(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", p.writeStatus)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() { srv.Close() })
	defer stopped()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status: %w", err)
	}
	return nil
}

func (p *proxy) setEnvoy(e *envoy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.envoy = e; e != nil {
		p.starts++
		select {
		case <-p.ready:
			p.server.Expect(envoyConnects)
		default:
		}
	}
}
