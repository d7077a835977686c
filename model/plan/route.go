// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/http"

	"fairlead.io/fairlead/model"
)

// requests is the route table of a port's requests.
func (c *compiler) requests(p *servicePort) *RouteTable {
	t := &RouteTable{Name: c.named(p.key)}
	if choice := choiceOf(c.r, p.key, p.service.Namespace, p.frontend); choice.Basis == model.ByAuthority {
		t.Hosts = hosts(p.service)
		t.Elsewhere = &Elsewhere{Port: p.port.Port, Unknown: choice.Unknown, From: c.unknownFrom(p.key, p.service.Namespace)}
	}
	if p.frontend != nil {
		t.Routes = c.routes(p.frontend, p.app)
	} else {
		t.Routes = []Route{c.route(p.key, &model.Route{Backends: []model.Backend{p.own()}, Retry: c.defaultRetry(p), Src: p.src()}, p.app)}
	}
	return t
}

// defaultRetry is how requests to a service that nobody routes are repeated: as the
// plane does whose service it would be.
func (c *compiler) defaultRetry(p *servicePort) *model.Retry {
	if d := c.defaults(p.key, p.service.Namespace); d != nil {
		return d.Retry
	}
	return nil
}

func (c *compiler) routes(f *model.Frontend, app model.App) []Route {
	if f.Invalid {
		return []Route{c.route(f.Key(), &model.Route{Direct: &model.Direct{Status: http.StatusInternalServerError}, Src: f.Src}, app)}
	}
	var out []Route
	for i := range f.Routes {
		out = append(out, c.route(f.Key(), &f.Routes[i], app))
	}
	return out
}

// route compiles a route of a frontend. Two frontends may have the same, from different
// objects: so its ID tells whose it is, too.
func (c *compiler) route(frontend string, in *model.Route, app model.App) Route {
	out := Route{Match: in.Match, Direct: in.Direct, Redirect: in.Redirect,
		RequestHeaders: in.RequestHeaders, ResponseHeaders: in.ResponseHeaders, Rewrite: in.Rewrite,
		Fault: in.Fault, CORS: in.CORS, Timeout: in.Timeout, IdleTimeout: in.IdleTimeout, Retry: in.Retry}
	if len(in.Match.SourceLabels) > 0 {
		out.SourceSelects = predicateID(in.Match.SourceLabels)
		out.Match.SourceLabels = nil
	}
	switch {
	case in.Direct != nil, in.Redirect != nil:
	case in.Original: // whatever is there need not speak what the frontend does
		out.Original, out.App = true, model.AppDetect
	case c.dialled(in.Backends) && in.Backends[0].Policy == nil:
		out.Original, out.App = true, app
	case c.dialled(in.Backends):
		out.Clusters = []WeightedCluster{{Name: c.dialledAs(in.Backends[0], app).Name, Weight: 1}}
	default:
		out.Clusters = c.weighted(in.Backends, app)
		out.Hash = hashes(in.Backends)
	}
	for _, m := range in.Mirrors {
		out.Mirrors = append(out.Mirrors, c.mirror(m, app)...)
	}
	out.ID = model.Hash(struct {
		Frontend string
		Route    *Route
	}{frontend, &out})
	c.put(Origins, out.ID, &Origin{ID: out.ID, Sources: in.Src})
	return out
}

// dialled reports whether the backends are those of the headless service whose
// endpoint the client has chosen by itself: it is to have that one.
func (c *compiler) dialled(backends []model.Backend) bool {
	if c.direct == nil || len(backends) != 1 {
		return false
	}
	b := backends[0]
	return !b.Missing && len(b.Labels) == 0 && b.RequestHeaders.IsZero() && b.ResponseHeaders.IsZero() &&
		model.FrontendKey(b.Namespace, b.Service, b.Port) == c.direct.key
}
