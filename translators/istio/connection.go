// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// opaque shares the connections of a port that is not HTTP, by server name if it says
// that it speaks TLS. Nil: the service itself gets them all.
func (c *chain) opaque(all []candidate, app model.App) *model.Frontend {
	routes := c.connections(all, app == model.AppTLS)
	if len(routes) == 0 {
		return nil
	}
	if app == model.AppTLS && c.declared() {
		routes = c.byServerName(routes)
	}
	f := c.frontend()
	if r := routes[0]; len(routes) == 1 && len(r.ServerNames) == 0 && len(r.Backends) > 0 && unconditional(r, "") {
		f.Backends = r.Backends
		return f
	}
	f.Connections = routes
	if app == model.AppUndeclared {
		f.App = model.AppTCP
	}
	return f
}

// unconditional reports whether a route is for all clients of a namespace ("" = all).
func unconditional(r model.ConnectionRoute, client string) bool {
	return r.SourceNamespace == client && len(r.SourceLabels) == 0
}

// ownConnections are what clients of a service without routes get: a route for each that
// DestinationRules tell apart.
func (c *chain) ownConnections(of client) []model.ConnectionRoute {
	if c.hides(of) {
		return []model.ConnectionRoute{{SourceNamespace: of.namespace, Src: c.src, Original: c.unknownTo(of) == model.UnknownPass}}
	}
	var out []model.ConnectionRoute
	for _, cl := range c.clients(of.namespace) {
		r := cl.narrowed(model.ConnectionRoute{Src: c.src})
		r.Backends = []model.Backend{c.backend(cl, true)}
		out = append(out, r)
	}
	return out
}

// byServerName leaves what is sent to any address, or to one of a range, to other
// services if it does not name the host: there, the name alone tells them apart.
func (c *chain) byServerName(routes []model.ConnectionRoute) []model.ConnectionRoute {
	if c.svc.Reach != model.ReachAnywhere && len(c.svc.Ranges) == 0 {
		return routes
	}
	named := slices.ContainsFunc(routes, func(r model.ConnectionRoute) bool { return len(r.ServerNames) > 0 })
	var out []model.ConnectionRoute
	for _, r := range routes {
		if len(r.ServerNames) == 0 {
			if named {
				continue // as in Istio, where there are routes by name they are all
			}
			if r.ServerNames = c.svc.Hosts; len(r.ServerNames) == 0 {
				continue // a wildcard that no name can be compared with
			}
		}
		out = append(out, r)
	}
	return out
}

// connections gives the routes of a port's connections; nil if no VirtualService has
// any. Unlike those of requests they are taken from all VirtualServices that name the
// service, one after the other, as Istio does: clients of a namespace that sees more
// than the public ones come first.
func (c *chain) connections(all []candidate, tls bool) []model.ConnectionRoute {
	var out []model.ConnectionRoute
	ruled := c.declared() || c.ruled(true)
	for _, cl := range c.audience(all) {
		var rules []model.ConnectionRoute
		var by []candidate
		if !c.hides(cl) {
			rules, by = c.rules(c.seen(all, cl), cl, tls)
		}
		if cl.namespace != "" && !slices.Contains(c.apart, cl.namespace) && !slices.ContainsFunc(by, func(v candidate) bool { return !v.see.public }) {
			continue // they see what all see
		}
		ruled = ruled || len(rules) > 0 || c.hides(cl) && c.unknownTo(cl) == model.UnknownRefuse
		out = append(out, carriedBy(cl.labels, c.endConnections(rules, by, cl))...)
	}
	if !ruled {
		return nil // also who does not see the service gets it: what passes goes to it
	}
	return out
}

// endConnections says what becomes of the clients that the rules leave over.
func (c *chain) endConnections(rules []model.ConnectionRoute, by []candidate, cl client) []model.ConnectionRoute {
	for _, v := range by {
		c.used(v)
	}
	if slices.ContainsFunc(rules, func(r model.ConnectionRoute) bool { return len(r.ServerNames) == 0 && unconditional(r, cl.namespace) }) {
		return rules
	}
	return append(rules, c.ownConnections(cl)...)
}

// rules gives what VirtualServices say for clients of a namespace, and those that say
// something. A rule for all of these clients ends the list.
func (c *chain) rules(cs []candidate, cl client, tls bool) (out []model.ConnectionRoute, by []candidate) {
	done := false
	for _, v := range cs {
		if v.o.Invalid {
			continue
		}
		h := &httpTranslation{t: c.t, r: c.r, n: &notes{o: v.o}, port: c.port, client: cl.namespace, general: cl.namespace == "", addresses: addressesOf(c.svc)}
		var own []model.ConnectionRoute
		if tls {
			own = h.tlsRoutes(v.spec)
		} else {
			own = h.tcpRoutes(v.spec)
		}
		switch {
		case len(own) == 0:
		case done:
			c.unused.add(v, by[len(by)-1])
		default:
			out, by = append(out, own...), append(by, v)
			done = !tls && unconditional(own[len(own)-1], cl.namespace)
		}
	}
	if tls && c.unknownTo(cl) == model.UnknownRefuse {
		out = append(out, closed(out)...)
	}
	return out, by
}

