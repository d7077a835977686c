// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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
	g.kills = outOfMemoryKills(g.pid)
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
	s.tasks.Go(func() { s.guard(g) })
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
