// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fairlead.io/fairlead/xds"
)

const (
	// Up to this many changes of a type go one by one; more of them in batches.
	oneByOne = 64
	// A batch of changes is about this big at most. First answers are never cut:
	// a client may take the first answer to a wildcard for all there is.
	batchBytes = 1 << 20
	// A client that lets this many responses pile up is cut off; it comes back and
	// gets the difference.
	maxQueue = 100_000
	// A client has said what it wants of each type when it has been here this long.
	// Until then nothing that vanished while it was away is taken from it, and it
	// may still want what it has not asked for.
	goneAfter = 200 * time.Millisecond
)

// stream is one client. Its fields are under the server's lock.
type stream struct {
	server *Server
	node   string
	name   string // in rejections
	subs   map[string]*subscription
	nonce  uint64
	open   map[uint64]*response
	opened [xds.Phases + 1]int // open responses by phase, other types last
	// clusters that were sent anew and whose endpoints must follow.
	resend map[string]bool
	grace  bool // goneAfter is over
	swept  bool // what vanished while the client was away was taken from it
	adapt  func(xds.Resource) (xds.Resource, error)
	lazy   *lazy // nil: it gets all that it wants

	queue  []*discovery.DeltaDiscoveryResponse
	wake   chan struct{} // holds a token if the queue may have something
	cutOff bool
}

// subscription is what a client wants and has of one type.
type subscription struct {
	typ      string
	wildcard bool
	names    map[string]bool
	has      map[string]*version
	// held: the first answer waits until the client has acknowledged earlier types.
	held bool
	// forced names are answered even if the client has them.
	forced map[string]bool
}

// version is what a client has of a resource, and what is under way to it.
type version struct {
	sent  string // "" = its removal
	acked string
	nonce uint64 // response that carries sent
	open  bool   // sent is not answered yet

	of      *xds.Resource // what sent was made from; nil if that is not known
	from    source        // of's
	came    bool          // with acked: what it had before is not known
	ackedOf *xds.Resource // what acked was made from; nil if nobody set that, or it is not known
}

type response struct {
	typ     string
	set     []sending
	removed []string
}

// sending is a resource as it goes to a client, and what it was made from.
type sending struct {
	res, of *xds.Resource
	from    source
}

// wants reports whether the client is to have what there is under a name.
func (st *stream) wants(sub *subscription, name string) bool {
	switch {
	case sub.typ == xds.ClusterType && st.server.static[name]:
		return false
	case sub.names[name]:
		return true
	case st.lazy == nil || !sub.wildcard:
		return sub.wildcard
	case sub.typ == xds.ClusterType:
		return st.lazy.uses[name] > 0
	}
	return sub.typ != xds.RouteType
}

func phase(typ string) int {
	if p := xds.Phase(typ); p >= 0 {
		return p
	}
	return xds.Phases
}

// DeltaAggregatedResources serves one client until it leaves.
func (s *Server) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancel(g.Context())
	defer cancel()
	st := &stream{
		server: s,
		subs:   map[string]*subscription{},
		open:   map[uint64]*response{},
		resend: map[string]bool{},
		wake:   make(chan struct{}, 1),
	}
	s.mu.Lock()
	if s.opts.Lazy {
		st.lazy = newLazy()
		st.warm(s.inUse())
	}
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, st)
		st.leave()
		s.forget(st)
		s.settleAll()
		s.mu.Unlock()
	}()
	timer := time.AfterFunc(goneAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		st.grace = true
		st.tidy()
		s.settleAll()
	})
	defer timer.Stop()
	if s.opts.Lazy {
		cool := time.AfterFunc(s.warmFor, st.cool)
		defer cool.Stop()
	}

	received := make(chan error, 1)
	go func() { // ends with the stream, which ends with this function
		for {
			req, err := g.Recv()
			if err != nil {
				received <- err
				return
			}
			s.mu.Lock()
			st.request(req)
			s.mu.Unlock()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-st.wake:
		}
		s.mu.Lock()
		queue, cutOff := st.queue, st.cutOff
		st.queue = nil
		s.mu.Unlock()
		if cutOff {
			return status.Errorf(codes.ResourceExhausted, "%d responses not taken", maxQueue)
		}
		for _, r := range queue {
			if err := g.Send(r); err != nil {
				return err
			}
		}
	}
}

// request handles one message of the client.
func (st *stream) request(req *discovery.DeltaDiscoveryRequest) {
	if n := req.GetNode().GetId(); n != "" {
		st.node = n
		if name := st.server.opts.Client; st.name == "" && name != nil {
			st.name = name(req.GetNode())
		} else if st.name == "" {
			st.name = n
		}
	}
	if adapt := st.server.opts.Adapt; adapt != nil && st.adapt == nil && req.GetNode() != nil {
		st.adapt = adapt(req.GetNode())
	}
	if req.GetResponseNonce() != "" {
		if n, err := strconv.ParseUint(req.GetResponseNonce(), 16, 64); err == nil {
			st.answer(req.GetTypeUrl(), n, req)
		}
	}
	sub := st.subs[req.GetTypeUrl()]
	switch {
	case sub == nil:
		st.subscribe(req)
	case len(req.GetResourceNamesSubscribe())+len(req.GetResourceNamesUnsubscribe()) > 0:
		st.resubscribe(sub, req)
	}
	st.release()
	st.tidy()
}

// tidy does what can be done only now, after something changed.
func (st *stream) tidy() {
	st.proceed()
	st.catchUp()
	st.takeGone()
	st.sweep()
}

