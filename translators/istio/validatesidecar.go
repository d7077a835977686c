// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"net"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// unixScheme is how addresses of sockets of the file system begin.
const unixScheme = "unix://"

func validateSidecar(n *notes, s *networking.Sidecar) {
	if s == nil {
		return
	}
	if len(s.GetEgress())+len(s.GetIngress()) == 0 && s.GetOutboundTrafficPolicy() == nil && s.GetInboundConnectionPool() == nil {
		n.invalid("spec", "it says nothing: egress, ingress, outboundTrafficPolicy or inboundConnectionPool is needed")
	}
	ports := map[uint32]bool{}
	for i, e := range s.GetEgress() {
		field := at("spec.egress", i)
		switch p := e.GetPort(); {
		case p == nil && i < len(s.GetEgress())-1:
			n.invalid(field+".port", "of the listeners, the last alone may be without port")
		case p == nil:
		case p.GetNumber() == 0 && !strings.HasPrefix(e.GetBind(), unixScheme):
			n.invalid(field+".port.number", "a listener without a number has a bind that begins with %s", unixScheme)
		case p.GetNumber() != 0 && ports[p.GetNumber()]:
			n.invalid(field+".port.number", "two listeners have port %d", p.GetNumber())
		case p.GetNumber() != 0:
			validatePort(n, field+".port.number", p.GetNumber())
			ports[p.GetNumber()] = true
		}
		if len(e.GetHosts()) == 0 {
			n.invalid(field+".hosts", "a listener needs hosts")
		}
		for j, h := range e.GetHosts() {
			validateEgressHost(n, at(field+".hosts", j), h)
		}
	}
	validateIngress(n, s.GetIngress())
	validateOutbound(n, s.GetOutboundTrafficPolicy())
}

func validateEgressHost(n *notes, field, s string) {
	ns, name, ok := strings.Cut(s, "/")
	plain := strings.TrimPrefix(ns, "~")
	switch {
	case !ok || name == "" || ns == "":
		n.invalid(field, "%q is not NAMESPACE/NAME, such as ./* or */web.shop.svc.cluster.local", s)
	case plain != "" && plain != "*" && plain != "." && !hostPattern.MatchString(plain):
		n.invalid(field, "%q is no namespace, nor . or *", plain)
	case !hostPattern.MatchString(name):
		n.invalid(field, "%q is not a host", name)
	}
}

func validateIngress(n *notes, in []*networking.IstioIngressListener) {
	ports := map[uint32]bool{}
	for i, l := range in {
		field := at("spec.ingress", i)
		if l.GetPort() == nil {
			n.invalid(field+".port", "a listener needs a port")
			continue
		}
		validatePort(n, field+".port.number", l.GetPort().GetNumber())
		if ports[l.GetPort().GetNumber()] {
			n.invalid(field+".port.number", "two listeners have port %d", l.GetPort().GetNumber())
		}
		ports[l.GetPort().GetNumber()] = true
		if e := l.GetDefaultEndpoint(); e != "" && !strings.HasPrefix(e, unixScheme) {
			_, port, err := net.SplitHostPort(e)
			if number, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || number == 0 {
				n.invalid(field+".defaultEndpoint", "%q is not an address and a port", e)
			}
		}
	}
}

func validateOutbound(n *notes, p *networking.OutboundTrafficPolicy) {
	if d := p.GetEgressProxy(); d != nil {
		validateDestination(n, "spec.outboundTrafficPolicy.egressProxy", d)
		if p.GetMode() != networking.OutboundTrafficPolicy_ALLOW_ANY {
			n.invalid("spec.outboundTrafficPolicy.egressProxy", "it needs the mode ALLOW_ANY")
		}
	}
}
