// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"fairlead.io/fairlead/xds"
)

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
	for _, x := range rec.set {
		if has := sub.has[x.res.Name]; has != nil {
			has.came = has.came && has.acked == x.res.Version
			has.acked, has.ackedOf = x.res.Version, x.of // though a later one may be under way
			if x.from.standsIn() {
				has.ackedOf = nil
			}
			has.open = has.open && has.nonce != nonce
		}
		s.accepted(x.of, x.from)
		s.tell(s.entry(keyOf(x.of)))
		s.contest(s.entry(keyOf(x.of)))
		st.rest(sub, x.res.Name)
		st.settleName(typ, x.res.Name)
	}
	for _, n := range rec.removed {
		if has := sub.has[n]; has != nil && has.nonce == nonce {
			delete(sub.has, n)
			st.rest(sub, n)
		}
		st.settleName(typ, n)
	}
	s.settle(anyRoutes)
}

// late is what a response had that was acknowledged before and is rejected now:
// a client that passes resources on may learn later that one is bad.
func (st *stream) late(sub *subscription, nonce uint64) *response {
	rec := &response{typ: sub.typ}
	for n, has := range sub.has {
		if has.nonce != nonce || has.of == nil {
			continue
		}
		if e := st.server.entry(keyOf(has.of)); e != nil && !has.from.standsIn() && e.knows(has.of.Version) {
			res := &xds.Resource{Type: sub.typ, Name: n, Version: has.sent} // all that a rejection needs
			rec.set = append(rec.set, sending{res, has.of, has.from})
		}
	}
	slices.SortFunc(rec.set, func(a, b sending) int { return strings.Compare(a.res.Name, b.res.Name) })
	return rec
}

// rejected narrows a NACK down to one resource, by sending halves again: which
// part of a rejected batch the client took is not known.
func (st *stream) rejected(sub *subscription, nonce uint64, rec *response, detail string) {
	if n := len(rec.set); n > 1 {
		for _, half := range [][]sending{rec.set[:n/2], rec.set[n/2:]} {
			var names []string
			for _, x := range half {
				sub.forced[x.res.Name] = true
				if sub.typ == xds.ClusterType { // which may be new to the client even now
					st.resend[x.of.Name] = true
				}
				names = append(names, x.res.Name)
			}
			st.send(sub, names, whole)
		}
		return
	}
	for _, x := range rec.set {
		name := x.res.Name
		e := st.server.entry(keyOf(x.of))
		if !x.from.standsIn() {
			st.reject(x.of, detail)
		}
		if has := sub.has[name]; has != nil && has.nonce == nonce {
			// The client has what it had.
			if has.acked == x.res.Version {
				has.acked, has.ackedOf = "", nil
				if r := st.acceptedOf(e); r != nil && !has.came {
					f := &form{name: name, of: r}
					if st.complete(f, e) == nil {
						has.acked, has.ackedOf = f.version, r
					}
				}
			}
			has.sent, has.of, has.open = has.acked, has.ackedOf, false
			if has.from = wanted; has.sent == "" {
				delete(sub.has, name)
			}
		}
		if r, _ := st.given(e, name); r != nil && !x.from.standsIn() { // which this client may not have
			st.send(sub, []string{name}, changes)
		}
		st.rest(sub, name)
		st.settleName(sub.typ, name)
	}
	for _, n := range rec.removed { // nothing more can be done
		if has := sub.has[n]; has != nil && has.nonce == nonce {
			delete(sub.has, n)
			st.rest(sub, n)
		}
		st.settleName(sub.typ, n)
	}
}

// acceptedOf is the last version that clients accepted, without what this one rejected
// since; nil if there is none.
func (st *stream) acceptedOf(e *entry) *xds.Resource {
	if e == nil {
		return nil
	}
	for _, r := range []*xds.Resource{e.good, e.before} {
		if r != nil && !st.refuses(e, r.Version) {
			return r
		}
	}
	return nil
}

// settled reports whether the client has answered a change, or does not want it.
// Scopes and listeners are acknowledged before they are of use: only then does
// Envoy ask for what they lead to.
func (st *stream) settled(it *item) bool {
	if e := st.server.entry(it.key); e != nil && e.verdict(st, it.version) != nil {
		return true
	}
	if !st.answered(it.key, it.version) {
		return false
	}
	if it.version == "" || !st.serves(it.typ, it.name) {
		return true
	}
	switch it.typ {
	case xds.ScopeType:
		return it.route == "" || st.lazy != nil && !st.lazy.variants[it.route].eager || st.hasRoutes(it.route)
	case xds.ListenerType:
		return !it.scoped || st.hasScopes()
	}
	return true
}

// hasRoutes reports whether the client has answered the routes of a scope.
func (st *stream) hasRoutes(table string) bool {
	sub := st.subs[xds.RouteType]
	if sub == nil || sub.held {
		return false
	}
	e := st.server.store[xds.RouteType][table]
	if e != nil && st.refuses(e, e.want.Version) {
		return true
	}
	names := st.namesOf(xds.RouteType, []string{table})
	for _, n := range names {
		has := sub.has[n]
		if has == nil && (e != nil || !st.wants(sub, n)) { // not sent yet
			return false
		}
		if has != nil && has.open {
			return false
		}
	}
	return len(names) > 0
}

// hasScopes reports whether the client has answered all scopes and their routes.
func (st *stream) hasScopes() bool {
	sub := st.subs[xds.ScopeType]
	if sub == nil || sub.held {
		return false
	}
	if st.lazy != nil {
		return st.lazyHasScopes()
	}
	for n, e := range st.server.store[xds.ScopeType] {
		if st.refuses(e, e.want.Version) || !st.wants(sub, n) {
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
	return sub != nil && st.wants(sub, name)
}

// answered reports whether the client has answered a version, or does not want it.
func (st *stream) answered(k key, v string) bool {
	sub := st.subs[k.typ]
	if sub == nil {
		return st.grace
	}
	for _, n := range st.namesOf(k.typ, []string{k.name}) {
		switch {
		case !st.wants(sub, n):
			if st.lazy != nil && k.typ == xds.ClusterType && st.subs[xds.RouteType] == nil && !st.grace {
				return false // it may still ask for routes that lead there
			}
		case st.lazy != nil && k.typ == xds.EndpointType && st.lazy.withheld[n]:
		case st.lazy != nil && k.typ == xds.ClusterType && st.lazy.asked[n] != nil:
			if !st.answeredAsked(sub, n, k, v) {
				return false
			}
		case !sub.answered(n, v):
			return false
		}
	}
	return true
}

func (sub *subscription) answered(name, v string) bool {
	has := sub.has[name]
	if v == "" {
		// What a client came with and asks for by name stays until it lets go.
		own := has != nil && has.nonce == 0 && !sub.wildcard
		return has == nil || own || !has.open && (has.sent == "" || has.from == missing)
	}
	return !sub.held && has != nil && !has.open && has.from != missing && has.of != nil && has.of.Version == v
}
