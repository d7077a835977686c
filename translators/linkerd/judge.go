// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"math"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// judge tells what becomes of an object's fields, apart from what makes it invalid.
func (t *Translator) judge(r translators.Reader, o *objects.Object) []model.Diagnostic {
	if o == nil {
		return nil
	}
	rep := &report{}
	switch {
	case o.Kind == egressNetworkKind:
		judgeEgress(r, o, rep)
	case o.Kind == externalWorkloadKind:
		rep.refused(o, "spec", "unsupported-kind", model.Degrades,
			"workloads outside the cluster are not known: nothing is sent to it, and it has no identity", "give it a Service without selector, and an EndpointSlice")
	case o.Kind == linkKind:
		rep.refused(o, "spec", "unsupported-kind", model.Degrades,
			"clusters are not tied together: services of the other cluster are not known", "")
	case o.Invalid:
		judgeInvalid(o, rep)
	case o.Kind == serverKind:
		t.judgeServer(o, rep)
	case o.Kind == serverAuthorizationKind:
		t.judgeServerAuthorization(r, o, rep)
	case o.Kind == authorizationPolicyKind:
		t.judgeAuthorizationPolicy(r, o, rep)
	case o.Kind == meshTLSKind:
		t.judgeMeshTLS(o, rep)
	case o.Kind == rateLimitKind:
		t.judgeRateLimit(r, o, rep)
	case o.Kind == serviceProfileKind:
		t.judgeProfile(r, o, rep)
	case slices.Contains(routeKinds, o.Kind):
		t.judgeRoute(r, o, rep)
	}
	return rep.sorted()
}

// judgeInvalid says what is done instead of an object that has no valid version.
func judgeInvalid(o *objects.Object, rep *report) {
	switch o.Kind {
	case serverKind:
		rep.refused(o, "spec", "invalid-object", model.Narrows, "no valid version is known: what it may select is closed", "repair it")
	case serverAuthorizationKind, authorizationPolicyKind, meshTLSKind, networkAuthenticationKind:
		rep.refused(o, "spec", "invalid-object", model.Narrows, "no valid version is known: nobody is let in by it", "repair it")
	case httpRouteKind:
		rep.refused(o, "spec", "invalid-object", model.Narrows, "no valid version is known: it counts as a route that matches nothing; a service that has no other answers 500", "repair it")
	case serviceProfileKind:
		rep.refused(o, "spec", "invalid-object", model.Degrades, "no valid version is known: it counts for nothing", "repair it")
	case rateLimitKind:
		rep.refused(o, "spec", "invalid-object", model.Degrades, "no valid version is known: nothing is limited by it", "repair it")
	}
}

func (t *Translator) judgeServerAuthorization(r reader, o *objects.Object, rep *report) {
	v, ok := o.Value.(*api.ServerAuthorization)
	if !ok {
		return
	}
	if name := v.Spec.Server.Name; name != "" && r.Get(serverKind, o.Namespace, name) == nil {
		rep.refused(o, "spec.server.name", "unknown-server", model.Narrows, fmt.Sprintf("there is no Server %s/%s: nobody is let in by this", o.Namespace, name), "")
	}
	m := v.Spec.Client.MeshTLS
	if m == nil || v.Spec.Client.Unauthenticated {
		if m != nil {
			rep.say(o, "spec.client.meshTLS", "no-effect", model.Cosmetic, model.Translated, "clients without an identity are let in, so this asks for nothing", "")
		}
		return
	}
	if m.UnauthenticatedTLS {
		rep.approximated(o, "spec.client.meshTLS.unauthenticatedTLS", "identity-by-address", model.Narrows,
			"there is no mutual TLS yet: members of the mesh are let in, and none that speaks TLS without an identity", "")
		return
	}
	t.judgeIdentities(o, "spec.client.meshTLS.identities", m.Identities, rep)
}

// judgeIdentities tells of names that nobody has, and of the one that everybody has.
func (t *Translator) judgeIdentities(o *objects.Object, field string, ids []string, rep *report) {
	for i, id := range ids {
		m, ok := t.identity(id)
		switch {
		case !ok:
			rep.refused(o, at(field, i), "unknown-identity", model.Narrows,
				fmt.Sprintf("%q is not the name of a service account of this mesh: nobody is known by it", id),
				"use ACCOUNT.NAMESPACE.serviceaccount.identity."+t.controlPlane+"."+t.trustDomain+", or refer to the ServiceAccount")
		case m == anybody:
			noteAnybody(o, at(field, i), rep)
		}
	}
}

