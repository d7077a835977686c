// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// validateServiceEntry asks what Istio's validation asks.
func validateServiceEntry(n *notes, s *networking.ServiceEntry) {
	if s == nil {
		return
	}
	if len(s.GetHosts()) == 0 {
		n.invalid("spec.hosts", "a host is needed")
	}
	for i, h := range s.GetHosts() {
		if _, err := netip.ParseAddr(h); h == "*" || err == nil || !hostPattern.MatchString(h) {
			n.invalid(at("spec.hosts", i), "%q is no name of a host", h)
		}
	}
	if s.GetWorkloadSelector() != nil && len(s.GetEndpoints()) > 0 {
		n.invalid("spec.workloadSelector", "it and endpoints exclude each other")
	}
	validateEntryAddresses(n, s)
	validateEntryPorts(n, s)
	validateEntryEndpoints(n, s)
	validateExportTo(n, "spec.exportTo", s.GetExportTo())
}

func validateEntryAddresses(n *notes, s *networking.ServiceEntry) {
	for i, a := range s.GetAddresses() {
		p, err := parsePrefix(a)
		switch {
		case err != nil:
			n.invalid(at("spec.addresses", i), "%q is neither an address nor a CIDR", a)
		case !p.IsSingleIP() && s.GetResolution() != networking.ServiceEntry_NONE && s.GetResolution() != networking.ServiceEntry_STATIC:
			n.invalid(at("spec.addresses", i), "CIDRs go with resolution NONE and STATIC alone")
		case p.Bits() == 0:
			n.invalid(at("spec.addresses", i), "%q is every address", a)
		}
	}
}

func validateEntryPorts(n *notes, s *networking.ServiceEntry) {
	var names []string
	var numbers []uint32
	opaque := false
	for i, p := range s.GetPorts() {
		field := at("spec.ports", i)
		if p.GetName() == "" {
			n.invalid(field+".name", "a name is needed")
		} else if slices.Contains(names, p.GetName()) {
			n.invalid(field+".name", "%s is named twice", p.GetName())
		}
		switch {
		case p.GetNumber() == 0 || p.GetNumber() > math.MaxUint16:
			n.invalid(field+".number", "%d is not a port", p.GetNumber())
		case slices.Contains(numbers, p.GetNumber()):
			n.invalid(field+".number", "%d is there twice", p.GetNumber())
		}
		if p.GetTargetPort() > math.MaxUint16 {
			n.invalid(field+".targetPort", "%d is not a port", p.GetTargetPort())
		}
		app, ok := entryApps[strings.ToLower(p.GetProtocol())]
		if !ok && !strings.EqualFold(p.GetProtocol(), "udp") {
			n.invalid(field+".protocol", "%q is not a protocol that Istio knows", p.GetProtocol())
		}
		opaque = opaque || !app.IsHTTP() && app != "tls"
		names, numbers = append(names, p.GetName()), append(numbers, p.GetNumber())
	}
	if opaque && len(s.GetHosts()) > 1 && s.GetResolution() != networking.ServiceEntry_NONE {
		n.invalid("spec.hosts", "several hosts cannot be told apart at a port that is neither HTTP nor TLS")
	}
}

func validateEntryEndpoints(n *notes, s *networking.ServiceEntry) {
	resolution := s.GetResolution()
	dns := resolution == networking.ServiceEntry_DNS || resolution == networking.ServiceEntry_DNS_ROUND_ROBIN
	if (resolution == networking.ServiceEntry_NONE || resolution == networking.ServiceEntry_DYNAMIC_DNS) && len(s.GetEndpoints()) > 0 {
		n.invalid("spec.endpoints", "resolution %s has no endpoints", resolution)
	}
	if resolution == networking.ServiceEntry_DNS_ROUND_ROBIN && len(s.GetEndpoints()) > 1 {
		n.invalid("spec.endpoints", "resolution DNS_ROUND_ROBIN has one endpoint at most")
	}
	for i, h := range s.GetHosts() {
		if dns && len(s.GetEndpoints()) == 0 && s.GetWorkloadSelector() == nil && isWildcard(h) {
			n.invalid(at("spec.hosts", i), "a wildcard cannot be looked up: without endpoints DNS needs whole names")
		}
	}
	for i, w := range s.GetEndpoints() {
		field := at("spec.endpoints", i)
		validateWorkloadEntry(n, field, w)
		_, err := netip.ParseAddr(w.GetAddress())
		if resolution == networking.ServiceEntry_STATIC && err != nil && !strings.HasPrefix(w.GetAddress(), unixPrefix) {
			n.invalid(field+".address", "%q is no address, which resolution STATIC needs", w.GetAddress())
		}
		for name := range w.GetPorts() {
			if !slices.ContainsFunc(s.GetPorts(), func(p *networking.ServicePort) bool { return p.GetName() == name }) {
				n.invalid(entry(field+".ports", name), "the entry has no port of that name")
			}
		}
	}
}
