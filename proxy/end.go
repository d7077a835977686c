// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// A connection that was on its way to the old Envoy when the kernel was told of
// the new one has this long to get there.
const lastArrival = time.Second

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
	if g.role != Draining && g.role != Stopping {
		s.lastEnd = g.ending()
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
	s.log.Warn("envoy is gone", "pid", g.pid, "bank", g.bank, "why", s.lastEnd.Why, "log", lastWords(s.opts.RunDir, g.bank))
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
