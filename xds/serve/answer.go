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
	e := st.server.store[xds.RouteType][name]
	if e != nil && e.rejected != "" {
		return true
	}
	has := sub.has[name]
	if has == nil { // not sent yet, unless there is nothing to send
		return e == nil && sub.wants(name)
	}
	return !has.open
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
