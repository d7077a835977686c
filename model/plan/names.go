// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"

	"fairlead.io/fairlead/model"
)

// serviceOf is the service of a backend, nil if it is not there.
func (c *compiler) serviceOf(b model.Backend) *model.Service {
	if b.Missing {
		return nil
	}
	s, _ := c.r.Get(services, b.Namespace+"/"+b.Service).(*model.Service)
	return s
}

// target is the port that is dialled in place of the client's; 0: that.
func (c *compiler) target(b model.Backend) uint16 {
	if s := c.serviceOf(b); s != nil && s.Resolution == model.ResolveOriginal {
		if p := s.Port(b.Port); p != nil {
			return p.Target
		}
	}
	return 0
}

// byDial reports whether a backend is wherever the client has dialled.
func (c *compiler) byDial(b model.Backend) bool {
	s := c.serviceOf(b)
	return s != nil && (s.Resolution == model.ResolveOriginal || b.Policy != nil && b.Policy.Balance == model.AsDialled)
}

// byName reports whether the endpoints of a backend have to be looked up.
func (c *compiler) byName(b model.Backend) bool {
	s := c.serviceOf(b)
	return s != nil && (s.Resolution == model.ResolveDNS || s.Resolution == model.ResolveDNSFirst)
}

// unlisted is the cluster of a backend whose endpoints nobody lists; nil for others.
func (c *compiler) unlisted(b model.Backend, app model.App) *Cluster {
	switch {
	case c.byDial(b):
		return c.dialledAs(b, app)
	case !c.byName(b):
		return nil
	}
	name, app := c.qualify(model.FrontendKey(b.Namespace, b.Service, b.Port), b, app)
	cl := &Cluster{Name: c.named(name), App: app}
	c.deal(cl, b.Policy)
	var near *model.NearFar
	if b.Policy != nil {
		near = b.Policy.Locality
	}
	cl.Names = c.names(b, c.placed(cl.Name, c.namedMembers(b), near))
	c.put(Clusters, cl.Name, cl)
	return cl
}

// namedMembers are the endpoints of a backend, by address of the family or by name.
func (c *compiler) namedMembers(b model.Backend) []member {
	var out []member
	for _, e := range c.endpoints(b, model.TCP) {
		if e.Host != "" || e.Addr.Is6() == c.v6 {
			out = append(out, member{backend(e), c.workloadOf(e)})
		}
	}
	return out
}

func (c *compiler) names(b model.Backend, of *ClusterEndpoints) *Names {
	return &Names{One: c.serviceOf(b).Resolution == model.ResolveDNSFirst, V6: c.v6, Endpoints: *of}
}

// mixed says that connections cannot be shared with what is wherever the client dials.
func mixed(b model.Backend, src []model.Source) model.Diagnostic {
	d := model.Diagnostic{Code: "mixed-resolution", Effect: model.Narrows, Outcome: model.Refused,
		Message: fmt.Sprintf("connections are shared among several backends, and %s/%s has no addresses of its own: its share goes to the others", b.Namespace, b.Service),
		Advice:  "give it endpoints, or lead all connections to it"}
	if len(src) > 0 {
		d.Source = src[0]
	}
	return d
}
