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
// whether that was anything. Names are the client's.
func (st *stream) send(sub *subscription, names []string, b batching) bool {
	if st.lazy != nil && sub.typ == xds.RouteType {
		names = st.prepare(sub, names)
	}
	if st.lazy != nil && sub.typ == xds.ClusterType {
		names = st.standFor(names)
	}
	var set []sending
	var removed []string
	for _, n := range names {
		if !st.wants(sub, n) || st.putOff(sub, n) || st.withhold(sub, n) {
			continue
		}
		forced := sub.forced[n]
		delete(sub.forced, n)
		f, r := st.fresh(sub, n, forced)
		has := sub.has[n]
		switch {
		case f == nil:
			if has == nil && !sub.wildcard || has != nil && has.sent != "" && st.server.entry(st.key(sub.typ, n)) == nil {
				removed = append(removed, n)
			}
		case r == nil: // the client has it
			st.recognize(sub, n, f)
		default:
			// Under several names a cluster has the same endpoints: the client has asked
			// for them before.
			if sub.typ == xds.ClusterType && (has != nil && has.sent != r.Version || n != f.of.Name || st.shared(n)) {
				st.resend[f.of.Name] = true
			}
			if sub.typ == xds.EndpointType {
				delete(st.resend, n)
			}
			set = append(set, sending{r, f.of, f.from})
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

// fresh is what the client is to have under a name, and the resource if that is to
// be sent: because the client does not have it, or anyway.
func (st *stream) fresh(sub *subscription, name string, anyway bool) (*form, *xds.Resource) {
	for {
		f := st.form(sub, name)
		if has := sub.has[name]; f == nil || has != nil && has.sent == f.version && !anyway {
			return f, nil
		}
		r, err := f.resource()
		if err == nil {
			return f, r
		}
		if !st.unfit(st.key(sub.typ, name), f, err) {
			return nil, nil
		}
	}
}

// resendEndpoints sends the endpoints of clusters that were sent anew.
func (st *stream) resendEndpoints() {
	sub := st.subs[xds.EndpointType]
	switch {
	case sub == nil && st.grace: // it asks for endpoints when it needs them
		clear(st.resend)
		return
	case len(st.resend) == 0 || sub == nil || sub.held:
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
func split(rs []sending, b batching) [][]sending {
	if len(rs) == 0 {
		return nil
	}
	if b == whole {
		return [][]sending{rs}
	}
	var parts [][]sending
	size := 0
	for i, r := range rs {
		if i == 0 || len(rs) <= oneByOne || size+len(r.res.Body) > batchBytes {
			parts, size = append(parts, nil), 0
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], r)
		size += len(r.res.Body)
	}
	return parts
}

// respond queues one response.
func (st *stream) respond(typ string, set []sending, removed []string) {
	s := st.server
	st.nonce++
	m := &discovery.DeltaDiscoveryResponse{
		TypeUrl:          typ,
		Nonce:            strconv.FormatUint(st.nonce, 16),
		RemovedResources: removed,
	}
	sub := st.subs[typ]
	rec := &response{typ: typ, set: set, removed: removed}
	for _, x := range set {
		r := x.res
		m.Resources = append(m.Resources, &discovery.Resource{
			Name: r.Name, Version: r.Version,
			Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
		has := st.under(sub, r.Name, r.Version)
		has.of, has.from = x.of, x.from
		s.counters.Bytes += uint64(len(r.Body))
	}
	for _, n := range removed {
		has := st.under(sub, n, "")
		has.of, has.from = nil, wanted
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
func (st *stream) under(sub *subscription, name, v string) *version {
	has := sub.has[name]
	if has == nil {
		has = &version{}
		sub.has[name] = has
	}
	has.sent, has.nonce, has.open = v, st.nonce, true
	return has
}

// takeGone removes what vanished while the client was away: last, in reverse
// order, each type acknowledged before the next.
func (st *stream) takeGone() {
	if st.swept || !st.grace || len(st.open) > 0 || st.lazy != nil && len(st.lazy.waiting) > 0 {
		return
	}
	for _, sub := range st.subs {
		if sub.held {
			return
		}
	}
	for _, t := range slices.Backward(xds.Types()) {
		if sub := st.subs[t]; sub != nil && st.takeGoneOf(sub) {
			return
		}
	}
	if st.lazy != nil {
		if sub := st.subs[xds.EndpointType]; sub != nil && st.send(sub, st.orphans(sub), whole) {
			return
		}
	}
	st.swept = true
	st.server.settleAll()
}

// takeGoneOf does so for one type, and reports whether the client has to answer.
func (st *stream) takeGoneOf(sub *subscription) bool {
	if st.lazy != nil && sub.typ == xds.RouteType {
		return st.send(sub, st.orphans(sub), whole)
	}
	if !sub.wildcard {
		return false
	}
	var removed []string
	for n, has := range sub.has {
		switch {
		case has.sent == "":
		case !st.wants(sub, n) && st.lazy != nil && sub.typ == xds.ClusterType:
			st.lazy.idle.add(n) // what the client had before it came may have needed it
		case st.lazy != nil && sub.names[n]: // it was given what there is
		case !st.wants(sub, n) || st.server.entry(key{sub.typ, n}) == nil:
			removed = append(removed, n)
		}
	}
	if len(removed) > 0 {
		slices.Sort(removed)
		st.respond(sub.typ, nil, removed)
	}
	return len(removed) > 0
}
