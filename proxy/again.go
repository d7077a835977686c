// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"time"
)

const (
	// An Envoy that lived this long did not crash at start: the next one starts
	// without a pause.
	stable      = 30 * time.Second
	firstPause  = 100 * time.Millisecond
	longestWait = 10 * time.Second
)

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
