// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// Frontend is what becomes of what is sent to a service's port, or to a host's.
type Frontend struct {
	Key      string         `json:"key"` // of the frontend table: "shop/web:80"
	Protocol model.Protocol `json:"protocol"`
	App      model.App      `json:"app,omitempty"` // as its owner sees it
	// Addresses are what clients dial: those of the service, of a headless one the
	// endpoints that are steered; none of a host.
	Addresses []netip.AddrPort `json:"addresses,omitempty"`
	Owner     *Owner           `json:"owner,omitempty"` // nil: no plane says anything about it
	// Sources are what the owner read, or else the service.
	Sources []model.Source `json:"sources"`

	Mode plan.Mode `json:"mode"` // who balances: the kernel, or the proxy and how
	Why  string    `json:"why"`  // it is this mode
	// Routing says by what requests find their routes; nil without requests.
	Routing *Routing `json:"routing,omitempty"`
	// Routes in order, of requests. The names of clusters are of the first family of
	// addresses that there is; Clusters has those of both.
	Routes []Route `json:"routes,omitempty"`
	// Connections are ways of what is not read as requests.
	Connections []Connection `json:"connections,omitempty"`
	Clusters    []Cluster    `json:"clusters,omitempty"`
	// Balanced is where clients go that are not proxied; everybody, in mode kernel without
	// Routed.
	Balanced []Endpoint `json:"balanced,omitempty"`
	// Routed is where captured clients go in place of Balanced, by routes that the kernel
	// follows; nil: there are none. Empty: nowhere, connections are refused.
	Routed []Endpoint `json:"routed,omitzero"`

	RouteTables []string `json:"routeTables,omitempty"` // in Envoy
	Scopes      []string `json:"scopes,omitempty"`
}

// Owner is the plane that says how a frontend is routed.
type Owner struct {
	Plane   string   `json:"plane"`
	Why     string   `json:"why"`
	Standby []string `json:"standby,omitempty"` // planes that would, were it not for the owner
}

// Routing says by what requests find their routes.
type Routing struct {
	Basis   model.Basis   `json:"basis"`
	Unknown model.Unknown `json:"unknown,omitempty"` // by authority: of hosts that nobody knows
	Hosts   []string      `json:"hosts,omitempty"`   // by authority: the frontend's own
}

// Route is a route with what users wrote that it came from.
type Route struct {
	plan.Route
	Sources []model.Source `json:"sources"`
}

// Connection is one way of connections, by what tells them apart.
type Connection struct {
	Cluster    string         `json:"cluster"`
	To         netip.AddrPort `json:"to"`
	ServerName string         `json:"serverName,omitempty"` // that clients of TLS say; "": any other
	Client     string         `json:"client,omitempty"`     // class of clients; "": any
	Pods       []string       `json:"pods,omitempty"`       // local ones of the class; sorted
	Tunnel     *model.Tunnel  `json:"tunnel,omitempty"`     // that the cluster's endpoints are asked for
	Sources    []model.Source `json:"sources"`
}

// Cluster is where a route leads.
type Cluster struct {
	Name      string     `json:"name"`    // in Envoy
	Backend   string     `json:"backend"` // in words; see trace.Backends
	App       model.App  `json:"app"`
	Endpoints []Endpoint `json:"endpoints"`
	// Policy is that of the endpoints, judged on the way to them; nil: there is none,
	// or it is judged where they are.
	Policy *Policy `json:"policy,omitempty"`
	// Checked says that the endpoints' node takes it as judged.
	Checked bool `json:"checked,omitempty"`
	// Inbound says that the inbound listener of the endpoints' node has it all.
	Inbound bool `json:"inbound,omitempty"`
	// Original leads to the address that the client has dialled.
	Original bool `json:"original,omitempty"`
}

// Endpoint is an address with the pod that has it.
type Endpoint struct {
	Addr   netip.AddrPort `json:"addr,omitzero"`
	Host   string         `json:"host,omitempty"` // in place of Addr: a name that is looked up, with the port
	Pod    string         `json:"pod,omitempty"`
	Weight uint32         `json:"weight,omitempty"` // of its share, or its own; 0: all are alike
}

