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
	from, to, when := slices.Clone(r.From), slices.Clone(r.To), slices.Clone(r.When)
	for i := range from {
		p := &from[i]
		p.Identities, p.NotIdentities = SortContent(p.Identities), SortContent(p.NotIdentities)
		p.IPs, p.NotIPs = SortContent(p.IPs), SortContent(p.NotIPs)
	}
	for i := range to {
		o := &to[i]
		o.Hosts, o.NotHosts = SortContent(o.Hosts), SortContent(o.NotHosts)
		o.Ports, o.NotPorts = sortPorts(o.Ports), sortPorts(o.NotPorts)
		o.Methods, o.NotMethods = SortContent(o.Methods), SortContent(o.NotMethods)
		o.Paths, o.NotPaths = SortContent(o.Paths), SortContent(o.NotPaths)
		o.Headers = SortContent(o.Headers)
	}
	for i := range when {
		c := &when[i]
		c.Values, c.NotValues = SortContent(c.Values), SortContent(c.NotValues)
		c.Prefixes, c.NotPrefixes = SortContent(c.Prefixes), SortContent(c.NotPrefixes)
		c.Ports, c.NotPorts = sortPorts(c.Ports), sortPorts(c.NotPorts)
	}
	return AuthRule{From: SortContent(from), To: SortContent(to), When: SortContent(when), Closes: r.Closes, Src: r.Src}
}

// Shares gives backends that split traffic their canonical form: those of weight 0
// are left out, equal ones are added up, the weights have no common divisor, and the
// order is that of the content. It is nil if every weight is 0.
func Shares(in []Backend) []Backend {
	sums := map[string]uint32{}
	bare := make([]Backend, 0, len(in))
	for _, b := range in {
		w := b.Weight
		if w == 0 {
			continue
		}
		b.Weight = 0
		sums[string(Bytes(b))] += w
		bare = append(bare, b)
	}
	out := SortContent(bare)
	var divisor uint32
	for i := range out {
		out[i].Weight = sums[string(Bytes(out[i]))]
		for a := out[i].Weight; a != 0; {
			divisor, a = a, divisor%a
		}
	}
	for i := range out {
		out[i].Weight /= divisor
	}
	return out
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
