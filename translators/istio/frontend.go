// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// routes translates what the VirtualServices say about one service. A port that
// none of them steers has no frontend: the service then gets what a service
// without routes gets.
func (t *Translator) routes(r translators.Reader, namespace, name string) translators.Result {
	var res translators.Result
	if svc := r.Service(namespace, name); svc != nil {
		res.Frontends, res.Diagnostics = t.frontends(r, svc)
	}
	return res
}

// frontends are those of a service's ports, and what is wrong with the VirtualServices
// that name it.
func (t *Translator) frontends(r translators.Reader, svc *model.Service) ([]*model.Frontend, []model.Diagnostic) {
	fqdn := t.fullNameOf(svc)
	all := t.candidates(r, fqdn)
	u, sidecars := &unused{}, t.sidecars(r)
	var out []*model.Frontend
	for _, p := range svc.Ports {
		if p.Protocol != model.TCP {
			continue
		}
		c := &chain{t: t, r: r, svc: svc, port: p.Port, unused: u, sidecars: sidecars}
		c.apart = c.toldApart(all)
		var f *model.Frontend
		switch {
		case p.App.IsHTTP():
			f = c.http(all)
		case detected(p):
			f = c.detect(all)
		default:
			f = c.opaque(all, p.App)
		}
		if f != nil {
			out = append(out, f)
		}
	}
	return out, u.diagnostics(fqdn)
}

// serverFirst are ports that Istio takes for opaque if nobody says what they speak:
// there, servers speak first.
var serverFirst = []uint16{25, 53, 3306, 27017}

// detected reports whether the port does not say what it speaks, so that Istio finds
// it out.
func detected(p model.ServicePort) bool {
	return p.App == model.AppUndeclared && !slices.Contains(serverFirst, p.Port)
}

// chain builds the frontend of one port from the VirtualServices that compete for
// it. No two are merged: the first that has routes for a client serves it.
type chain struct {
	t    *Translator
	r    translators.Reader
	svc  *model.Service // nil for a host without one
	host string         // without service
	at   string         // namespace of the host's frontend
	port uint16
	// apart are the namespaces whose clients may not see what others see.
	apart    []string
	sidecars *sidecars
	unused   *unused
	routes   []model.Route
	src      []model.Source
	// hiding says that some clients do not see the service.
	hiding bool
	// read says that requests have to be told from connections, though nothing is said of them.
	read bool
	// invalid says that all routes are those of an object without a valid version.
	invalid bool
}

func (c *chain) http(all []candidate) *model.Frontend {
	for _, cl := range c.audience(all) {
		c.within(cl, func() {
			before := len(c.routes)
			done := c.serve(competing(c.seen(all, cl)), cl.namespace)
			c.byFullName(cl, before)
			if done {
				return
			}
			// They get the service itself, if they see it, and not what others see.
			c.routes = append(c.routes, c.own(cl)...)
		})
	}
	if len(c.src) == 0 && !c.declared() && !c.hiding && !c.ruled(false) && !c.read {
		return nil
	}
	if c.invalid {
		c.routes = nil
	}
	f := c.frontend()
	f.Routes, f.Invalid = c.routes, c.invalid
	return f
}

// byFullName leaves the routes that VirtualServices have for clients who do not see the
// service, which are those from a number on, to requests that name it in full: to such
// clients Istio gives a host without service. By its other names they mean nobody.
func (c *chain) byFullName(cl client, from int) {
	if c.svc == nil || from == len(c.routes) || !c.hides(cl) {
		return
	}
	var names []string
	for _, h := range c.svc.Hosts[min(1, len(c.svc.Hosts)):] {
		names = append(names, regexp.QuoteMeta(h))
	}
	for _, a := range c.svc.VIPs {
		names = append(names, regexp.QuoteMeta(a.String()))
	}
	if len(names) == 0 {
		return
	}
	r := c.own(cl)[0]
	r.Match.Authority = &model.StringMatch{Kind: model.Regex, Value: `\[?(` + strings.Join(names, "|") + `)\]?(:[0-9]+)?`, IgnoreCase: true}
	c.routes = slices.Insert(c.routes, from, r)
}

