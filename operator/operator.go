// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/internal/version"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/crds"
	"fairlead.io/fairlead/kube/lead"
	"fairlead.io/fairlead/kube/status"
	"fairlead.io/fairlead/kube/taint"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// LeaseName is the name of an installation's Lease, in its namespace.
const LeaseName = "fairlead-operator"

// Labels are those of the Lease: by them other installations find it.
func Labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "fairlead", "app.kubernetes.io/component": "operator"}
}

const (
	// computeEvery is the shortest time between two computations of all statuses, and
	// computeShare bounds their share of the time.
	computeEvery = 500 * time.Millisecond
	computeShare = 5
	// definitionsFirst to definitionsMost bound the wait before definitions that could not
	// be installed are tried again.
	definitionsFirst = time.Second
	definitionsMost  = time.Minute
)

// Options of Run and Cleanup.
type Options struct {
	Config    *kube.Config
	Namespace string // of the installation
	Identity  string // of this process
	Pipeline  pipeline.Options
	// Definitions are the manifests of CustomResourceDefinitions to install where they are
	// missing.
	Definitions [][]byte
	// Health is the address at which it answers probes; "" = none.
	Health string
	// StartupTaint is the key of a taint that nodes have from the start, and lose when their
	// agents are ready; "" = none.
	StartupTaint string
	Times        lead.Times // zero: lead.DefaultTimes
	Log          *slog.Logger
}

// want is what an object is to have in its status.
type want struct {
	status     *conditions.Status
	uid        string
	generation int64 // that it was computed from
}

// operator is one run. pipe belongs to the goroutine of loop; mu guards what others read.
type operator struct {
	o        Options
	src      *kube.Source
	pipe     *pipeline.Pipeline
	judges   []conditions.Judge
	election *lead.Election
	writer   *status.Writer
	events   *status.Events
	taints   *taint.Remover // nil: none
	newNode  chan struct{}  // for taints
	started  time.Time

	mu       sync.Mutex
	stored   map[objects.Ref]*kube.Stored
	wants    map[objects.Ref]want
	computed int // computations so far; 0: nothing is known yet
	objects  int
	errors   int // diagnostics about no object that are errors
	turned   time.Time
	crds     []crds.Result
	crdError string
	retired  bool
}

