// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"cmp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// route is an HTTPRoute of Linkerd's, or a route of the Gateway API.
type route struct {
	gatewayapi.Route
	o *objects.Object
}

// own reports whether it is of Linkerd's own kind.
func (rt route) own() bool { return rt.o.Kind == httpRouteKind }

func (rt route) grpc() bool { return rt.o.Kind == gatewayapi.GRPCRouteKind }

// routeOf reads a route; ok is false if it could not be decoded.
func routeOf(o *objects.Object) (route, bool) {
	if o.Kind != httpRouteKind {
		rt, ok := gatewayapi.Of(o)
		return route{rt, o}, ok
	}
	v := &gatewayv1.HTTPRoute{}
	switch in := o.Value.(type) {
	case *api.HTTPRoute:
		v.Spec.ParentRefs, v.Spec.Hostnames = in.Spec.ParentRefs, in.Spec.Hostnames
		for _, r := range in.Spec.Rules {
			v.Spec.Rules = append(v.Spec.Rules, gatewayv1.HTTPRouteRule{Matches: r.Matches, Filters: ownFilters(r.Filters), BackendRefs: ownBackends(r.BackendRefs), Timeouts: r.Timeouts})
		}
	case *api.HTTPRouteBeta2:
		v.Spec.ParentRefs, v.Spec.Hostnames = in.Spec.ParentRefs, in.Spec.Hostnames
		for _, r := range in.Spec.Rules {
			v.Spec.Rules = append(v.Spec.Rules, gatewayv1.HTTPRouteRule{Matches: r.Matches, Filters: ownFilters(r.Filters), BackendRefs: ownBackends(r.BackendRefs)})
		}
	case *api.HTTPRouteBeta1:
		v.Spec.ParentRefs, v.Spec.Hostnames = in.Spec.ParentRefs, in.Spec.Hostnames
		for _, r := range in.Spec.Rules {
			v.Spec.Rules = append(v.Spec.Rules, gatewayv1.HTTPRouteRule{Matches: r.Matches, Filters: ownFilters(r.Filters)})
		}
	default:
		return route{}, false
	}
	c := *o
	c.Value = v
	rt, ok := gatewayapi.Of(&c)
	return route{rt, o}, ok
}

// ownFilters are filters of Linkerd's HTTPRoute as those of the Gateway API, which has
// them all.
func ownFilters(in []api.HTTPRouteFilter) []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	for _, f := range in {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestRedirect: f.RequestRedirect})
	}
	return out
}

// ownBackends are backends of Linkerd's HTTPRoute as those of the Gateway API.
func ownBackends(in []api.HTTPBackendRef) []gatewayv1.HTTPBackendRef {
	var out []gatewayv1.HTTPBackendRef
	for _, b := range in {
		ref := gatewayv1.HTTPBackendRef{BackendRef: b.BackendRef}
		for _, f := range b.Filters {
			ref.Filters = append(ref.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
				ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, RequestRedirect: f.RequestRedirect,
				URLRewrite: f.URLRewrite, ExtensionRef: f.ExtensionRef})
		}
		out = append(out, ref)
	}
	return out
}

// Kinds of parents, as they are in the index.
const (
	parentService = "Service"
	parentServer  = "Server"
)

// parentIndex lists the parents of a route that are services or Servers.
func parentIndex(o *objects.Object) []string {
	rt, ok := routeOf(o)
	if !ok {
		return nil
	}
	var out []string
	for _, p := range rt.Parents {
		switch {
		case isKind(p.Group, p.Kind, objects.ServiceKind):
			out = append(out, parentKey(parentService, p.Namespace, p.Name))
		case isKind(p.Group, p.Kind, serverKind) && p.Local:
			out = append(out, parentKey(parentServer, p.Namespace, p.Name))
		}
	}
	return out
}

func parentKey(kind, namespace, name string) string { return kind + "/" + namespace + "/" + name }

// attached lists the routes of some kinds whose parent is the one named, the oldest
// first. Those without a valid version are among them.
func attached(r translators.Reader, kinds []objects.Kind, parent string) []route {
	var all []*objects.Object
	for _, k := range kinds {
		all = append(all, r.Select(k, byParent, parent)...)
	}
	slices.SortStableFunc(all, older)
	var out []route
	for _, o := range all {
		if rt, ok := routeOf(o); ok {
			out = append(out, rt)
		}
	}
	return out
}

// older orders by creation, and what is of one time by name. Objects that do not say when
// they were made are in the order of their files.
func older(a, b *objects.Object) int {
	if !a.Created.IsZero() && a.Created.Equal(b.Created) {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind.Group, b.Kind.Group))
	}
	return objects.CompareCreated(a, b)
}

// oldest lists a namespace's objects of a kind, the oldest first.
func oldest(r translators.Reader, k objects.Kind, namespace string) []*objects.Object {
	return slices.SortedStableFunc(slices.Values(r.List(k, namespace)), older)
}

// at reports whether a route is attached to a port of the service that it names as
// parent: to all ports, if it gives none.
func (rt route) at(namespace, service string, port uint16) bool {
	return slices.ContainsFunc(rt.Parents, func(p gatewayapi.Parent) bool {
		return isKind(p.Group, p.Kind, objects.ServiceKind) && p.Namespace == namespace && p.Name == service && (p.Port == 0 || p.Port == int32(port))
	})
}

// hostnames are those of a route, any if there are none: "" then.
func (rt route) hostnames() []string {
	var out []string
	for _, h := range rt.Hostnames {
		out = append(out, strings.ToLower(h))
	}
	if len(out) == 0 {
		return []string{""}
	}
	return out
}