// frontend is one that says nothing yet.
func (c *chain) frontend() *model.Frontend {
	if c.svc == nil {
		return &model.Frontend{Namespace: c.at, Host: c.host, Port: c.port, Src: c.src}
	}
	src := c.src
	if len(src) == 0 {
		src = []model.Source{c.svc.Src}
	}
	return &model.Frontend{Namespace: c.svc.Namespace, Service: c.svc.Name, Port: c.port, Src: src}
}

// declared reports whether the service is one of ServiceEntries: who sees what is said
// by its frontends.
func (c *chain) declared() bool { return c.svc != nil && isDeclared(c.svc) }

// detect serves a port whose protocol is found out: HTTP gets the routes, anything
// else what an opaque port has. Where no routes are for it there is nothing to find
// out, but for a tunnel that requests must not get into.
func (c *chain) detect(all []candidate) *model.Frontend {
	var connections []model.ConnectionRoute
	routed := slices.DeleteFunc(slices.Clone(all), func(v candidate) bool { return len(v.spec.GetHttp()) == 0 })
	f := c.http(routed)
	if f == nil {
		f = c.opaque(all, model.AppUndeclared)
		if !leadsOn(f) {
			return f
		}
		if connections = f.Connections; connections == nil {
			connections = []model.ConnectionRoute{{Backends: f.Backends, Src: f.Src}}
		}
		c.read, c.routes = true, nil
		f = c.http(routed)
	} else if connections = c.connections(all, false); connections == nil {
		connections = c.ownConnections(client{})
	}
	f.App, f.DetectTimeout = model.AppDetect, c.t.mesh(c.r).detection
	// Istio gives such a port one virtual host, for whatever host is asked.
	f.Choice.Basis = model.ByDestination
	f.Connections, f.Src = connections, c.src
	return f
}

// leadsOn reports whether some connections of a frontend, which may be nil, go through a
// tunnel.
func leadsOn(f *model.Frontend) bool {
	tunnelled := func(b model.Backend) bool { return b.Policy != nil && b.Policy.Tunnel != nil }
	return f != nil && (slices.ContainsFunc(f.Backends, tunnelled) || slices.ContainsFunc(f.Connections, func(r model.ConnectionRoute) bool {
		return slices.ContainsFunc(r.Backends, tunnelled)
	}))
}

// visibleFrom orders what clients of a namespace see: what is private to it, then
// what is exported to it by name, then what everybody sees.
func visibleFrom(all []candidate, ns string) []candidate {
	var private, named, public []candidate
	for _, v := range all {
		switch {
		case v.see.public:
			public = append(public, v)
		case v.o.Namespace == ns && v.see.to(ns): // whoever else sees it
			private = append(private, v)
		case v.see.to(ns):
			named = append(named, v)
		}
	}
	return slices.Concat(private, named, public)
}

// own is what a service without routes gets from Istio, and a host without routes: a
// route for each of its clients that DestinationRules tell apart.
func (c *chain) own(of client) []model.Route {
	if c.hides(of) {
		r := model.Route{Match: model.RouteMatch{SourceNamespace: of.namespace}, Src: c.src}
		if c.unknownTo(of) == model.UnknownRefuse {
			r.Direct = &model.Direct{Status: http.StatusBadGateway}
		} else {
			r.Original = true
		}
		return []model.Route{r}
	}
	var out []model.Route
	for _, cl := range c.clients(of.namespace) {
		out = append(out, model.Route{Match: cl.narrow(model.RouteMatch{}), Src: c.src,
			Backends: []model.Backend{c.backend(cl, false)}, Retry: c.t.retry(c.t.mesh(c.r), nil)})
	}
	return out
}

// namespace is that of the frontend.
func (c *chain) namespace() string {
	if c.svc == nil {
		return c.at
	}
	return c.svc.Namespace
}

// unknownHosts says what becomes of hosts that nobody knows, for frontends of a
// namespace.
func (t *Translator) unknownHosts(r translators.Reader, namespace string) model.Unknown {
	if n := r.Namespace(namespace); n != nil && n.Choice.Unknown != "" {
		return n.Choice.Unknown
	}
	return t.mesh(r).unknown
}

// invalidStatus answers for a route whose meaning is not known.
const invalidStatus = 500

