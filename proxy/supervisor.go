// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.io/fairlead/xds/serve"
)

const (
	// An Envoy that lived this long did not crash at start: the next one starts
	// without a pause.
	stable      = 30 * time.Second
	firstPause  = 100 * time.Millisecond
	longestWait = 10 * time.Second
	// A connection that was on its way to the old Envoy when the kernel was told of
	// the new one has this long to get there.
	lastArrival = time.Second
	// A bank that another proxy has may be free soon; the proxy in charge keeps one free
	// for this long when it is asked.
	bankPoll = 100 * time.Millisecond
	roomTime = 10 * time.Second
	// What the kernel could not be told is told again after this time.
	flipAgain = time.Second
)

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

// tell tells the kernel again: whoever makes its maps may have made them anew.
func (s *supervisor) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.flip()
	}
}

// poke looks for something to do.
func (s *supervisor) poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill()
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

// choose finds a bank for the Envoy that is to serve. The error is errHeld if other
// proxies have both.
func (s *supervisor) choose() (bank int, err error) {
	err = errHeld
	for _, bank := range []int{s.active, 1 - s.active} {
		if s.gens[bank] != nil {
			continue
		}
		if err = s.occupy(bank); err == nil {
			return bank, nil
		}
		if !errors.Is(err, errHeld) {
			break
		}
	}
	return 0, err
}

// occupy takes a bank that no other proxy has, nor an Envoy that one has left.
func (s *supervisor) occupy(bank int) error {
	if s.locks[bank] != nil {
		return nil
	}
	f, err := tryLock(s.paths.BankLock[bank])
	if errors.Is(err, errHeld) {
		return fmt.Errorf("take bank %d, which another proxy uses: %w", bank, err)
	}
	if err != nil {
		return fmt.Errorf("take bank %d: %w", bank, err)
	}
	s.locks[bank] = f
	return nil
}

// vacate gives back what is not used.
func (s *supervisor) vacate() {
	for bank, f := range s.locks {
		if f != nil && bank != s.active && s.gens[bank] == nil && s.restart[bank] == nil {
			s.shut(bank)
			f.Close()
			s.locks[bank] = nil
		}
	}
}

// takeCharge makes this the proxy that the kernel's redirect follows.
func (s *supervisor) takeCharge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.charge, s.relieved = true, false
	if s.closed || s.homeless {
		return
	}
	g := s.gens[s.active]
	switch {
	case g != nil && (g.role == Next || g.role == Relieved):
		g.is(Active)
	case g == nil && s.restart[s.active] == nil && s.locks[s.active] != nil:
		s.startAgain(s.active, Active, s.want)
	}
	s.renew()
	s.save()
	s.flip()
	s.fill()
}

// renew starts an Envoy in the other bank where the one that is to serve drains, or is told
// to end: it cannot be told to stay. Until the new one listens the kernel finds the old one,
// as long as that is there. The proxy that was in charge may have left an Envoy that ends.
func (s *supervisor) renew() {
	g := s.gens[s.active]
	if !s.charge || g == nil || g.role != Draining && g.role != Stopping || s.gens[1-s.active] != nil {
		return
	}
	bank := 1 - s.active
	if err := s.occupy(bank); err != nil {
		if !errors.Is(err, errHeld) {
			s.log.Error("envoy not started", "bank", bank, "error", err)
		}
		s.after(bank, bankPoll, s.renew) // unless the bank of the one that drains is free before
		return
	}
	s.serve(bank)
	s.startAgain(bank, Active, s.want)
	s.flip()
}

// relieve is takeCharge's reverse: another proxy takes over. What serves goes on.
func (s *supervisor) relieve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	other := s.gens[1-s.active]
	if s.request != nil {
		s.failed("another proxy takes over")
		s.bad = ""
	}
	if other != nil && (other.role == Next || other.role == Standby) {
		s.end(other)
	}
	if g := s.gens[s.active]; g != nil && g.role == Active {
		g.is(Relieved)
	}
	s.stopTimer(1 - s.active)
	s.charge, s.relieved, s.untold = false, true, false
}

// letGo drains an Envoy that was relieved: it does not take what the one that serves
// does, a policy maybe, and its connections are better off there. It does not block.
func (s *supervisor) letGo() {
	select {
	case s.worse <- struct{}{}:
	default:
	}
}

// makeRoom leaves the other bank to another proxy for a while.
func (s *supervisor) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = time.Now().Add(roomTime)
	bank := 1 - s.active
	s.stopTimer(bank)
	if g := s.gens[bank]; g != nil && g.role == Standby {
		s.end(g)
	}
	s.vacate()
}

// isReady reports whether the Envoy that is to serve could do so.
func (s *supervisor) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gens[s.active]
	return !s.closed && g != nil && g.ready
}