// subscribe handles the first request for a type.
func (st *stream) subscribe(req *discovery.DeltaDiscoveryRequest) {
	sub := &subscription{
		typ:    req.GetTypeUrl(),
		names:  map[string]bool{},
		has:    map[string]*version{},
		forced: map[string]bool{},
		held:   true,
	}
	st.subs[sub.typ] = sub
	st.swept = false
	sub.wildcard = len(req.GetResourceNamesSubscribe()) == 0
	for _, n := range req.GetResourceNamesSubscribe() {
		if n == "*" {
			sub.wildcard = true
		} else {
			sub.names[n] = true
		}
	}
	for n, v := range req.GetInitialResourceVersions() {
		sub.has[n] = &version{sent: v, acked: v, came: true}
	}
	st.begin(sub)
	for n := range sub.has {
		if f := st.form(sub, n); f != nil {
			st.recognize(sub, n, f)
		}
	}
}

// recognize notes where the client's version of a resource is from, if it is this one.
func (st *stream) recognize(sub *subscription, name string, f *form) {
	has := sub.has[name]
	if has.sent != f.version {
		return
	}
	if has.acked == f.version && !f.from.standsIn() {
		st.server.accepted(f.of, f.from)
		has.ackedOf = f.of
	}
	has.of, has.from = f.of, f.from
}

// resubscribe changes what the client wants. What it asks for by name is
// answered even if it was sent before: it may have dropped it.
func (st *stream) resubscribe(sub *subscription, req *discovery.DeltaDiscoveryRequest) {
	s := st.server
	for _, n := range req.GetResourceNamesUnsubscribe() {
		if n == "*" {
			sub.wildcard = false
			maps.DeleteFunc(sub.has, func(n string, _ *version) bool { return !sub.names[n] })
			continue
		}
		delete(sub.names, n)
		st.untrack(sub, n)
		if !sub.wildcard {
			delete(sub.has, n)
			delete(sub.forced, n)
		}
	}
	known := req.GetInitialResourceVersions()
	var ask []string
	for _, n := range req.GetResourceNamesSubscribe() {
		if n == "*" {
			sub.wildcard = true
			ask = append(ask, st.everything(sub)...)
			continue
		}
		sub.names[n] = true
		st.track(sub, n)
		if v, ok := known[n]; ok {
			sub.has[n] = &version{sent: v, acked: v, came: true}
		} else {
			sub.forced[n] = true
		}
		ask = append(ask, n)
	}
	if !sub.held {
		slices.Sort(ask)
		st.send(sub, slices.Compact(ask), whole)
	}
	for _, names := range [][]string{req.GetResourceNamesUnsubscribe(), req.GetResourceNamesSubscribe()} {
		for _, n := range names {
			if n == "*" {
				s.settleAll()
				return
			}
			st.settleName(sub.typ, n)
		}
	}
	s.settle(anyRoutes)
}

// everything is what a wildcard stands for.
func (st *stream) everything(sub *subscription) []string {
	switch {
	case st.lazy == nil || sub.typ != xds.ClusterType && sub.typ != xds.RouteType:
		return slices.Collect(maps.Keys(st.server.store[sub.typ]))
	case sub.typ == xds.ClusterType:
		return slices.Collect(maps.Keys(st.lazy.uses))
	}
	return nil
}

// release sends first answers whose turn has come: a client that comes back asks
// for everything at once, and must not get routes before their clusters.
func (st *stream) release() {
	types := make([]string, 0, len(st.subs))
	for t := range st.subs {
		types = append(types, t)
	}
	slices.SortFunc(types, compareTypes)
	for _, t := range types {
		sub := st.subs[t]
		if !sub.held {
			continue
		}
		if st.lazy == nil || t != xds.RouteType { // those wait each for its own clusters
			for p := range phase(t) {
				if st.opened[p] > 0 {
					return
				}
			}
		}
		sub.held = false
		st.first(sub)
	}
	st.resendEndpoints()
}

// first answers the first request for a type, with an empty response if the
// client has everything.
func (st *stream) first(sub *subscription) {
	var names []string
	if sub.wildcard {
		names = st.everything(sub)
	}
	for n := range sub.names {
		// What it has and nobody sets any more stays until what leads to it is gone; to
		// what Envoy asks for as a cluster by name, nothing leads.
		if sub.has[n] == nil || st.server.entry(st.key(sub.typ, n)) != nil || st.lazy != nil && sub.typ == xds.ClusterType {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	if sent := st.send(sub, slices.Compact(names), whole); !sent && sub.wildcard {
		st.respond(sub.typ, nil, nil)
	}
	st.server.settleAll()
}

// changed tells the client that resources of a type were set or deleted.
func (st *stream) changed(typ string, names []string) {
	if sub := st.subs[typ]; sub != nil && !sub.held {
		st.send(sub, st.namesOf(typ, names), changes)
	}
}

// namesOf is by what names the client knows what is in the store.
func (st *stream) namesOf(typ string, stored []string) []string {
	var names []string
	switch {
	case st.lazy != nil && typ == xds.RouteType:
		for _, n := range stored {
			names = append(names, st.lazy.names[n]...)
		}
	case st.lazy != nil && typ == xds.ClusterType && len(st.lazy.asked) > 0:
		for _, n := range stored {
			names = append(append(names, n), st.lazy.askers[n]...)
		}
		slices.Sort(names)
		names = slices.Compact(names)
	default:
		return stored
	}
	return names
}
