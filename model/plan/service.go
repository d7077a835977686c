// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// serviceStage computes what clients of each service get: kernel entries for every
// port, and clusters, routes and scopes where a proxy stands in between.
func (b *builder) serviceStage() incr.Stage {
	return incr.Stage{Name: "plan/service",
		Keys: map[incr.Table]func(string, any) []string{services: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			s, _ := r.Get(services, key).(*model.Service)
			if s == nil {
				return nil
			}
			c := &compiler{r: r, node: b.node}
			for _, p := range s.Ports {
				c.port(portOf(r, s, p))
			}
			if len(c.found) > 0 {
				c.put(Diagnostics, "service/"+key, c.found)
			}
			return unique(c.rows)
		}}
}

// compiler collects the rows of one service or host. Clusters and route tables are of
// one family of addresses: a proxy that keeps its client's address can only reach
// endpoints of the client's family, and would try the others in vain first.
type compiler struct {
	r     *incr.Reader
	node  string
	rows  []incr.Row
	found []model.Diagnostic
	v6    bool
	// counts says that a cluster counts what its clients do together, counted where that
	// was written.
	counts  bool
	counted []model.Source
	// direct is the headless port whose clients have dialled an endpoint of their own
	// choice; nil for all others.
	direct *servicePort
}

// servicePort is a port of a service with what its owner says about it.
type servicePort struct {
	service  *model.Service
	port     model.ServicePort
	key      string // of its frontend
	app      model.App
	frontend *model.Frontend // nil: no plane steers it
}

func portOf(r *incr.Reader, s *model.Service, p model.ServicePort) *servicePort {
	sp := &servicePort{service: s, port: p, key: model.FrontendKey(s.Namespace, s.Name, p.Port), app: p.App}
	if p.Protocol == model.TCP {
		sp.frontend, _ = r.Get(merge.Frontends, sp.key).(*model.Frontend)
	}
	if sp.frontend != nil && sp.frontend.App != "" {
		sp.app = sp.frontend.App
	}
	return sp
}

// own is the backend that a port has by itself.
func (p *servicePort) own() model.Backend {
	return model.Backend{Namespace: p.service.Namespace, Service: p.service.Name, Port: p.port.Port, Weight: 1}
}

// src is what the port is written by.
func (p *servicePort) src() []model.Source {
	if p.frontend != nil {
		return p.frontend.Src
	}
	return []model.Source{p.service.Src}
}

// named ends a name by the family: nothing for IPv4, "@6" for IPv6.
func (c *compiler) named(name string) string {
	if c.v6 {
		return name + "@6"
	}
	return name
}

func (c *compiler) put(t incr.Table, key string, v any) {
	c.rows = append(c.rows, incr.Row{Table: t, Key: key, Value: v})
}

// lead puts a route table and the way to it.
func (c *compiler) lead(key string, t *RouteTable) {
	c.put(RouteTables, t.Name, t)
	c.put(Scopes, key, &Scope{Key: key, RouteTable: t.Name})
}

func (c *compiler) port(p *servicePort) {
	defer func() { c.sayCounted(p.key, p.src()) }()
	if p.service.MeshOnly {
		c.declared(p)
		return
	}
	if len(p.service.VIPs) == 0 {
		c.headless(p)
		return
	}
	mode := c.mode(p)
	for _, vip := range p.service.VIPs {
		c.v6 = vip.Is6()
		e := &Service{Addr: vip, Port: p.port.Port, Protocol: p.port.Protocol, Name: p.service.Key(), Mode: mode,
			Affinity: p.service.Affinity}
		c.balanced(e, p)
		c.put(Services, e.Key(), e)
		dst := netip.AddrPortFrom(vip, p.port.Port)
		if mode != Kernel && p.app.HasRequests() {
			c.lead(DestinationKey(dst), c.requests(p))
		}
		if mode != Kernel && !p.app.IsHTTP() {
			c.connections(p, mode, dst)
		}
	}
}
