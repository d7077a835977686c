// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

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
	subs   map[string]*subscription
	nonce  uint64
	open   map[uint64]*response
	opened [xds.Phases + 1]int // open responses by phase, other types last
	// clusters that were sent anew and whose endpoints must follow.
	resend map[string]bool
	grace  bool // goneAfter is over

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
	gone   []string // had by the client when it came, and not there any more
}

// version is what a client has of a resource, and what is under way to it.
type version struct {
	sent  string // "" = its removal
	acked string
	nonce uint64 // response that carries sent
	open  bool   // sent is not answered yet
}

type response struct {
	typ     string
	set     []*xds.Resource
	removed []string
}

func (sub *subscription) wants(name string) bool { return sub.wildcard || sub.names[name] }

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
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, st)
		s.settleAll()
		s.mu.Unlock()
	}()
	timer := time.AfterFunc(goneAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		st.grace = true
		st.takeGone()
		s.settleAll()
	})
	defer timer.Stop()

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
	st.takeGone()
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
	sub.wildcard = len(req.GetResourceNamesSubscribe()) == 0
	for _, n := range req.GetResourceNamesSubscribe() {
		if n == "*" {
			sub.wildcard = true
		} else {
			sub.names[n] = true
		}
	}
	for n, v := range req.GetInitialResourceVersions() {
		sub.has[n] = &version{sent: v, acked: v}
		if sub.wildcard && st.server.store[sub.typ][n] == nil {
			sub.gone = append(sub.gone, n)
		}
	}
	slices.Sort(sub.gone)
}

