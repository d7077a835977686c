// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

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

// load computes the plan of what is new in the source; ok is false if nothing is. ours is
// whether the node is among the objects: a source without it is another's, is empty, or is
// being written.
func (a *agent) load() (changes []incr.Change, ours, ok bool) {
	a.mu.Lock()
	l, ok := a.src.load(a.pipe)
	if !ok {
		a.mu.Unlock()
		return nil, false, false
	}
	if a.revision = l.revision; a.revision != a.applied && a.lagging.IsZero() {
		a.lagging = time.Now()
	}
	a.closed.stale = true
	ours = a.pipe.Get(translators.Nodes, a.opts.Node) != nil
	a.mu.Unlock()
	if l.problem == "" && !ours {
		l.problem = fmt.Sprintf("the source has no Node %s; nothing of it is applied", a.opts.Node)
	}
	a.say(aboutSource, l.problem)
	if !a.begun || a.held {
		a.setAttachments() // what is applied next is everything, and they are part of it
	}
	return l.changes, ours, true
}

// reload reads the source and applies what it changes.
func (a *agent) reload(ctx context.Context) {
	start := time.Now()
	changes, ours, ok := a.load()
	if !ok {
		return
	}
	switch {
	case !ours:
		a.held = true
		return
	case !a.begun:
		a.begin(ctx)
	case a.held:
		a.held = false
		a.bring(ctx, a.res.replace(a.rows(plan.EnvoyTables())), func() error { return a.syncKernel(ctx) })
	default:
		a.bring(ctx, a.res.take(changes), func() error { return a.writeKernel(ctx, changes) })
		a.reattach(ctx) // to pods that are known by now
	}
	if n := len(changes); n > 0 {
		a.log.Info("configuration changed", "rows", n, "took", time.Since(start).Round(time.Millisecond))
	}
}

// begin is the first application. Where an Envoy was in use by an earlier agent, it
// comes first, as ever; one that does not answer holds the kernel up no longer than
// in any other change.
func (a *agent) begin(ctx context.Context) {
	a.begun, a.held = true, false
	a.res.replace(a.rows(plan.EnvoyTables()))
	if _, err := a.feed.Sync(ctx, a.res.all()); err != nil { // nobody is connected: it is just stored
		return // the context has ended
	}
	a.serveFeed()
	a.bringOwn(ctx)
	if a.ports.anyLive() {
		waiting, cancel := context.WithTimeout(ctx, ackLimit)
		defer cancel()
		for !a.greet(waiting) && waiting.Err() == nil {
			// An earlier agent may have done without one: it stays like that.
			if a.watchProxy(waiting); !a.absent.bypass.IsZero() {
				break
			}
			select {
			case <-waiting.Done():
			case <-time.After(tick):
			}
		}
	}
	a.rewrite()
	a.lookAfter(ctx)
	a.publish(false)
}

// rows lists the rows of some tables of the plan.
func (a *agent) rows(tables []incr.Table) []incr.Row {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []incr.Row
	for _, t := range tables {
		out = append(out, a.pipe.Rows(t)...)
	}
	return out
}

// bring takes changes to Envoy and the kernel: what is new for Envoy first, then the
// kernel. What Envoy no longer needs goes a while later.
func (a *agent) bring(ctx context.Context, changes []serve.Change, writeKernel func() error) {
	var sets, deletes []serve.Change
	for _, c := range changes {
		if c.Resource != nil {
			sets = append(sets, c)
		} else {
			deletes = append(deletes, c)
		}
	}
	a.keep(sets)
	ok := a.push(ctx, sets)
	a.bringOwn(ctx)
	a.kernelWritten(writeKernel())
	a.retire(deletes)
	a.publish(ok && !a.resync)
}

// push sends changes and those that were not acknowledged before. It reports whether
// all are in use.
func (a *agent) push(ctx context.Context, changes []serve.Change) bool {
	a.savePorts() // before anybody relies on them
	for _, c := range changes {
		a.retry[resourceKey{c.Type, c.Name}] = c
	}
	if len(a.retry) == 0 {
		return true
	}
	all := slices.SortedFunc(maps.Values(a.retry), func(x, y serve.Change) int {
		return compareKeys(resourceKey{x.Type, x.Name}, resourceKey{y.Type, y.Name})
	})
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, ackLimit)
	defer cancel()
	out, err := a.feed.Push(limited, all)
	if err == nil {
		_, there := a.envoy(limited)
		if !there || out.Clients == 0 {
			err = errNoEnvoy
		}
	}
	if !a.acknowledged(began, err) {
		return false
	}
	clear(a.retry)
	rejected := notInUse(out.Rejected, a.inCharge())
	a.accepted(all, rejected)
	if a.ready() {
		for _, c := range all {
			if c.Type == xds.ListenerType && c.Resource != nil {
				a.goLive(c.Name, rejected)
			}
		}
	}
	return a.afterRejections(ctx, rejected)
}

// kernelPort is the port that the kernel may send a listener's connections to: its
// own, once Envoy has the listener.
func (a *agent) kernelPort(listener string) uint16 {
	if !a.ports.live(listener) {
		if listener = a.substitute(listener); listener == "" || !a.ports.live(listener) {
			return 0
		}
	}
	return a.ports.get(listener)
}

func (a *agent) savePorts() {
	problem := ""
	if err := a.ports.flush(); err != nil {
		problem = err.Error()
	}
	a.say(aboutPorts, problem)
}