// start starts an Envoy.
func (s *supervisor) start(bank int, role Role, b *build) error {
	if err := s.occupy(bank); err != nil {
		return err
	}
	if err := s.open(bank); err != nil {
		return err
	}
	p, err := startEnvoy(s.opts, s.paths, b, bank, s.locks[bank])
	if err != nil {
		return err
	}
	s.log.Info("envoy started", "pid", p.pid, "bank", bank, "role", role)
	s.take(&generation{process: p, bank: bank, build: b, began: time.Now()}, role)
	return nil
}

// take puts an Envoy, started or found, into its bank.
func (s *supervisor) take(g *generation, role Role) {
	g.admin = newAdmin(s.paths.Admin[g.bank])
	g.is(role)
	s.gens[g.bank] = g
	s.starts++
	if err := s.open(g.bank); err != nil {
		s.log.Error("envoy not served", "pid", g.pid, "bank", g.bank, "error", err)
	}
	if s.charge { // what a newcomer's Envoy makes of a change, nobody waits for
		s.expect()
	}
	ended := make(chan struct{}) // and that is known
	s.tasks.Go(func() {
		defer close(ended)
		<-g.done
		s.ended(g)
	})
	if role == Next && s.request != nil {
		s.last.State, s.last.Bank, s.last.PID = ReplacementStarting, g.bank, g.pid
	}
	if role != Draining && role != Stopping {
		s.tasks.Go(func() { s.warm(g) })
	}
}

// warm waits until an Envoy is ready. One that is to take over has a limit.
func (s *supervisor) warm(g *generation) {
	ctx := s.ctx
	s.mu.Lock()
	if g.role == Next && s.request != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opts.ReadyTime)
		defer cancel()
	}
	s.mu.Unlock()
	from := func() *generation {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a := s.gens[s.active]; a != g {
			if a != nil && a.ready {
				return a
			}
			return nil
		}
		if !s.charge && !s.relieved { // it is to follow another proxy's
			return &generation{admin: newAdmin(s.paths.Admin[1-g.bank])}
		}
		return nil
	}
	err := g.awaitReady(ctx, from, s.tables, func() error { return s.veto(g) }, func(what string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		g.waits = what
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.gens[g.bank] != g {
		return
	}
	if err != nil {
		if g.role != Next || s.request == nil {
			return
		}
		var worse *worseError
		switch {
		case errors.As(err, &worse):
			s.fail(g, err.Error())
		case errors.Is(err, context.DeadlineExceeded):
			s.fail(g, fmt.Sprintf("not ready after %v: %s", s.opts.ReadyTime, g.waits))
		}
		return
	}
	g.ready, g.waits = true, ""
	s.log.Info("envoy is ready", "pid", g.pid, "bank", g.bank, "role", g.role)
	if g.role == Next && s.request != nil {
		s.takeOver(g)
	}
	s.fill()
}

// takeOver gives new connections to an Envoy that is ready, and lets the one that
// had them go.
func (s *supervisor) takeOver(g *generation) {
	old, before := s.gens[s.active], s.active
	s.serve(g.bank)
	g.is(Active)
	if old != nil {
		old.is(Draining)
	}
	s.save()
	if err := s.flip(); err != nil {
		s.serve(before)
		g.is(Next)
		if old != nil {
			old.is(Active)
		}
		s.fail(g, err.Error())
		s.bad = "" // it is none of its fault
		return
	}
	s.stopTimer(before) // the new one serves in its place
	s.bad = ""
	if s.request != nil {
		s.finish(ReplacementDone, "")
	}
	if old != nil {
		s.retire(old)
	}
}

// flip tells the kernel which bank new connections go to.
func (s *supervisor) flip() error {
	s.untold = false
	if s.opts.Flip == nil || !s.charge || s.homeless {
		return nil
	}
	err := s.opts.Flip(s.active)
	// Without a map there is no redirect either; an agent may make it later.
	s.untold, s.flipErr = err != nil, err
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		s.log.Error("kernel not told of the bank", "bank", s.active, "error", err)
		return fmt.Errorf("tell the kernel: %w", err)
	}
	return nil
}

// retire drains an Envoy that does not get new connections any more, and ends it.
func (s *supervisor) retire(g *generation) {
	s.log.Info("envoy drains", "pid", g.pid, "bank", g.bank)
	s.tasks.Go(func() {
		for {
			s.drain(g)
			if !s.awaitOther(g) {
				break
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.end(g)
	})
}

func (s *supervisor) drain(g *generation) {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.DrainTime)
	defer cancel()
	if err := g.drain(ctx, g.admin, min(lastArrival, s.opts.DrainTime/2)); err != nil {
		s.log.Warn("envoy not drained", "pid", g.pid, "bank", g.bank, "error", err)
	}
}

// awaitOther waits, where the Envoy that is to serve has not come or has gone, until there
// is one: what drains is what the kernel finds meanwhile. It reports whether it had to.
func (s *supervisor) awaitOther(g *generation) (had bool) {
	needed := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		active := s.gens[s.active]
		return s.charge && !s.closed && (active == nil || active == g || !active.ready)
	}
	for needed() {
		had = true
		select {
		case <-s.ctx.Done():
			return had
		case <-g.done:
			return false
		case <-time.After(readyPoll):
		}
	}
	return had
}

