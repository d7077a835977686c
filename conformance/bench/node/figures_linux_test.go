// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/http"
	"strconv"
	"time"

	"fairlead.io/fairlead/xds/serve"
)

const (
	routeChanges  = 40
	policyChanges = 10
	byteSamples   = 5
)

// load measures from the start until a request to the last of all services is
// answered, and what Envoy is then.
func (s *subject) load(out figures) {
	s.b.Helper()
	to(s.n-1).waitServed(s.b, 5*time.Minute)
	out[loadTime] = time.Since(s.startedAt).Seconds()
	s.envoy = s.find()
	s.envoy.settle()
	out[loadCPU] = s.envoy.cpu().Seconds()
	out[rssLoaded] = mb(s.envoy.rss())
	out[allocatedLoaded] = mb(s.envoy.allocated())
	for i := range used {
		to(i).mustOnce(s.b)
	}
	s.envoy.settle()
	out[rssUsed] = mb(s.envoy.rss())
	out[anonymousUsed] = mb(s.envoy.anonymous())
	out[allocatedUsed] = mb(s.envoy.allocated())
}

// first measures requests to services that nobody has asked before, and to the same
// again, each on a connection of its own.
func (s *subject) first(out figures) {
	s.b.Helper()
	var first, again []float64
	for i := used; i < used+firstAsked; i++ {
		first = append(first, ms(to(i).mustOnce(s.b)))
	}
	for i := used; i < used+firstAsked; i++ {
		again = append(again, ms(to(i).mustOnce(s.b)))
	}
	out[firstMedian] = median(first)
	out[firstP95] = quantile(first, 0.95)
	out[againMedian] = median(again)
}

// change measures changes, the first of which is 0, of what a service in use has: from
// the feed until a request on a connection that is open sees it, and the bytes of
// one while nothing else happens.
func (s *subject) change(n, service int, change func(k int) (feed func() (wait func()), seen func(*http.Response) bool)) (took []float64, body, read float64) {
	s.b.Helper()
	c, err := to(service).connect(time.Second)
	if err != nil {
		s.b.Fatal(err)
	}
	defer c.Close()
	for k := range n {
		feed, seen := change(k)
		time.Sleep(changePause)
		began := time.Now()
		wait := feed()
		c.waitFor(s.b, "change", seen)
		took = append(took, ms(time.Since(began)))
		wait()
	}
	c.Close()
	var bodies, reads []float64
	for k := n; k < n+byteSamples; k++ {
		feed, _ := change(k)
		body, read := s.bytes(func() { feed()() })
		bodies, reads = append(bodies, body), append(reads, read)
	}
	return took, median(bodies), median(reads)
}

// bytes are those of the resources that Envoy is sent meanwhile, and those that it
// reads: of the messages around them, too, and of its threads' wake-ups.
func (s *subject) bytes(do func()) (body, read float64) {
	s.b.Helper()
	sent := s.sent().Bytes
	s.envoy.settle()
	before := s.envoy.read()
	do()
	s.envoy.settle()
	read = float64(s.envoy.read() - before)
	return float64(s.sent().Bytes - sent), read
}

// changePause is between changes, as people make them one by one: what one leaves to
// be done is not the next one's delay.
const changePause = 20 * time.Millisecond

func (s *subject) routeChange(out figures) {
	s.b.Helper()
	took, body, read := s.revise(routeChanges, changedService)
	out[routeMedian] = median(took)
	out[routeP95] = quantile(took, 0.95)
	out[routeBody], out[routeRead] = body, read
	if s.ours() {
		_, out[namedBody], out[namedRead] = s.revise(0, namedService)
	}
}

// revise changes the routes of a service.
func (s *subject) revise(n, service int) (took []float64, body, read float64) {
	s.b.Helper()
	return s.change(n, service, func(k int) (func() func(), func(*http.Response) bool) {
		rs := s.layout.routes(service, k+1)
		return func() func() { return s.pushing(rs...) },
			func(r *http.Response) bool { return r.Header.Get(revisionHeader) == strconv.Itoa(k+1) }
	})
}

// policyChange turns a client away from a service, and lets it in again.
func (s *subject) policyChange(out figures) {
	s.b.Helper()
	before := s.envoy.listenerUpdates()
	took, body, read := s.change(policyChanges, policyService, func(k int) (func() func(), func(*http.Response) bool) {
		id, status := strangerID, http.StatusForbidden
		if k%2 == 1 {
			id, status = clientID, http.StatusOK
		}
		c, _ := clusterOf(policyService, policyFor(id))
		rs := rendered(s.b, c)
		return func() func() { return s.pushing(rs...) },
			func(r *http.Response) bool { return r.StatusCode == status }
	})
	out[policyMedian] = median(took)
	out[policyBody], out[policyRead] = body, read
	out[policyListeners] = float64(s.envoy.listenerUpdates() - before)
}

// add measures services that are added: until a request is served, and in bytes.
func (s *subject) add(out figures) {
	s.b.Helper()
	var took, bodies, reads []float64
	for range addedServices {
		i := s.n
		rs := s.layout.add(i)
		s.envoy.settle()
		began := time.Now()
		wait := s.pushing(rs...)
		to(i).waitServed(s.b, time.Minute)
		took = append(took, ms(time.Since(began)))
		wait()
		s.n++
	}
	for range addedServices {
		rs := s.layout.add(s.n)
		body, read := s.bytes(func() { s.push(rs...) })
		bodies, reads = append(bodies, body), append(reads, read)
		s.n++
	}
	out[addMedian] = median(took)
	out[addBody], out[addRead] = median(bodies), median(reads)
}

const addedServices = 5

// reload has the feed come back with everything, and measures until the next change is
// served and what Envoy was sent; then Envoy is killed, and it takes what it takes until
// a service that was in use is served.
func (s *subject) reload(out figures) {
	s.b.Helper()
	var before serve.Counters
	if s.ours() { // the feed's own count begins anew
		before = s.sent()
	}
	const revision = 1_000_000
	rs := s.layout.routes(changedService, revision)
	s.changes(rs)
	began := time.Now()
	s.reconnect()
	to(changedService).waitFor(s.b, "a change after the feed came back", func(r *http.Response) bool {
		return r.Header.Get(revisionHeader) == strconv.Itoa(revision)
	})
	out[reconnectTime] = ms(time.Since(began))
	s.envoy.settle()
	out[reconnectBytes] = float64(s.sent().Bytes - before.Bytes)

	s.envoy = s.find()
	began = time.Now()
	s.crash()
	to(plainService).waitServed(s.b, 5*time.Minute)
	out[restartTime] = ms(time.Since(began))
	s.envoy = s.find()
	s.envoy.settle()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func mb(bytes int) float64       { return float64(bytes) / 1e6 }
