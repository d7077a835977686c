// SPDX-License-Identifier: Apache-2.0

package swap

import (
	"context"
	"math"
	"strings"
	"sync"
	"time"

	"fairlead.io/fairlead/hubble"
)

// Counts are requests and connections of a namespace's services.
type Counts struct {
	All    int `json:"all"`
	Failed int `json:"failed"` // answered with 5xx by the mesh or the application, denied or dropped
}

// Rate of failures, 0 to 1.
func (c Counts) Rate() float64 {
	if c.All == 0 {
		return 0
	}
	return float64(c.Failed) / float64(c.All)
}

func (c *Counts) add(f hubble.Flow) {
	c.All++
	denied := f.Verdict == "denied" || f.Verdict == "dropped"
	if denied || f.HTTP != nil && (f.HTTP.Status == 0 || f.HTTP.Status >= 500) {
		c.Failed++
	}
}

// Flows calls f with what comes from when it has called begun, until the context ends.
type Flows func(ctx context.Context, begun func(), f func(hubble.Flow)) error

// Watcher counts what is sent to the services and pods of a namespace.
type Watcher struct {
	namespace string
	mu        sync.Mutex
	counts    Counts
	errs      []error
	wait      sync.WaitGroup
	begin     sync.WaitGroup // until each source has begun or failed
}

// Watch begins to count, until the context ends. Sources are the agents of the nodes.
func Watch(ctx context.Context, namespace string, sources ...Flows) *Watcher {
	w := &Watcher{namespace: namespace + "/"}
	for _, s := range sources {
		w.begin.Add(1)
		w.wait.Go(func() {
			begun := sync.OnceFunc(w.begin.Done)
			defer begun()
			if err := s(ctx, begun, w.take); err != nil && ctx.Err() == nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.errs = append(w.errs, err)
			}
		})
	}
	return w
}

func (w *Watcher) take(f hubble.Flow) {
	about := strings.HasPrefix(f.Service, w.namespace) || strings.HasPrefix(f.Destination.Pod, w.namespace)
	ended := f.HTTP != nil || f.TCP != nil || f.Verdict == "denied" || f.Verdict == "dropped"
	if !about || !ended {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.add(f)
}

// Begin waits until all sources are heard, or have failed, and counts from then on: a
// cluster's agents are reached in their own time, and nothing would be counted meanwhile.
func (w *Watcher) Begin() {
	w.begin.Wait()
	w.Next()
}

// Next gives what was counted since the last call, and begins anew.
func (w *Watcher) Next() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counts
	w.counts = Counts{}
	return c
}

// Errors are those of sources that could not be followed.
func (w *Watcher) Errors() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errs
}

// Limits say when a swap is to be taken back.
type Limits struct {
	// Rate is how much the rate of failures may grow, 0 to 1, and Least how many failures
	// it takes.
	Rate  float64
	Least int
}

// Worse reports whether what came after is so much worse than what came before that the
// swap should be taken back: more failures than the limit allows, by more than chance
// (three times the root of their number) makes of it.
func (l Limits) Worse(before, after Counts) bool {
	allowed := float64(after.All) * (before.Rate() + l.Rate)
	return after.Failed >= l.Least && float64(after.Failed) > allowed+3*math.Sqrt(allowed)
}

// Tick calls f every interval until it returns false or the time is over.
func Tick(ctx context.Context, whole, interval time.Duration, f func() bool) {
	end := time.Now().Add(whole)
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(interval, time.Until(end))):
		}
		if !f() {
			return
		}
	}
}
