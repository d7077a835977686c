// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// inbounds are the pod's ports that have routes or a limit, or of which a Server or an
// annotation says what they speak.
func (g *guard) inbounds() []*model.Inbound {
	var out []*model.Inbound
	for _, p := range slices.Sorted(maps.Keys(g.servers)) {
		if in := g.inbound(g.servers[p], p); in != nil {
			out = append(out, in)
		}
	}
	for _, p := range declaredPorts(g.pod, corev1.ProtocolTCP) {
		if _, ok := g.servers[p]; ok || !g.settings.opaque.has(p) {
			continue
		}
		out = append(out, &model.Inbound{Namespace: g.o.Namespace, Workload: g.o.Name, Port: p, App: model.AppTCP, Src: g.settings.src})
	}
	return out
}

func (g *guard) inbound(s server, port uint16) *model.Inbound {
	in := &model.Inbound{Namespace: g.o.Namespace, Workload: g.o.Name, Port: port, App: s.app(), Src: []model.Source{s.o.Source(Plane, "spec")}}
	if s.o.Invalid {
		return nil
	}
	if s.requests() {
		in.Routes = g.inboundRoutes(s, port)
		var src []model.Source
		in.RateLimit, src = g.rateLimit(s)
		in.Src = append(in.Src, src...)
	}
	if s.protocol == protocolUnknown && len(in.Routes) == 0 && in.RateLimit == nil {
		return nil
	}
	return in
}

// serverRoutes are the routes of a Server: GRPCRoutes if it speaks gRPC, else
// HTTPRoutes. Those that Linkerd does not take are left out. One without a valid version
// is among them, and matches nothing: without it, what it may have kept away would be
// let in.
func (g *guard) serverRoutes(s server) []route {
	if !s.requests() {
		return nil
	}
	kinds := []objects.Kind{httpRouteKind, gatewayapi.HTTPRouteKind}
	if s.protocol == protocolGRPC {
		kinds = []objects.Kind{gatewayapi.GRPCRouteKind}
	}
	all := attached(g.r, kinds, parentKey(parentServer, s.o.Namespace, s.o.Name))
	return slices.DeleteFunc(all, func(rt route) bool { return !rt.o.Invalid && unusable(filtering{g.r, rt, 0, inbound}) != "" })
}

// inboundRoutes are the routes of a Server with who may take each: whom a policy for the
// route lets in, and whom the Server does.
func (g *guard) inboundRoutes(s server, port uint16) []model.InboundRoute {
	routes := g.serverRoutes(s)
	if len(routes) == 0 {
		return nil
	}
	atServer := g.t.serverGrants(g.r, s)
	var candidates []candidate
	var made []model.InboundRoute
	for _, rt := range routes {
		if rt.o.Invalid {
			continue
		}
		grants := slices.Concat(g.routeGrants(rt), atServer)
		for _, rule := range rt.Rules {
			fx := filtering{g.r, rt, port, inbound}.ofRule(rule, nil)
			ir := model.InboundRoute{Redirect: fx.redirect, ResponseHeaders: fx.response, Src: []model.Source{rt.o.Source(Plane, rule.Field)}}
			if fx.redirect == nil {
				ir.RequestHeaders = fx.request
				if fx.rewrite != nil {
					ir.RequestHeaders = fx.request.Then(model.HeaderEdit{Set: []model.Header{{Name: ":authority", Value: fx.rewrite.Authority}}})
				}
			}
			for _, grant := range grants {
				ir.Allow = append(ir.Allow, grant.rule())
			}
			ir.Allow = canonical(ir.Allow)
			made = append(made, ir)
			for _, host := range rt.hostnames() {
				for _, m := range rule.Matches {
					candidates = append(candidates, candidate{Match: m, host: host, rule: len(made) - 1, grpc: rt.grpc(),
						whole: fx.redirect != nil && fx.redirect.Prefix != nil})
				}
			}
		}
	}
	out := []model.InboundRoute{}
	for _, p := range order(candidates) {
		ir := made[p.rule]
		ir.Match = p.match
		out = append(out, ir)
	}
	if len(out) == 0 { // none that a request could take: all of them get 404
		out = append(out, nothing(routes[0].o))
	}
	return out
}

// nothing is a route that no request takes.
func nothing(o *objects.Object) model.InboundRoute {
	return model.InboundRoute{Match: model.RouteMatch{Method: &model.StringMatch{Kind: model.Exact, Value: "-"}}, Src: []model.Source{o.Source(Plane, "spec.rules")}}
}

// routeGrants are what policies let in that are for a route.
func (g *guard) routeGrants(rt route) []grant {
	return g.t.policyGrants(g.r, rt.o.Namespace, rt.o.Kind, rt.o.Name, func(api.LocalRef) bool { return true })
}
