// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/cni/install"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/lease"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/serve"
)

const (
	// ackLimit bounds how long the kernel waits for Envoy's acknowledgement. Policy
	// must not wait for ever: after it the kernel is written, listeners that were
	// not acknowledged stay without redirect, the push is tried again, and the status
	// says what is waited for.
	ackLimit = 5 * time.Second
	// tick is how often the agent looks after what is not as it should be.
	tick = 200 * time.Millisecond
	// flowsKept is how many flows an observer that comes late still sees.
	flowsKept = 8192
)

// Options of Run.
type Options struct {
	Node   string
	Source string // folder of objects
	// APIServer gives the objects in place of a folder, unless it is nil.
	APIServer *kube.Config
	// LeaseRenew is how often, at most, the node's Lease is renewed where there is an API
	// server; 0 = lease.DefaultRenew. It is in the namespace that Pipeline.Leases names.
	LeaseRenew time.Duration
	instance   string
	RunDir     string // sockets and state; one for each node, shared with the proxy
	Bpffs      string // folder on a BPF file system for pinned maps and links
	Cgroup     string // cgroup2 folder of the node's processes
	NetnsDir   string // folder of the pods' network namespaces
	Uplinks    []string
	SysctlDir  string // where settings are written, if not /proc/sys
	Pipeline   pipeline.Options
	// Plugin has the chained CNI plugin put into the node's network configuration, unless
	// it is nil. One that somebody else has put there is answered all the same.
	Plugin *install.Options
	// WhenProxyAbsent is what becomes of what a proxy should take while no Envoy is
	// ready; "" = Hold.
	WhenProxyAbsent Absence
	Log             *slog.Logger
}

// kernel holds the node's maps; see datapath.Datapath.
type kernel interface {
	SetInbound(port uint16) error
	Apply(ctx context.Context, changes []incr.Change, ports func(listener string) uint16) error
	Sync(ctx context.Context, rows []incr.Row, ports func(listener string) uint16) error
}

// feed brings resources to the node's Envoy; see serve.Server.
type feed interface {
	Push(ctx context.Context, changes []serve.Change) (serve.Outcome, error)
	Sync(ctx context.Context, all []xds.Resource) (serve.Outcome, error)
}

// agent is one run. Its state belongs to the goroutine of loop; mu guards what
// others read.
type agent struct {
	opts   Options
	src    source
	log    *slog.Logger
	ports  *ports
	res    *resources
	kernel kernel
	// setRemote is told some address of other nodes' pods; nil: nobody is.
	setRemote func([]netip.Addr)
	feed      feed
	envoy     func(context.Context) (version string, there bool)
	inCharge  func() string // the proxy that is; see proxy.InCharge
	charge    string        // the one by whose word what Envoy has was judged
	ungreeted bool          // who is in charge has not acknowledged everything since it was greeted
	// present tells whether an Envoy takes connections, whatever it has acknowledged.
	present func(context.Context) presence
	absent  absence
	// serveFeed lets Envoy have the feed. It is called once, when the feed has
	// everything: a client is told, too, what is gone.
	serveFeed func()
	flows     *hubble.Ring
	alog      *accesslog.Server
	late      *mailbox
	host      *addresses
	attached  *attachments
	pods      podKernel
	closed    closed
	own       ownProxies
	retry     map[resourceKey]serve.Change // not acknowledged yet
	retiring  map[resourceKey]time.Time    // to be taken away from Envoy, and when
	begun     bool                         // the source was good once: kernel and Envoy are written
	held      bool                         // the source is not this node's: what was applied stays
	resync    bool                         // the kernel's maps are not as wanted
	notBefore time.Time                    // when rows that are left out are tried again; zero: none is
	started   time.Time
	lease     *lease.Writer // nil: there is no API server

	mu       sync.Mutex
	pipe     *pipeline.Pipeline
	proxyOK  bool // Envoy has acknowledged everything, once
	revision string
	applied  string
	lagging  time.Time // since when what is applied is not what was read; zero: it is
	round    time.Time // when the loop began what it is at
	// standby is what status tells of planes that stand by, as of a revision.
	standby   []diff.Standby
	standbyOf string
	problems  map[topic]string
	findings  []datapath.Finding // of preflight that are not fine
	pluginIn  string             // the network configuration that has the plugin
	rejected  rejections
	waiting   map[resourceKey]time.Time // not acknowledged in time, since when they were pushed
	// Copies for status of what the loop owns: all ports, and those that the kernel may
	// send to.
	portsCopy, livePorts map[string]uint16
	retiringCopy         map[string]int
}

// Run is the agent of a node. It returns when the context ends, leaving kernel and
// proxy as they are, or with an error if it cannot start. It waits for an earlier
// agent of the node to end, and for a source that has the node among its objects:
// until then nothing is changed.
func Run(ctx context.Context, o Options) error {
	o.Pipeline.Node, o.instance = o.Node, instanceName()
	if o.APIServer == nil {
		o.Pipeline.Leases = ""
	} else {
		o.Pipeline.Self = o.Node
		o.Pipeline.Leases = cmp.Or(o.Pipeline.Leases, kubernetes.SystemNamespace)
	}
	pipe, err := pipeline.New(o.Pipeline)
	if err != nil {
		return err
	}
	src, err := newSource(o, pipe)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	findings := datapath.Preflight(o.datapathOptions())
	host := newAddresses()
	// It returns when no other agent writes this node's state any more.
	kernel, err := datapath.Open(ctx, datapath.Options{PinDir: o.Bpffs, StateDir: o.RunDir, Cgroup: o.Cgroup,
		Uplinks: o.Uplinks, NetnsDir: o.NetnsDir, SysctlDir: o.SysctlDir, Addresses: host.put, Owner: o.instance, Log: o.Log})
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := proxy.TakeUp(o.RunDir); err != nil {
		return err
	}
	p, err := openPorts(filepath.Join(o.RunDir, "ports.json"), time.Now)
	if err != nil {
		return err
	}
	a := newAgent(o, src, pipe, p)
	a.host = host
	a.found(findings)
	a.pipe.SetHostAddresses(host.get())
	server := serve.New(serve.Options{StandIn: proxy.StandIn, Client: proxy.FeedName, OnReject: a.late.put, OnContest: a.late.put}, nil)
	a.pods = kernel
	a.setRemote = kernel.SetRemote
	a.attached.read()
	a.kernel, a.feed, a.envoy, a.present = kernel, server, a.findEnvoy, a.findReady
	a.inCharge = func() string { return proxy.InCharge(o.RunDir) }
	return a.run(ctx, kernel, server)
}

