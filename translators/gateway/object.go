// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// judgement is what is said about a kind that is not read.
type judgement struct {
	effect          model.Effect
	message, advice string
}

var refused = map[objects.Kind]judgement{
	gatewayapi.GatewayKind:      {model.Degrades, "traffic that enters by Gateways is not served", "keep the Gateway's own controller for it"},
	gatewayapi.GatewayClassKind: {model.Cosmetic, "traffic that enters by Gateways is not served", "keep the Gateway's own controller for it"},
	gatewayapi.ListenerSetKind:  {model.Degrades, "traffic that enters by Gateways is not served", "keep the Gateway's own controller for it"},
	gatewayapi.TCPRouteKind:     {model.Degrades, "TCPRoutes are not read: connections go to the services that clients dial", "split connections with an Istio VirtualService or an SMI TrafficSplit"},
	gatewayapi.TLSRouteKind:     {model.Degrades, "TLSRoutes are not read: connections go to the services that clients dial", "route connections by server name with an Istio VirtualService"},
	gatewayapi.UDPRouteKind:     {model.Degrades, "UDPRoutes are not read: packets go to the services that clients dial", "name the service itself as the destination"},
	gatewayapi.BackendTLSPolicyKind: {model.Degrades, "connections to backends are made as their clients make them: no TLS is begun for them",
		"let the application speak TLS"},
	gatewayapi.BackendTrafficPolicyKind: {model.Degrades, "the kind is on trial and is not read: retries have no budget, and sessions are not kept", "use rules[].retry and rules[].sessionPersistence of the route"},
	gatewayapi.ExperimentalBackendKind:  {model.Degrades, "the kind is on trial and is not read: routes that name it answer with a failure", "use a Service"},
	gatewayapi.ExperimentalMeshKind:     {model.Cosmetic, "the kind is on trial and is not read: it says nothing about traffic", ""},
}

// waypoint is the class of the Gateways, and the name of the class, by which Istio runs
// waypoints.
const waypoint = "istio-waypoint"

// judge says what becomes of an object of a kind that is not read.
func judge(o *objects.Object, rep *gatewayapi.Report) (whole bool) {
	what, ok := refused[o.Kind]
	if !ok {
		return false
	}
	switch v := o.Value.(type) {
	case *gatewayv1.Gateway:
		if v != nil && v.Spec.GatewayClassName == waypoint {
			rep.Say("spec.gatewayClassName", "waypoint", model.Degrades, model.Approximated,
				"no waypoint is run: requests go from the node's proxy straight to the pods, where the policies for the waypoint and for what is behind it are judged; routes whose parents are Services hold without it",
				"")
			return true
		}
	case *gatewayv1.GatewayClass:
		if o.Name == waypoint {
			rep.Say("metadata.name", "waypoint", model.Cosmetic, model.Translated, "no waypoint is run: what Gateways of this class say is told with them", "")
			return true
		}
	}
	rep.Say("kind", "unsupported-kind", what.effect, model.Refused, what.message, what.advice)
	return true
}

// object says what is to be said about a route whatever becomes of its services.
func (t *Translator) object(r translators.Reader, o *objects.Object) []model.Diagnostic {
	route, ok := gatewayapi.Of(o)
	if !ok {
		return nil
	}
	rep := &gatewayapi.Report{Plane: Plane, Object: o}
	if len(route.Parents) == 0 {
		rep.Say("spec.parentRefs", "no-parents", model.Cosmetic, model.Translated, "the route has no parents and is attached to nothing", "name a Service")
	}
	attached := false
	for _, p := range route.Parents {
		if p.IsService() {
			attached = attached || reads(r, p.Namespace)
			continue
		}
		if p.Kind == "Service" && p.Group == "core" && !reads(r, p.Namespace) {
			continue // which Linkerd takes for no group
		}
		parent(rep, p)
	}
	if scope := defaultGateways(o); scope != "" && scope != gatewayv1.GatewayDefaultScopeNone {
		rep.Refuse("spec.useDefaultGateways", "unsupported-parent", "traffic that enters by Gateways is not served, by default ones neither", "name Services as parents")
	}
	if attached && o.Invalid {
		rep.Refuse("spec", "invalid-object", "no valid version is known: requests that its matches take are answered with "+failure(o), "repair it")
	}
	if attached && len(route.Hostnames) > 0 {
		rep.Say("spec.hostnames", "hostnames-ignored", model.Cosmetic, model.Translated,
			"for services as parents host names mean nothing: the route applies whatever host a request names", "match the header Host")
	}
	return rep.Diagnostics
}

// failure is what an invalid route answers.
func failure(o *objects.Object) string {
	if o.Kind == gatewayapi.GRPCRouteKind {
		return "UNAVAILABLE"
	}
	return "500"
}

// parent refuses a parent that is no Service.
func parent(rep *gatewayapi.Report, p gatewayapi.Parent) {
	switch {
	case p.Kind == "Service" && (p.Group == gatewayapi.Group || p.Group == "core"):
		rep.Refuse(p.Field+".group", "unsupported-parent", "a Service is of the core group, whose name is empty: the route is not attached to it", `write group: ""`)
	case p.Group == gatewayapi.Group:
		rep.Refuse(p.Field, "unsupported-parent", fmt.Sprintf("traffic that enters by a %s is not served", p.Kind), "keep the Gateway's own controller for it, or name a Service as parent")
	case p.Group == "policy.linkerd.io" && (strings.EqualFold(p.Kind, "Server") || strings.EqualFold(p.Kind, "EgressNetwork")): // for Linkerd to read
	default:
		rep.Refuse(p.Field+".kind", "unsupported-parent", fmt.Sprintf("%s of group %q is no parent that is known: the route is not attached to it", p.Kind, p.Group), "name a Service")
	}
}

func defaultGateways(o *objects.Object) gatewayv1.GatewayDefaultScope {
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		return v.Spec.UseDefaultGateways
	case *gatewayv1.GRPCRoute:
		return v.Spec.UseDefaultGateways
	}
	return ""
}