func (t *Translator) judgeMeshTLS(o *objects.Object, rep *report) {
	if v, ok := o.Value.(*api.MeshTLSAuthentication); ok {
		t.judgeIdentities(o, "spec.identities", v.Spec.Identities, rep)
	}
}

func (t *Translator) judgeAuthorizationPolicy(r translators.Reader, o *objects.Object, rep *report) {
	v, ok := o.Value.(*api.AuthorizationPolicy)
	if !ok {
		return
	}
	t.policyGrant(r, o, v, rep)
	ref := v.Spec.TargetRef
	for _, k := range targets {
		if k != objects.NamespaceKind && isKind(ref.Group, ref.Kind, k) && r.Get(k, o.Namespace, ref.Name) == nil {
			rep.refused(o, "spec.targetRef.name", "unknown-target", model.Narrows,
				fmt.Sprintf("there is no %s %s/%s: nobody is let in by this policy", k.Kind, o.Namespace, ref.Name), "")
		}
	}
}

func (t *Translator) judgeProfile(r translators.Reader, o *objects.Object, rep *report) {
	v, ok := o.Value.(*api.ServiceProfile)
	if !ok {
		return
	}
	ns, name, ok := t.profiled(o.Name)
	if !ok {
		rep.refused(o, "metadata.name", "not-a-service", model.Degrades,
			fmt.Sprintf("%q is not the name of a service, NAME.NAMESPACE.svc.%s: it counts for nothing", o.Name, t.domain), "")
		return
	}
	if r.Service(ns, name) == nil {
		rep.refused(o, "metadata.name", "unknown-service", model.Degrades, fmt.Sprintf("there is no service %s/%s: it counts for nothing", ns, name), "")
		return
	}
	p, _ := t.profileOf(o)
	retried := false
	for i, rt := range v.Spec.Routes {
		field := at("spec.routes", i)
		if rt.IsRetryable {
			retried = true
			rep.approximated(o, field+".isRetryable", "retries-bounded", model.Degrades,
				fmt.Sprintf("a request is repeated at most %d times, where in Linkerd only the budget bounds it", profileRetries), "")
		}
		for j := range rt.ResponseClasses {
			if !rt.IsRetryable {
				rep.approximated(o, at(field+".responseClasses", j), "no-metrics-of-routes", model.Cosmetic, "classes of answers count for metrics of routes, which there are none of, and for retries, which the route does not have", "")
			}
		}
	}
	if b := v.Spec.RetryBudget; b != nil {
		switch {
		case p.budget() == nil:
			rep.refused(o, "spec.retryBudget", "budget-out-of-bounds", model.Degrades,
				fmt.Sprintf("Linkerd's proxies take ratios up to %d and times from %s to %s: without them nothing is retried", maxRetryRatio, minBudgetTTL, maxBudgetTTL), "")
		case retried:
			rep.approximated(o, "spec.retryBudget.minRetriesPerSecond", "budget-at-once", model.Degrades,
				"so many retries may be under way at once, whatever the ratio says, where in Linkerd so many may begin in a second", "")
			if b.RetryRatio > 1 {
				rep.approximated(o, "spec.retryBudget.retryRatio", "budget-ratio", model.Degrades, "a proxy takes ratios up to 1: it is taken for 1", "")
			}
		default:
			rep.say(o, "spec.retryBudget", "no-effect", model.Cosmetic, model.Translated, "no route is retried, so the budget bounds nothing", "")
		}
	}
	for i, d := range v.Spec.DstOverrides {
		field := at("spec.dstOverrides", i)
		b, known := t.override(d.Authority, 0)
		switch {
		case !known:
			rep.refused(o, field+".authority", "not-a-service", model.Degrades, fmt.Sprintf("%q is not the name of a service: its share of the requests is answered with 503", d.Authority), "")
		case r.Service(b.Namespace, b.Service) == nil:
			rep.refused(o, field+".authority", "unknown-backend", model.Degrades, fmt.Sprintf("there is no service %s/%s: its share of the requests is answered with 503", b.Namespace, b.Service), "")
		case d.Weight.MilliValue()/1000 > math.MaxUint32:
			rep.approximated(o, field+".weight", "large-weight", model.Degrades, fmt.Sprintf("the weight is taken for %d", uint32(math.MaxUint32)), "")
		}
	}
}

