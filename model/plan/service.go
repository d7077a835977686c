// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// maxSlots bounds how finely a split is kept in the kernel.
const maxSlots = 4096

// serviceStage computes what clients of each service get: kernel entries for every
// port, and clusters, routes and scopes where requests are routed.
func (b *builder) serviceStage() incr.Stage {
	return incr.Stage{Name: "plan/service",
		Keys: map[incr.Table]func(string, any) []string{services: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			s, _ := r.Get(services, key).(*model.Service)
			if s == nil || len(s.VIPs) == 0 {
				return nil
			}
			c := &compiler{r: r}
			for _, p := range s.Ports {
				c.port(s, p)
			}
			return unique(c.rows)
		}}
}

// compiler collects the rows of one service. Clusters and route tables are of one
// family of addresses: a proxy that keeps its client's address can only reach
// endpoints of the client's family, and would try the others in vain first.
type compiler struct {
	r    *incr.Reader
	rows []incr.Row
	v6   bool
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

func (c *compiler) port(s *model.Service, p model.ServicePort) {
	key := model.FrontendKey(s.Namespace, s.Name, p.Port)
	var f *model.Frontend
	if p.Protocol == model.TCP {
		f, _ = c.r.Get(merge.Frontends, key).(*model.Frontend)
	}
	app := p.App
	if f != nil && f.App != "" {
		app = f.App
	}
	http := p.Protocol == model.TCP && app.IsHTTP()
	mode := Kernel
	if http {
		mode = HTTP
	}
	for _, vip := range s.VIPs {
		c.v6 = vip.Is6()
		e := &Service{Addr: vip, Port: p.Port, Protocol: p.Protocol, Name: s.Key(), Mode: mode, Affinity: s.Affinity,
			Backends: c.kernelBackends(s, p, f, http, vip.Is4())}
		c.put(Services, e.Key(), e)
		if http {
			t := c.routeTable(c.named(key), s, p.Port, app, f)
			c.put(RouteTables, t.Name, t)
			sk := DestinationKey(netip.AddrPortFrom(vip, p.Port))
			c.put(Scopes, sk, &Scope{Key: sk, RouteTable: t.Name})
		}
	}
}

// kernelBackends are the shares of clients that are not proxied. An HTTP split is
// made of requests, so they get the service's own endpoints.
func (c *compiler) kernelBackends(s *model.Service, p model.ServicePort, f *model.Frontend, http, v4 bool) []KernelBackend {
	own := model.Backend{Namespace: s.Namespace, Service: s.Name, Port: p.Port, Weight: 1}
	backends := []model.Backend{own}
	if f != nil && !http && len(f.Backends) > 0 {
		backends = f.Backends
	}
	type share struct {
		weight uint32
		addrs  []netip.AddrPort
	}
	var shares []share
	for _, b := range backends {
		sh := share{weight: b.Weight}
		for _, e := range c.endpoints(b, p.Protocol) {
			if e.Addr.Is4() == v4 {
				sh.addrs = append(sh.addrs, netip.AddrPortFrom(e.Addr, e.Port))
			}
		}
		if b.Weight > 0 && len(sh.addrs) > 0 {
			shares = append(shares, sh)
		}
	}
	ws := make([]Share, len(shares))
	for i, sh := range shares {
		ws[i] = Share{Weight: sh.weight, Members: uint32(len(sh.addrs))}
	}
	var out []KernelBackend
	for i, w := range memberWeights(ws, maxSlots) {
		for _, a := range shares[i].addrs {
			out = append(out, KernelBackend{Addr: a, Weight: w})
		}
	}
	return mergeKernelBackends(out)
}

// mergeKernelBackends adds up the weights of an address that stands in several shares.
func mergeKernelBackends(in []KernelBackend) []KernelBackend {
	slices.SortFunc(in, func(a, b KernelBackend) int { return a.Addr.Compare(b.Addr) })
	out := in[:0]
	for _, b := range in {
		if n := len(out); n > 0 && out[n-1].Addr == b.Addr {
			out[n-1].Weight += b.Weight
			continue
		}
		out = append(out, b)
	}
	return out
}

// endpoints are the ready endpoints of a backend, narrowed by its labels.
func (c *compiler) endpoints(b model.Backend, proto model.Protocol) []model.Endpoint {
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
		if len(b.Labels) == 0 {
			return p.Backends
		}
		var out []model.Endpoint
		for _, e := range p.Backends {
			if w := c.workloadAt(e.Addr); w != nil && hasLabels(w.Labels, b.Labels) {
				out = append(out, e)
			}
		}
		return out
	}
	return nil
}

func (c *compiler) workloadAt(a netip.Addr) *model.Workload {
	for _, row := range c.r.Select(workloads, "addr", a.String()) {
		return row.Value.(*model.Workload)
	}
	return nil
}

func (c *compiler) routeTable(key string, s *model.Service, port uint16, app model.App, f *model.Frontend) *RouteTable {
	t := &RouteTable{Name: key}
	switch {
	case f == nil:
		own := model.Backend{Namespace: s.Namespace, Service: s.Name, Port: port, Weight: 1}
		t.Routes = []Route{c.route(&model.Route{Backends: []model.Backend{own}, Src: []model.Source{s.Src}}, app)}
	case f.Invalid:
		t.Routes = []Route{c.route(&model.Route{Direct: &model.Direct{Status: 500}, Src: f.Src}, app)}
	default:
		for i := range f.Routes {
			t.Routes = append(t.Routes, c.route(&f.Routes[i], app))
		}
	}
	return t
}

