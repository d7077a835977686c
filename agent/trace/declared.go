// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// inRange is the row of a service that has an address in its range, the longest; nil if
// there is none.
func (t *tracer) inRange(dst netip.AddrPort, proto model.Protocol) *plan.Service {
	var best *plan.Service
	for _, row := range t.Rows(plan.Services) {
		s := row.Value.(*plan.Service)
		if s.Bits == 0 || s.Port != dst.Port() || s.Protocol != proto || best != nil && best.Bits >= s.Bits {
			continue
		}
		if netip.PrefixFrom(s.Addr, int(s.Bits)).Contains(dst.Addr()) {
			best = s
		}
	}
	return best
}

// clusterName is what a listener calls the cluster that it wants for the connection.
func (t *tracer) clusterName(mode plan.Mode, l *plan.Listener) string {
	at := t.out.Destination.String()
	if mode == plan.AnyDetect || mode == plan.AnyOpaque {
		dst := t.out.Destination.Addr()
		best := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if dst.Is6() || !dst.IsValid() && t.out.Source.Addr.Is6() {
			best = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		for _, r := range l.Ranges {
			if r.Contains(dst) && r.Bits() > best.Bits() {
				best = r
			}
		}
		at = plan.RangePort(best, t.q.port)
	}
	if mode == plan.TLS || mode == plan.AnyDetect {
		return strings.Join([]string{"tls", t.pattern(l), l.Class, at}, "|")
	}
	return strings.Join([]string{"tcp", l.Class, at}, "|")
}

// unlisted ends a share at a cluster whose endpoints nobody lists; false: it is none.
func (t *tracer) unlisted(share float64, c *plan.Cluster, as *sending) bool {
	switch {
	case c.Original:
		if dst := t.out.Destination; dst.IsValid() && c.Port != 0 {
			to := netip.AddrPortFrom(dst.Addr(), c.Port)
			t.direct(share, []plan.KernelBackend{{Addr: to, Weight: 1}}, "where it was sent, at another port", as)
		} else {
			t.original(share, as)
		}
	case c.Names != nil:
		names := map[string]bool{}
		for _, b := range backends(&c.Names.Endpoints) {
			names[cmp.Or(b.Host, fmt.Sprint(b.Addrs))] = true
		}
		t.end(Outcome{Share: share, Verdict: Reached, Cluster: c.Name, Sent: as.seen(), Why: fmt.Sprintf("who is behind %d names that are looked up", len(names))})
	default:
		return false
	}
	return true
}

func backends(e *plan.ClusterEndpoints) []plan.Backend {
	out := e.Backends
	for _, s := range e.Shares {
		out = append(out, s.Backends...)
	}
	return out
}

// isHeld reports whether the source may connect to services alone, and an address is not
// its own.
func (t *tracer) isHeld(a netip.Addr) bool {
	row, _ := t.Get(plan.Pods, t.out.Source.Addr.String()).(*plan.Pod)
	return row != nil && row.KnownOnly && len(row.Listeners) > 0 && !slices.Contains(t.from, a)
}
