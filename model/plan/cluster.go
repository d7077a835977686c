// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
)

// endpoints are the ready endpoints of a backend for clients that its plane steers,
// narrowed by its labels and to those that are near.
func (c *compiler) endpoints(b model.Backend, proto model.Protocol) []model.Endpoint {
	return c.endpointsFor(b, proto, c.hints)
}

func (c *compiler) endpointsFor(b model.Backend, proto model.Protocol, hints func(model.Backend) bool) []model.Endpoint {
	if b.Missing {
		return nil
	}
	eps, _ := c.r.Get(endpoints, b.Namespace+"/"+b.Service).(*model.Endpoints)
	if eps == nil {
		return nil
	}
	for _, p := range eps.Ports {
		if p.Port != b.Port || p.Protocol != proto {
			continue
		}
		out := p.Backends
		if len(b.Labels) > 0 {
			out = keep(out, func(e model.Endpoint) bool {
				w := c.workloadOf(e)
				return w != nil && hasLabels(w.Labels, b.Labels)
			})
		}
		return c.nearby(eps, out, slices.ContainsFunc(out, hinted) && hints(b))
	}
	return nil
}

func (c *compiler) workloadAt(a netip.Addr) *model.Workload {
	if w := podAt(c.r, a); w != nil {
		return w
	}
	for _, row := range c.r.Select(workloads, "addr", a.String()) {
		return row.Value.(*model.Workload)
	}
	return nil
}

// workloadOf is the workload that an endpoint is, nil if none is known.
func (c *compiler) workloadOf(e model.Endpoint) *model.Workload {
	if e.Workload != "" {
		w, _ := c.r.Get(workloads, e.Workload).(*model.Workload)
		return w
	}
	return c.workloadAt(e.Addr)
}

// backend is an endpoint by its address, or its name.
func backend(e model.Endpoint) Backend {
	b := Backend{Host: e.Host, Port: e.Port}
	if e.Host == "" {
		b = Backend{Addrs: []netip.AddrPort{netip.AddrPortFrom(e.Addr, e.Port)}}
	}
	if e.Weight > 1 {
		b.Weight = e.Weight
	}
	return b
}

// weighted turns backends into clusters. A backend whose endpoints obey different
// policies becomes a cluster for each, by their number; one that is missing and has a
// status is answered with it.
func (c *compiler) weighted(backends []model.Backend, app model.App) []WeightedCluster {
	var out []WeightedCluster
	var shares []Share
	for _, b := range backends {
		if b.Weight == 0 && len(backends) > 1 {
			continue
		}
		if b.Missing && b.Status != 0 {
			out = append(out, WeightedCluster{Status: b.Status})
			shares = append(shares, Share{Weight: max(b.Weight, 1), Of: 1, Members: 1, Parts: 1})
			continue
		}
		if cl := c.unlisted(b, app); cl != nil {
			out = append(out, WeightedCluster{Name: cl.Name, RequestHeaders: b.RequestHeaders, ResponseHeaders: b.ResponseHeaders})
			shares = append(shares, Share{Weight: max(b.Weight, 1), Of: 1, Members: 1, Parts: 1})
			continue
		}
		groups := c.clusters(b, app)
		total := uint32(0)
		for _, g := range groups {
			total += g.members
		}
		for _, g := range groups {
			w := max(b.Weight, 1)
			if len(groups) == 1 {
				shares = append(shares, Share{Weight: w, Of: 1, Members: 1, Parts: 1})
			} else {
				shares = append(shares, Share{Weight: w, Of: total, Members: 1, Parts: g.members})
			}
			out = append(out, WeightedCluster{Name: g.cluster.Name, RequestHeaders: b.RequestHeaders, ResponseHeaders: b.ResponseHeaders})
		}
	}
	for i, w := range partWeights(shares) {
		out[i].Weight = w
	}
	if len(out) == 1 {
		out[0].Weight = 1
	}
	return out
}

