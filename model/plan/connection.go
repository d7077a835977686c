// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
)

// connections puts the clusters of connections to an address, by what tells them
// apart: the server name and the class of the client. Nothing is judged on the way,
// whatever guards the endpoints: their kernel knows the client by its address and
// judges each connection, as it does those that it balances itself.
func (c *compiler) connections(p *servicePort, mode Mode, dst netip.AddrPort) {
	routes := c.readable(p, p.connectionRoutes(), mode)
	for _, pattern := range patterns(routes) {
		name := func(class string) string { return ConnectionCluster(class, dst) }
		if mode == TLS {
			name = func(class string) string { return ServerNameCluster(pattern, class, dst) }
			if pattern != "" {
				c.put(serverNames, pattern, pattern)
			}
		}
		if !bySource(routes, pattern) {
			c.stream(name(""), pick(routes, pattern, nil), dst)
			continue
		}
		for _, row := range c.r.All(clients) {
			cl := row.Value.(*client)
			c.stream(name(cl.Class), pick(routes, pattern, cl), dst)
		}
	}
}

// connectionRoutes are the routes of what is not read as requests.
func (p *servicePort) connectionRoutes() []model.ConnectionRoute {
	if rs := p.frontend.Connections; len(rs) > 0 {
		return rs
	}
	backends := p.frontend.Backends
	if len(backends) == 0 {
		backends = []model.Backend{p.own()}
	}
	return []model.ConnectionRoute{{Backends: backends, Src: p.src()}}
}

// patterns are the server names that routes tell apart, sorted, and "" for all others.
func patterns(routes []model.ConnectionRoute) []string {
	out := []string{""}
	for _, r := range routes {
		out = append(out, r.ServerNames...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Specificity of server names: an exact one is before any wildcard.
const (
	notCovered = -1
	exactName  = 1 << 20
)

// specificity is how closely a route is about a pattern, notCovered if it is about
// other names.
func specificity(r model.ConnectionRoute, pattern string) int {
	if len(r.ServerNames) == 0 {
		return 0
	}
	best := notCovered
	for _, n := range r.ServerNames {
		suffix, wild := strings.CutPrefix(n, "*")
		switch {
		case n == pattern && !wild:
			best = exactName
		case n == pattern, wild && strings.HasSuffix(strings.TrimPrefix(pattern, "*"), suffix):
			best = max(best, len(n))
		}
	}
	return best
}

// bySource reports whether it depends on the client which route a pattern gets.
func bySource(routes []model.ConnectionRoute, pattern string) bool {
	return slices.ContainsFunc(routes, func(r model.ConnectionRoute) bool {
		return specificity(r, pattern) != notCovered && (r.SourceNamespace != "" || len(r.SourceLabels) > 0)
	})
}

// pick is the route of a client's connections, nil if there is none. The client is nil
// if it does not matter.
func pick(routes []model.ConnectionRoute, pattern string, cl *client) *model.ConnectionRoute {
	var out *model.ConnectionRoute
	best := notCovered
	for i := range routes {
		r := &routes[i]
		if s := specificity(*r, pattern); s > best && (cl == nil || cl.satisfies(r.SourceNamespace, r.SourceLabels)) {
			out, best = r, s
		}
	}
	return out
}

// stream puts a cluster that takes the connections of a route; none without a route:
// what has no cluster is closed.
func (c *compiler) stream(name string, r *model.ConnectionRoute, dst netip.AddrPort) {
	if r == nil {
		return
	}
	e := &ClusterEndpoints{Cluster: name}
	var weights []Share
	for _, b := range r.Backends {
		if at := c.streamBackends(b, dst); len(at) > 0 && (b.Weight > 0 || len(r.Backends) == 1) {
			weights = append(weights, Share{Weight: b.Weight, Of: 1, Parts: 1, Members: 1})
			e.Shares = append(e.Shares, EndpointShare{Backends: at})
		}
	}
	if len(e.Shares) == 1 {
		e.Backends, e.Shares = e.Shares[0].Backends, nil
	} else {
		for i, w := range partWeights(weights) {
			e.Shares[i].Weight = w
		}
	}
	c.put(Clusters, name, &Cluster{Name: name, App: model.AppTCP})
	c.put(Endpoints, name, e)
	c.put(Origins, name, &Origin{ID: name, Sources: r.Src})
}

// streamBackends are the endpoints of the family that take connections to an address:
// of a headless service's own that one which the client has chosen.
func (c *compiler) streamBackends(b model.Backend, dst netip.AddrPort) []Backend {
	if c.dialled([]model.Backend{b}) {
		return []Backend{{Addrs: []netip.AddrPort{dst}}}
	}
	var out []Backend
	for _, at := range c.endpoints(b, model.TCP) {
		if at.Addr.Is6() == c.v6 {
			out = append(out, Backend{Addrs: []netip.AddrPort{netip.AddrPortFrom(at.Addr, at.Port)}})
		}
	}
	slices.SortFunc(out, compareBackends)
	return out
}