func (t *Translator) judgeRoute(r translators.Reader, o *objects.Object, rep *report) {
	rt, ok := routeOf(o)
	if !ok {
		return
	}
	towards, at := t.judgeParents(r, rt, rep)
	if at {
		t.judgeSide(r, rt, inbound, rep)
	}
	if at && !towards {
		judgeUnled(rt, rep)
	}
	if towards {
		t.judgeSide(r, rt, outbound, rep)
		readRetries(o, rep)
		readTimeouts(o, rep)
		noteRetries(o, rep)
		judgeRules(r, rt, rep)
	}
}

// judgeUnled tells of what means nothing in a route to Servers alone: its requests have
// arrived.
func judgeUnled(rt route, rep *report) {
	for _, rule := range rt.Rules {
		for name, set := range map[string]bool{"backendRefs": len(rule.Backends) > 0, "timeouts": rule.Timeouts != nil, "retry": rule.Retry != nil, "sessionPersistence": rule.Session != nil} {
			if set {
				rep.say(rt.o, rule.Field+"."+name, "no-effect", model.Cosmetic, model.Translated,
					"requests that a Server takes are where they were sent: Linkerd does not read it in a route to Servers; nor is it read here", "write a route to the Service")
			}
		}
	}
}

// judgeParents tells of parents that are not there, and reports whether the route is
// attached to services, and to Servers, as Linkerd has it.
func (t *Translator) judgeParents(r translators.Reader, rt route, rep *report) (services, servers bool) {
	for _, p := range rt.Parents {
		switch {
		case isKind(p.Group, p.Kind, serverKind):
			servers = t.judgeServerParent(r, rt, p, rep) || servers
		case isKind(p.Group, p.Kind, egressNetworkKind):
			rep.refused(rt.o, p.Field+".kind", "unsupported-parent", model.Degrades, "what leaves the cluster is not routed: the route has no effect there", "")
		case isKind(p.Group, p.Kind, objects.ServiceKind):
			if !rt.own() && !ours(r.Namespace(p.Namespace)) {
				continue // it is somebody else's to read
			}
			svc := r.Service(p.Namespace, p.Name)
			switch {
			case svc == nil:
				rep.refused(rt.o, p.Field+".name", "unknown-service", model.Degrades, fmt.Sprintf("there is no service %s/%s: the route has no effect there", p.Namespace, p.Name), "")
			case len(svc.VIPs) == 0:
				rep.say(rt.o, p.Field+".name", "headless-service", model.Degrades, model.Translated, fmt.Sprintf("service %s has no address of its own: as in Linkerd, the route has no effect there", svc.Key()), "give the service an address")
			case p.Port != 0 && svc.Port(uint16(p.Port)) == nil:
				rep.refused(rt.o, p.Field+".port", "unknown-port", model.Degrades, fmt.Sprintf("service %s has no port %d: the route has no effect there", svc.Key(), p.Port), "")
			default:
				services = true
			}
			if p.Section != "" {
				rep.say(rt.o, p.Field+".sectionName", "no-effect", model.Cosmetic, model.Translated, "Linkerd knows ports by their numbers, and does not read the name; nor is it read here", "give the port's number as port")
			}
		case rt.own():
			rep.refused(rt.o, p.Field+".kind", "unsupported-parent", model.Degrades, fmt.Sprintf("%s is not a parent that Linkerd knows: the route has no effect there", kindText(p.Group, p.Kind)), "use a Service or a Server")
		}
	}
	return services, servers
}

