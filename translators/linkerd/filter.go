// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
)

// effects are what filters do.
type effects struct {
	request, response model.HeaderEdit
	redirect          *model.Redirect
	rewrite           *model.Rewrite // of the host, which may be set as a header
	// undone is the field of the first filter that Linkerd does not do, "" if there is
	// none, and kind its type.
	undone, kind string
}

// direction is on which side filters are.
type direction int

const (
	outbound direction = iota // towards services
	inbound                   // at Servers
)

// filtering turns the filters of a route into what they do.
type filtering struct {
	r    translators.Reader
	rt   route
	port uint16 // that was dialled
	side direction
}

// ofRule reads the filters of a rule. Towards services, Linkerd takes what a rule of its
// own HTTPRoute says of answers' headers as if it were about requests' headers. What is
// to be said of fields goes to rep, which may be nil.
func (f filtering) ofRule(rule gatewayapi.Rule, rep *report) effects {
	out := f.do(rule.Field, rule.Filters, rep)
	if f.side == outbound && f.rt.own() {
		out.request, out.response = out.request.Then(out.response), model.HeaderEdit{}
	}
	return out
}

// do reads the filters of a rule or of a backend. Towards services, Linkerd leaves out
// what a GRPCRoute says of answers' headers.
func (f filtering) do(field string, in []gatewayv1.HTTPRouteFilter, rep *report) effects {
	c := gatewayapi.Conversion{Reader: f.r, Report: &gatewayapi.Report{Plane: Plane, Object: f.rt.o}, Route: f.rt.Route, Port: f.port}
	var out effects
	for i := range in {
		name := at(field+".filters", i)
		switch in[i].Type {
		case gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestRedirect:
		default:
			if out.undone == "" {
				out.undone, out.kind = name, string(in[i].Type)
			}
			continue
		}
		x, ok := c.Filters(name, in[i:i+1])
		if !ok && out.undone == "" {
			out.undone, out.kind = name, string(in[i].Type)
		}
		out.request = out.request.Then(x.Request)
		if x.Rewrite != nil {
			out.rewrite = x.Rewrite
		}
		if x.Redirect != nil {
			out.redirect = x.Redirect
		}
		if f.side == inbound || !f.rt.grpc() {
			out.response = out.response.Then(x.Response)
		}
	}
	if rep != nil {
		rep.out = append(rep.out, c.Report.Diagnostics...)
	}
	return out
}
