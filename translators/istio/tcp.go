// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// tcp shares the connections of a port that is not HTTP. A condition on the client
// cannot be expressed there, so what has one is left out.
func (c *chain) tcp(all []candidate) *model.Frontend {
	var public []candidate
	for _, v := range all {
		if exported(v.spec.GetExportTo(), v.o.Namespace).public {
			public = append(public, v)
		}
	}
	var f *model.Frontend
	var first candidate
	for _, v := range competing(public) {
		if f != nil {
			c.unused.add(v, first)
			continue
		}
		h := &httpTranslation{t: c.t, r: c.r, n: &notes{o: v.o}, port: c.port}
		backends := h.tcpBackends(v.spec)
		if len(backends) == 0 || v.o.Invalid {
			continue
		}
		first = v
		c.used(v)
		f = &model.Frontend{Namespace: c.svc.Namespace, Service: c.svc.Name, Port: c.port, Backends: backends, Src: c.src}
	}
	return f
}

// tcpBackends gives the destinations of the first tcp route that applies at the port.
func (h *httpTranslation) tcpBackends(vs *networking.VirtualService) []model.Backend {
	for i, in := range vs.GetTcp() {
		field := at("spec.tcp", i)
		if !h.tcpMatches(field, in) {
			continue
		}
		var out []model.Backend
		for j, d := range in.GetRoute() {
			b := h.backend(at(field+".route", j)+".destination", d.GetDestination(), "", "its share of the connections is refused")
			b.Weight = uint32(max(0, d.GetWeight()))
			if len(in.GetRoute()) == 1 {
				b.Weight = 1
			}
			out = append(out, b)
		}
		return model.Shares(out)
	}
	return nil
}

// tcpMatches reports whether the route is for every connection to the port.
func (h *httpTranslation) tcpMatches(field string, in *networking.TCPRoute) bool {
	if len(in.GetMatch()) == 0 {
		return true
	}
	any := false
	for i, m := range in.GetMatch() {
		if m.GetPort() != 0 && m.GetPort() != uint32(h.port) {
			continue
		}
		if len(m.GetGateways()) > 0 && !h.gateways(at(field+".match", i), m.GetGateways()) {
			continue
		}
		if h.tcpConditional(at(field+".match", i), m) {
			continue
		}
		any = true
	}
	return any
}

// tcpConditional refuses conditions on a connection.
func (h *httpTranslation) tcpConditional(field string, m *networking.L4MatchAttributes) bool {
	conditional := false
	for _, c := range []struct {
		name string
		set  bool
	}{
		{"destinationSubnets", len(m.GetDestinationSubnets()) > 0},
		{"sourceLabels", len(m.GetSourceLabels()) > 0},
		{"sourceNamespace", m.GetSourceNamespace() != ""},
	} {
		if c.set {
			conditional = true
			h.n.refused(field+"."+c.name, "unsupported-field", model.Degrades,
				fmt.Sprintf("connections are not routed by %s: this match never holds", c.name), "")
		}
	}
	if m.GetSourceSubnet() != "" {
		h.n.surprising(field+".sourceSubnet", "no-effect", "Istio ignores this field; so is it here", "remove it")
	}
	return conditional
}
