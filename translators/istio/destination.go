// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// split translates weighted destinations. The weight of a single one means nothing.
func (h *httpTranslation) split(field string, in []*networking.HTTPRouteDestination, client string) []model.Backend {
	var out []model.Backend
	for i, d := range in {
		field := at(field, i)
		weight := uint32(max(0, d.GetWeight()))
		if len(in) == 1 {
			weight = 1
		}
		b := h.backend(field+".destination", d.GetDestination(), client, "its share of the requests gets 503")
		b.Weight = weight
		request, authority := h.edit(field+".headers.request", d.GetHeaders().GetRequest(), requestSide)
		if authority != "" {
			request = setAuthority(request, authority)
		}
		b.RequestHeaders = request
		b.ResponseHeaders, _ = h.edit(field+".headers.response", d.GetHeaders().GetResponse(), responseSide)
		out = append(out, b)
	}
	return model.Shares(out)
}

// backend finds what a destination names. One that does not exist keeps its share;
// otherwise says what becomes of that.
func (h *httpTranslation) backend(field string, d *networking.Destination, clients, otherwise string) model.Backend {
	fqdn := h.t.fullName(d.GetHost(), h.n.o.Namespace)
	port := h.port
	if p := d.GetPort().GetNumber(); p != 0 {
		port = uint16(p)
	}
	namespace, name, ok := h.t.serviceOf(fqdn)
	if !ok {
		name = fqdn
	}
	svc := h.t.destinationService(h.r, fqdn, clients)
	if svc != nil && clients == "" && !h.t.isPublic(h.r, fqdn) {
		if h.general {
			svc = nil // those who see it have routes of their own
		} else {
			h.n.surprising(field+".host", "hidden-destination", fmt.Sprintf("%s is not exported to all who have this route: for the others, %s", fqdn, otherwise), "")
		}
	}
	if svc != nil {
		namespace, name = svc.Namespace, svc.Name
	}
	missing := model.Backend{Namespace: namespace, Service: name, Port: port, Missing: true}
	switch {
	case svc == nil:
		h.n.surprising(field+".host", "unknown-destination",
			fmt.Sprintf("there is no service %s: %s", fqdn, otherwise), hostAdvice(h.t, d.GetHost()))
		return missing
	case svc.Port(port) == nil && !(h.anyPort && d.GetPort() == nil):
		advice := "name one of its ports"
		if d.GetPort() == nil {
			advice = "write the port: without one, the port that the client used is meant"
		}
		h.n.surprising(field+".port", "unknown-port",
			fmt.Sprintf("service %s has no TCP port %d: %s", fqdn, port, otherwise), advice)
		return missing
	}
	h.judgeHeadless(field+".host", fqdn, svc)
	out := model.Backend{Namespace: namespace, Service: name, Port: port}
	policy := backendPolicy{client: client{clients, h.labels}, namespace: namespace, service: name, port: port,
		portNamed: d.GetPort() != nil, connection: h.connection}
	policy.rule = h.t.rule(h.r, fqdn, policy.client)
	if d.GetSubset() != "" {
		subset, by := policy.rule.subset(d.GetSubset())
		if subset == nil || by.Invalid {
			h.unknownSubset(field, fqdn, d.GetSubset(), otherwise, policy.rule, by)
			return missing
		}
		policy.subset, out.Labels = subset, subsetLabels(subset)
	}
	if policy.connection {
		policy.tunnel = policy.tunnelOf()
		if len(h.sharing) > 1 {
			h.judgeTunnel(field, &policy)
			policy.tunnel = h.splitTunnel(policy.client)
		}
	}
	out.Policy = h.t.policyOf(h.r, policy)
	if !policy.portNamed && !policy.connection && out.Policy != nil && isHash(out.Policy.Balance) && len(out.Policy.Hash) == 0 {
		h.n.surprising(field, "hash-needs-port", "the destination does not name its port: as in Istio, what a rule says for the port about hashing is not seen, and requests go to any endpoint", "write the port")
	}
	return out
}

// judgeHeadless notes a headless service to which is led what others were asked for.
func (h *httpTranslation) judgeHeadless(field, fqdn string, svc *model.Service) {
	own := slices.ContainsFunc(virtualServiceSpec(h.n.o).GetHosts(), func(host string) bool {
		return covers(h.t.fullName(host, h.n.o.Namespace), fqdn)
	})
	if !own && isHeadless(h.r, svc) {
		h.n.approximated(field, "headless-destination", model.Degrades,
			fmt.Sprintf("service %s is headless: what is sent to it goes to its pods; in Istio it goes on to the address that the client has dialled", svc.Key()), "give the service an address")
	}
}

// unknownSubset notes a subset that no rule defines, as in Istio, or an invalid one: by.
func (h *httpTranslation) unknownSubset(field, fqdn, subset, otherwise string, have *ruled, by *objects.Object) {
	msg, advice := fmt.Sprintf("no DestinationRule defines subset %q of %s: %s", subset, fqdn, otherwise), h.subsetAdvice(fqdn, have, by)
	if by != nil && by.Invalid {
		h.n.refused(field+".subset", "unknown-subset", model.Narrows, msg, advice)
		return
	}
	h.n.surprising(field+".subset", "unknown-subset", msg, advice)
}

// subsetAdvice says how a subset comes to be known: by is the invalid rule that
// defines it, if there is one.
func (h *httpTranslation) subsetAdvice(fqdn string, have *ruled, by *objects.Object) string {
	all := h.t.rulesFor(h.r, fqdn)
	switch {
	case by != nil:
		return "repair DestinationRule " + by.Key()
	case have != nil:
		return "add the subset to DestinationRule " + have.rules[0].Key()
	case len(all) > 0:
		return "put DestinationRule " + all[0].Key() + " into the service's namespace, and let it be for all clients: others do not see it"
	}
	return ""
}

// hostAdvice helps with the usual slip: "svc.ns" is taken as it stands.
func hostAdvice(t *Translator, host string) string {
	if namespace, name, ok := t.serviceOf(host + ".svc." + t.domain); ok {
		return fmt.Sprintf("a name with a dot is taken as it stands: write %s", t.serviceName(namespace, name))
	}
	return ""
}
