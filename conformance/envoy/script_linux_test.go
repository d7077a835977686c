// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
)

// script is a delta ADS server that says what a test has it say and nothing else,
// where serve would do what is right.
type script struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	t testing.TB
	// greet has the first request for each of these types answered by nothing, so
	// that Envoy, and its static listeners, need not wait for the test.
	greet []string

	mu      sync.Mutex
	nonce   int
	stream  *scriptStream // the one that is open, if any
	streams int           // how many there were
	asked   map[string]*interest
	answers map[string]string // by nonce: what a response was refused for; "" = accepted
	refuse  bool              // new streams
}

type scriptStream struct {
	out   chan *discovery.DeltaDiscoveryResponse
	end   chan struct{}
	first map[string]*discovery.DeltaDiscoveryRequest // by type
	nodes int                                         // requests that have the node
	count int                                         // requests
}

// interest is what Envoy wants of a type, by the stream that is open.
type interest struct {
	names   map[string]bool
	dropped []string // unsubscribed, in order
}

// startScript runs an Envoy that is fed by hand, and waits until it is live.
func startScript(t testing.TB, bootstrap string, flags ...string) (*proxy, *script) {
	t.Helper()
	s := newScript(t)
	s.greet = []string{xds.ClusterType, xds.ListenerType, xds.ScopeType}
	p := launch(t, setup{bootstrap: bootstrap, register: s.register, flags: flags})
	p.waitLive()
	return p, s
}

func newScript(t testing.TB) *script {
	return &script{t: t, asked: map[string]*interest{}, answers: map[string]string{}}
}

func (s *script) register(g *grpc.Server) { discovery.RegisterAggregatedDiscoveryServiceServer(g, s) }

func (s *script) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := &scriptStream{
		out:   make(chan *discovery.DeltaDiscoveryResponse, 1000),
		end:   make(chan struct{}),
		first: map[string]*discovery.DeltaDiscoveryRequest{},
	}
	s.mu.Lock()
	if s.refuse {
		s.mu.Unlock()
		return nil
	}
	s.stream = st
	s.streams++
	s.asked = map[string]*interest{}
	s.mu.Unlock()
	var sender sync.WaitGroup
	defer sender.Wait()
	done := make(chan struct{})
	defer close(done)
	sender.Go(func() {
		for {
			select {
			case m := <-st.out:
				if g.Send(m) != nil {
					return
				}
			case <-done:
				return
			}
		}
	})
	in := make(chan *discovery.DeltaDiscoveryRequest)
	go func() { // ends soon after the stream
		defer close(in)
		for {
			q, err := g.Recv()
			if err != nil {
				return
			}
			select {
			case in <- q:
			case <-done:
				return
			}
		}
	}()
	for {
		select {
		case q, ok := <-in:
			if !ok {
				return nil
			}
			s.take(st, q)
		case <-st.end:
			return nil
		}
	}
}

func (s *script) take(st *scriptStream, q *discovery.DeltaDiscoveryRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	typ := q.GetTypeUrl()
	st.count++
	if q.GetNode() != nil {
		st.nodes++
	}
	if n := q.GetResponseNonce(); n != "" {
		s.answers[n] = q.GetErrorDetail().GetMessage()
	}
	i := s.asked[typ]
	if i == nil {
		i = &interest{names: map[string]bool{}}
		s.asked[typ] = i
		st.first[typ] = q
		if s.streams == 1 && slices.Contains(s.greet, typ) {
			s.sendLocked(typ, nil, nil)
		}
	}
	for _, n := range q.GetResourceNamesSubscribe() {
		i.names[n] = true
	}
	for _, n := range q.GetResourceNamesUnsubscribe() {
		delete(i.names, n)
		i.dropped = append(i.dropped, n)
	}
}

func (s *script) sendLocked(typ string, set []xds.Resource, removed []string) string {
	s.nonce++
	m := &discovery.DeltaDiscoveryResponse{TypeUrl: typ, Nonce: strconv.Itoa(s.nonce), RemovedResources: removed}
	for _, r := range set {
		m.Resources = append(m.Resources, &discovery.Resource{
			Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
	}
	s.stream.out <- m
	return m.GetNonce()
}

// send sends resources of one type in one response, and returns its nonce.
func (s *script) send(rs ...xds.Resource) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		s.t.Fatal("Envoy has no stream")
	}
	return s.sendLocked(rs[0].Type, rs, nil)
}

// remove says that there is no such resource, and returns the nonce.
func (s *script) remove(typ string, names ...string) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		s.t.Fatal("Envoy has no stream")
	}
	return s.sendLocked(typ, nil, names)
}

// answered reports whether Envoy has answered a response.
func (s *script) answered(nonce string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.answers[nonce]
	return ok
}

// outcome waits for the answer to a response: why it was refused, "" if it was not.
func (s *script) outcome(nonce string) string {
	s.t.Helper()
	s.waitFor("answer to a response", func() bool { return s.answered(nonce) })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers[nonce]
}

// push sends resources, each type in one response, and waits until all are accepted.
// Routes and endpoints wait until they are asked for: what is sent before is dropped.
func (s *script) push(rs ...xds.Resource) {
	s.t.Helper()
	var nonces []string
	for _, typ := range []string{xds.ClusterType, xds.EndpointType, xds.ScopeType, xds.RouteType} {
		var some []xds.Resource
		for _, r := range rs {
			if r.Type == typ {
				some = append(some, r)
				if typ == xds.EndpointType || typ == xds.RouteType {
					s.wait(typ, r.Name)
				}
			}
		}
		if len(some) > 0 {
			nonces = append(nonces, s.send(some...))
		}
	}
	for _, n := range nonces {
		if d := s.outcome(n); d != "" {
			s.t.Fatalf("rejected: %s", d)
		}
	}
}

// say answers a type by nothing.
func (s *script) say(typ string) string { return s.remove(typ) }

// first are the first requests of the stream that is open, by type.
func (s *script) first() map[string]*discovery.DeltaDiscoveryRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		return nil
	}
	return maps.Clone(s.stream.first)
}

// wants reports whether Envoy is subscribed to a resource by its name.
func (s *script) wants(typ, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[typ] != nil && s.asked[typ].names[name]
}

// wait waits until Envoy is subscribed to a resource.
func (s *script) wait(typ, name string) {
	s.t.Helper()
	s.waitFor("envoy asks for "+name, func() bool { return s.wants(typ, name) })
}

// dropped are the names that Envoy unsubscribed from.
func (s *script) dropped(typ string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[typ] == nil {
		return nil
	}
	return slices.Clone(s.asked[typ].dropped)
}

// cut ends the stream, and others until accept.
func (s *script) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = true
	if s.stream != nil {
		close(s.stream.end)
		s.stream = nil
	}
}

// accept takes streams again.
func (s *script) accept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = false
}

func (s *script) waitFor(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	s.t.Fatalf("waited in vain: %s", what)
}