// group is the endpoints of a backend that obey one policy; members is the sum of their
// weights.
type group struct {
	cluster *Cluster
	members uint32
}

// clusters emits the clusters of a backend and their endpoints. A backend without
// endpoints keeps an empty cluster, which answers 503.
func (c *compiler) clusters(b model.Backend, app model.App) []group {
	groups := c.byPolicy(b)
	if len(groups) > 1 && asOne(b.Policy) {
		groups = []policyGroup{c.together(groups)}
	}
	return c.emit(b, app, groups)
}

// together is all endpoints in one group: their own nodes judge.
func (c *compiler) together(groups []policyGroup) policyGroup {
	all := policyGroup{judged: unknown}
	for _, g := range groups {
		if g.judged == there {
			all.judged = there
		}
		all.members = append(all.members, g.members...)
	}
	return all
}

func compareBackends(a, b Backend) int {
	if len(a.Addrs) > 0 && len(b.Addrs) > 0 {
		return a.Addrs[0].Compare(b.Addrs[0])
	}
	return cmp.Or(cmp.Compare(len(a.Addrs), len(b.Addrs)), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
}

// policyGroup is one policy and the backends that obey it.
type policyGroup struct {
	key     string
	policy  *Policy
	judged  judged
	members []member
}

func (c *compiler) emit(b model.Backend, app model.App, groups []policyGroup) []group {
	name := model.FrontendKey(b.Namespace, b.Service, b.Port)
	if b.Missing {
		name = "missing/" + name
	}
	name, app = c.qualify(name, b, app)
	if len(groups) == 0 {
		groups = []policyGroup{{}}
	}
	var out []group
	for _, g := range groups {
		n := name
		if len(groups) > 1 {
			n += "~" + g.key
		}
		n = c.named(n)
		cl := &Cluster{Name: n, App: app, Policy: g.policy, Checked: g.judged == here, Inbound: g.judged == there}
		near := (*model.NearFar)(nil)
		if b.Policy != nil && !b.Missing {
			c.deal(cl, b.Policy)
			near = b.Policy.Locality
		}
		c.put(Clusters, n, cl)
		c.put(Endpoints, n, c.placed(n, g.members, near))
		out = append(out, group{cl, weightOf(g.members)})
	}
	return out
}

// qualify completes a cluster's name: by the labels that narrow the backend, by its
// traffic policy, so that another policy is another cluster, and by the frontend's
// protocol where the backend has none of its own and it is not HTTP/1.1.
func (c *compiler) qualify(name string, b model.Backend, app model.App) (string, model.App) {
	if len(b.Labels) > 0 {
		name += "/" + model.Hash(b.Labels)[:16]
	}
	if b.Policy != nil && !b.Missing {
		name += "=" + model.Hash(b.Policy)[:16]
	}
	if own := effectiveApp(c.r, b.Namespace, b.Service, b.Port); own.IsHTTP() {
		return name, own
	}
	if app != model.AppHTTP {
		name += "+" + string(app)
	}
	return name, app
}

// byPolicy groups a backend's endpoints of the family by the policy at their port.
// Groups are in the order of their keys, backends of their address. Of some nothing is
// judged: an endpoint that is no known pod may be one that another node guards already,
// and what has to pass the inbound listener is judged there.
func (c *compiler) byPolicy(b model.Backend) []policyGroup {
	groups := map[string]*policyGroup{}
	for _, e := range c.endpoints(b, model.TCP) {
		if e.Addr.Is6() != c.v6 {
			continue
		}
		w := c.workloadOf(e)
		pol, where := c.policyAt(podAt(c.r, e.Addr), e.Port)
		k := "open"
		switch {
		case where != here:
			k = string(where)
		case pol != nil:
			k = model.Hash(pol)[:16]
		}
		if groups[k] == nil {
			groups[k] = &policyGroup{key: k, policy: pol, judged: where}
		}
		groups[k].members = append(groups[k].members, member{backend(e), w})
	}
	out := make([]policyGroup, 0, len(groups))
	for _, g := range groups {
		slices.SortFunc(g.members, compareMembers)
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b policyGroup) int { return cmp.Compare(a.key, b.key) })
	return out
}

