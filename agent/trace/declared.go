// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/http"
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
		t.lookedUp(share, c, as)
	default:
		return false
	}
	return true
}

// lookedUp ends a share at endpoints that are known by name. Names of the cluster's own
// services are known here, too; where others lead is the resolver's matter.
func (t *tracer) lookedUp(share float64, c *plan.Cluster, as *sending) {
	found := &plan.ClusterEndpoints{Backends: t.addresses(c.Names.Endpoints.Backends, c.Names.V6)}
	var names []Endpoint
	others := func(in []plan.Backend) {
		for _, b := range in {
			if b.Host != "" && !strings.Contains(b.Host, ".svc.") {
				names = append(names, Endpoint{Host: b.Host, Addr: netip.AddrPortFrom(netip.Addr{}, b.Port)})
			}
		}
	}
	others(c.Names.Endpoints.Backends)
	for _, s := range c.Names.Endpoints.Shares {
		others(s.Backends)
		s.Backends = t.addresses(s.Backends, c.Names.V6)
		if len(s.Backends) > 0 {
			found.Shares = append(found.Shares, s)
		}
	}
	switch {
	case len(names) > 0:
		t.end(Outcome{Share: share, Verdict: Reached, Cluster: c.Name, Endpoints: names, Sent: as.seen(), Why: "it goes where the names resolve to"})
	case len(found.Backends)+len(found.Shares) == 0:
		t.end(Outcome{Share: share, Verdict: Lost, Status: http.StatusServiceUnavailable, Cluster: c.Name, Why: "no service has the names of its endpoints"})
	default:
		t.spread(share, targets(found), "an endpoint of "+t.backend(c.Name), as)
	}
}

// addresses gives backends by address, of a family: those that are services' names by what
// the names stand for.
func (t *tracer) addresses(in []plan.Backend, v6 bool) []plan.Backend {
	var out []plan.Backend
	for _, b := range in {
		if b.Host == "" {
			out = append(out, b)
			continue
		}
		s := t.named(b.Host)
		if s == nil {
			continue
		}
		of := s.VIPs
		if len(of) == 0 {
			of = t.endpointAddrs(s)
		}
		for _, a := range of {
			if a.Is6() == v6 {
				out = append(out, plan.Backend{Addrs: []netip.AddrPort{netip.AddrPortFrom(a, b.Port)}})
			}
		}
	}
	return out
}

// isHeld reports whether the source may connect to services alone, and an address is not
// its own.
func (t *tracer) isHeld(a netip.Addr) bool {
	row, _ := t.Get(plan.Pods, t.out.Source.Addr.String()).(*plan.Pod)
	return row != nil && row.KnownOnly && len(row.Listeners) > 0 && !slices.Contains(t.from, a)
}