// end stops an Envoy.
func (s *supervisor) end(g *generation) {
	if g.role == Stopping || s.closed {
		return
	}
	g.is(Stopping)
	s.save()
	s.tasks.Go(g.stop)
}

// ended handles the end of an Envoy, whether it was told to or not.
func (s *supervisor) ended(g *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gens[g.bank] = nil
	if s.closed {
		return
	}
	if err := os.Remove(s.paths.Admin[g.bank]); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("admin socket not removed", "error", err)
	}
	switch g.role {
	case Active:
		s.lost(g)
	case Next:
		if s.request == nil {
			s.log.Warn("envoy ended before it was ready", "pid", g.pid, "bank", g.bank, "log", lastWords(s.opts.RunDir, g.bank))
			s.later(g, Next)
			break
		}
		s.failed("envoy ended: " + lastWords(s.opts.RunDir, g.bank))
	case Relieved: // its clients are told, and the kernel gives them to the one in charge
		s.log.Warn("relieved envoy is gone", "pid", g.pid, "bank", g.bank, "log", lastWords(s.opts.RunDir, g.bank))
	case Standby:
		s.later(g, Standby)
	case Draining, Stopping:
		if s.charge && g.bank == s.active { // it was to serve again: see renew
			s.stopTimer(1 - g.bank)
			s.startAgain(g.bank, Active, s.want)
		}
	}
	s.save()
	s.fill()
}

// lost handles the loss of the Envoy that serves: one that stands by takes its
// place, or another one is started in it. Meanwhile the kernel gives connections
// to whoever listens in the other bank, or makes them wait.
func (s *supervisor) lost(g *generation) {
	s.restarts++
	s.log.Warn("envoy is gone", "pid", g.pid, "bank", g.bank, "log", lastWords(s.opts.RunDir, g.bank))
	if other := s.gens[1-g.bank]; other != nil && other.role == Standby && other.ready {
		s.serve(other.bank)
		other.is(Active)
		s.save()
		s.flip() // the kernel finds it as it is, only not at once
		s.log.Info("standby takes over", "pid", other.pid, "bank", other.bank)
		s.later(g, Standby)
		return
	}
	s.later(g, Active)
}

// later starts an Envoy in the place of one that ended unasked. One that lived for
// long is replaced at once; one that did not, after a pause that grows.
func (s *supervisor) later(g *generation, role Role) {
	pause := s.pauses[g.bank]
	if time.Since(g.began) > stable {
		pause = 0
	}
	s.pauses[g.bank] = min(max(2*pause, firstPause), longestWait)
	s.after(g.bank, pause, func() {
		b := s.want
		if b.hash == s.bad && g.build.content[g.bank] != nil {
			b = g.build
		}
		s.startAgain(g.bank, role, b)
	})
}

// after runs a function under the lock after a pause.
func (s *supervisor) after(bank int, pause time.Duration, f func()) {
	s.stopTimer(bank)
	s.restart[bank] = time.AfterFunc(pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.restart[bank] == nil {
			return
		}
		s.restart[bank] = nil
		f()
		s.save()
		s.fill()
	})
}

func (s *supervisor) stopTimer(bank int) {
	if t := s.restart[bank]; t != nil {
		t.Stop()
		s.restart[bank] = nil
	}
}

// startAgain starts an Envoy where one could be started before: perhaps again soon.
func (s *supervisor) startAgain(bank int, role Role, b *build) {
	if s.gens[bank] != nil || role == Standby && (bank == s.active || s.request != nil) {
		return // things have changed meanwhile
	}
	if bank == s.active && s.relieved || bank != s.active && !s.charge {
		return // another proxy is in charge now
	}
	if bank == s.active {
		role = s.serving()
	}
	err := s.start(bank, role, b)
	if role == Standby && errors.Is(err, errHeld) {
		return // another proxy's Envoy is there for a while; fill tries again
	}
	if err != nil {
		s.log.Error("envoy not started", "bank", bank, "error", err, "pause", longestWait)
		s.after(bank, longestWait, func() { s.startAgain(bank, role, b) })
	}
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

// save writes the roles for the next process.
func (s *supervisor) save() {
	if !s.charge {
		return // the file tells of the one in charge
	}
	r := roles{Active: s.active}
	if g := s.gens[1-s.active]; g != nil {
		r.Other = g.role
	}
	if err := saveRoles(s.paths.Banks, r); err != nil {
		s.log.Error("bank not saved", "error", err)
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