func frontends(t *view, target Target) []Frontend {
	var out []Frontend
	if s, ok := t.Get(translators.Services, target.Namespace+"/"+target.Name).(*model.Service); ok {
		for _, p := range s.Ports {
			if target.Port == 0 || target.Port == p.Port {
				out = append(out, ofService(t, s, p))
			}
		}
	}
	for _, row := range t.Rows(merge.Frontends) {
		f := row.Value.(*model.Frontend)
		if f.Host != "" && f.Host == target.Name && f.Namespace == target.Namespace && (target.Port == 0 || target.Port == f.Port) {
			out = append(out, ofHost(t, f))
		}
	}
	slices.SortStableFunc(out, func(a, b Frontend) int { return cmp.Compare(portOf(a.Key), portOf(b.Key)) })
	return out
}

// portOf makes keys of one name sort by their ports.
func portOf(key string) string {
	return fmt.Sprintf("%8s", key[strings.LastIndexByte(key, ':'):])
}

func ofService(t *view, s *model.Service, p model.ServicePort) Frontend {
	f := Frontend{Key: model.FrontendKey(s.Namespace, s.Name, p.Port), Protocol: p.Protocol, App: p.App, Sources: []model.Source{s.Src}}
	steered, _ := t.Get(merge.Frontends, f.Key).(*model.Frontend)
	if p.Protocol != model.TCP {
		steered = nil
	}
	if steered != nil {
		f.App = cmp.Or(steered.App, f.App)
		if len(steered.Src) > 0 {
			f.Sources = steered.Src
		}
	}
	f.Mode = plan.Kernel
	if p.Protocol == model.TCP {
		f.Mode = trace.ModeOf(t, s, p.Port, f.App)
	}
	for _, a := range s.VIPs {
		f.Addresses = append(f.Addresses, netip.AddrPortFrom(a, p.Port))
	}
	if len(s.VIPs) == 0 {
		f.Addresses = dialled(t, s, p)
	}
	var captured []Endpoint
	for _, a := range f.Addresses {
		key := (&plan.Service{Addr: a.Addr(), Port: a.Port(), Protocol: p.Protocol}).Key()
		if row, ok := t.Get(plan.Services, key).(*plan.Service); ok && row.Name == s.Key() {
			f.Mode = row.Mode
			f.Balanced = slices.Concat(f.Balanced, t.endpoints(row.BackendsOf(false)))
			captured = slices.Concat(captured, t.endpoints(row.BackendsOf(true)))
			if row.Routed != nil {
				f.Routed = []Endpoint{}
			}
		}
	}
	if f.Routed != nil {
		f.Routed = append(f.Routed, captured...)
	}
	f.Why = why(&f, s, steered)
	if p.Protocol == model.TCP {
		f.Owner = owner(t, f.Key, s.Namespace)
	}
	f.lead(t, f.Key)
	f.connections(t)
	f.clusters(t)
	return f
}

// endpoints are backends of the kernel's with their pods.
func (t *view) endpoints(backends []plan.KernelBackend) []Endpoint {
	out := make([]Endpoint, len(backends))
	for i, b := range backends {
		out[i] = Endpoint{Addr: b.Addr, Pod: t.pods[b.Addr.Addr()], Weight: b.Weight}
	}
	return out
}

// dialled are the endpoints of a headless port that clients are steered at.
func dialled(t *view, s *model.Service, p model.ServicePort) []netip.AddrPort {
	eps, _ := t.Get(translators.Endpoints, s.Key()).(*model.Endpoints)
	if eps == nil {
		return nil
	}
	var out []netip.AddrPort
	for _, ep := range eps.Ports {
		if ep.Port != p.Port || ep.Protocol != p.Protocol {
			continue
		}
		for _, e := range slices.Concat(ep.Backends, ep.Unready) {
			key := (&plan.Service{Addr: e.Addr, Port: e.Port, Protocol: p.Protocol}).Key()
			if row, ok := t.Get(plan.Services, key).(*plan.Service); ok && row.Direct && row.Name == s.Key() {
				out = append(out, netip.AddrPortFrom(e.Addr, e.Port))
			}
		}
	}
	return out
}