func newAgent(o Options, src source, pipe *pipeline.Pipeline, p *ports) *agent {
	return &agent{opts: o, src: src, log: o.Log, ports: p, res: newResources(p), pipe: pipe, flows: hubble.NewRing(flowsKept),
		alog: accesslog.New(flowsKept), retry: map[resourceKey]serve.Change{}, retiring: map[resourceKey]time.Time{}, problems: map[topic]string{},
		late: newMailbox(), host: newAddresses(), attached: newAttachments(o.RunDir, o.Log), closed: closed{ready: make(chan struct{})}, own: ownProxies{by: map[string]*ownProxy{}}, rejected: rejections{}, waiting: map[resourceKey]time.Time{}, started: time.Now(), round: time.Now()}
}

// findEnvoy reports whether the proxy and its Envoy are there, and take what the
// agent serves.
func (a *agent) findEnvoy(ctx context.Context) (version string, there bool) {
	s, err := proxy.ReadStatus(ctx, a.opts.RunDir)
	return s.Envoy.Version, err == nil && s.Envoy.Connected && s.Feed.Connected
}

// run starts what serves and listens, and applies the source until the context ends
// or one of them fails.
func (a *agent) run(parent context.Context, kernel *datapath.Datapath, server *serve.Server) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var wg sync.WaitGroup
	start := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err)) // the first counts
			}
		})
	}
	changed := make(chan struct{}, 1)
	start("access log", a.serveAccessLog)
	start("api", func(ctx context.Context) error {
		tell := answers{status: func() Status { return a.status(kernel, server) }, ready: a.readiness, explain: a.explain, trace: a.trace}
		return serveAPI(ctx, filepath.Join(a.opts.RunDir, Socket), tell, a.flows)
	})
	start("run folder", func(ctx context.Context) error { return keepFolder(ctx, a.opts.RunDir, folderPoll) })
	start("kernel events", func(ctx context.Context) error { return kernel.Events(ctx, a.kernelFlow) })
	start("access records", a.accessRecords)
	start("lost flows", func(ctx context.Context) error { return a.lostFlows(ctx, kernel.LostFlows) })
	start("attachments", a.attached.watch)
	start("preflight", func(ctx context.Context) error {
		return a.keepFinding(ctx, func() []datapath.Finding { return append(datapath.Others(a.opts.datapathOptions()), kernel.Room()...) })
	})
	start("plugins", func(ctx context.Context) error { return cni.Serve(ctx, a.opts.RunDir, a.attached.answers) })
	if o := a.opts.Plugin; o != nil {
		start("plugin", func(ctx context.Context) error { return a.keepPlugin(ctx, *o) })
	}
	start("source", func(ctx context.Context) error {
		return a.src.run(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	if err := a.startLease(start); err != nil {
		return err
	}
	a.log.Info("agent runs", "node", a.opts.Node, "source", a.src.String())
	a.serveFeed = func() {
		start("feed", func(ctx context.Context) error {
			return serveGRPC(ctx, proxy.PathsIn(a.opts.RunDir).Feed, -1, server.Register)
		})
	}
	a.loop(ctx, changed)
	failed := context.Cause(ctx)
	cancel(nil)
	wg.Wait()
	a.own.tasks.Wait()
	if errors.Is(failed, errRemoved) {
		a.leaveFolder(kernel.Leave)
	}
	if parent.Err() != nil {
		return nil
	}
	return failed
}

func (a *agent) loop(ctx context.Context, changed <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	var asked <-chan time.Time // plugins wait
	for {
		a.beginRound()
		select {
		case <-ctx.Done():
			return
		case <-changed:
			a.reload(ctx)
		case <-a.late.wake:
			a.judgeLate(ctx)
		case <-a.host.wake:
			a.rehost(ctx)
		case <-a.attached.wake:
			a.reattach(ctx)
		case <-asked:
		case <-t.C:
			a.lookAfter(ctx)
			a.tellClosed(time.Now())
		}
		asked = nil
		if a.attached.tell(a.judgeAttachment) {
			asked = time.After(answerEvery)
		}
	}
}

// serveAccessLog takes Envoy's access log.
func (a *agent) serveAccessLog(ctx context.Context) error {
	uid := -1
	if os.Geteuid() == 0 {
		uid = proxy.DefaultUID
	}
	return serveGRPC(ctx, proxy.PathsIn(a.opts.RunDir).AccessLog, uid, a.alog.Register)
}

// serveGRPC serves on a unix socket until the context ends.
func serveGRPC(ctx context.Context, path string, uid int, register func(*grpc.Server)) error {
	l, err := proxy.Listen(path, uid)
	if err != nil {
		return err
	}
	g := grpc.NewServer(serve.GRPCOptions()...)
	register(g)
	defer context.AfterFunc(ctx, g.Stop)()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", path, err)
	}
	return nil
}
