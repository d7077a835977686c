// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
)

// detectTimeout is how long the first bytes to a port that does not say what it speaks
// are waited for.
const detectTimeout = 10 * time.Second

// routes translates what the routes say about one service.
func (t *Translator) routes(r translators.Reader, namespace, name string) translators.Result {
	all := candidates(r, namespace, name)
	frontends := t.frontends(r, namespace, name, all)
	res := translators.Result{Frontends: frontends}
	if reads(r, namespace) {
		for _, c := range all {
			res.Diagnostics = append(res.Diagnostics, c.rep.Diagnostics...)
		}
	}
	return res
}

func (t *Translator) frontends(r translators.Reader, namespace, name string, all []*candidate) []*model.Frontend {
	service := r.Service(namespace, name)
	switch {
	case service == nil:
		unattached(all, fmt.Sprintf("there is no service %s/%s", namespace, name), "")
		return nil
	case len(service.VIPs) == 0:
		unattached(all, fmt.Sprintf("service %s is headless: nothing says that a connection to a pod's address is for it", service.Key()), "name a service with an address")
		return nil
	}
	var out []*model.Frontend
	for _, p := range attach(service, all) {
		b := &builder{t: t, r: r, service: service, port: p}
		out = append(out, b.frontend(audiences(service, p)))
	}
	return out
}

// builder makes the frontend of one port.
type builder struct {
	t       *Translator
	r       translators.Reader
	service *model.Service
	port    port
	out     *model.Frontend
}

func (b *builder) frontend(audiences []audience) *model.Frontend {
	b.out = &model.Frontend{Namespace: b.service.Namespace, Service: b.service.Name, Port: b.port.Port}
	b.speaks(audiences)
	for _, a := range audiences {
		for _, c := range a.routes {
			for _, p := range c.parents {
				b.out.Src = append(b.out.Src, c.Object.Source(Plane, p.Field))
			}
		}
		if all := b.audience(a); a.namespace != "" && !all {
			// They do not get what others get.
			b.out.Routes = append(b.out.Routes, model.Route{Match: model.RouteMatch{SourceNamespace: a.namespace},
				Direct: &model.Direct{Status: http.StatusNotFound}, Src: slices.Clone(b.out.Src[len(b.out.Src)-1:])})
		}
	}
	if last := audiences[len(audiences)-1]; last.namespace != "" { // nobody routes the other clients
		b.out.Routes = append(b.out.Routes, model.Route{Src: []model.Source{b.service.Src}, Backends: b.own()})
	}
	return b.out
}

// own is the service itself.
func (b *builder) own() []model.Backend {
	return []model.Backend{{Namespace: b.service.Namespace, Service: b.service.Name, Port: b.port.Port, Weight: 1}}
}

// speaks decides what the port is taken for. A port that nobody has declared is what its
// routes are for if they name it, and is else found out: a route without a port is for
// all ports of the service, of which some may be something else.
func (b *builder) speaks(audiences []audience) {
	grpc := !slices.ContainsFunc(audiences, func(a audience) bool { return !isGRPC(a.routes[0]) })
	switch app := b.port.App; {
	case app == model.AppUndeclared && b.port.named && grpc:
		b.out.App = model.AppGRPC
	case app == model.AppUndeclared && b.port.named:
		b.out.App = model.AppHTTP
	case app == model.AppUndeclared:
		b.out.App, b.out.DetectTimeout = model.AppDetect, detectTimeout
		b.out.Connections = []model.ConnectionRoute{{Backends: b.own(), Src: []model.Source{b.service.Src}}}
		for _, a := range audiences {
			for _, c := range a.routes {
				c.rep.Say(c.parents[0].Field, "undeclared-port", model.Degrades, model.Approximated,
					fmt.Sprintf("port %d of %s does not say what it speaks: the first bytes are looked at, for which a server that speaks first waits %s", b.port.Port, b.service.Key(), detectTimeout),
					"set appProtocol on the port, or name the ports in parentRefs")
			}
		}
	case app == model.AppHTTP && grpc && audiences[len(audiences)-1].namespace == "":
		b.out.App = model.AppGRPC // all of its clients speak gRPC, which needs HTTP/2
	}
}

// ranked is a match with what becomes of its requests.
type ranked struct {
	match gatewayapi.Match
	route model.Route
	from  *candidate
	rule  int
}

// audience adds the routes of an audience, the most specific first; it reports whether
// they take every request.
func (b *builder) audience(a audience) (all bool) {
	var list []ranked
	for _, c := range a.routes {
		list = append(list, b.rules(c)...)
	}
	slices.SortStableFunc(list, func(x, y ranked) int {
		return cmp.Or(x.match.Rank.Compare(y.match.Rank), older(x.from.Object, y.from.Object), cmp.Compare(x.rule, y.rule))
	})
	seen := map[string]ranked{}
	for _, x := range list {
		x.route.Match.SourceNamespace = a.namespace
		key := string(model.Bytes(x.match.RouteMatch))
		if before, ok := seen[key]; ok || all {
			x.from.rep.Say(x.match.Field, "shadowed", model.Cosmetic, model.Translated,
				"a match that comes before it takes its requests: "+before.where(), "remove one of the two")
			continue
		}
		seen[key] = x
		b.out.Routes = append(b.out.Routes, x.route)
		all = all || isZero(x.match.RouteMatch)
	}
	return all
}

// where names a match.
func (x ranked) where() string {
	if x.from == nil {
		return "one of every request"
	}
	return x.match.Field + " of " + x.from.Object.Kind.Kind + " " + x.from.Object.Key()
}

func isZero(m model.RouteMatch) bool {
	return m.Path == nil && m.Method == nil && m.Scheme == nil && m.Authority == nil && len(m.Headers)+len(m.Query) == 0
}

// rules converts the rules of a route. Those of a route that is invalid answer with a
// failure.
func (b *builder) rules(c *candidate) []ranked {
	conv := &gatewayapi.Conversion{Reader: b.r, Report: c.rep, Route: c.Route, Port: b.port.Port, Grants: b.t.requireGrants}
	var out []ranked
	for i, rule := range c.Rules {
		route := model.Route{Direct: &model.Direct{Status: conv.Failure()}}
		if !c.Object.Invalid {
			route = conv.Convert(rule)
		}
		for _, m := range rule.Matches {
			if m.Broken {
				continue
			}
			x := ranked{match: m, route: route, from: c, rule: i}
			x.route.Match = m.RouteMatch
			if replacesPrefix(route) {
				x.route.Match = m.Whole()
			}
			x.route.Src = []model.Source{c.Object.Source(Plane, m.Field)}
			out = append(out, x)
		}
	}
	return out
}

func replacesPrefix(r model.Route) bool {
	return r.Rewrite != nil && r.Rewrite.Path != "" || r.Redirect != nil && r.Redirect.Prefix != nil
}