func (t *Translator) judgeServerParent(r translators.Reader, rt route, p gatewayapi.Parent, rep *report) bool {
	if !p.Local {
		rep.refused(rt.o, p.Field+".namespace", "foreign-server", model.Narrows, "a route is attached to Servers of its own namespace alone: it has no effect there", "")
		return false
	}
	o := r.Get(serverKind, p.Namespace, p.Name)
	if o == nil {
		rep.refused(rt.o, p.Field+".name", "unknown-server", model.Narrows, fmt.Sprintf("there is no Server %s/%s: the route has no effect there", p.Namespace, p.Name), "")
		return false
	}
	s := serverOf(o)
	switch grpc := s.protocol == protocolGRPC; {
	case !s.requests():
		rep.say(rt.o, p.Field, "no-requests", model.Narrows, model.Translated, fmt.Sprintf("Server %s is opaque: there are no requests, and the route has no effect", o.Key()), "")
	case grpc != rt.grpc():
		rep.say(rt.o, p.Field, "other-protocol", model.Narrows, model.Translated,
			fmt.Sprintf("Server %s speaks %s: a route of another kind has no effect there, as in Linkerd", o.Key(), s.protocol), "")
	default:
		return true
	}
	return false
}

// judgeSide tells of a route that Linkerd does not take.
func (t *Translator) judgeSide(r translators.Reader, rt route, side direction, rep *report) {
	f := filtering{r, rt, 0, side}
	field := unusable(f)
	if field == "" || strings.HasPrefix(field, "metadata.annotations") {
		return
	}
	rep.say(rt.o, field, "unsupported-filter", model.Degrades, model.Translated, "Linkerd does not do this, and takes no part of a route that asks for it: the route has no effect, as there", "")
}

// judgeRules tells what becomes of the rules of a route to services.
func judgeRules(r translators.Reader, rt route, rep *report) {
	for _, rule := range rt.Rules {
		f := filtering{r, rt, 0, outbound}
		f.ofRule(rule, rep)
		judgeAnswers(rt, rule.Field, rule.Filters, rt.own(), rep)
		for _, ref := range rule.Backends {
			judgeAnswers(rt, ref.Field, ref.Filters, false, rep)
			if !wrong(r, rt, ref, f.do(ref.Field, ref.Filters, rep), rep) {
				judgePort(r, rt, ref, rep)
			}
		}
		if rule.Timeouts != nil && rule.Timeouts.BackendRequest != nil {
			rep.say(rt.o, rule.Field+".timeouts.backendRequest", "no-effect", model.Cosmetic, model.Translated, "Linkerd does not use it; nor is it used here", "use the annotation "+retryTimeoutKey)
		}
		if rule.Retry != nil {
			rep.say(rt.o, rule.Field+".retry", "no-effect", model.Cosmetic, model.Translated, "Linkerd does not read it; nor is it read here", "use the annotation "+retryHTTPKey)
		}
		if rule.Session != nil {
			rep.say(rt.o, rule.Field+".sessionPersistence", "no-effect", model.Cosmetic, model.Translated, "Linkerd does not read it; nor is it read here", "")
		}
	}
}

// judgePort tells of a backend whose service does not have the port.
func judgePort(r translators.Reader, rt route, ref gatewayapi.BackendRef, rep *report) {
	ns := rt.o.Namespace
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	if svc := r.Service(ns, string(ref.Name)); svc != nil && svc.Port(uint16(*ref.Port)) == nil {
		rep.refused(rt.o, ref.Field+".port", "unknown-port", model.Degrades,
			fmt.Sprintf("service %s has no port %d: its share of the requests is answered with 503", svc.Key(), *ref.Port), "")
	}
}

// judgeAnswers tells what becomes of filters on answers' headers; asRequest says that they
// are taken for ones on requests' headers.
func judgeAnswers(rt route, field string, in []gatewayv1.HTTPRouteFilter, asRequest bool, rep *report) {
	for i, x := range in {
		name := at(field+".filters", i)
		switch {
		case x.ResponseHeaderModifier == nil:
		case asRequest:
			rep.say(rt.o, name, "response-as-request", model.Cosmetic, model.Translated, "Linkerd changes these headers in requests, not in answers; so does this", "use an HTTPRoute of the Gateway API")
		case rt.grpc():
			rep.say(rt.o, name, "no-effect", model.Cosmetic, model.Translated, "Linkerd does not change headers of answers of gRPC; nor does this", "")
		}
	}
}

// reader is what most of what is judged needs.
type reader = translators.Reader
