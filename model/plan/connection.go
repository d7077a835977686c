// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// connections puts the clusters of connections to an address, by what tells them
// apart: the server name and the class of the client. Nothing is judged on the way,
// whatever guards the endpoints: their kernel knows the client by its address and
// judges each connection, as it does those that it balances itself.
func (c *compiler) connections(p *servicePort, mode Mode, dst netip.AddrPort) {
	routes := c.readable(p, p.connectionRoutes(), mode)
	c.putTunnels(c.streams(routes, mode, atAddress(dst)))
	if t, ok := c.times(p, routes); ok {
		t.To = dst
		c.put(times, timesKey(mode, dst), &t)
	}
}

// streams puts the clusters of connections to a place, and says how they are gone to. Server
// names that tell them apart, if they are read, go to a table.
func (c *compiler) streams(routes []model.ConnectionRoute, mode Mode, at place) []*tunnelled {
	var ways []*tunnelled
	names, named := map[Mode]incr.Table{TLS: serverNames, AnyDetect: anyNames}[mode]
	for _, pattern := range patterns(routes) {
		name := func(class string) string { return connectionCluster(class, at.String()) }
		if named {
			name = func(class string) string { return serverNameCluster(pattern, class, at.String()) }
			if pattern != "" {
				c.put(names, pattern, pattern)
			}
		}
		put := func(class string, r *model.ConnectionRoute) {
			if r == nil {
				return // what has no cluster is closed
			}
			c.stream(name(class), r, at.dst)
			ways = append(ways, &tunnelled{mode, class, Tunnelled{At: at.at, Port: at.port, Cluster: name(class), Tunnel: tunnelOf(r.Backends)}})
		}
		if !bySource(routes, pattern) {
			put("", pick(routes, pattern, nil))
			continue
		}
		for _, row := range c.r.All(clients) {
			cl := row.Value.(*client)
			put(cl.Class, pick(routes, pattern, cl))
		}
	}
	return ways
}

// connectionRoutes are the routes of what is not read as requests.
func (p *servicePort) connectionRoutes() []model.ConnectionRoute {
	backends := []model.Backend{p.own()}
	if f := p.frontend; f != nil {
		switch {
		case len(f.Connections) > 0:
			return f.Connections
		case len(f.Backends) > 0:
			backends = f.Backends
		}
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

// stream puts a cluster that takes the connections of a route.
func (c *compiler) stream(name string, r *model.ConnectionRoute, dst netip.AddrPort) {
	cl := &Cluster{Name: name, App: model.AppTCP}
	c.deal(cl, policyOf(r.Backends))
	c.put(Clusters, name, cl)
	switch single := len(r.Backends) == 1; {
	case r.Original:
		cl.Original = true
	case single && c.byDial(r.Backends[0]):
		cl.Original, cl.Port = true, c.target(r.Backends[0])
	case slices.ContainsFunc(r.Backends, c.byName):
		cl.Names = &Names{V6: c.v6, Endpoints: *c.streamEndpoints(name, r, dst)}
		cl.Names.One = single && c.serviceOf(r.Backends[0]).Resolution == model.ResolveDNSFirst
	default:
		c.put(Endpoints, name, c.streamEndpoints(name, r, dst))
	}
	c.put(Origins, name, &Origin{ID: name, Sources: r.Src})
}

// streamEndpoints are those of a cluster of connections. Where these are split, near ones
// are not preferred: each backend is to have its share.
func (c *compiler) streamEndpoints(name string, r *model.ConnectionRoute, dst netip.AddrPort) *ClusterEndpoints {
	var weights []Share
	var shares []EndpointShare
	backends := r.Backends
	for _, b := range backends {
		at := c.streamMembers(b, dst)
		switch {
		case c.byDial(b) && b.Policy == nil:
			c.say(mixed(b, r.Src))
		case len(backends) == 1 && b.Policy != nil:
			return c.placed(name, at, b.Policy.Locality)
		case len(at) > 0 && (b.Weight > 0 || len(backends) == 1):
			weights = append(weights, Share{Weight: b.Weight, Of: 1, Parts: 1, Members: 1})
			shares = append(shares, EndpointShare{Backends: backendsOf(at)})
		}
	}
	if len(shares) == 1 {
		return &ClusterEndpoints{Cluster: name, Backends: shares[0].Backends}
	}
	for i, w := range partWeights(weights) {
		shares[i].Weight = w
	}
	return &ClusterEndpoints{Cluster: name, Shares: shares}
}

// streamMembers are the endpoints of the family that take connections to an address:
// of a headless service's own that one which the client has chosen.
func (c *compiler) streamMembers(b model.Backend, dst netip.AddrPort) []member {
	if c.dialled([]model.Backend{b}) {
		return []member{{backend: Backend{Addrs: []netip.AddrPort{dst}}}}
	}
	out := c.namedMembers(b)
	slices.SortFunc(out, compareMembers)
	return out
}
