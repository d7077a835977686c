// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// sender is somebody who may send. A pod may have another address on each side.
type sender struct {
	name          string
	before, after source
}

// source is a sender as one side's kernel and proxies know him.
type source struct {
	class  *plan.Class
	client plan.Client
}

// anybodyElse is who has an address that nobody is known to have.
const anybodyElse = "anybody else"

// senders are the pods of both sides, an address in every part of the prefixes that
// policies name, and one that nobody has.
func senders(before, after Tables) []sender {
	var out []sender
	seen := map[string]bool{}
	add := func(name string, a, b source) {
		if k := fmt.Sprint(name, " ", a.class.ID, " ", b.class.ID); !seen[k] {
			seen[k] = true
			out = append(out, sender{name, a, b})
		}
	}
	members := asksForMembers(before, after)
	for _, key := range union(workloadKeys(before), workloadKeys(after)) {
		a, _ := before.Get(translators.Workloads, key).(*model.Workload)
		b, _ := after.Get(translators.Workloads, key).(*model.Workload)
		either := a
		if a == nil {
			either = b
		}
		if either.HostNetwork || either.Identity == "" {
			continue
		}
		name := either.Identity
		if members && (a == nil || !a.Member()) && (b == nil || !b.Member()) {
			name += outsideWord
		}
		for i := range addressesOf(a, b) {
			add(name, sourceOf(before, a, either, i), sourceOf(after, b, either, i))
		}
	}
	for _, p := range points(before, after) {
		name := anybodyElse
		best := 0
		for _, t := range []Tables{before, after} {
			for _, row := range t.Rows(plan.Prefixes) {
				if in := row.Value.(*plan.Prefix).Prefix; in.Contains(p) && in.Bits() > best {
					name, best = in.String(), in.Bits()
				}
			}
		}
		a, b := sourceAt(before, p), sourceAt(after, p)
		if !a.class.Unassigned || !b.class.Unassigned {
			add(name, a, b)
		}
	}
	slices.SortStableFunc(out, func(a, b sender) int { return compareNames(a.name, b.name) })
	return out
}

// outsideWord is behind the identity of those who are no members of the mesh, where that
// matters to some policy.
const outsideWord = " (outside the mesh)"

func asksForMembers(sides ...Tables) bool {
	for _, t := range sides {
		for _, row := range t.Rows(plan.Governance) {
			g := row.Value.(*plan.Governed)
			if slices.ContainsFunc(slices.Concat(append(slices.Clone(g.Allow), g.Deny)...), plan.AsksForMember) {
				return true
			}
		}
	}
	return false
}

// compareNames orders senders; who is nobody in particular comes last.
func compareNames(a, b string) int {
	if x, y := a == anybodyElse, b == anybodyElse; x != y {
		return map[bool]int{true: 1, false: -1}[x]
	}
	return strings.Compare(a, b)
}

func workloadKeys(t Tables) []string {
	var out []string
	for _, row := range t.Rows(translators.Workloads) {
		out = append(out, row.Key)
	}
	return out
}

// addressesOf are those of the side that has more of them.
func addressesOf(a, b *model.Workload) []netip.Addr {
	var out []netip.Addr
	for _, w := range []*model.Workload{a, b} {
		if w != nil && len(w.Addresses) > len(out) {
			out = w.Addresses
		}
	}
	return out
}

// sourceOf is a workload by its i-th address, or the last; without workload somebody who
// is like the one of the other side.
func sourceOf(t Tables, w, other *model.Workload, i int) source {
	if w == nil || len(w.Addresses) == 0 {
		id, member := other.Identity, other.Member()
		return source{&plan.Class{Identity: id, Member: member}, plan.Client{Identity: id, Member: member}}
	}
	s := sourceAt(t, w.Addresses[min(i, len(w.Addresses)-1)])
	s.client.Identity, s.client.Member = s.class.Identity, s.class.Member
	return s
}

// sourceAt is whoever has the address.
func sourceAt(t Tables, addr netip.Addr) source {
	return source{classAt(t, addr), plan.Client{Addr: addr}}
}

func classAt(t Tables, addr netip.Addr) *plan.Class {
	id := uint64(0)
	if a, ok := t.Get(plan.Addresses, addr.String()).(*plan.Address); ok {
		id = a.Class
	} else {
		best := -1
		for _, row := range t.Rows(plan.Prefixes) {
			if p := row.Value.(*plan.Prefix); p.Prefix.Contains(addr) && p.Prefix.Bits() > best {
				best, id = p.Prefix.Bits(), p.Class
			}
		}
	}
	if c, ok := t.Get(plan.Classes, fmt.Sprintf("%016x", id)).(*plan.Class); ok {
		return c
	}
	return &plan.Class{}
}

// points are addresses of which there is one in every part into which the prefixes of
// both sides cut all addresses, without those of pods; and those of nodes.
func points(sides ...Tables) []netip.Addr {
	out := []netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("0.0.0.1"), netip.MustParseAddr("::2")}
	for _, t := range sides {
		for _, row := range t.Rows(plan.Prefixes) {
			p := row.Value.(*plan.Prefix).Prefix
			out = append(out, p.Addr())
			if next := lastOf(p).Next(); next.IsValid() {
				out = append(out, next)
			}
		}
		for _, row := range t.Rows(plan.Addresses) {
			if a := row.Value.(*plan.Address); a.Node {
				out = append(out, a.Addr)
			}
		}
	}
	pod := func(a netip.Addr) bool {
		return slices.ContainsFunc(sides, func(t Tables) bool {
			at, ok := t.Get(plan.Addresses, a.String()).(*plan.Address)
			return ok && !at.Node
		})
	}
	return slices.DeleteFunc(out, pod)
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
