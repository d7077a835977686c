// SPDX-License-Identifier: Apache-2.0

// Package lease tells the other nodes that a node's agent is there and up to date, by
// renewing a Lease of the node's name. Whoever reads it counts by its own clock for how
// long it was not renewed; see kube.Source.
//
// It is renewed only while the agent has applied what is configured and hears of changes,
// so that an agent which hangs, was stopped, or has lost its API server says nothing. After
// a time of which it does not know what it missed, it says nothing either until all has been
// well for Renew.
package lease

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/translators/kubernetes"
)

const (
	// DefaultRenew is how often a Lease is renewed in clusters that are not large.
	DefaultRenew = 5 * time.Second
	// durations is for how many renewals a word counts.
	durations = 3
	// eventBudget bounds what renewals cost an API server: every agent hears of every one,
	// so there are as many events as the square of the number of nodes.
	eventBudget = 10_000 // a second
	// look is how often it is looked whether something is to be done.
	look = time.Second
)

// Renew is how often each of a number of nodes renews its Lease; least is the shortest.
func Renew(least time.Duration, nodes int) time.Duration {
	return max(least, (time.Duration(nodes) * time.Duration(nodes) * time.Second / eventBudget).Round(time.Second))
}

// Duration is for how long a renewal counts.
func Duration(renew time.Duration) time.Duration { return durations * renew }

// State is what the agent is, at a moment.
type State struct {
	Ready    bool   // there is something to tell
	NodeUID  string // of the Node, "" if it has none
	Nodes    int    // that the cluster has
	Revision string // of the configuration that was applied
	Behind   string // why what the node's proxy checks does not count; "": it does
	Findings string // of the node, that are not fine, as JSON; "": none
	Guards   bool   // no pod starts on the node that the agent has not been told of
}

// Source is what hears of Leases; see kube.Source.
type Source interface {
	Heard(node, instance string) time.Time
	Lags(now time.Time, limit time.Duration) string
	Deaf(why string)
}

// Options of New.
type Options struct {
	Config                             *kube.Config
	Namespace, Node, Instance, Version string
	Renew                              time.Duration // the shortest; 0 = DefaultRenew
	State                              func(now time.Time) State
	Source                             Source
	Log                                *slog.Logger
}

// Writer renews the Lease of a node.
type Writer struct {
	opts   Options
	client coordination.LeaseInterface

	last      *coordinationv1.Lease // as the server has answered
	tried, ok time.Time             // the last attempt, and the last that was taken
	claimed   time.Time             // the last that was taken and said that all is well
	first     time.Time             // since when renewals are taken without a break
	well      time.Time             // since when nothing is known to be missed; zero: something is
	looked    time.Time
	begun     bool   // a renewal was taken once
	rival     string // another agent that renews it
	rivalSeen time.Time
	rivalBeat string

	mu     sync.Mutex
	status Status
}