// serve adds the routes of the candidates for clients of a namespace ("" = all), and
// reports whether every request of theirs ends there.
func (c *chain) serve(cs []candidate, client string) bool {
	done := false
	for _, v := range cs {
		if done {
			c.unused.add(v, cs[0])
			continue
		}
		if v.o.Invalid && v.o.Namespace != c.namespace() && v.o.Namespace != client {
			continue // it spoils what is its namespace's: services, or clients
		}
		if v.o.Invalid {
			c.used(v)
			c.invalid = len(c.routes) == 0 && client == ""
			c.routes = append(c.routes, model.Route{Match: model.RouteMatch{SourceNamespace: client}, Direct: &model.Direct{Status: invalidStatus}})
			done = true
			continue
		}
		h := &httpTranslation{t: c.t, r: c.r, n: &notes{o: v.o}, port: c.port, client: client, general: client == ""}
		routes := h.routes(v.spec)
		if len(routes) == 0 {
			continue
		}
		c.used(v)
		c.routes = append(c.routes, routes...)
		done = c.close(routes, client)
	}
	return done
}

// close ends a VirtualService: a client that one of its routes is for gets 404 if
// none matches; it reports whether that is every client.
func (c *chain) close(routes []model.Route, client string) bool {
	var ends []model.Route
	for _, r := range routes {
		src := model.RouteMatch{SourceNamespace: r.Match.SourceNamespace, SourceLabels: r.Match.SourceLabels}
		if src.SourceNamespace == client && len(src.SourceLabels) == 0 {
			if client == "" || isCatchAll(routes[len(routes)-1].Match, client) {
				return true // without a match a request gets 404 anyway
			}
			c.routes = append(c.routes, notFound(src))
			return true
		}
		if !slices.ContainsFunc(ends, func(e model.Route) bool { return sameSource(e.Match, src) }) {
			ends = append(ends, notFound(src))
		}
	}
	for _, e := range ends {
		if last := routes[len(routes)-1].Match; !sameSource(last, e.Match) || !isCatchAll(last, e.Match.SourceNamespace) {
			c.routes = append(c.routes, e)
		}
	}
	return false
}

func notFound(m model.RouteMatch) model.Route {
	return model.Route{Match: m, Direct: &model.Direct{Status: 404}}
}

func sameSource(a, b model.RouteMatch) bool {
	return a.SourceNamespace == b.SourceNamespace && maps.Equal(a.SourceLabels, b.SourceLabels)
}

// isCatchAll reports whether the match takes every request of its source.
func isCatchAll(m model.RouteMatch, client string) bool {
	anyPath := m.Path == nil || *m.Path == model.StringMatch{Kind: model.Prefix, Value: "/"}
	return anyPath && m.Method == nil && m.Scheme == nil && m.Authority == nil && len(m.Headers)+len(m.Query) == 0 &&
		m.SourceNamespace == client
}

func (c *chain) used(v candidate) {
	c.unused.served(v)
	if src := v.o.Source(Plane, v.field); !slices.Contains(c.src, src) {
		c.src = append(c.src, src)
	}
}

// unused collects VirtualServices that name a service and serve none of its clients.
type unused struct {
	serving map[*objects.Object]bool
	hidden  map[*objects.Object]hidden
}

type hidden struct{ by, what candidate }

func (u *unused) served(v candidate) {
	if u.serving == nil {
		u.serving = map[*objects.Object]bool{}
	}
	u.serving[v.o] = true
}

func (u *unused) add(v, by candidate) {
	if u.hidden == nil {
		u.hidden = map[*objects.Object]hidden{}
	}
	if _, ok := u.hidden[v.o]; !ok {
		u.hidden[v.o] = hidden{by, v}
	}
}

func (u *unused) diagnostics(fqdn string) []model.Diagnostic {
	var out []model.Diagnostic
	for o, h := range u.hidden {
		if u.serving[o] {
			continue
		}
		n := &notes{o: o}
		n.surprising(h.what.field, "duplicate-host",
			fmt.Sprintf("%s is steered by VirtualService %s already, which comes first; Istio merges no two in the mesh", fqdn, h.by.o.Key()),
			"put the routes into one VirtualService")
		out = append(out, n.list...)
	}
	return out
}
