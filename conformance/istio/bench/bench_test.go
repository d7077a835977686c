// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// rounds that take turns; BENCH_ROUNDS is another number.
const rounds = 5

// changes that a round makes to Fairlead's half, which are too cheap to measure one by one.
const perRound = 50

// BenchmarkBesideIstiod prints a table for each mesh.
func BenchmarkBesideIstiod(b *testing.B) {
	n := rounds
	if text := os.Getenv("BENCH_ROUNDS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	for _, m := range []mesh{{1000, 1}, {1000, 50}, {5000, 1}, {5000, 50}} {
		b.Run(fmt.Sprintf("%dx%d", m.services, m.workloads), func(b *testing.B) {
			for b.Loop() {
				compare(b, m, n)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func compare(b *testing.B, m mesh, n int) {
	theirs, us := newIstiod(b, m), newOurs(b, m)
	defer theirs.end()
	defer us.end()
	var all, one [2][]cost
	seconds := 10
	for round := range n + 1 {
		if round == 1 { // the first was to warm up
			clear(all[:])
			clear(one[:])
		}
		all[0] = append(all[0], theirs.everything())
		all[1] = append(all[1], us.everything())
		seconds++
		one[0] = append(one[0], theirs.change(seconds))
		var versions []int
		for range perRound {
			seconds++
			versions = append(versions, seconds)
		}
		one[1] = append(one[1], us.change(versions))
	}
	fmt.Printf("\n**%s**\n\n| | istiod | Fairlead | Fairlead ÷ istiod | goal |\n|---|---|---|---|---|\n", m)
	goals := map[string]float64{"one change: CPU, ms": 50, "one change: sent, B": 1000} // as often as much
	if m.workloads == 50 {
		goals["everything: CPU, ms"] = 2
	}
	report(b, "everything", medians(all[0]), medians(all[1]), goals)
	report(b, "one change", medians(one[0]), medians(one[1]), goals)
	fmt.Println()
}

// report prints the rows of one thing that was done.
func report(b *testing.B, what string, theirs, ours cost, goals map[string]float64) {
	for _, r := range []struct {
		name         string
		theirs, ours float64
	}{
		{"CPU, ms", theirs.cpu.Seconds() * 1000, ours.cpu.Seconds() * 1000},
		{"allocated, kB", theirs.allocated / 1000, ours.allocated / 1000},
		{"allocations", theirs.allocs, ours.allocs},
		{"sent, B", theirs.sent, ours.sent},
	} {
		name := what + ": " + r.name
		ratio := r.ours / r.theirs
		goal := ""
		if g, ok := goals[name]; ok {
			if goal = "≤ 1/" + figure(g); ratio > 1/g {
				goal += ", **missed**"
			}
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", name, figure(r.theirs), figure(r.ours), part(ratio), goal)
		b.ReportMetric(ratio, strings.ReplaceAll(strings.ReplaceAll(name, ", ", "-"), " ", "-")+"-ratio")
	}
}

// part is a ratio, a small one as a fraction.
func part(x float64) string {
	if x < 0.5 {
		return "1/" + figure(1/x)
	}
	return figure(x)
}

// figure has three digits, or more if they stand before the point.
func figure(x float64) string {
	if x >= 100 {
		s := strconv.FormatFloat(x, 'f', 0, 64)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
