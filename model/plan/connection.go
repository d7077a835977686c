// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
)

// connections is the route table of what is not read as requests.
func (c *compiler) connections(p *servicePort) *RouteTable {
	t := &RouteTable{Name: c.named("tcp/" + p.key)}
	routes := p.frontend.Connections
	if len(routes) == 0 {
		routes = []model.ConnectionRoute{{Backends: []model.Backend{p.own()}, Src: p.src()}}
	}
	for _, in := range routes {
		out := Connection{ServerNames: in.ServerNames, SourceNamespace: in.SourceNamespace, Clusters: c.shares(in.Backends)}
		if len(in.SourceLabels) > 0 {
			out.SourceSelects = predicateID(in.SourceLabels)
		}
		out.ID = model.Hash(&out)
		c.put(Origins, out.ID, &Origin{ID: out.ID, Sources: in.Src})
		t.Connections = append(t.Connections, out)
	}
	return t
}

// shares turns backends into clusters of connections. Those of a backend without
// endpoints are closed.
func (c *compiler) shares(backends []model.Backend) []WeightedCluster {
	var out []WeightedCluster
	for _, b := range backends {
		switch {
		case len(backends) == 1:
			b.Weight = 1
		case b.Weight == 0:
			continue
		}
		out = append(out, WeightedCluster{Name: c.stream(b), Weight: b.Weight})
	}
	return out
}

// stream emits the cluster that takes connections to a backend. Nothing is judged on
// the way there, whatever guards the endpoints: their kernel knows the client by its
// address and judges each connection, as it does those that it balances itself.
func (c *compiler) stream(b model.Backend) string {
	name := model.FrontendKey(b.Namespace, b.Service, b.Port)
	if b.Missing {
		name = "missing/" + name
	}
	if len(b.Labels) > 0 {
		name += "/" + model.Hash(b.Labels)[:16]
	}
	name = c.named("tcp/" + name)
	e := &ClusterEndpoints{Cluster: name}
	for _, at := range c.endpoints(b, model.TCP) {
		if at.Addr.Is6() == c.v6 {
			e.Backends = append(e.Backends, Backend{Addrs: []netip.AddrPort{netip.AddrPortFrom(at.Addr, at.Port)}})
		}
	}
	slices.SortFunc(e.Backends, compareBackends)
	c.put(Clusters, name, &Cluster{Name: name, App: model.AppTCP})
	c.put(Endpoints, name, e)
	return name
}
