// SPDX-License-Identifier: Apache-2.0

// Package node measures a node's Envoy as the product runs it, beside the same Envoy
// with the same services laid out in two other ways, in one run:
//
//	ours         node proxy, lazy: a scope and a route table for each service
//	chains       a filter chain and a route table for each service in one listener
//	one table    a virtual host for each service in one route table
//
// The other two get everything from the first moment, from the same server, have the
// same bootstrap, and no filter that only ours needs: they are at their best.
package node

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// BenchmarkNode prints a table for each number of services.
func BenchmarkNode(b *testing.B) {
	for _, n := range []int{5_000, 10_000} {
		m := &measured{services: n, ours: figures{}}
		of := func(name string, measure func(*testing.B, int, figures), out figures) {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				for b.Loop() {
					measure(b, n, out)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
		of("ours", measureOurs, m.ours)
		of("standby", measureStandby, m.ours)
		for _, l := range []other{{"chains", newChains, figures{}}, {"one table", newOneTable, figures{}}} {
			of(l.name, func(b *testing.B, n int, out figures) { measureOther(b, l.layout(b), n, out) }, l.figures)
			m.others = append(m.others, l)
		}
		m.write(os.Stdout)
	}
}

func measureOurs(b *testing.B, n int, out figures) {
	s := startOurs(b, n, false)
	s.common(out)
	s.replacement(out)
	out[crashFailed], out[crashPause] = s.crashes()
}

func measureOther(b *testing.B, l layout, n int, out figures) {
	startPlain(b, l, n).common(out)
}

// common is what is measured of every layout.
func (s *subject) common(out figures) {
	s.b.Helper()
	s.load(out)
	s.first(out)
	s.routeChange(out)
	s.add(out)
	s.policyChange(out)
	s.requests(out)
	s.reload(out)
}

// measureStandby runs ours with a second Envoy that is ready to take over.
func measureStandby(b *testing.B, n int, out figures) {
	s := startOurs(b, n, true)
	to(0).waitServed(b, time.Minute)
	for i := range used {
		to(i).mustOnce(b)
	}
	out[standbyRSS] = s.memoryOfBoth()
	out[standbyFails], out[standbyPause] = s.crashes()
}