// resubscribe changes what the client wants. What it asks for by name is
// answered even if it was sent before: it may have dropped it.
func (st *stream) resubscribe(sub *subscription, req *discovery.DeltaDiscoveryRequest) {
	for _, n := range req.GetResourceNamesUnsubscribe() {
		if n == "*" {
			sub.wildcard = false
			continue
		}
		delete(sub.names, n)
		if !sub.wildcard {
			delete(sub.has, n)
		}
	}
	known := req.GetInitialResourceVersions()
	var ask []string
	for _, n := range req.GetResourceNamesSubscribe() {
		if n == "*" {
			sub.wildcard = true
			for name := range st.server.store[sub.typ] {
				ask = append(ask, name)
			}
			continue
		}
		sub.names[n] = true
		if v, ok := known[n]; ok {
			sub.has[n] = &version{sent: v, acked: v}
		} else {
			sub.forced[n] = true
		}
		ask = append(ask, n)
	}
	if !sub.held {
		slices.Sort(ask)
		st.send(sub, slices.Compact(ask), whole)
	}
	st.server.settleAll()
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
		for p := range phase(t) {
			if st.opened[p] > 0 {
				return
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
		for n := range st.server.store[sub.typ] {
			names = append(names, n)
		}
	}
	for n := range sub.names {
		// What it has and nobody sets any more stays until what leads to it is gone.
		if sub.has[n] == nil || st.server.store[sub.typ][n] != nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	if sent := st.send(sub, slices.Compact(names), whole); !sent && sub.wildcard {
		st.respond(sub.typ, nil, nil)
	}
	st.server.settleAll()
}

// batching says how many resources go into a response.
type batching int

const (
	whole   batching = iota // all
	changes                 // one by one, or in batches if they are very many
)

// changed tells the client that resources of a type were set or deleted.
func (st *stream) changed(typ string, names []string) {
	if sub := st.subs[typ]; sub != nil && !sub.held {
		st.send(sub, names, changes)
	}
}

// send sends what the client wants of names and does not have, and reports
// whether that was anything.
func (st *stream) send(sub *subscription, names []string, b batching) bool {
	var set []*xds.Resource
	var removed []string
	for _, n := range names {
		if !sub.wants(n) {
			continue
		}
		k := key{sub.typ, n}
		has := sub.has[n]
		e := st.server.store[sub.typ][n]
		r := e.effective()
		if r == nil && !sub.wildcard && has == nil { // asked for by name: it waits for an answer
			r = st.server.standIn(k)
		}
		forced := sub.forced[n]
		delete(sub.forced, n)
		switch {
		case r == nil && (has != nil && has.sent != "" && e == nil || has == nil && !sub.wildcard):
			removed = append(removed, n)
		case r != nil && (has == nil || has.sent != r.Version || forced):
			if sub.typ == xds.ClusterType && has != nil && has.sent != r.Version {
				st.resend[n] = true
			}
			delete(st.resendIf(sub.typ), n)
			set = append(set, r)
		}
	}
	for _, part := range split(set, b) {
		st.respond(sub.typ, part, nil)
	}
	if len(removed) > 0 {
		st.respond(sub.typ, nil, removed)
	}
	return len(set)+len(removed) > 0
}

// resendIf is the set of endpoints that still have to be sent again, for the type
// of endpoints; for others, an empty one.
func (st *stream) resendIf(typ string) map[string]bool {
	if typ == xds.EndpointType {
		return st.resend
	}
	return nil
}

// resendEndpoints sends the endpoints of clusters that were sent anew.
func (st *stream) resendEndpoints() {
	sub := st.subs[xds.EndpointType]
	if len(st.resend) == 0 || sub == nil || sub.held {
		return
	}
	var names []string
	for n := range st.resend {
		if sub.has[n] != nil {
			sub.forced[n] = true
			names = append(names, n)
		}
	}
	clear(st.resend)
	slices.Sort(names)
	st.send(sub, names, changes)
}

// split makes the contents of responses.
func split(rs []*xds.Resource, b batching) [][]*xds.Resource {
	if len(rs) == 0 {
		return nil
	}
	if b == whole {
		return [][]*xds.Resource{rs}
	}
	var parts [][]*xds.Resource
	size := 0
	for i, r := range rs {
		if i == 0 || len(rs) <= oneByOne || size+len(r.Body) > batchBytes {
			parts, size = append(parts, nil), 0
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], r)
		size += len(r.Body)
	}
	return parts
}

// respond queues one response.
func (st *stream) respond(typ string, set []*xds.Resource, removed []string) {
	s := st.server
	st.nonce++
	m := &discovery.DeltaDiscoveryResponse{
		TypeUrl:          typ,
		Nonce:            strconv.FormatUint(st.nonce, 16),
		RemovedResources: removed,
	}
	sub := st.subs[typ]
	rec := &response{typ: typ, set: set, removed: removed}
	for _, r := range set {
		m.Resources = append(m.Resources, &discovery.Resource{
			Name: r.Name, Version: r.Version,
			Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
		st.under(sub, r.Name, r.Version)
		s.counters.Bytes += uint64(len(r.Body))
	}
	for _, n := range removed {
		st.under(sub, n, "")
	}
	s.counters.Resources += uint64(len(set))
	s.counters.Removed += uint64(len(removed))
	s.counters.Responses++
	st.open[st.nonce] = rec
	st.opened[phase(typ)]++
	if st.queue = append(st.queue, m); len(st.queue) > maxQueue {
		st.queue, st.cutOff = nil, true
	}
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// under notes that a version is under way.
func (st *stream) under(sub *subscription, name, v string) {
	has := sub.has[name]
	if has == nil {
		has = &version{}
		sub.has[name] = has
	}
	has.sent, has.nonce, has.open = v, st.nonce, true
}

// answer handles an ACK or NACK.
func (st *stream) answer(typ string, nonce uint64, req *discovery.DeltaDiscoveryRequest) {
	s := st.server
	rec := st.open[nonce]
	if rec != nil {
		delete(st.open, nonce)
		st.opened[phase(rec.typ)]--
	}
	sub := st.subs[typ]
	if sub == nil {
		return
	}
	if detail := req.GetErrorDetail(); detail != nil {
		s.counters.Nacks++
		if rec == nil {
			rec = st.late(sub, nonce)
		}
		st.rejected(sub, nonce, rec, detail.GetMessage())
		s.settle(anyRoutes)
		return
	}
	s.counters.Acks++
	if rec == nil {
		return
	}
	for _, r := range rec.set {
		if has := sub.has[r.Name]; has != nil {
			has.acked = r.Version // though a later one may be under way
			has.open = has.open && has.nonce != nonce
		}
		s.accepted(key{typ, r.Name}, r)
		s.settle(key{typ, r.Name})
	}
	for _, n := range rec.removed {
		if has := sub.has[n]; has != nil && has.nonce == nonce {
			delete(sub.has, n)
		}
		s.settle(key{typ, n})
	}
	s.settle(anyRoutes)
}

// late is what a response had that was acknowledged before and is rejected now:
// a client that passes resources on may learn later that one is bad.
func (st *stream) late(sub *subscription, nonce uint64) *response {
	rec := &response{typ: sub.typ}
	for n, has := range sub.has {
		e := st.server.store[sub.typ][n]
		if has.nonce == nonce && e != nil && e.want.Version == has.sent {
			rec.set = append(rec.set, e.want)
		}
	}
	slices.SortFunc(rec.set, func(a, b *xds.Resource) int { return strings.Compare(a.Name, b.Name) })
	return rec
}

// rejected narrows a NACK down to one resource, by sending halves again: which
// part of a rejected batch the client took is not known.
func (st *stream) rejected(sub *subscription, nonce uint64, rec *response, detail string) {
	if n := len(rec.set); n > 1 {
		for _, half := range [][]*xds.Resource{rec.set[:n/2], rec.set[n/2:]} {
			var names []string
			for _, r := range half {
				sub.forced[r.Name] = true
				names = append(names, r.Name)
			}
			st.send(sub, names, whole)
		}
		return
	}
	for _, r := range rec.set {
		k := key{sub.typ, r.Name}
		current := st.server.reject(k, r.Version, detail)
		e := st.server.store[sub.typ][r.Name]
		if has := sub.has[r.Name]; has != nil && has.nonce == nonce {
			// The client has what it had.
			if has.acked == r.Version {
				has.acked = ""
				if e != nil && e.good != nil {
					has.acked = e.good.Version
				}
			}
			if has.sent, has.open = has.acked, false; has.sent == "" {
				delete(sub.has, r.Name)
			}
		}
		if current && e.good == nil && e.standIn != nil {
			st.send(sub, []string{r.Name}, changes)
		}
		st.server.settle(k)
	}
	for _, n := range rec.removed { // nothing more can be done
		if has := sub.has[n]; has != nil && has.nonce == nonce {
			delete(sub.has, n)
		}
		st.server.settle(key{sub.typ, n})
	}
}

// takeGone removes what vanished while the client was away: last, in reverse
// order, each type acknowledged before the next.
func (st *stream) takeGone() {
	if !st.grace || len(st.open) > 0 {
		return
	}
	for _, sub := range st.subs {
		if sub.held {
			return
		}
	}
	types := xds.Types()
	for _, t := range slices.Backward(types) {
		sub := st.subs[t]
		if sub == nil || len(sub.gone) == 0 {
			continue
		}
		var removed []string
		for _, n := range sub.gone {
			if has := sub.has[n]; has != nil && has.sent != "" && st.server.store[t][n] == nil {
				removed = append(removed, n)
			}
		}
		sub.gone = nil
		if len(removed) > 0 {
			st.respond(t, nil, removed)
			return
		}
	}
}

// settled reports whether the client has answered a change, or does not want it.
// Scopes and listeners are acknowledged before they are of use: only then does
// Envoy ask for what they lead to.
func (st *stream) settled(it *item) bool {
	if !st.answered(it.typ, it.name, it.version) {
		return false
	}
	if it.version == "" || !st.serves(it.typ, it.name) {
		return true
	}
	switch it.typ {
	case xds.ScopeType:
		return it.route == "" || st.hasRoutes(it.route)
	case xds.ListenerType:
		return st.hasScopes()
	}
	return true
}

// hasRoutes reports whether the client has answered the routes of a scope.
func (st *stream) hasRoutes(name string) bool {
	sub := st.subs[xds.RouteType]
	if sub == nil || sub.held {
		return false
	}
	if e := st.server.store[xds.RouteType][name]; e != nil && e.rejected != "" {
		return true
	}
	has := sub.has[name]
	return has != nil && !has.open
}

// hasScopes reports whether the client has answered all scopes and their routes.
func (st *stream) hasScopes() bool {
	sub := st.subs[xds.ScopeType]
	if sub == nil || sub.held {
		return false
	}
	for n, e := range st.server.store[xds.ScopeType] {
		if e.rejected != "" || !sub.wants(n) {
			continue
		}
		if has := sub.has[n]; has == nil || has.open {
			return false
		}
		if e.route != "" && !st.hasRoutes(e.route) {
			return false
		}
	}
	return true
}

func (st *stream) serves(typ, name string) bool {
	sub := st.subs[typ]
	return sub != nil && sub.wants(name)
}

func (st *stream) answered(typ, name, v string) bool {
	sub := st.subs[typ]
	if sub == nil {
		return st.grace
	}
	if !sub.wants(name) {
		return true
	}
	has := sub.has[name]
	if v == "" {
		return has == nil || has.sent == "" && !has.open
	}
	return !sub.held && has != nil && has.sent == v && !has.open
}
