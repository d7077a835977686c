// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// addressStage gives every address of the mesh, and every prefix that a policy
// names, its class.
func (b *builder) addressStage() incr.Stage {
	return incr.Stage{Name: "plan/address",
		Keys: map[incr.Table]func(string, any) []string{
			workloads: self("workload "), nodes: self("node "), HostAddresses: self("host "), cidrs: self("prefix "),
		},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			kind, k, _ := strings.Cut(key, " ")
			switch kind {
			case "workload":
				return workloadAddresses(r, k)
			case "node":
				return nodeAddresses(r, k)
			case "host":
				if a, ok := r.Get(HostAddresses, k).(netip.Addr); ok {
					return nodeAddress(r, a)
				}
				return nil
			}
			if p, ok := r.Get(cidrs, k).(netip.Prefix); ok {
				return prefixRows(r, p)
			}
			return nil
		}}
}

func workloadAddresses(r *incr.Reader, key string) []incr.Row {
	w, _ := r.Get(workloads, key).(*model.Workload)
	if w == nil || w.HostNetwork { // its addresses are the node's
		return nil
	}
	n, _ := r.Get(nodes, w.Node).(*model.Node)
	var out []incr.Row
	for _, a := range ownAddresses(r, w) {
		c, rows := class(r, Class{Identity: w.Identity, Member: w.Member()}, netip.PrefixFrom(a, a.BitLen()))
		out = append(out, rows...)
		out = append(out, incr.Row{Table: Addresses, Key: a.String(), Value: &Address{Addr: a, Class: c,
			Managed: n != nil && n.Managed, Behind: n != nil && n.Behind}})
	}
	return unique(out)
}

func nodeAddresses(r *incr.Reader, key string) []incr.Row {
	n, _ := r.Get(nodes, key).(*model.Node)
	if n == nil {
		return nil
	}
	var out []incr.Row
	for _, a := range n.Addresses {
		out = append(out, nodeAddress(r, a)...)
	}
	for _, p := range n.PodRanges {
		out = append(out, prefixRows(r, p)...)
	}
	return unique(out)
}

func nodeAddress(r *incr.Reader, a netip.Addr) []incr.Row {
	c, rows := class(r, Class{}, netip.PrefixFrom(a, a.BitLen()))
	return append(rows, incr.Row{Table: Addresses, Key: a.String(), Value: &Address{Addr: a, Class: c, Node: true}})
}

// prefixRows gives a prefix a class. Inside a node's pod range it stands for the
// pods there that are not known yet.
func prefixRows(r *incr.Reader, p netip.Prefix) []incr.Row {
	unassigned := false
	for _, row := range r.All(nodes) {
		for _, of := range row.Value.(*model.Node).PodRanges {
			unassigned = unassigned || of.Bits() <= p.Bits() && of.Contains(p.Addr())
		}
	}
	rows := prefixRow(r, p, unassigned)
	if all := netip.PrefixFrom(netip.IPv4Unspecified(), 0); p != all && p.Contains(firstMapped) {
		rows = append(rows, prefixRow(r, all, false)...)
	}
	return unique(rows)
}

// firstMapped is 0.0.0.0 as the kernel has it. An IPv6 prefix that contains it would
// hold for IPv4 addresses there, and for them alone there: a prefix of all of IPv4
// stands in between.
var firstMapped = netip.MustParseAddr("::ffff:0.0.0.0")

func prefixRow(r *incr.Reader, p netip.Prefix, unassigned bool) []incr.Row {
	c, rows := class(r, Class{Unassigned: unassigned}, p)
	return append(rows, incr.Row{Table: Prefixes, Key: p.String(), Value: &Prefix{Prefix: p, Class: c, Unassigned: unassigned}})
}

// class is that of sources with what is known of them, in (or at) a prefix, and the row
// that describes it; 0 and none for sources that nothing tells apart.
func class(r *incr.Reader, known Class, at netip.Prefix) (uint64, []incr.Row) {
	var in []netip.Prefix
	for _, row := range r.All(cidrs) {
		if p := row.Value.(netip.Prefix); p.Bits() <= at.Bits() && p.Contains(at.Addr()) {
			in = append(in, p)
		}
	}
	if known.Identity == "" && len(in) == 0 && !known.Unassigned {
		return 0, nil
	}
	slices.SortFunc(in, comparePrefixes)
	c := &known
	c.Prefixes = in
	c.ID = model.ID(c)
	return c.ID, []incr.Row{{Table: Classes, Key: fmt.Sprintf("%016x", c.ID), Value: c}}
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
