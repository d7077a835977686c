// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io/fs"
)

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

// tell tells the kernel again: whoever makes its maps may have made them anew.
func (s *supervisor) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.flip()
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