// writeKernel writes changes, or, if not all was written before, all there is: changes alone
// would hide what is missing.
func (a *agent) writeKernel(ctx context.Context, changes []incr.Change) error {
	if a.resync {
		return a.syncKernel(ctx)
	}
	a.savePorts()
	changes = slices.DeleteFunc(slices.Clone(changes), func(c incr.Change) bool { return !slices.Contains(plan.KernelTables(), c.Table) })
	if !a.absent.bypass.IsZero() {
		changes = bypassChanges(changes)
	}
	if a.setRemote != nil {
		a.setRemote(a.remotePods())
	}
	if err := a.kernel.SetInbound(a.kernelPort(plan.InboundListener)); err != nil || len(changes) == 0 {
		return err
	}
	return a.kernel.Apply(ctx, changes, a.kernelPort)
}

// syncKernel makes the kernel's maps equal to the plan, writing just the difference.
func (a *agent) syncKernel(ctx context.Context) error {
	a.savePorts()
	if a.setRemote != nil {
		a.setRemote(a.remotePods())
	}
	if err := a.kernel.SetInbound(a.kernelPort(plan.InboundListener)); err != nil {
		return err
	}
	rows := a.rows(plan.KernelTables())
	if !a.absent.bypass.IsZero() {
		rows = bypassRows(rows)
	}
	return a.kernel.Sync(ctx, rows, a.kernelPort)
}

// fullAgainAfter is how long a full map is left alone: to compare all of a big one with the
// plan takes seconds. What changes is written at once.
const fullAgainAfter = 10 * time.Second

// rewrite has the kernel written anew, whatever it lacks, as soon as the loop comes round.
func (a *agent) rewrite() { a.resync, a.notBefore = true, time.Time{} }

func (a *agent) kernelWritten(err error) {
	problem := ""
	a.notBefore = time.Time{}
	if errors.Is(err, datapath.ErrLeftOut) {
		a.notBefore = time.Now().Add(fullAgainAfter)
	}
	if a.resync = err != nil; a.resync {
		problem = "the kernel's maps are not as wanted: " + err.Error()
	}
	a.say(aboutKernel, problem)
}

// lookAfter brings on what is not done yet: an Envoy that has only now come, pushes
// that were not acknowledged, a kernel that could not be written. Neither waits for
// the other to be well.
func (a *agent) lookAfter(ctx context.Context) {
	a.savePorts()
	if !a.begun || a.held {
		return
	}
	a.judgeLate(ctx)
	a.lookAfterOwn(ctx)
	back := a.watchProxy(ctx)
	moved := a.ungreeted || a.inCharge() != a.charge // what was in use may not be any more, or be by now
	resync := a.resync && !time.Now().Before(a.notBefore)
	if a.ready() && len(a.retry) == 0 && !resync && !back && !moved {
		if !a.resync { // else the kernel may still send connections to what would go
			a.takeAway(ctx)
		}
		return
	}
	acked := false
	if !a.ready() || back || moved {
		acked = a.greet(ctx)
	} else {
		acked = a.push(ctx, nil)
	}
	if acked && back {
		a.endBypass()
	}
	if acked || resync {
		a.kernelWritten(a.syncKernel(ctx))
	}
	if acked && !a.resync {
		a.releasePorts()
		a.publish(true)
	}
}

// greet waits for nobody: it reports whether Envoy is there and has acknowledged
// everything, and gives its listeners to the kernel.
func (a *agent) greet(ctx context.Context) bool {
	a.ungreeted = true // until it succeeds: the proxy may be in charge again as if nothing had been
	version, there := a.envoy(ctx)
	if !there {
		a.say(aboutEnvoy, errNoEnvoy.Error())
		return false
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, ackLimit)
	defer cancel()
	all, charge := a.res.all(), a.inCharge()
	out, err := a.feed.Sync(limited, all)
	if err == nil && out.Clients == 0 {
		err = errNoEnvoy
	}
	if !a.acknowledged(began, err) {
		return false
	}
	clear(a.retry)
	clear(a.retiring)
	a.charge, a.ungreeted = charge, false
	rejected := notInUse(out.Rejected, charge)
	a.accepted(changesOf(all), rejected)
	for k := range a.res.want {
		if k.typ == xds.ListenerType {
			a.goLive(k.name, rejected)
		}
	}
	a.mu.Lock()
	a.proxyOK = true
	a.mu.Unlock()
	a.log.Info("Envoy is ready", "version", version, "rejected", len(rejected))
	return a.afterRejections(ctx, rejected)
}

// notInUse are the rejections of what the proxy in charge has not got. While one proxy
// follows another, the node has two, and they need not agree. What the newcomer alone has,
// nobody is served until it takes over, and it may never do so; what it rejects costs
// nothing, as it does not take over then; and one that is about to end lets the connections
// go that it cannot serve like the one in charge.
func notInUse(rejected []serve.Rejection, charge string) []serve.Rejection {
	return slices.DeleteFunc(rejected, func(r serve.Rejection) bool { return slices.Contains(r.Accepted, charge) })
}

// goLive gives a listener to the kernel, unless Envoy did not take it.
func (a *agent) goLive(listener string, rejected []serve.Rejection) {
	if !slices.ContainsFunc(rejected, func(r serve.Rejection) bool { return r.Type == xds.ListenerType && r.Name == listener }) {
		a.ports.setLive(listener)
	}
}