// Status is how it stands with a node's own Lease.
type Status struct {
	Name     string        `json:"name"` // namespace/name
	Instance string        `json:"instance"`
	Renewed  time.Time     `json:"renewed,omitzero"`
	Renew    time.Duration `json:"renew"`
	Duration time.Duration `json:"duration"`
	// Silent is why it is not renewed, Behind what it says, if it is not that all is well:
	// either has other nodes not count what this one's proxy has checked.
	Silent string    `json:"silent,omitempty"`
	Behind string    `json:"behind,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// New returns a writer that does nothing before Run.
func New(o Options) (*Writer, error) {
	o.Renew = cmp.Or(o.Renew, DefaultRenew)
	client, err := clientOf(o.Config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", o.Config.Host, err)
	}
	w := &Writer{opts: o, client: client.Leases(o.Namespace)}
	w.status = Status{Name: o.Namespace + "/" + o.Node, Instance: o.Instance, Renew: o.Renew, Duration: Duration(o.Renew), Silent: starts, Since: time.Now()}
	return w, nil
}

func clientOf(c *kube.Config) (*coordination.CoordinationV1Client, error) {
	c = kube.Prepare(c)
	c.ContentType = "application/json" // what every server and every tool in between reads
	return coordination.NewForConfig(c)
}

// Status tells how it stands.
func (w *Writer) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Run renews until the context ends. The Lease stays: an agent that follows soon costs
// nobody anything.
func (w *Writer) Run(ctx context.Context) error {
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		w.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

const (
	starts  = "the agent has not applied everything yet"
	settles = "the agent was stopped, or did not reach the API server: it makes sure that it has heard of all that changed"
)

// look renews if it is time to, and there is reason to.
func (w *Writer) look(ctx context.Context, now time.Time) {
	s := w.opts.State(now)
	renew := Renew(w.opts.Renew, s.Nodes)
	defer func() { w.looked = now }()
	w.settle(now, renew)
	if !s.Ready {
		w.say(renew, starts, "")
		return
	}
	if s.Behind == "" {
		if w.unheard() >= Duration(renew) {
			s.Behind = "it does not hear of its own renewals: what the API server sends it lags"
		}
	}
	lags := w.opts.Source.Lags(now, Duration(renew))
	switch {
	case s.Behind == "" && lags != "":
		w.say(renew, "it does not hear of changes: "+lags, "")
		return
	case s.Behind == "" && !w.settled(now, renew):
		w.say(renew, settles, "")
		return
	case now.Sub(w.tried) < renew-look/2 && s.Behind == w.Status().Behind && w.Status().Silent == "":
		return
	case now.Sub(w.tried) < look-look/2:
		return
	}
	w.tried = now
	limited, cancel := context.WithTimeout(ctx, renew-look)
	defer cancel()
	err := w.write(limited, now, Duration(renew), s)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.first = time.Time{}
		w.say(renew, w.explain(err), "")
		if answered(err) {
			w.hears("")
		} else {
			w.hears("the API server does not answer")
		}
		return
	}
	if w.first.IsZero() {
		w.first = now
	}
	w.ok, w.begun = now, true
	if s.Behind == "" {
		w.claimed = now
	}
	if w.hears(""); w.unheard() >= 2*renew-look { // before others would be taken for silent
		w.hears("renewals of this node do not come back")
	}
	w.say(renew, "", s.Behind)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// unheard is how long renewals were taken that have not come back.
func (w *Writer) unheard() time.Duration {
	if w.first.IsZero() {
		return 0
	}
	return w.ok.Sub(later(w.first, w.opts.Source.Heard(w.opts.Node, w.opts.Instance)))
}

func (w *Writer) hears(why string) { w.opts.Source.Deaf(why) }

// settle notes since when nothing is known to have been missed. A process that was stopped
// knows by either clock: one of them goes on while a machine is suspended.
func (w *Writer) settle(now time.Time, renew time.Duration) {
	gap := !w.looked.IsZero() && max(now.Sub(w.looked), now.Round(0).Sub(w.looked.Round(0))) > renew+look
	switch {
	case w.opts.Source.Lags(now, 0) != "":
		w.well = time.Time{}
	case w.well.IsZero() || gap:
		w.well = now
	}
	if gap {
		w.claimed, w.first = time.Time{}, time.Time{} // whatever was said, and heard, before counts no more
	}
}

// settled reports whether the agent may claim to be up to date: it goes on to, or has
// nothing been heard from, or all has been well for a while.
func (w *Writer) settled(now time.Time, renew time.Duration) bool {
	if !w.begun || !w.claimed.IsZero() && now.Sub(w.claimed) < Duration(renew) {
		return true
	}
	return !w.well.IsZero() && now.Sub(w.well) >= renew
}

// say makes known how it stands.
func (w *Writer) say(renew time.Duration, silent, behind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := &w.status; s.Silent != silent || s.Behind != behind {
		s.Silent, s.Behind, s.Since = silent, behind, time.Now()
		if why := cmp.Or(silent, behind); why != "" && why != starts {
			w.opts.Log.Warn("other nodes do not count what this one has checked", "why", why)
		} else if why == "" {
			w.opts.Log.Info("other nodes are told that this one is up to date", "lease", s.Name)
		}
	}
	w.status.Renewed, w.status.Renew, w.status.Duration = w.ok, renew, Duration(renew)
}

// write renews the Lease, or makes it.
func (w *Writer) write(ctx context.Context, now time.Time, duration time.Duration, s State) error {
	if w.last == nil {
		got, err := w.client.Get(ctx, w.opts.Node, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: w.opts.Namespace, Name: w.opts.Node}}
			w.fill(l, now, duration, s)
			l, err = w.client.Create(ctx, l, metav1.CreateOptions{})
			if err == nil {
				w.last = l
			}
			return err
		case err != nil:
			return err
		}
		if w.yields(got, now) {
			return errRival
		}
		w.last = got
	}
	l := w.last.DeepCopy()
	w.fill(l, now, duration, s)
	l, err := w.client.Update(ctx, l, metav1.UpdateOptions{})
	if err == nil {
		w.last = l
		return nil
	}
	if apierrors.IsConflict(err) {
		w.contend(ctx, now)
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		w.last = nil // it is another by now, or gone: it is looked at anew
	}
	return err
}

// contend notes who has written the Lease in between. An agent takes it from one that was
// there before, as one of a node follows another, and leaves it to one that came later.
func (w *Writer) contend(ctx context.Context, now time.Time) {
	got, err := w.client.Get(ctx, w.opts.Node, metav1.GetOptions{})
	if err != nil || holderOf(got) == w.opts.Instance || holderOf(got) == "" {
		return
	}
	w.rival, w.rivalBeat, w.rivalSeen = holderOf(got), beatOf(got), now
}

// yields reports whether a Lease is left to the rival who renews it.
func (w *Writer) yields(l *coordinationv1.Lease, now time.Time) bool {
	if w.rival == "" {
		return false
	}
	if holder := holderOf(l); holder == w.opts.Instance || holder == "" {
		w.rival = ""
		return false
	}
	if b := beatOf(l); b != w.rivalBeat {
		w.rival, w.rivalBeat, w.rivalSeen = holderOf(l), b, now
	}
	duration := kube.DefaultDuration
	if l.Spec.LeaseDurationSeconds != nil {
		duration = time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
	}
	if now.Sub(w.rivalSeen) < duration {
		return true
	}
	w.rival = ""
	return false
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func beatOf(l *coordinationv1.Lease) string {
	if l.Spec.RenewTime == nil {
		return holderOf(l)
	}
	return holderOf(l) + " " + l.Spec.RenewTime.Format(metav1.RFC3339Micro)
}

// fill writes into a Lease what is to be told. It is the node's: with it, it goes.
func (w *Writer) fill(l *coordinationv1.Lease, now time.Time, duration time.Duration, s State) {
	note := func(m *map[string]string, key, value string) {
		if *m == nil {
			*m = map[string]string{}
		}
		if value == "" {
			delete(*m, key)
			return
		}
		(*m)[key] = value
	}
	note(&l.Labels, "app.kubernetes.io/name", "fairlead")
	note(&l.Labels, "app.kubernetes.io/component", "agent")
	note(&l.Annotations, kube.VersionKey, w.opts.Version)
	note(&l.Annotations, kube.RevisionKey, s.Revision)
	note(&l.Annotations, kube.PreflightKey, s.Findings)
	guards := ""
	if s.Guards {
		guards = "true"
	}
	note(&l.Annotations, kube.GuardsKey, guards)
	note(&l.Annotations, kubernetes.BehindKey, s.Behind)
	note(&l.Annotations, kubernetes.NodeUIDKey, s.NodeUID)
	l.OwnerReferences = nil
	if s.NodeUID != "" {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: w.opts.Node, UID: types.UID(s.NodeUID)}}
	}
	at, seconds := metav1.NewMicroTime(now), int32(duration/time.Second)
	if holderOf(l) != w.opts.Instance {
		transitions := int32(0)
		if holderOf(l) != "" {
			if l.Spec.LeaseTransitions != nil {
				transitions = *l.Spec.LeaseTransitions
			}
			transitions++
		}
		l.Spec.AcquireTime, l.Spec.LeaseTransitions = &at, &transitions
	}
	l.Spec.HolderIdentity, l.Spec.RenewTime, l.Spec.LeaseDurationSeconds = &w.opts.Instance, &at, &seconds
}
