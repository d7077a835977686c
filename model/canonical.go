// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"slices"
)

// SortContent orders a list whose order has no meaning by its elements' content and
// drops repeats; of equal elements the first stays. An empty list becomes nil. The
// argument is left as it was.
func SortContent[T any](in []T) []T {
	type keyed struct {
		key   []byte
		value T
	}
	ks := make([]keyed, len(in))
	for i, v := range in {
		ks[i] = keyed{Bytes(v), v}
	}
	slices.SortStableFunc(ks, func(a, b keyed) int { return bytes.Compare(a.key, b.key) })
	ks = slices.CompactFunc(ks, func(a, b keyed) bool { return bytes.Equal(a.key, b.key) })
	if len(ks) == 0 {
		return nil
	}
	out := make([]T, len(ks))
	for i, k := range ks {
		out[i] = k.value
	}
	return out
}

// Canonical returns the rule with every list in canonical order, so that rules that
// say the same have the same bytes.
func (r AuthRule) Canonical() AuthRule {
	from := make([]Peer, len(r.From))
	for i, p := range r.From {
		from[i] = Peer{Identities: SortContent(p.Identities), NotIdentities: SortContent(p.NotIdentities),
			IPs: SortContent(p.IPs), NotIPs: SortContent(p.NotIPs)}
	}
	to := make([]Operation, len(r.To))
	for i, o := range r.To {
		to[i] = Operation{Hosts: SortContent(o.Hosts), NotHosts: SortContent(o.NotHosts),
			Ports: sortPorts(o.Ports), NotPorts: sortPorts(o.NotPorts),
			Methods: SortContent(o.Methods), NotMethods: SortContent(o.NotMethods),
			Paths: SortContent(o.Paths), NotPaths: SortContent(o.NotPaths), Headers: SortContent(o.Headers)}
	}
	when := make([]Condition, len(r.When))
	for i, c := range r.When {
		when[i] = Condition{Kind: c.Kind, Name: c.Name, Values: SortContent(c.Values), NotValues: SortContent(c.NotValues),
			Prefixes: SortContent(c.Prefixes), NotPrefixes: SortContent(c.NotPrefixes),
			Ports: sortPorts(c.Ports), NotPorts: sortPorts(c.NotPorts)}
	}
	return AuthRule{From: SortContent(from), To: SortContent(to), When: SortContent(when), Src: r.Src}
}

// sortPorts orders by number.
func sortPorts(in []uint16) []uint16 {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
