// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// waypointReach is where what is sent to a service may arrive. A waypoint judges a request
// before it is routed, here it is judged where it arrives.
type waypointReach struct {
	service *objects.Object
	// pods are those of the service, and of services that its routes lead to elsewhere, by
	// the key of the service.
	pods map[string]model.Target
	// rewritten: a route changes requests, so that they do not arrive as they are judged.
	rewritten bool
	// outside is a destination that has no pods to judge at, "" if there is none.
	outside string
	// answers: a route answers requests by itself, and they arrive nowhere.
	answers bool
}

func (t *Translator) waypointReach(r translators.Reader, svc *objects.Object) *waypointReach {
	out := &waypointReach{service: svc, pods: map[string]model.Target{}}
	if svc.Kind != objects.ServiceKind || selectorOfService(svc) == nil {
		out.outside = svc.Kind.Kind + " " + svc.Key()
		return out
	}
	out.add(svc)
	for _, c := range t.candidates(r, t.serviceName(svc.Namespace, svc.Name)) {
		t.addVirtualService(r, out, c.o)
	}
	for _, kind := range []objects.Kind{gatewayapi.HTTPRouteKind, gatewayapi.GRPCRouteKind} {
		for _, o := range r.Select(kind, byParentService, svc.Key()) {
			out.addGatewayRoute(r, o)
		}
	}
	return out
}

// add takes in the pods of a service, unless they are there as a part of others.
func (w *waypointReach) add(svc *objects.Object) {
	selector := selectorOfService(svc)
	if selector == nil {
		w.outside = svc.Kind.Kind + " " + svc.Key()
		return
	}
	for _, p := range w.pods {
		if p.Namespace == svc.Namespace && carries(selector, p.Labels) {
			return
		}
	}
	w.pods[svc.Key()] = model.Target{Namespace: svc.Namespace, Labels: selector}
}

func (t *Translator) addVirtualService(r translators.Reader, w *waypointReach, o *objects.Object) {
	spec := virtualServiceSpec(o)
	add := func(d *networking.Destination) {
		if d == nil {
			return
		}
		host := t.fullName(d.GetHost(), o.Namespace)
		namespace, name, ok := t.serviceOf(host)
		if svc := r.Get(objects.ServiceKind, namespace, name); ok && svc != nil {
			w.add(svc)
		} else if len(t.declarations(r, host)) > 0 {
			w.outside = host
		}
	}
	weighted := func(list []*networking.RouteDestination) {
		for _, d := range list {
			add(d.GetDestination())
		}
	}
	for _, h := range spec.GetHttp() {
		if d := h.GetDelegate(); d != nil {
			if to := r.Get(virtualServiceKind, orDefaultNamespace(d.GetNamespace(), o.Namespace), d.GetName()); to != nil && to != o && len(virtualServiceSpec(to).GetHosts()) == 0 {
				t.addVirtualService(r, w, to)
			}
		}
		w.rewritten = w.rewritten || h.GetRewrite() != nil || h.GetHeaders().GetRequest() != nil
		w.answers = w.answers || h.GetRedirect() != nil || h.GetDirectResponse() != nil
		for _, d := range h.GetRoute() {
			w.rewritten = w.rewritten || d.GetHeaders().GetRequest() != nil
			add(d.GetDestination())
		}
		add(h.GetMirror())
		for _, m := range h.GetMirrors() {
			add(m.GetDestination())
		}
	}
	for _, l := range spec.GetTls() {
		weighted(l.GetRoute())
	}
	for _, l := range spec.GetTcp() {
		weighted(l.GetRoute())
	}
}

func orDefaultNamespace(said, own string) string {
	if said == "" {
		return own
	}
	return said
}

func (w *waypointReach) addGatewayRoute(r translators.Reader, o *objects.Object) {
	route, ok := gatewayapi.Of(o)
	if !ok {
		w.rewritten = true // nobody knows what it does
		return
	}
	add := func(ref gatewayv1.BackendObjectReference) {
		namespace := o.Namespace
		if ref.Namespace != nil {
			namespace = string(*ref.Namespace)
		}
		if svc := r.Get(objects.ServiceKind, namespace, string(ref.Name)); svc != nil {
			w.add(svc)
		}
	}
	filters := func(list []gatewayv1.HTTPRouteFilter) {
		for _, f := range list {
			w.rewritten = w.rewritten || f.URLRewrite != nil || f.RequestHeaderModifier != nil
			w.answers = w.answers || f.RequestRedirect != nil
			if f.RequestMirror != nil {
				add(f.RequestMirror.BackendRef)
			}
		}
	}
	for _, rule := range route.Rules {
		filters(rule.Filters)
		for _, b := range rule.Backends {
			filters(b.Filters)
			add(b.BackendObjectReference)
		}
	}
}

// shares reports whether there is a pod that carries both sets of labels.
func sharesPod(r translators.Reader, namespace string, a, b map[string]string) bool {
	if !canShare(a, b) {
		return false
	}
	return slices.ContainsFunc(r.List(objects.PodKind, namespace), func(pod *objects.Object) bool {
		return carries(pod.Labels, a) && carries(pod.Labels, b)
	})
}
