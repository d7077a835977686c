// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"net/netip"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Query is a request that no virtual host of the frontend's own took.
type Query struct {
	Host string // as sent; anything
	// Port is that of the frontend that asks, and Unknown what it does with hosts that
	// nobody knows; what is not pass is refuse.
	Port    uint16
	Unknown model.Unknown
	// Destination is what the client has dialled, by a connection of its family.
	Destination netip.AddrPort
	Client      string // SPIFFE id; "": not known
}

// Outcome is what becomes of a request.
type Outcome int

const (
	// Resolved: it gets the routes of the frontend that it names.
	Resolved Outcome = iota
	// Passed: it goes on to where it was going.
	Passed
	// Refused: nobody knows the host.
	Refused
	// Unreachable: a frontend has the host, but not for clients of the family.
	Unreachable
)

// Resolve decides about a request. The key is that of the scope whose routes it gets;
// "" if it is refused.
func (x *Index) Resolve(q Query) (key string, o Outcome) {
	dst := netip.AddrPortFrom(q.Destination.Addr().Unmap(), q.Destination.Port())
	x.mu.RLock()
	defer x.mu.RUnlock()
	from := x.scopes[plan.DestinationKey(dst)]
	if h, ok := parseHost(q.Host); ok {
		if t, known := x.find(h, q.Port, namespaceOf(q.Client), dst.Addr().Is6()); t != nil {
			if t != from && (t.naming == nil || t.naming.takes(h.sent)) {
				return t.key(dst.Addr().Is6()), Resolved
			}
		} else if known {
			return "", Unreachable
		}
		if from != nil && h.addr == dst.Addr() {
			return plan.PassKey, Passed
		}
	}
	if q.Unknown == model.UnknownPass {
		return plan.PassKey, Passed
	}
	return "", Refused
}

// find is the table of the frontend that has the host. known without a table: it has
// none for the family.
func (x *Index) find(h host, port uint16, namespace string, v6 bool) (t *table, known bool) {
	// A short name is meant for those who take it: not for hosts that end by chance in
	// what is a namespace, too.
	short := func(t *table) bool { return t.naming != nil && t.naming.port != 0 && t.naming.takes(h.sent) }
	all := func(*table) bool { return true }
	bare := isBare(h.name)
	if bare && namespace != "" {
		if t, known := first(x.names[name{h.name + "." + namespace, port}], v6, short); known {
			return t, known
		}
	}
	if t, known := first(x.names[name{h.name, port}], v6, all); known {
		return t, known
	}
	for s := range suffixes(h.name) {
		if t, known := first(x.names[name{s, port}], v6, all); known {
			return t, known
		}
	}
	if bare || namespace == "" || h.addr.IsValid() {
		return nil, false
	}
	for s := range suffixes(h.name + "." + namespace) {
		if t, known := first(x.names[name{s, port}], v6, short); known {
			return t, known
		}
	}
	return nil, false
}

// first is the first table that is meant and that a scope of the family leads to.
// known: some scope leads to one of them.
func first(sorted []claim, v6 bool, meant func(*table) bool) (t *table, known bool) {
	for _, c := range sorted {
		here, there := c.table.key(v6) != "", c.table.key(!v6) != ""
		if !here && !there || !meant(c.table) {
			continue
		}
		if here {
			return c.table, true
		}
		known = true
	}
	return nil, known
}
