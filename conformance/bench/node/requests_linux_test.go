// SPDX-License-Identifier: Apache-2.0

package node

import (
	"time"

	"fairlead.io/fairlead/lab/load"
	"fairlead.io/fairlead/proxy"
)

// way is requests to an address for a host, through an Envoy.
type way struct {
	envoy *envoy
	target
	cpu []float64 // microseconds of the Envoy per request
	p50 []float64 // milliseconds
}

const (
	rounds      = 7
	roundLength = time.Second
)

// cost sends requests one way after the other, on kept connections and as fast as they
// go, in rounds.
func (s *subject) cost(ways ...*way) {
	s.b.Helper()
	for round := range rounds + 1 {
		for _, w := range ways {
			length := roundLength
			if round == 0 { // everybody gets to know the way
				length /= 5
			}
			before := w.envoy.cpu()
			sum := s.run(load.Options{URLs: []string{"http://" + w.addr.String() + "/"}, Host: w.host, Connections: 4, Duration: length})
			if sum.Failed > 0 {
				s.b.Fatalf("requests to %s: %+v", w.addr, sum)
			}
			if round > 0 {
				w.cpu = append(w.cpu, float64((w.envoy.cpu()-before).Nanoseconds())/1e3/float64(sum.Requests))
				w.p50 = append(w.p50, sum.P50)
			}
		}
	}
}

func (s *subject) run(o load.Options) load.Summary {
	s.b.Helper()
	sum, err := load.Run(s.b.Context(), o, nil)
	if err != nil {
		s.b.Fatal(err)
	}
	return sum
}

// requests compares what requests cost with what they cost a bare Envoy.
func (s *subject) requests(out figures) {
	s.b.Helper()
	tiny := &way{envoy: runBare(s.b), target: toBare}
	plain := &way{envoy: s.envoy, target: to(plainService)}
	guarded := &way{envoy: s.envoy, target: to(guardedService)}
	ways := []*way{tiny, plain, guarded}
	own := &way{envoy: s.envoy, target: to(namedService)}
	other := &way{envoy: s.envoy, target: target{vip(askedService), hostOf(namedService)}}
	if s.ours() {
		ways = append(ways, own, other)
	}
	s.cost(ways...)
	cpu, p50 := func(w *way) []float64 { return w.cpu }, func(w *way) []float64 { return w.p50 }
	out[cpuBare] = median(tiny.cpu)
	out[cpuPlain] = ratio(cpu, plain, tiny)
	out[cpuGuarded] = ratio(cpu, guarded, tiny)
	if s.ours() {
		out[cpuOwn] = ratio(cpu, own, plain)
		out[cpuOther] = ratio(cpu, other, own)
		out[p50Own] = ratio(p50, own, plain)
		out[p50Other] = ratio(p50, other, own)
		if asked := s.status().Authority; asked.Resolved == 0 {
			s.b.Fatalf("nobody asked for a host: %+v", asked)
		}
	}
}

// ratio is that of two ways in the same round, the median of rounds.
func ratio(of func(*way) []float64, a, b *way) float64 {
	var all []float64
	for i, x := range of(a) {
		all = append(all, x/of(b)[i])
	}
	return median(all)
}

// steady is the load that the Envoy's end is looked at under: to all services in use,
// some of it on connections of their own.
func steady(length time.Duration) load.Options {
	o := load.Options{Rate: 400, Connections: 8, Fresh: 0.1, Duration: length, Timeout: 10 * time.Second}
	for i := range used {
		if i != policyService {
			o.URLs = append(o.URLs, "http://"+vip(i).String()+"/")
		}
	}
	return o
}

// during is steady load while something is done after its first second.
func (s *subject) during(length time.Duration, do func()) load.Summary {
	s.b.Helper()
	type result struct {
		sum load.Summary
		err error
	}
	done := make(chan result, 1)
	go func() {
		sum, err := load.Run(s.b.Context(), steady(length), nil)
		done <- result{sum, err}
	}()
	time.Sleep(time.Second)
	do()
	r := <-done
	if r.err != nil {
		s.b.Fatal(r.err)
	}
	return r.sum
}

// replacement compares load while Envoy is replaced with load that nothing disturbs.
func (s *subject) replacement(out figures) {
	s.b.Helper()
	quiet := s.run(steady(5 * time.Second))
	var replaced proxy.Replacement
	var err error
	var took time.Duration
	busy := s.during(8*time.Second, func() {
		began := time.Now()
		replaced, err = proxy.Replace(s.b.Context(), s.dir, true)
		took = time.Since(began)
	})
	if err != nil || replaced.State != proxy.ReplacementDone {
		s.b.Fatalf("replace: %v, %+v", err, replaced)
	}
	out[quietP99] = quiet.P99
	out[quietMax] = quiet.Max
	out[replaceTime] = took.Seconds()
	out[replaceFailed] = float64(busy.Failed)
	out[replaceRequests] = float64(busy.Requests)
	out[replaceP99] = busy.P99
	out[replaceMax] = busy.Max
	s.envoy = s.find()
	s.envoy.settle()
}

// crashes kills the Envoy that serves, under load, and measures how long a new client
// waits.
func (s *subject) crashes() (failed, pause float64) {
	s.b.Helper()
	s.envoy = s.find()
	sum := s.during(6*time.Second, func() {
		began := time.Now()
		s.kill()
		to(plainService).waitServed(s.b, 30*time.Second)
		pause = ms(time.Since(began))
	})
	s.envoy = s.find()
	s.b.Logf("killed: of %d requests failed %v, and %d kept connections were cut while idle", sum.Requests, sum.Failures, sum.IdleReset+sum.IdleClosed)
	return float64(sum.Failed), pause
}
