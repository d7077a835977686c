// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// Limit bounds the requests that a route table takes in a second, whichever route takes
// them and also if none does; more get 429. 0 = no limit.
type Limit struct {
	Total uint32 `json:"total,omitempty"` // of all clients together
	// Clients have a limit of their own, by identity, and are known by their addresses;
	// sorted by Identity.
	Clients []ClientLimit `json:"clients,omitempty"`
	// Others is the limit of all who are none of Clients, together: they have no identity
	// that is known.
	Others uint32 `json:"others,omitempty"`
}

// ClientLimit is the limit of one identity.
type ClientLimit struct {
	Identity  string       `json:"identity"`
	Addresses []netip.Addr `json:"addresses"`
	PerSecond uint32       `json:"perSecond"` // 0: none but the total
}

// limitOf resolves identities to the addresses that have them.
func limitOf(r *incr.Reader, l *model.RateLimit) *Limit {
	if l == nil {
		return nil
	}
	out := &Limit{Total: l.Total, Others: l.PerIdentity}
	if l.PerIdentity == 0 && len(l.Overrides) == 0 {
		return out // of nobody in particular: whose an address is does not matter
	}
	told := func(id string) bool { return l.PerIdentity > 0 || overrideOf(l, id) != nil }
	for _, k := range identitiesAt(r, told) {
		out.Clients = append(out.Clients, ClientLimit{k.Identity, k.Addresses, ofIdentity(l, k.Identity)})
	}
	return out
}

// overrideOf is the override that counts for a client, nil if none does.
func overrideOf(l *model.RateLimit, id string) *model.RateLimitOverride {
	for i := range l.Overrides {
		if slices.Contains(l.Overrides[i].Identities, id) {
			return &l.Overrides[i]
		}
	}
	return nil
}

// ofIdentity is the limit of one client; 0 = none.
func ofIdentity(l *model.RateLimit, id string) uint32 {
	if o := overrideOf(l, id); o != nil {
		return o.PerSecond
	}
	return l.PerIdentity
}

// bothLimits is the limit that lets through what both do.
func bothLimits(a, b *model.RateLimit) *model.RateLimit {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := &model.RateLimit{Total: stricter(a.Total, b.Total), PerIdentity: stricter(a.PerIdentity, b.PerIdentity)}
	var named []string
	for _, o := range slices.Concat(a.Overrides, b.Overrides) {
		named = append(named, o.Identities...)
	}
	slices.Sort(named)
	for _, id := range slices.Compact(named) {
		out.Overrides = append(out.Overrides, model.RateLimitOverride{
			Identities: []string{id}, PerSecond: stricter(ofIdentity(a, id), ofIdentity(b, id)),
		})
	}
	return out
}

// stricter is the smaller of two limits.
func stricter(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// identitiesAt lists the identities that are wanted, with the addresses that have them;
// sorted by identity.
func identitiesAt(r *incr.Reader, want func(string) bool) []KnownIdentity {
	byID := map[string][]netip.Addr{}
	for _, row := range r.All(workloads) {
		w := row.Value.(*model.Workload)
		if !w.HostNetwork && w.Identity != "" && want(w.Identity) {
			byID[w.Identity] = append(byID[w.Identity], ownAddresses(r, w)...)
		}
	}
	out := make([]KnownIdentity, 0, len(byID))
	for id, addrs := range byID {
		slices.SortFunc(addrs, netip.Addr.Compare)
		out = append(out, KnownIdentity{id, slices.Compact(addrs)})
	}
	slices.SortFunc(out, func(a, b KnownIdentity) int { return strings.Compare(a.Identity, b.Identity) })
	return out
}
