// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
)

// addressesOf are those by which connections come to a service; none if it has no address
// of its own.
func addressesOf(svc *model.Service) []netip.Prefix {
	if svc == nil {
		return nil
	}
	out := slices.Clone(svc.Ranges)
	for _, a := range svc.VIPs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// inSubnets reports whether the addresses of the services are in one of the subnets. To
// Istio each is a condition on the address that was dialled, which is one of them.
func (h *httpTranslation) inSubnets(field string, subnets []string) bool {
	in, out := 0, 0
	for _, a := range h.addresses {
		if longest(subnets, a) > 0 {
			in++
		} else {
			out++
		}
	}
	switch {
	case in > 0 && out > 0:
		h.n.approximated(field, "some-addresses", model.Degrades,
			"the services have addresses in these subnets and others: the match holds for services that have all of theirs in them", "name subnets for all of the addresses")
	case in == 0 && out == 0:
		h.n.approximated(field, "no-address", model.Degrades,
			"the services have no addresses of their own: the match never holds, whichever pod is dialled", "leave the subnets out")
	case in == 0:
		h.n.surprising(field, "foreign-subnets", "no address of the services is in these subnets: the match never holds", "")
	}
	return in > 0 && out == 0
}

// longestSubnet is the length of the most specific subnet that an address of the services
// is in.
func (h *httpTranslation) longestSubnet(subnets []string) int {
	best := 0
	for _, a := range h.addresses {
		best = max(best, longest(subnets, a))
	}
	return best
}

// longest counts from 1, which is a subnet of all addresses; 0 is none.
func longest(subnets []string, a netip.Prefix) int {
	best := 0
	for _, p := range prefixes(subnets) {
		if p.Bits() <= a.Bits() && p.Contains(a.Addr()) {
			best = max(best, p.Bits()+1)
		}
	}
	return best
}

// subnetRoutes are routes of connections, each with the length of its subnet: 0 is one
// without.
type subnetRoutes struct {
	routes []model.ConnectionRoute
	bits   []int
}

func (s *subnetRoutes) add(bits int, routes ...model.ConnectionRoute) {
	for _, r := range routes {
		s.routes, s.bits = append(s.routes, r), append(s.bits, bits)
	}
}

// ordered puts the more specific of neighbours with subnets first: Envoy looks for the
// longest, where else the order counts. What stands behind a route for all clients of a
// namespace is left out.
func (s *subnetRoutes) ordered(client string) []model.ConnectionRoute {
	for i := range s.routes {
		for j := i; j > 0 && s.bits[j-1] > 0 && s.bits[j] > s.bits[j-1]; j-- {
			s.routes[j], s.routes[j-1] = s.routes[j-1], s.routes[j]
			s.bits[j], s.bits[j-1] = s.bits[j-1], s.bits[j]
		}
	}
	if i := slices.IndexFunc(s.routes, func(r model.ConnectionRoute) bool { return unconditional(r, client) }); i >= 0 {
		return s.routes[:i+1]
	}
	return s.routes
}