func ofHost(t *view, h *model.Frontend) Frontend {
	f := Frontend{Key: h.Key(), Protocol: model.TCP, App: cmp.Or(h.App, model.AppDetect), Sources: h.Src, Mode: plan.Any,
		Why: "nobody is known to have its addresses: requests to those of nobody are looked up by the host that they name"}
	f.Owner = owner(t, f.Key, h.Namespace)
	f.lead(t, f.Key)
	f.clusters(t)
	// Its own table is for whatever leads there; that is the name alone.
	f.Routing = &Routing{Basis: model.ByAuthority, Hosts: []string{h.Host}}
	if any, ok := t.Get(plan.RouteTables, fmt.Sprintf("any:%d", h.Port)).(*plan.RouteTable); ok && any.Elsewhere != nil {
		f.Routing.Unknown = any.Elsewhere.Unknown
	}
	return f
}

// why says how the mode comes about, as the plan decides it.
func why(f *Frontend, s *model.Service, steered *model.Frontend) string {
	headless := len(s.VIPs) == 0
	switch {
	case f.Protocol != model.TCP:
		return fmt.Sprintf("%s is balanced by the kernel", f.Protocol)
	case headless && len(f.Addresses) == 0 && f.Mode != plan.Kernel:
		return "it has no address of its own: what is sent to those of nobody is looked up by the name that it is for, or by the port alone"
	case headless && len(f.Addresses) == 0:
		return "the service is headless, and no plane has a say in what is sent to its endpoints: clients reach them by themselves"
	case f.App.IsHTTP() && headless:
		return fmt.Sprintf("the port speaks %s: the proxy routes requests to its endpoints", f.App)
	case f.App.IsHTTP():
		return fmt.Sprintf("the port speaks %s: the proxy routes requests", f.App)
	case steered == nil:
		return "the port is not declared to speak HTTP, and no plane has routes for it"
	case f.Mode == plan.TLS:
		return "connections are routed by the server name that clients say"
	case f.App == model.AppDetect:
		wait := "until they come"
		if steered.DetectTimeout > 0 {
			wait = "for " + steered.DetectTimeout.String()
		}
		return "nobody says what the port speaks: the first bytes tell, and are waited for " + wait
	case f.Mode == plan.Opaque:
		return "routes of connections, which the kernel does not have"
	case len(steered.Backends) > 0:
		return "connections of captured clients are shared by weight, which the kernel does by itself"
	}
	return "the port does not speak HTTP, and has no routes of connections"
}

func owner(t *view, key, namespace string) *Owner {
	o, _ := t.Get(merge.Owners, key).(*merge.Owner)
	if o == nil {
		return nil
	}
	out := &Owner{Plane: o.Plane, Standby: o.Standby}
	switch n, _ := t.Get(merge.Namespaces, namespace).(*model.Namespace); {
	case o.Reason == "namespace" && n != nil:
		out.Why = fmt.Sprintf("namespace %s is given to it", n.Name)
	case len(o.Standby) > 0:
		out.Why = "it is the first, in the documented order, of those that have routes"
	default:
		out.Why = "no other plane has routes"
	}
	return out
}

// lead adds the route tables of a key, of both families, and the ways to them.
func (f *Frontend) lead(t *view, key string) {
	for _, name := range []string{key, key + "@6"} {
		table, _ := t.Get(plan.RouteTables, name).(*plan.RouteTable)
		if table == nil {
			continue
		}
		f.RouteTables = append(f.RouteTables, name)
		if f.Routing != nil {
			continue
		}
		f.Routing = &Routing{Basis: model.ByDestination}
		if table.Elsewhere != nil {
			f.Routing = &Routing{Basis: model.ByAuthority, Unknown: table.Elsewhere.Unknown, Hosts: table.Hosts}
		}
		asked, _ := t.Get(merge.Frontends, key).(*model.Frontend)
		for i, r := range table.Routes {
			if r.SourceSelects != "" && asked != nil && i < len(asked.Routes) { // what it stands for
				r.Match.SourceLabels = asked.Routes[i].Match.SourceLabels
			}
			f.Routes = append(f.Routes, Route{r, origin(t, r.ID)})
		}
	}
	if len(f.RouteTables) == 0 {
		return
	}
	for _, row := range t.Rows(plan.Scopes) {
		if s := row.Value.(*plan.Scope); slices.Contains(f.RouteTables, s.RouteTable) {
			f.Scopes = append(f.Scopes, s.Key)
		}
	}
}

