// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/translators/objects"
)

// Route is an HTTPRoute or a GRPCRoute, with the API's defaults filled in. Fields that
// GRPCRoutes do not have are empty in theirs.
type Route struct {
	Object    *objects.Object
	Parents   []Parent
	Hostnames []string
	Rules     []Rule
}

// Parent is what a route wants to be attached to.
type Parent struct {
	Group, Kind     string
	Namespace, Name string
	Section         string // of a Service: the name of a port
	Port            int32  // 0: not given
	Field           string
	// Local says that it is of the route's own namespace.
	Local bool
}

// IsService reports whether the parent is a Service.
func (p Parent) IsService() bool { return p.Group == "" && p.Kind == "Service" }

// Rule is one rule of a route. Matches is never empty.
type Rule struct {
	Matches  []Match
	Filters  []gatewayv1.HTTPRouteFilter
	Backends []BackendRef
	Timeouts *gatewayv1.HTTPRouteTimeouts
	Retry    *gatewayv1.HTTPRouteRetry
	Session  *gatewayv1.SessionPersistence
	Field    string // spec.rules[0]
}

// BackendRef is one backend of a rule.
type BackendRef struct {
	gatewayv1.BackendObjectReference
	Weight  int32 // 1 if none is given
	Filters []gatewayv1.HTTPRouteFilter
	Field   string
}

// Of reads a route; ok is false if the object is none, or could not be decoded.
func Of(o *objects.Object) (r Route, ok bool) {
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		if v == nil {
			return Route{}, false
		}
		r = Route{Object: o, Parents: parents(o, v.Spec.ParentRefs), Hostnames: texts(v.Spec.Hostnames)}
		for i, in := range v.Spec.Rules {
			r.Rules = append(r.Rules, httpRule(fmt.Sprintf("spec.rules[%d]", i), in))
		}
		if len(r.Rules) == 0 { // the default of the field
			r.Rules = []Rule{httpRule("spec.rules", gatewayv1.HTTPRouteRule{})}
		}
	case *gatewayv1.GRPCRoute:
		if v == nil {
			return Route{}, false
		}
		r = Route{Object: o, Parents: parents(o, v.Spec.ParentRefs), Hostnames: texts(v.Spec.Hostnames)}
		for i, in := range v.Spec.Rules {
			r.Rules = append(r.Rules, grpcRule(fmt.Sprintf("spec.rules[%d]", i), in))
		}
	default:
		return Route{}, false
	}
	return r, true
}

func httpRule(field string, in gatewayv1.HTTPRouteRule) Rule {
	out := Rule{Filters: in.Filters, Timeouts: in.Timeouts, Retry: in.Retry, Session: in.SessionPersistence, Field: field}
	for i, m := range in.Matches {
		out.Matches = append(out.Matches, httpMatch(fmt.Sprintf("%s.matches[%d]", field, i), m))
	}
	if len(out.Matches) == 0 {
		out.Matches = []Match{httpMatch(field, gatewayv1.HTTPRouteMatch{})}
	}
	for i, b := range in.BackendRefs {
		out.Backends = append(out.Backends, BackendRef{b.BackendObjectReference, number(b.Weight, 1), b.Filters, fmt.Sprintf("%s.backendRefs[%d]", field, i)})
	}
	return out
}

func grpcRule(field string, in gatewayv1.GRPCRouteRule) Rule {
	out := Rule{Filters: grpcFilters(in.Filters), Session: in.SessionPersistence, Field: field}
	for i, m := range in.Matches {
		out.Matches = append(out.Matches, grpcMatch(fmt.Sprintf("%s.matches[%d]", field, i), m))
	}
	if len(out.Matches) == 0 {
		out.Matches = []Match{grpcMatch(field, gatewayv1.GRPCRouteMatch{})}
	}
	for i, b := range in.BackendRefs {
		out.Backends = append(out.Backends, BackendRef{b.BackendObjectReference, number(b.Weight, 1), grpcFilters(b.Filters), fmt.Sprintf("%s.backendRefs[%d]", field, i)})
	}
	return out
}

// grpcFilters are filters of a GRPCRoute as those of an HTTPRoute, which has them all.
func grpcFilters(in []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	for _, f := range in {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef})
	}
	return out
}

func number(p *int32, otherwise int32) int32 {
	if p == nil {
		return otherwise
	}
	return *p
}

func parents(o *objects.Object, in []gatewayv1.ParentReference) []Parent {
	var out []Parent
	for i, p := range in {
		namespace := given(p.Namespace, o.Namespace)
		out = append(out, Parent{Group: given(p.Group, Group), Kind: given(p.Kind, "Gateway"), Namespace: namespace, Name: string(p.Name),
			Section: given(p.SectionName, ""), Port: number(p.Port, 0), Local: namespace == o.Namespace,
			Field: fmt.Sprintf("spec.parentRefs[%d]", i)})
	}
	return out
}

// given is what a field points to, or what it means to leave it out.
func given[T ~string](p *T, otherwise string) string {
	if p == nil {
		return otherwise
	}
	return string(*p)
}

func texts[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}
