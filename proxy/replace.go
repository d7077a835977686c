// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// ReplacementState is how far a replacement of Envoy is.
type ReplacementState string

const (
	// ReplacementWaiting is for the bank that it needs.
	ReplacementWaiting ReplacementState = "waiting"
	// ReplacementStarting: the new Envoy gets ready, the old one serves.
	ReplacementStarting ReplacementState = "starting"
	// ReplacementDone: the new Envoy serves; the old one drains, or has ended.
	ReplacementDone ReplacementState = "done"
	// ReplacementFailed: the old Envoy serves on.
	ReplacementFailed ReplacementState = "failed"
	// ReplacementUnneeded: what runs is what is wanted.
	ReplacementUnneeded ReplacementState = "unneeded"
)

// Replacement is the replacement of Envoy that is under way, or was the last.
type Replacement struct {
	State  ReplacementState `json:"state"`
	Reason string           `json:"reason,omitempty"` // why it began
	Error  string           `json:"error,omitempty"`  // why it failed
	// Bank and PID are the new Envoy's; PID is 0 before it is started.
	Bank  int       `json:"bank"`
	PID   int       `json:"pid,omitempty"`
	Began time.Time `json:"began,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
}

// request is a replacement under way.
type request struct {
	hash  string        // of the wanted build
	force bool          // also if it rejects what the other one serves
	done  chan struct{} // closed at its end
	end   Replacement   // set before
}

// replace replaces Envoy by what would be started now, if that differs from what
// runs or force is set, and returns when it is over: the new one serves, or will
// not. The old one may drain still. A second call waits for the same end. Without
// force, one that rejects what the old one serves does not take over.
func (s *supervisor) replace(ctx context.Context, force bool) (Replacement, error) {
	b, err := findBuild(s.opts, s.paths)
	if err != nil {
		return Replacement{}, err
	}
	r, err := s.requested(b, force)
	if err != nil || r == nil {
		return Replacement{State: ReplacementUnneeded}, err
	}
	select {
	case <-ctx.Done():
		return Replacement{}, ctx.Err()
	case <-r.done:
		return r.end, nil
	}
}

// requested is the replacement that leads to a build; nil if none is needed.
func (s *supervisor) requested(b *build, force bool) (*request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the proxy stops")
	}
	active := s.gens[s.active]
	switch {
	case s.request != nil && s.request.hash == b.hash:
		s.request.force = s.request.force || force
		return s.request, nil
	case s.request == nil && active != nil && active.build.hash == b.hash && !force:
		s.want, s.bad = b, ""
		return nil, nil
	}
	if s.request != nil { // another build is wanted by now
		if next := s.gens[1-s.active]; next != nil && next.role == Next {
			s.fail(next, "another one is wanted by now")
		} else {
			s.failed("another one is wanted by now")
		}
	}
	s.want, s.bad = b, ""
	reason := "binary or bootstrap differs from what runs"
	if force && active != nil && active.build.hash == b.hash {
		reason = "asked for"
	}
	r := s.ask(reason)
	r.force = force
	s.fill()
	return r, nil
}

// ask notes that Envoy is to be replaced by the wanted build.
func (s *supervisor) ask(reason string) *request {
	s.request = &request{hash: s.want.hash, done: make(chan struct{})}
	s.last = Replacement{State: ReplacementWaiting, Reason: reason, Began: time.Now()}
	s.log.Info("envoy is to be replaced", "reason", reason)
	return s.request
}

// worseError is why an Envoy does not take over from another that serves more.
type worseError struct{ rejected []serve.Rejection } // at least one

func (e *worseError) Error() string {
	r, what := e.rejected[0], "what the one that serves accepts"
	if n := len(e.rejected); n > 1 {
		what = fmt.Sprintf("%d resources that the one that serves accepts, the first", n)
	}
	return fmt.Sprintf("the new envoy rejects %s: %s %s: %s", what, xds.Short(r.Type), r.Name, r.Detail)
}

// veto is why an Envoy that is about to take over must not do so.
func (s *supervisor) veto(g *generation) error {
	s.mu.Lock()
	free := g.role != Next || s.request == nil || s.request.force
	s.mu.Unlock()
	if free {
		return nil
	}
	if rejected := s.contested(g.bank); len(rejected) > 0 {
		return &worseError{rejected}
	}
	return nil
}

// fail ends a replacement whose new Envoy runs.
func (s *supervisor) fail(g *generation, why string) {
	s.failed(why)
	s.end(g)
}

// failed ends a replacement in favour of the Envoy that serves.
func (s *supervisor) failed(why string) {
	if s.request == nil {
		return
	}
	s.log.Error("envoy not replaced", "error", why)
	s.bad = s.request.hash
	s.finish(ReplacementFailed, why)
}

func (s *supervisor) finish(state ReplacementState, why string) {
	s.last.State, s.last.Error, s.last.Ended = state, why, time.Now()
	s.request.end = s.last
	close(s.request.done)
	s.request = nil
}
