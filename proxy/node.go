// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// ownPoll is how often it is looked which proxies namespaces have.
	ownPoll = 200 * time.Millisecond
	// One that could not run is tried again after this time. It is nobody else's trouble.
	ownAgain = time.Second
	// ownPatience is for how long a proxy that has just started is not ready because one of
	// a namespace is not: a namespace's trouble must not hold up a rollout for ever.
	ownPatience = time.Minute
)

// RunNode runs the node's proxy, and those that namespaces have beside it, until ctx ends.
// What becomes of the latter is no concern of the first. flip is Options.Flip of a slot.
func RunNode(ctx context.Context, opts Options, flip func(slot, bank int) error) error {
	if err := opts.complete(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	n := &ownProxies{opts: opts, flip: flip, runs: map[int]*ownRun{}, began: time.Now()}
	opts.beside = n.lack
	var all sync.WaitGroup
	all.Go(func() { n.run(ctx) })
	err := Run(ctx, opts)
	cancel() // it may have ended by itself
	all.Wait()
	return err
}

// ownProxies are those of namespaces.
type ownProxies struct {
	opts  Options
	flip  func(slot, bank int) error
	began time.Time

	mu   sync.Mutex
	runs map[int]*ownRun // by slot
}

type ownRun struct {
	own    Own // Memory as it was first
	memory atomic.Uint64
	check  chan os.Signal // has a token when memory has changed
	end    context.CancelFunc
	ended  chan struct{}
}

func (n *ownProxies) run(ctx context.Context) {
	t := time.NewTicker(ownPoll)
	defer t.Stop()
	said := ""
	for ctx.Err() == nil {
		all, err := LoadOwn(n.opts.RunDir)
		if err != nil && err.Error() != said {
			n.opts.Log.Error("namespaces' proxies stay as they are", "error", err)
			said = err.Error()
		} else if err == nil {
			said = ""
			n.become(ctx, all)
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	n.mu.Lock()
	left := make([]*ownRun, 0, len(n.runs))
	for _, r := range n.runs {
		left = append(left, r)
	}
	n.mu.Unlock()
	for _, r := range left { // their context has ended
		<-r.ended
	}
}

// become starts what is new and ends what is no more. Where the memory changes, Envoy is
// replaced as if its binary had.
func (n *ownProxies) become(ctx context.Context, all []Own) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := map[int]Own{}
	for _, o := range all {
		wanted[o.Slot] = o
	}
	for slot, r := range n.runs {
		switch w := wanted[slot]; {
		case w.Name != r.own.Name:
			r.end()
		case r.memory.Swap(w.Memory) != w.Memory:
			select {
			case r.check <- syscall.SIGHUP:
			default:
			}
		}
		select {
		case <-r.ended:
			delete(n.runs, slot)
		default:
			delete(wanted, slot) // it runs, or ends
		}
	}
	if len(wanted) > 0 {
		n.checkRoom(all)
	}
	for slot, o := range wanted {
		r := &ownRun{own: o, check: make(chan os.Signal, 1), ended: make(chan struct{})}
		r.memory.Store(o.Memory)
		var of context.Context
		of, r.end = context.WithCancel(ctx)
		n.runs[slot] = r
		go func() { // run waits for it
			defer close(r.ended)
			defer r.end()
			n.keep(of, r)
		}()
	}
}

// checkRoom tells of a container whose memory all of them together may use up: then the
// kernel ends whichever it likes.
func (n *ownProxies) checkRoom(all []Own) {
	if why := tooMuch(all, boundsHere().memory); why != "" {
		n.opts.Log.Warn("namespaces' proxies are bounded, but not by what there is: "+
			"give the proxy's container a larger limit, or them a smaller "+memoryAnnotation, "problem", why)
	}
}

const memoryAnnotation = "fairlead.io/proxy-memory"

// tooMuch says what they may use together if that leaves the node's less than the least of
// them has; "" if it does not, or memory is 0: without limit.
func tooMuch(all []Own, memory uint64) string {
	var sum, least uint64
	for _, o := range all {
		sum += o.Memory
		if least == 0 || o.Memory < least {
			least = o.Memory
		}
	}
	if memory == 0 || sum+least <= memory {
		return ""
	}
	return fmt.Sprintf("they may use %d MiB, of %d MiB for all", sum>>20, memory>>20)
}

// keep runs one until ctx ends.
func (n *ownProxies) keep(ctx context.Context, r *ownRun) {
	opts, own := n.opts, r.own
	opts.RunDir, opts.FeedSocket = own.Dir(n.opts.RunDir), ""
	opts.memory, opts.Check, opts.beside = r.memory.Load, r.check, nil
	opts.Log = n.opts.Log.With("proxy", own.Name)
	if n.opts.separate {
		opts.UID = own.UID()
	}
	if n.flip != nil {
		opts.Flip = func(bank int) error { return n.flip(own.Slot, bank) }
	}
	for {
		err := own.settle(n.opts.RunDir)
		if err == nil {
			err = Run(ctx, opts)
		}
		if ctx.Err() != nil {
			return
		}
		opts.Log.Error("the namespace's proxy has ended, and is tried again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(ownAgain):
		}
	}
}

// lack is what keeps one of them from being ready, for as long as that matters.
func (n *ownProxies) lack(ctx context.Context) string {
	if time.Since(n.began) > ownPatience {
		return ""
	}
	n.mu.Lock()
	runs := make([]Own, 0, len(n.runs))
	for _, r := range n.runs {
		runs = append(runs, r.own)
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	for _, o := range runs {
		r, err := ReadReadiness(ctx, o.Dir(n.opts.RunDir))
		if err == nil && !r.Ready {
			err = fmt.Errorf("%s", r.Why)
		}
		if err != nil {
			return fmt.Sprintf("the proxy of namespace %s is not ready: %v", o.Name, err)
		}
	}
	return ""
}
