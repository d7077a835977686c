// SPDX-License-Identifier: Apache-2.0

package incr

import (
	"fmt"
	"testing"
	"time"
)

// share runs n computations that all give the same row, as pods of one policy do,
// and takes them away again.
func share(n int) time.Duration {
	s := New()
	s.Add(Stage{Name: "share", Keys: map[Table]func(string, any) []string{"in": func(k string, _ any) []string { return []string{k} }},
		Compute: func(r *Reader, k string) []Row { return []Row{{"out", "shared", r.Get("in", k)}} }})
	start := time.Now()
	for i := range n {
		s.Set("in", fmt.Sprintf("%06d", i), "same")
	}
	s.Run()
	for i := range n {
		s.Delete("in", fmt.Sprintf("%06d", i))
	}
	s.Run()
	return time.Since(start)
}

// The cost per computation must not grow with how many share the row.
func BenchmarkSharedRow(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				share(n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/computation")
		})
	}
}