// judged says where requests to an endpoint are judged.
type judged string

const (
	here    judged = ""         // in this cluster
	there   judged = "inbound"  // by the inbound listener of its node
	unknown judged = "stranger" // if at all, where nobody here knows
)

// policyAt is what is judged at a workload's port, nil if nothing is, and where. A node
// without Fairlead has no inbound listener: what can be judged for it is judged here, without its routes.
// For one that is observed, too: nothing refuses there.
func (c *compiler) policyAt(w *model.Workload, port uint16) (*Policy, judged) {
	if w == nil {
		return nil, unknown
	}
	g, _ := c.r.Get(Governance, w.Key()).(*Governed)
	if g == nil {
		return nil, here
	}
	if w.Observed {
		return g.folded(w, port).shadow(), here
	}
	if n, _ := c.r.Get(nodes, w.Node).(*model.Node); n != nil && n.Managed && g.OnlyInbound(port) {
		return nil, there
	}
	return g.folded(w, port), here
}

// shadow is the policy of an observed destination.
func (p *Policy) shadow() *Policy {
	if p == nil {
		return nil
	}
	out := *p
	out.Shadow = true
	return &out
}

// judgeCopies notes where it matters that Envoy opens connections for copies by itself, and
// knows no client for them: where the target's policy asks who sends.
func (c *compiler) judgeCopies(m model.Mirror, groups []policyGroup) {
	asks := func(g policyGroup) bool { return g.policy != nil && len(identityMatches(g.policy)) > 0 }
	if len(m.Src) == 0 || !slices.ContainsFunc(groups, asks) {
		return
	}
	c.say(model.Diagnostic{Source: m.Src[0], Code: "copies-without-identity", Effect: model.Narrows, Outcome: model.Approximated,
		Message: fmt.Sprintf("copies come from the node's address, not from the client's: the policy of %s asks for identities, and copies have none",
			model.FrontendKey(m.Backend.Namespace, m.Backend.Service, m.Backend.Port)),
		Advice: "let the node's address in, or copy to a service without such a policy"})
}

// mirror copies to clusters of their own: upstream filters do not stop a copy, so
// connections to a guarded target leave from ports that do not count as checked
// and its own node judges them.
func (c *compiler) mirror(m model.Mirror, app model.App) []Mirror {
	if m.PerMillion == 0 {
		return nil
	}
	if cl := c.unlisted(m.Backend, app); cl != nil {
		return []Mirror{{Cluster: cl.Name, PerMillion: m.PerMillion, Shadow: m.Shadow}}
	}
	groups := c.byPolicy(m.Backend)
	if !slices.ContainsFunc(groups, func(g policyGroup) bool { return g.policy != nil }) {
		var out []Mirror
		for _, g := range c.emit(m.Backend, app, groups) {
			out = append(out, Mirror{Cluster: g.cluster.Name, PerMillion: m.PerMillion, Shadow: m.Shadow})
		}
		return out
	}
	c.judgeCopies(m, groups)
	name, app := c.qualify("mirror/"+model.FrontendKey(m.Backend.Namespace, m.Backend.Service, m.Backend.Port), m.Backend, app)
	name = c.named(name)
	cl, near := &Cluster{Name: name, App: app}, (*model.NearFar)(nil)
	if p := m.Backend.Policy; p != nil {
		c.deal(cl, p)
		near = p.Locality
	}
	c.put(Clusters, name, cl)
	c.put(Endpoints, name, c.placed(name, c.together(groups).members, near))
	return []Mirror{{Cluster: name, PerMillion: m.PerMillion, Shadow: m.Shadow}}
}
