// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"strings"
	"testing"
)

// One VirtualService of 20 lines: the cost of reading a folder is this times its
// objects.
func BenchmarkDecode(b *testing.B) {
	r := testRegistry()
	in := Input{Name: "in.yaml", Data: []byte(strings.Repeat("---\n"+webVS, 100))}
	for b.Loop() {
		if got := Decode(r, in); len(got.Objects) != 1 {
			b.Fatal(len(got.Objects))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "µs/object")
}
