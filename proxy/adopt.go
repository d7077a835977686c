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
// do with them, and reports whether one of them serves.
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
		if !ok || found[bank] != nil || !answers(ctx, newAdmin(s.paths.Admin[bank]), g.done) {
			s.log.Warn("stopping an Envoy that is none of ours, or is deaf", "pid", l.pid)
			g.stop()
			continue
		}
		g.bank, found[bank] = bank, g
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active = saved.Active; found[s.active] == nil && found[1-s.active] != nil {
		s.active, saved.Other = 1-s.active, ""
	}
	active, other := found[s.active], found[1-s.active]
	if active != nil {
		s.log.Info("envoy taken over", "pid", active.pid, "bank", active.bank)
		s.take(active, Active)
	}
	if other == nil {
		return active != nil, nil
	}
	s.log.Info("envoy taken over", "pid", other.pid, "bank", other.bank, "role", saved.Other)
	current := other.build.hash == s.want.hash
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
	return true, nil
}

// answers reports whether an Envoy is alive, ready or not.
func answers(ctx context.Context, a *admin, ended <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	for {
		if _, err := a.info(ctx); err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		case <-time.After(readyPoll):
		}
	}
}
