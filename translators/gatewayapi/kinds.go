// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"fairlead.io/fairlead/translators/objects"
)

// Group is the API group of the routes; ExperimentalGroup that of kinds on trial.
const (
	Group             = gatewayv1.GroupName
	ExperimentalGroup = gatewayx.GroupName
)

// Kinds that planes read.
var (
	HTTPRouteKind      = objects.Kind{Group: Group, Kind: "HTTPRoute"}
	GRPCRouteKind      = objects.Kind{Group: Group, Kind: "GRPCRoute"}
	ReferenceGrantKind = objects.Kind{Group: Group, Kind: "ReferenceGrant"}
)

// Kinds that nobody reads; they are known so that each can be refused with its fields.
var (
	GatewayKind              = objects.Kind{Group: Group, Kind: "Gateway"}
	GatewayClassKind         = objects.Kind{Group: Group, Kind: "GatewayClass"}
	ListenerSetKind          = objects.Kind{Group: Group, Kind: "ListenerSet"}
	TCPRouteKind             = objects.Kind{Group: Group, Kind: "TCPRoute"}
	TLSRouteKind             = objects.Kind{Group: Group, Kind: "TLSRoute"}
	UDPRouteKind             = objects.Kind{Group: Group, Kind: "UDPRoute"}
	BackendTLSPolicyKind     = objects.Kind{Group: Group, Kind: "BackendTLSPolicy"}
	BackendTrafficPolicyKind = objects.Kind{Group: ExperimentalGroup, Kind: "XBackendTrafficPolicy"}
	ExperimentalBackendKind  = objects.Kind{Group: ExperimentalGroup, Kind: "XBackend"}
	ExperimentalMeshKind     = objects.Kind{Group: ExperimentalGroup, Kind: "XMesh"}
)

// RouteTypes are the routes and the grants, in every version that has been served. The
// versions of a kind have one and the same specification, so one Go type serves all.
func RouteTypes() []objects.Type {
	return versions(
		typ{HTTPRouteKind, func() any { return new(gatewayv1.HTTPRoute) }, []string{"v1", "v1beta1"}},
		typ{GRPCRouteKind, func() any { return new(gatewayv1.GRPCRoute) }, []string{"v1", "v1alpha2"}},
		typ{ReferenceGrantKind, func() any { return new(gatewayv1.ReferenceGrant) }, []string{"v1", "v1beta1"}},
	)
}

// OtherTypes are the kinds that are refused as a whole.
func OtherTypes() []objects.Type {
	out := versions(
		typ{GatewayKind, func() any { return new(gatewayv1.Gateway) }, []string{"v1", "v1beta1"}},
		typ{GatewayClassKind, func() any { return new(gatewayv1.GatewayClass) }, []string{"v1", "v1beta1"}},
		typ{ListenerSetKind, func() any { return new(gatewayv1.ListenerSet) }, []string{"v1"}},
		typ{TCPRouteKind, func() any { return new(gatewayv1.TCPRoute) }, []string{"v1", "v1alpha2"}},
		typ{TLSRouteKind, func() any { return new(gatewayv1.TLSRoute) }, []string{"v1", "v1alpha2", "v1alpha3"}},
		typ{UDPRouteKind, func() any { return new(gatewayv1.UDPRoute) }, []string{"v1", "v1alpha2"}},
		typ{BackendTLSPolicyKind, func() any { return new(gatewayv1.BackendTLSPolicy) }, []string{"v1", "v1alpha3"}},
		typ{BackendTrafficPolicyKind, func() any { return new(gatewayx.XBackendTrafficPolicy) }, []string{"v1alpha1"}},
		typ{ExperimentalBackendKind, func() any { return new(gatewayx.XBackend) }, []string{"v1alpha1"}},
		typ{ExperimentalMeshKind, func() any { return new(gatewayx.XMesh) }, []string{"v1alpha1"}},
	)
	for i := range out {
		out[i].Namespaced = out[i].Kind != GatewayClassKind && out[i].Kind != ExperimentalMeshKind
		out[i].Lenient = true // nothing in them is used
	}
	return out
}

// typ is a kind with its versions.
type typ struct {
	kind     objects.Kind
	value    func() any
	versions []string
}

func versions(in ...typ) []objects.Type {
	var out []objects.Type
	for _, t := range in {
		for _, v := range t.versions {
			out = append(out, objects.Type{Kind: t.kind, Version: v, New: t.value, Namespaced: true})
		}
	}
	return out
}
