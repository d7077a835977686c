// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// detectTimeout is how long Linkerd waits for the first bytes of a connection.
const detectTimeout = 10 * time.Second

// apex is a service, with what is said about it as a whole.
type apex struct {
	t       *Translator
	r       translators.Reader
	rep     *report
	o       *objects.Object
	svc     *model.Service
	ours    bool
	opaque  portSet // by annotation, or by default
	retries *retries
	wait    timeouts
	policy  *model.TrafficPolicy
	// annotated says that an annotation says how clients deal with the service.
	annotated bool
	routes    []route   // of all kinds that count, the oldest first
	profiles  []profile // the oldest first
}

// service translates what clients of a service get. Ports that nobody says anything
// about have no frontend, unless the namespace is Linkerd's, whose proxies look into
// every connection.
func (t *Translator) service(r translators.Reader, namespace, name string) translators.Result {
	o, svc := r.Get(objects.ServiceKind, namespace, name), r.Service(namespace, name)
	if o == nil || svc == nil {
		return translators.Result{}
	}
	a := &apex{t: t, r: r, rep: &report{}, o: o, svc: svc, ours: ours(r.Namespace(namespace)), opaque: defaultOpaque}
	a.read()
	var out translators.Result
	if len(svc.VIPs) == 0 { // Linkerd knows services by their addresses
		out.Diagnostics = a.rep.sorted()
		return out
	}
	for _, p := range svc.Ports {
		if p.Protocol != model.TCP {
			continue
		}
		if f := a.frontend(p.Port); f != nil {
			out.Frontends = append(out.Frontends, f)
		}
	}
	out.Diagnostics = a.rep.sorted()
	return out
}

// serviceKeys are the annotations that change what clients of a service get.
var serviceKeys = []string{retryHTTPKey, retryGRPCKey, retryLimitKey, retryTimeoutKey, timeoutRequestKey, timeoutResponseKey, timeoutIdleKey, accrualKey, opaquePortsKey}

// read gathers what is about the service as a whole.
func (a *apex) read() {
	ns := a.r.Get(objects.NamespaceKind, "", a.svc.Namespace)
	for _, o := range []*objects.Object{a.o, ns} {
		if o == nil {
			continue
		}
		if v, ok := o.Annotations[opaquePortsKey]; ok { // Linkerd copies that of the namespace
			a.opaque, _ = readPorts(v)
			break
		}
	}
	a.retries, _ = readRetries(a.o, a.rep)
	a.wait, _ = readTimeouts(a.o, a.rep)
	if out := breaker(a.o, a.rep); out != nil {
		a.policy = &model.TrafficPolicy{Outlier: out}
	}
	noteRetries(a.o, a.rep)
	noteService(a.o, a.rep)
	a.annotated = slices.ContainsFunc(serviceKeys, func(k string) bool { _, ok := a.o.Annotations[k]; return ok })
	kinds := []objects.Kind{httpRouteKind}
	if a.ours {
		kinds = routeKinds
	}
	a.routes = attached(a.r, kinds, parentKey(parentService, a.svc.Namespace, a.svc.Name))
	for _, o := range a.r.Select(serviceProfileKind, byService, a.svc.Key()) {
		if p, ok := a.t.profileOf(o); ok {
			a.profiles = append(a.profiles, p)
		}
	}
}

// port is the service's own object of a port.
func (a *apex) port(n uint16) *corev1.ServicePort {
	v, ok := a.o.Value.(*corev1.Service)
	if !ok {
		return nil
	}
	for i := range v.Spec.Ports {
		p := &v.Spec.Ports[i]
		if p.Port == int32(n) && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) {
			return p
		}
	}
	return nil
}

// Words of appProtocol that Linkerd knows; every other one is opaque.
var appProtocols = map[string]model.App{"http": model.AppHTTP, "kubernetes.io/h2c": model.AppHTTP2}

// app is what a port speaks. Its name means nothing to Linkerd.
func (a *apex) app(n uint16, ps []profile) model.App {
	if slices.ContainsFunc(ps, func(p profile) bool { return p.opaque.has(n) }) || defaultSkipped.has(n) {
		return model.AppTCP
	}
	if p := a.port(n); p != nil && p.AppProtocol != nil {
		if app, ok := appProtocols[*p.AppProtocol]; ok {
			return app
		}
		return model.AppTCP
	}
	if a.opaque.has(n) {
		return model.AppTCP
	}
	return model.AppDetect
}

