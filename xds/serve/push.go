// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"fmt"
	"slices"

	"fairlead.io/fairlead/xds"
)

// Push stores and sends changes in dependable order and waits in between: what is
// set goes by phases, each answered by every client before the next; then what is
// deleted, in reverse. It returns what was rejected; the rest is in use by every
// client. Pushes run one at a time.
//
// Envoy answers within milliseconds, but holds the answer for a cluster that
// lacks endpoints for up to 15 s: give ctx a limit above that. When ctx ends the
// error says what was not answered; phases that were not reached are not stored.
// Push the same changes again: what clients have already costs nothing.
func (s *Server) Push(ctx context.Context, all []Change) (Outcome, error) {
	select {
	case s.push <- struct{}{}:
		defer func() { <-s.push }()
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("wait for an earlier push: %w", ctx.Err())
	}
	return s.pushPhases(ctx, all)
}

// Sync is Push of the whole configuration: what is not in all is deleted.
func (s *Server) Sync(ctx context.Context, all []xds.Resource) (Outcome, error) {
	select {
	case s.push <- struct{}{}:
		defer func() { <-s.push }()
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("wait for an earlier push: %w", ctx.Err())
	}
	keep := map[key]bool{}
	var changes []Change
	for _, r := range all {
		keep[key{r.Type, r.Name}] = true
		changes = append(changes, Set(r))
	}
	s.mu.Lock()
	for t, byName := range s.store {
		for n := range byName {
			if !keep[key{t, n}] {
				changes = append(changes, Change{Type: t, Name: n})
			}
		}
	}
	s.mu.Unlock()
	return s.pushPhases(ctx, changes)
}

func (s *Server) pushPhases(ctx context.Context, all []Change) (Outcome, error) {
	var set, del [xds.Phases + 1][]Change
	for _, c := range all {
		p := phase(c.Type)
		if c.Resource != nil {
			set[p] = append(set[p], c)
		} else {
			del[p] = append(del[p], c)
		}
	}
	for _, changes := range set {
		if err := s.applyAndWait(ctx, changes); err != nil {
			return Outcome{}, err
		}
	}
	for _, changes := range slices.Backward(del[:]) {
		if err := s.applyAndWait(ctx, changes); err != nil {
			return Outcome{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcome(all), nil // anew: routes may be rejected when their scope comes
}

func (s *Server) applyAndWait(ctx context.Context, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	answered := make(chan struct{})
	s.mu.Lock()
	cancel := s.apply(changes, func(Outcome) { close(answered) })
	s.mu.Unlock()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel()
	late := &UnansweredError{Err: ctx.Err()}
	for _, c := range changes {
		if !s.isSettled(s.item(c)) {
			late.Changes = append(late.Changes, c)
		}
	}
	if len(late.Changes) == 0 { // answered just now
		return nil
	}
	return late
}
