// SPDX-License-Identifier: Apache-2.0

package load

import (
	"maps"
	"math/bits"
	"sync"
	"time"
)

// Summary accounts for every request that has ended: OK + Failed + Violations =
// Requests.
type Summary struct {
	Time       time.Time         `json:"time"`
	Elapsed    float64           `json:"elapsed"` // seconds
	Requests   uint64            `json:"requests"`
	OK         uint64            `json:"ok"`
	Failed     uint64            `json:"failed"`
	Violations uint64            `json:"violations"`         // forbidden requests that got through
	Rate       float64           `json:"rate"`               // requests per second since the last summary; in the final one, of the whole run
	Failures   map[string]uint64 `json:"failures,omitempty"` // by class: refused, reset, timeout, closed, status 503, ...
	Refusals   map[string]uint64 `json:"refusals,omitempty"` // with Forbid: how requests were refused, by class
	By         map[string]uint64 `json:"by,omitempty"`       // answers by deployment, or pod
	// Kept connections that the other side closed or cut while they were idle.
	IdleClosed uint64  `json:"idleClosed,omitempty"`
	IdleReset  uint64  `json:"idleReset,omitempty"`
	P50        float64 `json:"p50"` // milliseconds, of all requests
	P90        float64 `json:"p90"`
	P99        float64 `json:"p99"`
	Max        float64 `json:"max"`
	Final      bool    `json:"final,omitempty"`
}

type verdict int

const (
	ok verdict = iota
	failed
	violation
)

type stats struct {
	mu       sync.Mutex
	start    time.Time
	sum      Summary
	latency  histogram
	lastAt   time.Time
	lastSeen uint64
}

func newStats(start time.Time) *stats {
	return &stats{start: start, lastAt: start,
		sum: Summary{Failures: map[string]uint64{}, Refusals: map[string]uint64{}, By: map[string]uint64{}}}
}

func (s *stats) add(v verdict, class, by string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Requests++
	switch v {
	case ok:
		s.sum.OK++
		if class != "" {
			s.sum.Refusals[class]++
		}
	case failed:
		s.sum.Failed++
		s.sum.Failures[class]++
	case violation:
		s.sum.Violations++
	}
	if by != "" {
		s.sum.By[by]++
	}
	s.latency.add(took)
}

func (s *stats) reconnected(state idleState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == idleClosed {
		s.sum.IdleClosed++
	} else {
		s.sum.IdleReset++
	}
}

func (s *stats) summary() Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	out := s.sum
	out.Failures, out.Refusals, out.By = maps.Clone(s.sum.Failures), maps.Clone(s.sum.Refusals), maps.Clone(s.sum.By)
	out.Time, out.Elapsed = now, now.Sub(s.start).Seconds()
	if d := now.Sub(s.lastAt).Seconds(); d > 0 {
		out.Rate = float64(out.Requests-s.lastSeen) / d
	}
	s.lastAt, s.lastSeen = now, out.Requests
	out.P50, out.P90, out.P99, out.Max = s.latency.at(0.5), s.latency.at(0.9), s.latency.at(0.99), s.latency.at(1)
	return out
}

// histogram counts durations in microseconds, with 64 steps for each power of
// two: about 1.5 % of error, whatever the number of requests.
type histogram struct {
	counts [64 * steps]uint64
	total  uint64
	max    time.Duration
}

const (
	stepBits = 6
	steps    = 1 << stepBits
)

func (h *histogram) add(d time.Duration) {
	h.counts[step(uint64(max(d.Microseconds(), 0)))]++
	h.total++
	h.max = max(h.max, d)
}

func step(us uint64) int {
	if us < steps {
		return int(us)
	}
	shift := bits.Len64(us) - stepBits - 1
	return (shift+1)*steps + int(us>>shift) - steps
}

// lower is the smallest value of a step.
func lower(i int) uint64 {
	if i < steps {
		return uint64(i)
	}
	shift := i/steps - 1
	return uint64(i%steps+steps) << shift
}

// at is the duration in milliseconds that a share of all did not exceed.
func (h *histogram) at(share float64) float64 {
	if share >= 1 {
		return float64(h.max.Microseconds()) / 1000
	}
	left := uint64(share * float64(h.total))
	for i, n := range h.counts {
		if n > left {
			return float64(lower(i)) / 1000
		}
		left -= n
	}
	return float64(h.max.Microseconds()) / 1000
}