// connections adds the clusters of connections to the frontend's addresses: their names
// say what they are for.
func (f *Frontend) connections(t *view) {
	if f.Mode == plan.Kernel || f.App.IsHTTP() {
		return
	}
	pods := classes(t)
	for _, row := range t.Rows(plan.Clusters) {
		kind, rest, _ := strings.Cut(row.Key, "|")
		if kind != "tcp" && kind != "tls" {
			continue
		}
		for _, to := range f.Addresses {
			what, ok := strings.CutSuffix(rest, "|"+to.String())
			if !ok {
				continue
			}
			c := Connection{Cluster: row.Key, To: to, Client: what, Sources: origin(t, row.Key)}
			if kind == "tls" {
				c.ServerName, c.Client, _ = strings.Cut(what, "|")
			}
			if p := row.Value.(*plan.Cluster).Traffic; p != nil {
				c.Tunnel = p.Tunnel
			}
			c.Pods = pods[c.Client]
			f.Connections = append(f.Connections, c)
		}
	}
	// The closest first, as they are chosen: a server name before a wider pattern.
	slices.SortStableFunc(f.Connections, func(a, b Connection) int {
		return cmp.Or(a.To.Compare(b.To), compareNames(a.ServerName, b.ServerName), -cmp.Compare(a.Client, b.Client))
	})
}

// classes lists the local pods of each class of clients.
func classes(t *view) map[string][]string {
	out := map[string][]string{}
	for _, row := range t.Rows(plan.Pods) {
		p := row.Value.(*plan.Pod)
		for _, name := range p.Listeners {
			l, _ := t.Get(plan.Listeners, name).(*plan.Listener)
			if l != nil && l.Class != "" && !slices.Contains(out[l.Class], p.Name) {
				out[l.Class] = append(out[l.Class], p.Name)
			}
		}
	}
	for _, pods := range out {
		slices.Sort(pods)
	}
	return out
}

func compareNames(a, b string) int {
	rank := func(s string) int {
		switch {
		case s == "":
			return 2
		case strings.HasPrefix(s, "*"):
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), -cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// clusters adds those that routes and connections name, in their order.
func (f *Frontend) clusters(t *view) {
	seen := map[string]bool{}
	add := func(name string) {
		if row, ok := t.Get(plan.Clusters, name).(*plan.Cluster); ok && !seen[name] {
			seen[name] = true
			f.Clusters = append(f.Clusters, cluster(t, row))
		}
	}
	for _, name := range f.RouteTables {
		for _, r := range t.Get(plan.RouteTables, name).(*plan.RouteTable).Routes {
			for _, c := range r.Clusters {
				add(c.Name)
			}
			for _, m := range r.Mirrors {
				add(m.Cluster)
			}
		}
	}
	for _, c := range f.Connections {
		add(c.Cluster)
	}
}

func cluster(t *view, c *plan.Cluster) Cluster {
	out := Cluster{Name: c.Name, Backend: t.backend(c.Name), App: c.App, Endpoints: []Endpoint{}, Checked: c.Checked, Inbound: c.Inbound, Original: c.Original}
	e, _ := t.Get(plan.Endpoints, c.Name).(*plan.ClusterEndpoints)
	switch {
	case c.Names != nil:
		e = &c.Names.Endpoints
	case e == nil:
		e = &plan.ClusterEndpoints{}
	}
	var guarded []string
	add := func(bs []plan.Backend, weight uint32) {
		for _, b := range bs {
			if b.Host != "" {
				out.Endpoints = append(out.Endpoints, Endpoint{Host: fmt.Sprintf("%s:%d", b.Host, b.Port), Weight: weight})
			}
			for _, a := range b.Addrs {
				pod := t.pods[a.Addr()]
				out.Endpoints = append(out.Endpoints, Endpoint{Addr: a, Pod: pod, Weight: weight})
				if pod != "" {
					guarded = append(guarded, pod)
				}
			}
		}
	}
	add(e.Backends, 0)
	for _, s := range e.Shares {
		add(s.Backends, s.Weight)
	}
	out.Policy = policy(t, c.Policy, guarded)
	return out
}