// closed ends the connections of clients that have routes by server name and ask for
// another one: to Istio such a name is unknown.
func closed(rules []model.ConnectionRoute) []model.ConnectionRoute {
	var out []model.ConnectionRoute
	for _, r := range rules {
		end := model.ConnectionRoute{SourceNamespace: r.SourceNamespace, SourceLabels: r.SourceLabels, Src: r.Src}
		if !slices.ContainsFunc(out, func(o model.ConnectionRoute) bool {
			return o.SourceNamespace == end.SourceNamespace && maps.Equal(o.SourceLabels, end.SourceLabels)
		}) {
			out = append(out, end)
		}
	}
	return out
}

// tcpRoutes gives the tcp routes that apply at the port, up to the first that is for
// every client.
func (h *httpTranslation) tcpRoutes(vs *networking.VirtualService) []model.ConnectionRoute {
	var out subnetRoutes
	for i, in := range vs.GetTcp() {
		field := at("spec.tcp", i)
		var matches subnetRoutes
		for j, m := range in.GetMatch() {
			field := at(field+".match", j)
			if m.GetSourceSubnet() != "" {
				h.n.surprising(field+".sourceSubnet", "no-effect", "Istio ignores this field; so is it here", "remove it")
			}
			if r, ok := h.connectionMatch(field, m); ok {
				matches.add(h.longestSubnet(m.GetDestinationSubnets()), r)
			}
		}
		if len(in.GetMatch()) == 0 {
			matches.add(0, model.ConnectionRoute{SourceNamespace: h.client, Src: h.src(field)})
		}
		for i, r := range matches.routes {
			out.add(matches.bits[i], h.shared(r, field+".route", in.GetRoute())...)
			if unconditional(r, h.client) && matches.bits[i] == 0 {
				return out.ordered(h.client)
			}
		}
	}
	return out.ordered(h.client)
}

// tlsRoutes gives the tls routes that apply at the port.
func (h *httpTranslation) tlsRoutes(vs *networking.VirtualService) []model.ConnectionRoute {
	var out []model.ConnectionRoute
	for i, in := range vs.GetTls() {
		field := at("spec.tls", i)
		for j, m := range in.GetMatch() {
			field := at(field+".match", j)
			r, ok := h.connectionMatch(field, m)
			if !ok {
				continue
			}
			if r.ServerNames = h.serverNames(field+".sniHosts", m.GetSniHosts()); len(r.ServerNames) == 0 {
				continue
			}
			if h.taken(field, out, r) {
				continue
			}
			out = append(out, h.shared(r, at("spec.tls", i)+".route", in.GetRoute())...)
		}
	}
	return out
}

// taken notes a match that an earlier one has whole: of several for the same names the
// first counts.
func (h *httpTranslation) taken(field string, earlier []model.ConnectionRoute, r model.ConnectionRoute) bool {
	same := slices.ContainsFunc(earlier, func(e model.ConnectionRoute) bool {
		return slices.Equal(e.ServerNames, r.ServerNames) && e.SourceNamespace == r.SourceNamespace && maps.Equal(e.SourceLabels, r.SourceLabels)
	})
	if same {
		h.n.surprising(field, "unreachable-route", "an earlier match is for the same server names and clients: this one takes nothing", "")
	}
	return same
}

// serverNames are those that a client's handshake can be compared with.
func (h *httpTranslation) serverNames(field string, in []string) []string {
	var out []string
	for i, n := range in {
		if !plainHost(n) {
			h.n.refused(at(field, i), "unsupported-host", model.Degrades,
				fmt.Sprintf("a wildcard stands for whole labels, as in *.example.com: nothing matches %s", n), "")
			continue
		}
		out = append(out, strings.ToLower(n))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// plainHost reports whether a wildcard, if it is one, stands for whole labels.
func plainHost(host string) bool { return !isWildcard(host) || strings.HasPrefix(host, "*.") }

// connectionCondition is what matches of tcp and of tls routes have in common.
type connectionCondition interface {
	GetDestinationSubnets() []string
	GetPort() uint32
	GetGateways() []string
	GetSourceLabels() map[string]string
	GetSourceNamespace() string
}

// connectionMatch translates one entry; ok is false if it can never hold here.
func (h *httpTranslation) connectionMatch(field string, m connectionCondition) (r model.ConnectionRoute, ok bool) {
	if m.GetPort() != 0 && m.GetPort() != uint32(h.port) {
		return r, false
	}
	if len(m.GetGateways()) > 0 && !h.gateways(field, m.GetGateways()) {
		return r, false
	}
	if len(m.GetDestinationSubnets()) > 0 && !h.inSubnets(field+".destinationSubnets", m.GetDestinationSubnets()) {
		return r, false
	}
	r.SourceNamespace = h.client
	if ns := m.GetSourceNamespace(); ns != "" {
		if h.client != "" && h.client != ns {
			return r, false
		}
		r.SourceNamespace = ns
	}
	if len(m.GetSourceLabels()) > 0 {
		r.SourceLabels = m.GetSourceLabels()
	}
	r.Src = h.src(field)
	return r, true
}

func (h *httpTranslation) src(field string) []model.Source {
	return []model.Source{h.n.o.Source(Plane, field)}
}

// shares translates weighted destinations of connections. The weight of a single one
// means nothing.
func (h *httpTranslation) shares(field string, in []*networking.RouteDestination, client string) []model.Backend {
	var out []model.Backend
	for i, d := range in {
		b := h.backend(at(field, i)+".destination", d.GetDestination(), client, "its share of the connections is closed")
		b.Weight = uint32(max(0, d.GetWeight()))
		if len(in) == 1 {
			b.Weight = 1
		}
		out = append(out, b)
	}
	return model.Shares(out)
}
