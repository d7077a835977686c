// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"sync"
	"time"
)

// slowLimit is how long an answer may be awaited before that is told.
const slowLimit = 5 * time.Second

// track is how an API server answers for one resource. It is safe for concurrent use.
type track struct {
	changed func() // called when it fails, or is well again

	mu       sync.Mutex
	waiting  time.Time // since when an answer is awaited; zero: none is
	failing  time.Time // since when it fails; zero: it does not
	why      error
	throttle bool // the answer that is awaited was put off by a 429
}

// asked notes that a request was sent, or is about to be.
func (t *track) asked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting.IsZero() {
		t.waiting = time.Now()
	}
	t.throttle = false
}

// answered notes what became of it, or of the stream that it began.
func (t *track) answered(err error) {
	t.mu.Lock()
	t.waiting, t.throttle = time.Time{}, false
	before := t.why
	switch {
	case err == nil:
		t.failing, t.why = time.Time{}, nil
	case t.failing.IsZero():
		t.failing, t.why = time.Now(), err
	default:
		t.why = err
	}
	t.mu.Unlock()
	if before != nil || err != nil {
		t.changed()
	}
}

// context tells the transport whom to tell of a 429.
func (t *track) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, throttledKey{}, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.throttle = true
	})
}

// state is what there is to tell: since when, and why; "" is nothing.
func (t *track) state(now time.Time) (since time.Time, why failure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since = t.failing
	switch late := !t.waiting.IsZero() && now.Sub(t.waiting) >= slowLimit; {
	case t.throttle:
		why = failure{kind: overloaded, text: "too many requests (429)"}
	case late && (t.why == nil || explain(t.why).kind == expired):
		why = failure{kind: slow, text: "no answer yet"}
	case t.why != nil:
		why = explain(t.why)
	default:
		return time.Time{}, failure{}
	}
	if since.IsZero() {
		since = t.waiting
	}
	return since, why
}

// forbidden reports whether the resource may not be read.
func (t *track) forbidden() bool {
	_, why := t.state(time.Time{})
	return why.kind == forbidden
}
