// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
)

// batching says how many resources go into a response.
type batching int

const (
	whole   batching = iota // all
	changes                 // one by one, or in batches if they are very many
)

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
			if sub.typ == xds.EndpointType {
				delete(st.resend, n)
			}
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