func (c *compiler) route(in *model.Route, app model.App) Route {
	out := Route{Match: in.Match, Direct: in.Direct, RequestHeaders: in.RequestHeaders, ResponseHeaders: in.ResponseHeaders,
		Rewrite: in.Rewrite, Timeout: in.Timeout, Retry: in.Retry}
	if len(in.Match.SourceLabels) > 0 {
		out.SourceSelects = predicateID(in.Match.SourceLabels)
		out.Match.SourceLabels = nil
	}
	if in.Direct == nil {
		out.Clusters = c.weighted(in.Backends, app)
	}
	for _, m := range in.Mirrors {
		out.Mirrors = append(out.Mirrors, c.mirror(m, app)...)
	}
	out.ID = model.Hash(&out)
	c.put(Origins, out.ID, &Origin{ID: out.ID, Sources: in.Src})
	return out
}

// weighted turns backends into clusters. A backend whose endpoints obey different
// policies becomes a cluster for each, by their number.
func (c *compiler) weighted(backends []model.Backend, app model.App) []WeightedCluster {
	type part struct {
		cluster *Cluster
		backend model.Backend
	}
	var parts []part
	var shares []Share
	for _, b := range backends {
		if b.Weight == 0 && len(backends) > 1 {
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
			parts = append(parts, part{g.cluster, b})
		}
	}
	out := make([]WeightedCluster, len(parts))
	for i, w := range partWeights(shares) {
		out[i] = WeightedCluster{Name: parts[i].cluster.Name, Weight: w, RequestHeaders: parts[i].backend.RequestHeaders, ResponseHeaders: parts[i].backend.ResponseHeaders}
	}
	if len(out) == 1 {
		out[0].Weight = 1
	}
	return out
}

// group is the endpoints of a backend that obey one policy.
type group struct {
	cluster *Cluster
	members uint32
}

// clusters emits the clusters of a backend and their endpoints. A backend without
// endpoints keeps an empty cluster, which answers 503.
func (c *compiler) clusters(b model.Backend, app model.App) []group {
	return c.emit(b, app, c.byPolicy(b))
}

func compareBackends(a, b Backend) int { return a.Addrs[0].Compare(b.Addrs[0]) }

// policyGroup is one policy and the backends that obey it.
type policyGroup struct {
	key      string
	policy   *Policy
	stranger bool // no known pod: nobody can say here what guards them
	backends []Backend
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
		cl := &Cluster{Name: n, App: app, Policy: g.policy, Checked: !g.stranger}
		c.put(Clusters, n, cl)
		c.put(Endpoints, n, &ClusterEndpoints{Cluster: n, Backends: g.backends})
		out = append(out, group{cl, uint32(len(g.backends))})
	}
	return out
}

// qualify completes a cluster's name: by the labels that narrow the backend, and by
// the frontend's protocol where the backend has none of its own and it is not HTTP/1.1.
func (c *compiler) qualify(name string, b model.Backend, app model.App) (string, model.App) {
	if len(b.Labels) > 0 {
		name += "/" + model.Hash(b.Labels)[:16]
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
// Groups are in the order of their keys, backends of their address. An endpoint that
// is no known pod may be one that another node guards already: it is a group by
// itself, whose connections do not say that anything was judged.
func (c *compiler) byPolicy(b model.Backend) []policyGroup {
	groups := map[string]*policyGroup{}
	for _, e := range c.endpoints(b, model.TCP) {
		if e.Addr.Is6() != c.v6 {
			continue
		}
		w := c.workloadAt(e.Addr)
		pol := c.policyAt(w, e.Port)
		k := "open"
		switch {
		case w == nil:
			k = "stranger"
		case pol != nil:
			k = model.Hash(pol)[:16]
		}
		if groups[k] == nil {
			groups[k] = &policyGroup{key: k, policy: pol, stranger: w == nil}
		}
		groups[k].backends = append(groups[k].backends, Backend{Addrs: []netip.AddrPort{netip.AddrPortFrom(e.Addr, e.Port)}})
	}
	out := make([]policyGroup, 0, len(groups))
	for _, g := range groups {
		slices.SortFunc(g.backends, compareBackends)
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b policyGroup) int { return cmp.Compare(a.key, b.key) })
	return out
}

// policyAt is what is judged at a workload's port; nil if nothing is, or there is no workload.
func (c *compiler) policyAt(w *model.Workload, port uint16) *Policy {
	if w == nil {
		return nil
	}
	g, _ := c.r.Get(Governance, w.Key()).(*Governed)
	if g == nil {
		return nil
	}
	return g.Policy(port)
}

// mirror copies to clusters of their own: upstream filters do not stop a copy, so
// connections to a guarded target leave from ports that do not count as checked
// and its own node judges them.
func (c *compiler) mirror(m model.Mirror, app model.App) []Mirror {
	if m.PerMillion == 0 {
		return nil
	}
	groups := c.byPolicy(m.Backend)
	if !slices.ContainsFunc(groups, func(g policyGroup) bool { return g.policy != nil }) {
		var out []Mirror
		for _, g := range c.emit(m.Backend, app, groups) {
			out = append(out, Mirror{Cluster: g.cluster.Name, PerMillion: m.PerMillion})
		}
		return out
	}
	name, app := c.qualify("mirror/"+model.FrontendKey(m.Backend.Namespace, m.Backend.Service, m.Backend.Port), m.Backend, app)
	name = c.named(name)
	all := &ClusterEndpoints{Cluster: name}
	for _, g := range groups {
		all.Backends = append(all.Backends, g.backends...)
	}
	slices.SortFunc(all.Backends, compareBackends)
	c.put(Clusters, name, &Cluster{Name: name, App: app})
	c.put(Endpoints, name, all)
	return []Mirror{{Cluster: name, PerMillion: m.PerMillion}}
}