// frontend is what clients of a port get; nil if Linkerd has no say.
func (a *apex) frontend(n uint16) *model.Frontend {
	at := slices.DeleteFunc(slices.Clone(a.routes), func(rt route) bool { return !rt.at(a.svc.Namespace, a.svc.Name, n) })
	if !a.ours && !a.annotated && len(at) == 0 && len(a.profiles) == 0 {
		return nil
	}
	f := &model.Frontend{Namespace: a.svc.Namespace, Service: a.svc.Name, Port: n, Src: a.sources(at)}
	v := &view{apex: a, n: n, routes: at}
	f.App = a.app(n, a.profilesFor(""))
	if f.App == model.AppTCP {
		v.opaque(f)
		return f
	}
	if (f.App == model.AppHTTP2 || f.App == model.AppDetect) && slices.ContainsFunc(v.visible(""), route.grpc) {
		f.App = model.AppGRPC
	}
	v.app = f.App
	if f.App == model.AppDetect {
		f.DetectTimeout = detectTimeout
		v.connections(f)
	}
	v.requests(f)
	return f
}

// sources are what a frontend came from.
func (a *apex) sources(at []route) []model.Source {
	var out []model.Source
	for _, rt := range at {
		out = append(out, rt.o.Source(Plane, "spec.parentRefs"))
	}
	for _, p := range a.profiles {
		out = append(out, p.o.Source(Plane, "spec"))
	}
	for _, k := range serviceKeys {
		if _, ok := a.o.Annotations[k]; ok {
			out = append(out, a.o.Source(Plane, annotation(k)))
		}
	}
	if len(out) == 0 {
		out = append(out, a.o.Source(Plane, ""))
	}
	return out
}

// profilesFor are the profiles that clients of a namespace have: their own, or else that
// of the service's namespace. "" is every other namespace.
func (a *apex) profilesFor(client string) []profile {
	for _, ns := range []string{client, a.svc.Namespace} {
		for _, p := range a.profiles {
			if p.o.Namespace == ns && !p.o.Invalid {
				return []profile{p}
			}
		}
	}
	return nil
}

// view is a port, as the clients of each namespace see it.
type view struct {
	*apex
	n      uint16
	app    model.App
	routes []route
}

// visible are the routes that clients of a namespace have: those of the service's
// namespace, and their own. "" is every other namespace.
func (v *view) visible(client string) []route {
	return slices.DeleteFunc(slices.Clone(v.routes), func(rt route) bool {
		return rt.o.Namespace != v.svc.Namespace && rt.o.Namespace != client
	})
}

