// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.io/fairlead/xds/serve"
)

// What the kernel could not be told is told again after this time.
const flipAgain = time.Second

// supervisor keeps an Envoy running, replaces it, and keeps another one ready if
// that is wanted.
//
//	             ready, flip            drained
//	bank 0:  next ────────► active ──► draining ──► stopping
//	bank 1:          active ──► draining ──► stopping      next ──► ...
//
// Whatever happens to an Envoy is told to a method under the lock, which decides
// what follows. Nothing waits under the lock.
type supervisor struct {
	opts  *Options
	paths Paths
	log   *slog.Logger
	// expect is told that an Envoy is about to connect.
	expect func()
	// tables are the route tables that Envoys must have to be ready.
	tables func() []string
	// contested is what the Envoy in a bank rejects and another one serves.
	contested func(bank int) []serve.Rejection
	// open begins to serve what Envoys in a bank need, and shut ends it.
	open func(bank int) error
	shut func(bank int)
	// leave is called before the end, when Envoys still serve.
	leave func()
	// askRoom asks the proxy in charge for the bank that its Envoy does not serve in.
	askRoom func(context.Context)
	// served is closed when Envoys may be served; a replacement before would wait
	// in vain.
	served <-chan struct{}

	serves atomic.Int32 // active, for who must not wait for the lock

	worse chan struct{} // has a token if an Envoy may have rejected what another takes

	ctx    context.Context // of what waits for Envoys; ends with run
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	charge   bool            // this proxy is in charge
	relieved bool            // it was, and another one is
	homeless bool            // it has no bank
	room     time.Time       // until then the other bank is left to another proxy
	locks    [Banks]*os.File // of the banks that this proxy has
	want     *build
	bad      string // hash of a wanted build that did not get ready
	gens     [Banks]*generation
	active   int                  // see serve
	pauses   [Banks]time.Duration // before the next start, if what runs ends soon
	restart  [Banks]*time.Timer   // set: a start is due
	request  *request             // nil: no replacement is under way
	last     Replacement
	untold   bool  // the kernel does not know the bank
	flipErr  error // why
	starts   int
	restarts int
	lastEnd  *EnvoyEnd // nil: none has ended unasked
}

func newSupervisor(opts *Options, paths Paths) (*supervisor, error) {
	b, err := findBuild(opts, paths)
	if err != nil {
		return nil, err
	}
	s := &supervisor{opts: opts, paths: paths, log: opts.Log, want: b, worse: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// run keeps Envoys running until ctx ends, and then stops them. What adopt found
// is kept. An error means that no Envoy can be started.
func (s *supervisor) run(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	again := time.NewTicker(flipAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			s.leave()
			s.shutdown()
			return nil
		case <-s.worse:
			s.mu.Lock()
			if g := s.gens[s.active]; s.relieved && g != nil && g.role == Relieved {
				g.is(Draining)
				s.retire(g)
			}
			s.mu.Unlock()
		case <-again.C:
			s.mu.Lock()
			if s.untold {
				s.flip()
			}
			s.fill()
			s.mu.Unlock()
		}
	}
}

// begin starts an Envoy if none was found, as soon as there is a bank for it.
func (s *supervisor) begin(ctx context.Context) error {
	var asked time.Time
	for {
		begun, err := s.tryBegin()
		if begun || err != nil {
			return err
		}
		if time.Since(asked) > roomTime/2 {
			asked = time.Now()
			s.askRoom(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(bankPoll):
		}
	}
}

func (s *supervisor) tryBegin() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.gens[s.active]; g == nil {
		bank, err := s.choose()
		if errors.Is(err, errHeld) {
			if !s.homeless {
				s.log.Info("wait for a bank: other proxies use both")
			}
			s.homeless = true
			return false, nil
		}
		if err != nil {
			return false, err
		}
		s.homeless = false
		s.serve(bank)
		if err := s.start(bank, s.serving(), s.want); err != nil {
			return false, err
		}
		s.save()
	} else if g.build.hash != s.want.hash {
		s.ask("binary or bootstrap differs from what runs")
	}
	s.flip()
	s.fill()
	return true, nil
}

// serve makes a bank's Envoy the one that serves, or is to.
func (s *supervisor) serve(bank int) {
	s.active = bank
	s.serves.Store(int32(bank))
}

// serving is the role of the Envoy that serves, or is to when this proxy is in charge.
func (s *supervisor) serving() Role {
	if s.charge {
		return Active
	}
	return Next
}

// isReady reports whether the Envoy that is to serve could do so.
func (s *supervisor) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gens[s.active]
	return !s.closed && g != nil && g.ready
}

// poke looks for something to do.
func (s *supervisor) poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill()
}

// fill uses the bank that does not serve, if there is a use for it.
func (s *supervisor) fill() {
	s.vacate()
	if !s.charge || s.homeless {
		return
	}
	select {
	case <-s.served:
	default:
		return
	}
	bank := 1 - s.active
	active, other := s.gens[s.active], s.gens[bank]
	switch {
	case s.closed:
	case s.request != nil && other == nil:
		s.stopTimer(bank)
		if err := s.start(bank, Next, s.want); err != nil {
			s.failed(err.Error())
		}
		s.save()
	case s.request != nil && other.role == Standby:
		s.end(other)
	case s.request == nil && s.opts.Standby && other == nil && s.restart[bank] == nil && time.Now().After(s.room) &&
		active != nil && active.ready && s.want.hash != s.bad:
		s.startAgain(bank, Standby, s.want)
		s.save()
	}
}

// shutdown drains and stops all Envoys.
func (s *supervisor) shutdown() {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	if s.request != nil {
		s.finish(ReplacementFailed, "the proxy stops")
	}
	var all sync.WaitGroup
	var used [Banks]bool // without a lock: an earlier proxy started the Envoy
	for bank, g := range s.gens {
		used[bank] = g != nil
		s.stopTimer(bank)
		if g == nil {
			continue
		}
		serves := g.role == Active || g.role == Relieved || g.role == Draining
		quiet := time.Duration(0)
		if g.role == Relieved {
			quiet = min(lastArrival, s.opts.DrainTime/2)
		}
		all.Go(func() {
			if serves {
				ctx, cancel := context.WithTimeout(context.Background(), s.opts.DrainTime)
				defer cancel()
				if err := g.drain(ctx, g.admin, quiet); err != nil {
					s.log.Warn("envoy not drained", "pid", g.pid, "bank", g.bank, "error", err)
				}
			}
			g.stop()
		})
	}
	s.mu.Unlock()
	all.Wait()
	s.tasks.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for bank, f := range s.locks {
		if f != nil || used[bank] {
			s.shut(bank)
		}
		if f != nil {
			f.Close()
			s.locks[bank] = nil
		}
	}
}
