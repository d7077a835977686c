// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
)

// headless computes what clients of a port get whose service has no address: they dial
// its endpoints. Captured ones are taken to the proxy where a plane has something to
// say about what they send; all others are left alone.
func (c *compiler) headless(p *servicePort) {
	if !p.steersDirect(c) {
		c.known(p)
		return
	}
	mode := c.mode(p)
	c.direct = p
	defer func() { c.direct = nil }()
	all := c.dialable(p)
	for _, v6 := range []bool{false, true} {
		c.v6 = v6
		var t *RouteTable
		if p.app.HasRequests() {
			t = c.requests(p)
			if t.Elsewhere != nil && len(p.service.Hosts) > 0 {
				// By name it can be asked for through any address, also without endpoints.
				c.lead(HostScopeKey(p.service.Hosts[0], p.port.Port, v6), t)
			}
		}
		for _, e := range all {
			if e.Addr.Is6() != v6 || c.taken(p, e) {
				continue
			}
			s := &Service{Addr: e.Addr, Port: e.Port, Protocol: model.TCP, Name: p.service.Key(), Mode: mode, Direct: true}
			c.put(Services, s.Key(), s)
			dst := netip.AddrPortFrom(e.Addr, e.Port)
			if t != nil {
				c.lead(DestinationKey(dst), t)
			}
			if !p.app.IsHTTP() {
				c.connections(p, mode, dst)
			}
		}
	}
}

// steersDirect reports whether what is sent to endpoints of the headless port concerns
// the proxy: there are routes for it, or a request may be for somebody else by its
// authority.
func (p *servicePort) steersDirect(c *compiler) bool {
	if len(p.service.VIPs) > 0 || p.port.Protocol != model.TCP {
		return false
	}
	f := p.frontend
	if p.app.IsHTTP() {
		return f != nil || choiceOf(c.r, p.key, p.service.Namespace, nil).Basis == model.ByAuthority
	}
	return !p.plain()
}

// dialable are the endpoints of a port, ready or not: what is dialled by its address
// is treated alike.
func (c *compiler) dialable(p *servicePort) []model.Endpoint {
	eps, _ := c.r.Get(endpoints, p.service.Key()).(*model.Endpoints)
	if eps == nil {
		return nil
	}
	for _, e := range eps.Ports {
		if e.Port == p.port.Port && e.Protocol == model.TCP {
			return slices.Concat(e.Backends, e.Unready)
		}
	}
	return nil
}

// taken reports whether another headless port, the first by its key, has the endpoint
// too: what is sent to it cannot be for both.
func (c *compiler) taken(p *servicePort, e model.Endpoint) bool {
	first := ""
	for _, row := range c.r.Select(endpoints, "addr", e.Addr.String()) {
		eps := row.Value.(*model.Endpoints)
		for _, ep := range eps.Ports {
			key := model.FrontendKey(eps.Namespace, eps.Service, ep.Port)
			if ep.Protocol != model.TCP || key >= p.key || first != "" && key >= first ||
				!slices.Contains(ep.Backends, e) && !slices.Contains(ep.Unready, e) {
				continue
			}
			s, _ := c.r.Get(services, eps.Namespace+"/"+eps.Service).(*model.Service)
			if s == nil {
				continue
			}
			if sp := s.Port(ep.Port); sp != nil && portOf(c.r, s, *sp).steersDirect(c) {
				first = key
			}
		}
	}
	if first == "" {
		return false
	}
	c.say(model.Diagnostic{Source: p.service.Src, Code: "shared-endpoint", Effect: model.Degrades, Outcome: model.Approximated,
		Message: fmt.Sprintf("%s and %s are headless and have endpoints in common: what is sent to their addresses gets the routes of %s", first, p.key, first),
		Advice:  "give one of the two an address"})
	return true
}

// say adds a diagnostic that is not there yet.
func (c *compiler) say(d model.Diagnostic) {
	if !slices.Contains(c.found, d) {
		c.found = append(c.found, d)
	}
}