// clients are the namespaces whose clients have something of their own, sorted.
func (v *view) clients() []string {
	set := map[string]bool{}
	for _, rt := range v.routes {
		set[rt.o.Namespace] = true
	}
	for _, p := range v.profiles {
		set[p.o.Namespace] = true
	}
	delete(set, v.svc.Namespace)
	for _, ns := range v.skipping() {
		set[ns] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// skipping are the namespaces whose pods leave the port alone.
func (v *view) skipping() []string {
	var out []string
	for _, o := range v.r.Select(objects.NamespaceKind, bySkip, anySkip) {
		if ports, _ := readPorts(o.Annotations[skipOutboundKey]); ports.has(v.n) {
			out = append(out, o.Name)
		}
	}
	return out
}

// untouched is the service itself, for clients that leave the port alone.
func (v *view) untouched() []model.Backend { return []model.Backend{v.bare(v.own())} }

// requests puts the routes of requests: first those for clients of some namespace, to
// the last of which every request comes, then those for all others.
func (v *view) requests(f *model.Frontend) {
	general, invalid := v.serve("")
	for _, ns := range v.clients() {
		own, _ := v.serve(ns)
		if model.Hash(own) == model.Hash(general) {
			continue
		}
		for _, rt := range own {
			rt.Match.SourceNamespace = ns
			f.Routes = append(f.Routes, rt)
		}
		if n := len(own); n == 0 || !everything(own[n-1].Match) {
			f.Routes = append(f.Routes, model.Route{Match: model.RouteMatch{SourceNamespace: ns}, Direct: &model.Direct{Status: notFound}, Src: f.Src})
		}
	}
	f.Routes = append(f.Routes, general...)
	switch {
	case invalid && len(f.Routes) > 0: // some have routes of their own
		f.Routes = append(f.Routes, model.Route{Direct: &model.Direct{Status: internalError}, Src: f.Src})
	case invalid:
		f.Invalid = true
	case len(f.Routes) == 0: // nothing matches anything
		f.Routes = []model.Route{{Direct: &model.Direct{Status: notFound}, Src: f.Src}}
	}
}

const notFound = 404

// everything reports whether a match takes every request.
func everything(m model.RouteMatch) bool { return model.Hash(m) == model.Hash(model.RouteMatch{}) }

// serve lists the routes for clients of a namespace: those of their profile if it has
// any, else those of gRPC if there are any, else those of HTTP, and without any one
// route to the service itself. invalid is true if none of the routes has a valid
// version.
func (v *view) serve(client string) (out []model.Route, invalid bool) {
	if slices.Contains(v.skipping(), client) {
		return []model.Route{{Backends: v.untouched(), Src: v.sources(nil)}}, false
	}
	for _, p := range v.profilesFor(client) {
		if p.overrides() {
			return v.profileRoutes(p), false
		}
	}
	all := v.visible(client)
	grpc := v.app != model.AppHTTP && slices.ContainsFunc(all, route.grpc)
	all = slices.DeleteFunc(all, func(rt route) bool { return rt.grpc() != grpc })
	usable := slices.DeleteFunc(slices.Clone(all), func(rt route) bool { return !rt.o.Invalid && v.dropped(rt) })
	valid := slices.DeleteFunc(slices.Clone(usable), func(rt route) bool { return rt.o.Invalid })
	switch {
	case len(usable) == 0:
		return []model.Route{v.itself()}, false
	case len(valid) == 0:
		return nil, client == ""
	}
	return v.rules(valid), false
}

// dropped reports whether Linkerd does not take a route because of something in it that
// it does not do.
func (v *view) dropped(rt route) bool { return unusable(v.filtering(rt)) != "" }

func (v *view) filtering(rt route) filtering { return filtering{v.r, rt, v.n, outbound} }

// itself is the route to the service's own endpoints.
func (v *view) itself() model.Route {
	rt := model.Route{Backends: []model.Backend{v.own()}, Retry: v.retries.policy(v.app == model.AppGRPC), Src: v.sources(nil)}
	v.wait.apply(&rt)
	return rt
}

// own is the service as a backend.
func (v *view) own() model.Backend {
	return model.Backend{Namespace: v.svc.Namespace, Service: v.svc.Name, Port: v.n, Weight: 1, Policy: v.policy}
}

// rules puts the rules of some routes into one list.
func (v *view) rules(all []route) []model.Route {
	var candidates []candidate
	var made []model.Route
	for _, rt := range all {
		retries, wait := v.said(rt)
		for _, rule := range rt.Rules {
			made = append(made, v.rule(rt, rule, retries, wait))
			last := &made[len(made)-1]
			for _, host := range rt.hostnames() {
				for _, m := range rule.Matches {
					candidates = append(candidates, candidate{Match: m, host: host, rule: len(made) - 1, grpc: rt.grpc(),
						whole: last.Redirect != nil && last.Redirect.Prefix != nil})
				}
			}
		}
	}
	var out []model.Route
	for _, p := range order(candidates) {
		rt := made[p.rule]
		rt.Match = p.match
		out = append(out, rt)
	}
	return out
}

// said are the retries and timeouts of a route. Where its annotations say nothing of
// one of them, those of the service hold.
func (v *view) said(rt route) (*retries, timeouts) {
	r, _ := readRetries(rt.o, &report{})
	w, _ := readTimeouts(rt.o, &report{})
	if r == nil {
		r = v.retries
	}
	return r, w
}

// rule is a rule of a route without its match.
func (v *view) rule(rt route, rule gatewayapi.Rule, r *retries, wait timeouts) model.Route {
	fx := v.filtering(rt).ofRule(rule, nil)
	out := model.Route{ResponseHeaders: fx.response, Redirect: fx.redirect, Src: []model.Source{rt.o.Source(Plane, rule.Field)}}
	if out.Redirect != nil {
		return out // nothing is sent on, and nothing waited for
	}
	out.RequestHeaders, out.Rewrite = fx.request, fx.rewrite
	if wait.request == nil {
		wait.request = specTimeout(rule)
	}
	if wait.none() {
		wait = v.wait
	}
	wait.apply(&out)
	out.Retry = r.policy(rt.grpc())
	out.Backends = v.backends(rt, rule)
	return out
}
