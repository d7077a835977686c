// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// cost of one thing that was done.
type cost struct {
	cpu       time.Duration // of this process, all threads
	allocated float64       // bytes
	allocs    float64       // objects
	sent      float64       // bytes of messages
}

// measure runs f, which returns the bytes that it sent. The garbage of what came before is
// not f's.
func measure(f func() int) cost {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := cpu()
	sent := f()
	used := cpu() - began
	runtime.ReadMemStats(&after)
	return cost{used, float64(after.TotalAlloc - before.TotalAlloc), float64(after.Mallocs - before.Mallocs), float64(sent)}
}

// per is a share of the cost.
func (c cost) per(n int) cost {
	f := float64(n)
	return cost{c.cpu / time.Duration(n), c.allocated / f, c.allocs / f, c.sent / f}
}

func cpu() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// medians of each figure by itself.
func medians(all []cost) cost {
	return cost{
		median(all, func(c cost) time.Duration { return c.cpu }),
		median(all, func(c cost) float64 { return c.allocated }),
		median(all, func(c cost) float64 { return c.allocs }),
		median(all, func(c cost) float64 { return c.sent }),
	}
}

func median[T cmp.Ordered](all []cost, of func(cost) T) T {
	var v []T
	for _, c := range all {
		v = append(v, of(c))
	}
	slices.Sort(v)
	return v[len(v)/2]
}
