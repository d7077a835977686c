// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"time"
)

// An Envoy that is found must answer within this time.
const answerLimit = 3 * time.Second

// adopt takes over the Envoys that an earlier proxy left, and what it was about to
// do with them, and reports whether one of them serves, or is about to. One that was
// told to drain is let go: it never serves again.
func (s *supervisor) adopt(ctx context.Context) (bool, error) {
	left, err := findEnvoys(s.opts.RunDir)
	if err != nil {
		return false, fmt.Errorf("look for a running Envoy: %w", err)
	}
	saved, err := loadRoles(s.paths.Banks)
	if err != nil {
		s.log.Warn("bank not known", "error", err)
	}
	var found [Banks]*generation
	var drains [Banks]bool // for good
	for _, l := range left {
		g := &generation{
			process: &process{pid: l.pid, done: make(chan struct{})},
			build:   foundBuild(l), adopted: true, began: time.Now(),
		}
		if err := watch(l.pid, g.done); err != nil {
			s.log.Info("envoy ended while it was found", "pid", l.pid, "error", err)
			continue
		}
		bank, _, ok := parseBootstrapFile(l.config)
		state := ""
		if ok && found[bank] == nil {
			state = answers(ctx, newAdmin(s.paths.Admin[bank]), g.done)
		}
		if state == "" {
			s.log.Warn("stopping an Envoy that is none of ours, or is deaf", "pid", l.pid)
			g.stop()
			continue
		}
		g.bank, found[bank], drains[bank] = bank, g, state == "DRAINING"
	}
	if o := found[1-saved.Active]; drains[0] && drains[1] {
		s.log.Warn("stopping an Envoy that drains: its bank is needed", "pid", o.pid, "bank", o.bank)
		o.stop()
		found[o.bank] = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve(saved.Active)
	if drains[s.active] || found[s.active] == nil && found[1-s.active] != nil && !drains[1-s.active] {
		s.serve(1 - s.active)
		saved.Other = ""
	}
	active, other := found[s.active], found[1-s.active]
	if active != nil {
		s.log.Info("envoy taken over", "pid", active.pid, "bank", active.bank)
		s.take(active, s.serving())
	}
	if other == nil {
		return active != nil, nil
	}
	if drains[other.bank] {
		saved.Other = Draining
	}
	s.log.Info("envoy taken over", "pid", other.pid, "bank", other.bank, "role", saved.Other)
	current := s.charge && other.build.hash == s.want.hash
	switch {
	case saved.Other == Next && current:
		s.ask("begun by an earlier process")
		s.take(other, Next)
	case saved.Other == Standby && current && s.opts.Standby && active.build.hash == s.want.hash:
		s.take(other, Standby)
	default: // it had connections, or may have got some
		s.take(other, Draining)
		s.retire(other)
	}
	return active != nil, nil
}

// answers is the state that an Envoy says it is in, ready or not; "" if it does not
// answer.
func answers(ctx context.Context, a *admin, ended <-chan struct{}) string {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	for {
		if info, err := a.info(ctx); err == nil {
			return info.State
		}
		select {
		case <-ctx.Done():
			return ""
		case <-ended:
			return ""
		case <-time.After(readyPoll):
		}
	}
}