// Run is the operator. It returns when the context ends, or with an error if it cannot
// start. An API server that is away is waited for.
func Run(parent context.Context, o Options) error {
	p, err := newOperator(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var group sync.WaitGroup
	defer group.Wait()
	start := func(f func(context.Context) error) {
		group.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	o.Log.Info("operator runs", "server", p.src.String(), "namespace", o.Namespace, "identity", o.Identity)
	if o.Health != "" {
		start(p.serveHealth)
	}
	changed := make(chan struct{}, 1)
	start(func(ctx context.Context) error {
		return p.src.Run(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	start(p.campaign)
	p.loop(ctx, changed)
	if parent.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

func newOperator(o Options) (*operator, error) {
	if o.Times == (lead.Times{}) {
		o.Times = lead.DefaultTimes
	}
	o.Pipeline.Node, o.Pipeline.Agents = "", true // what the nodes serve that run one
	pipe, err := pipeline.New(o.Pipeline)
	if err != nil {
		return nil, err
	}
	p := &operator{o: o, pipe: pipe, judges: Judges(), started: time.Now(), newNode: make(chan struct{}, 1), stored: map[objects.Ref]*kube.Stored{}, wants: map[objects.Ref]want{}, turned: time.Now()}
	if p.src, err = kube.New(kube.Options{Config: o.Config, Registry: pipe.Registry(), Statuses: p.kinds(), Log: o.Log}); err != nil {
		return nil, err
	}
	if p.election, err = newElection(o); err != nil {
		return nil, err
	}
	if p.writer, err = status.New(o.Config, p.next, p.wrote, o.Log); err != nil {
		return nil, err
	}
	if o.StartupTaint != "" {
		if p.taints, err = taint.New(taint.Options{Config: o.Config, Namespace: o.Namespace, Key: o.StartupTaint, Newer: p.newNode, Log: o.Log}); err != nil {
			return nil, err
		}
	}
	p.events, err = status.NewEvents(o.Config, o.Identity, o.Log)
	return p, err
}

func newElection(o Options) (*lead.Election, error) {
	return lead.New(lead.Options{Config: o.Config, Namespace: o.Namespace, Name: LeaseName, Identity: o.Identity, Labels: Labels(),
		Annotations: map[string]string{kube.VersionKey: version.String()}, Times: o.Times, Log: o.Log})
}

// kinds are those that have a status of ours.
func (p *operator) kinds() []objects.Kind { return covered(p.pipe.Registry(), p.judges) }

// loop takes what changes, and computes.
func (p *operator) loop(ctx context.Context, changed <-chan struct{}) {
	var due <-chan time.Time
	next := time.Now()
	beat := time.NewTicker(5 * time.Second)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		case <-changed:
			if p.take() && due == nil {
				due = time.After(time.Until(next))
			}
		case <-due:
			due = nil
			begun := time.Now()
			p.compute()
			next = time.Now().Add(max(computeEvery, computeShare*time.Since(begun)))
		}
		p.mu.Lock()
		p.turned = time.Now()
		p.mu.Unlock()
	}
}

// take takes what has changed, and reports whether that may change a status.
func (p *operator) take() bool {
	u, ok := p.src.Take()
	if !ok {
		return false
	}
	p.mu.Lock()
	first := p.computed == 0
	var look []objects.Ref
	for ref, st := range u.Stored {
		old := p.stored[ref]
		switch {
		case st == nil:
			delete(p.stored, ref)
		case old != nil && old.UID == st.UID && newer(old, st): // we have written since
		default:
			p.stored[ref] = st
		}
		look = append(look, ref)
	}
	p.mu.Unlock()
	counts := first
	if len(u.Edits) > 0 {
		for _, c := range p.pipe.Apply(u.Edits) {
			counts = counts || tells(c.Table)
			if c.Table == translators.Objects(objects.NodeKind) && c.Old == nil {
				select {
				case p.newNode <- struct{}{}:
				default:
				}
			}
		}
	}
	// An object whose resource has a status now, or no more, or that is another of its
	// name, is judged anew.
	for ref, st := range u.Stored {
		counts = counts || p.moved(ref, st)
	}
	if !first {
		p.writer.Look(look...)
	}
	return counts
}

// moved reports whether what is stored of an object is not what its status was computed
// for.
func (p *operator) moved(ref objects.Ref, st *kube.Stored) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.wants[ref]
	return st != nil && (!ok && st.Writable || ok && (w.uid != st.UID || w.generation != st.Generation || !st.Writable))
}

// newer reports whether one version of an object is newer than another. Kubernetes says
// that versions of one resource can be compared as numbers.
func newer(a, b *kube.Stored) bool {
	x, errX := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errY := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errX == nil && errY == nil && x > y
}

// tells reports whether a table has something to do with what is told of objects. What
// changes all the time has not: endpoints, pods, and what is computed of them.
func tells(t incr.Table) bool {
	for _, prefix := range []string{"diagnostic", "object/", "route/", "frontend", "inbound/", "authz/", "namespace", "service", "defaults"} {
		if strings.HasPrefix(string(t), prefix) {
			return t != "object/EndpointSlice.discovery.k8s.io" && t != "object/Node"
		}
	}
	return false
}

// compute says anew what every object is to have.
func (p *operator) compute() {
	v := conditions.NewView(p.pipe)
	p.mu.Lock()
	stored := make(map[objects.Ref]*kube.Stored, len(p.stored))
	for ref, st := range p.stored {
		stored[ref] = st
	}
	p.mu.Unlock()
	wants := map[objects.Ref]want{}
	has := func(ref objects.Ref) bool { return stored[ref] != nil && stored[ref].Writable }
	for ref, s := range Statuses(v, p.judges, has) {
		wants[ref] = want{s, stored[ref].UID, stored[ref].Generation}
	}
	events, alive := Events(v, func(ref objects.Ref) bool { _, ok := wants[ref]; return ok })
	p.mu.Lock()
	p.wants = wants
	p.computed++
	p.objects = p.pipe.Objects()
	p.errors = 0
	for _, d := range v.Rest() {
		if d.IsError() {
			p.errors++
		}
	}
	p.mu.Unlock()
	p.events.Want(events, alive)
	p.writer.Look(p.differing()...)
}

// differing lists the objects that do not have what they are to have.
func (p *operator) differing() []objects.Ref {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.computed == 0 {
		return nil
	}
	var out []objects.Ref
	for ref := range p.stored {
		if _, ok := p.change(ref); ok {
			out = append(out, ref)
		}
	}
	return out
}

// next says what is to be written to an object.
func (p *operator) next(ref objects.Ref) (status.Write, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change(ref)
}

// change is called with mu held.
func (p *operator) change(ref objects.Ref) (status.Write, bool) {
	st := p.stored[ref]
	if p.computed == 0 || st == nil || !st.Writable || st.Deleting {
		return status.Write{}, false
	}
	w, ok := p.wants[ref]
	if ok && w.uid != st.UID { // it is computed for the one that was there before
		return status.Write{}, false
	}
	change := conditions.Merge(st.Status, w.generation, w.status, time.Now())
	if len(change) == 0 {
		return status.Write{}, false
	}
	return status.Write{Stored: st, Status: change, Says: fmt.Sprintf("%d %+v", w.generation, cmp.Or(w.status, &conditions.Status{}))}, true
}

// wrote notes what is stored after a write.
func (p *operator) wrote(ref objects.Ref, st *kube.Stored) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.stored[ref]; old != nil && old.UID == st.UID && newer(st, old) {
		p.stored[ref] = st
	}
}

// campaign stands for election, and does a leader's work while it is one.
func (p *operator) campaign(ctx context.Context) error {
	err := p.election.Run(ctx, func(ctx context.Context) {
		var group sync.WaitGroup
		group.Go(func() { p.define(ctx) })
		group.Go(func() { p.writer.Run(ctx, func() { p.writer.Look(p.differing()...) }) })
		group.Go(func() { p.events.Run(ctx) })
		if p.taints != nil {
			group.Go(func() { p.taints.Run(ctx) })
		}
		group.Wait()
	})
	if !errors.Is(err, lead.ErrRetired) {
		return err
	}
	// It must not end: it would be started again, and write.
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.o.Log.Warn("this installation was cleaned up: nothing is written any more; to have it write again, restart the operator")
	return nil
}

// define installs the definitions that are missing.
func (p *operator) define(ctx context.Context) {
	if len(p.o.Definitions) == 0 {
		return
	}
	for wait := definitionsFirst; ; wait = min(2*wait, definitionsMost) {
		results, err := crds.Install(ctx, p.o.Config, p.o.Definitions)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		p.mu.Lock()
		again := p.crdError
		p.crds, p.crdError = results, text
		p.mu.Unlock()
		if err == nil {
			for _, r := range results {
				p.o.Log.Info("definition", "name", r.Name, "outcome", string(r.Outcome), "serves", strings.Join(r.Serves, ","), "lacks", strings.Join(r.Lacks, ","))
				if why := r.Problem(); why != "" {
					p.o.Log.Warn("adopted definition", "name", r.Name, "problem", why, "advice", r.Advice())
				}
			}
			return
		}
		if text != again {
			p.o.Log.Warn("definitions not installed", "problem", text)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
