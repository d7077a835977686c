// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// Groups of Linkerd's kinds.
const (
	policyGroup       = "policy.linkerd.io"
	profileGroup      = "linkerd.io"
	workloadGroup     = "workload.linkerd.io"
	multiclusterGroup = "multicluster.linkerd.io"
)

// Kinds that are read.
var (
	serverKind                = objects.Kind{Group: policyGroup, Kind: "Server"}
	serverAuthorizationKind   = objects.Kind{Group: policyGroup, Kind: "ServerAuthorization"}
	authorizationPolicyKind   = objects.Kind{Group: policyGroup, Kind: "AuthorizationPolicy"}
	meshTLSKind               = objects.Kind{Group: policyGroup, Kind: "MeshTLSAuthentication"}
	networkAuthenticationKind = objects.Kind{Group: policyGroup, Kind: "NetworkAuthentication"}
	rateLimitKind             = objects.Kind{Group: policyGroup, Kind: "HTTPLocalRateLimitPolicy"}
	httpRouteKind             = objects.Kind{Group: policyGroup, Kind: "HTTPRoute"}
	serviceProfileKind        = objects.Kind{Group: profileGroup, Kind: "ServiceProfile"}
)

// Kinds that are refused as a whole.
var (
	egressNetworkKind    = objects.Kind{Group: policyGroup, Kind: "EgressNetwork"}
	externalWorkloadKind = objects.Kind{Group: workloadGroup, Kind: "ExternalWorkload"}
	linkKind             = objects.Kind{Group: multiclusterGroup, Kind: "Link"}
)

// routeKinds are those of routes.
var routeKinds = []objects.Kind{httpRouteKind, gatewayapi.HTTPRouteKind, gatewayapi.GRPCRouteKind}

// judgedKinds have diagnostics of their own beside what becomes of pods and services.
var judgedKinds = slices.Concat([]objects.Kind{serverKind, serverAuthorizationKind, authorizationPolicyKind, meshTLSKind,
	networkAuthenticationKind, rateLimitKind, serviceProfileKind, egressNetworkKind, externalWorkloadKind, linkKind}, routeKinds)

// Types implements translators.Translator. Namespaces are read for their annotations.
func (t *Translator) Types() []objects.Type {
	typ := func(k objects.Kind, make func() any, versions ...string) []objects.Type {
		var out []objects.Type
		for _, v := range versions {
			out = append(out, objects.Type{Kind: k, Version: v, New: make, Namespaced: true})
		}
		return out
	}
	return slices.Concat(
		typ(serverKind, func() any { return new(api.ServerBeta1) }, "v1alpha1", "v1beta1"),
		typ(serverKind, func() any { return new(api.ServerBeta2) }, "v1beta2"),
		typ(serverKind, func() any { return new(api.Server) }, "v1beta3"),
		typ(serverAuthorizationKind, func() any { return new(api.ServerAuthorization) }, "v1alpha1", "v1beta1"),
		typ(authorizationPolicyKind, func() any { return new(api.AuthorizationPolicy) }, "v1alpha1"),
		typ(meshTLSKind, func() any { return new(api.MeshTLSAuthentication) }, "v1alpha1"),
		typ(networkAuthenticationKind, func() any { return new(api.NetworkAuthentication) }, "v1alpha1"),
		typ(rateLimitKind, func() any { return new(api.HTTPLocalRateLimitPolicy) }, "v1alpha1"),
		typ(httpRouteKind, func() any { return new(api.HTTPRouteBeta1) }, "v1alpha1", "v1beta1"),
		typ(httpRouteKind, func() any { return new(api.HTTPRouteBeta2) }, "v1beta2"),
		typ(httpRouteKind, func() any { return new(api.HTTPRoute) }, "v1beta3"),
		typ(serviceProfileKind, func() any { return new(api.ServiceProfile) }, "v1alpha1", "v1alpha2"),
		typ(egressNetworkKind, func() any { return new(api.EgressNetwork) }, "v1alpha1"),
		typ(externalWorkloadKind, func() any { return new(api.ExternalWorkloadAlpha1) }, "v1alpha1"),
		typ(externalWorkloadKind, func() any { return new(api.ExternalWorkload) }, "v1beta1"),
		typ(linkKind, func() any { return new(api.Link) }, "v1alpha1", "v1alpha2", "v1alpha3"),
		gatewayapi.RouteTypes(),
		[]objects.Type{{Kind: objects.NamespaceKind, Version: "v1", New: func() any { return new(corev1.Namespace) }, Lenient: true}},
	)
}
