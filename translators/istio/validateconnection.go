// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func validateTCPRoute(n *notes, field string, r *networking.TCPRoute) {
	validateConnectionShares(n, field+".route", r.GetRoute())
	for i, m := range r.GetMatch() {
		validateConnectionMatch(n, at(field+".match", i), m)
	}
}

func validateTLSRoute(n *notes, field string, r *networking.TLSRoute, hosts []string) {
	validateConnectionShares(n, field+".route", r.GetRoute())
	if len(r.GetMatch()) == 0 {
		n.invalid(field+".match", "a route by server name needs a match")
	}
	for i, m := range r.GetMatch() {
		field := at(field+".match", i)
		validateConnectionMatch(n, field, m)
		if len(m.GetSniHosts()) == 0 {
			n.invalid(field+".sniHosts", "a match needs server names")
		}
		for j, sni := range m.GetSniHosts() {
			field := at(field+".sniHosts", j)
			// Istio compares with the hosts as they are written.
			if !hostPattern.MatchString(sni) {
				n.invalid(field, "%q is not a server name", sni)
			} else if !slices.ContainsFunc(hosts, func(h string) bool { return covers(strings.ToLower(h), strings.ToLower(sni)) }) {
				n.invalid(field, "%q is not one of spec.hosts; short names are not completed here", sni)
			}
		}
	}
}

func validateConnectionShares(n *notes, field string, in []*networking.RouteDestination) {
	if len(in) == 0 {
		n.invalid(field, "a route needs destinations")
	}
	validateWeights(n, field, len(in), func(i int) int32 { return in[i].GetWeight() })
	for i, d := range in {
		validateDestination(n, at(field, i)+".destination", d.GetDestination())
	}
}

func validateConnectionMatch(n *notes, field string, m connectionCondition) {
	if m.GetPort() != 0 {
		validatePort(n, field+".port", m.GetPort())
	}
	for i, s := range m.GetDestinationSubnets() {
		if _, err := parsePrefix(s); err != nil {
			n.invalid(at(field+".destinationSubnets", i), "%q is neither an address nor a range of them", s)
		}
	}
}
