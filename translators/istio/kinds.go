// SPDX-License-Identifier: Apache-2.0

package istio

import (
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	clientextensions "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	clientnetworking "istio.io/client-go/pkg/apis/networking/v1"
	clientnetworkingalpha "istio.io/client-go/pkg/apis/networking/v1alpha3"
	clientnetworkingbeta "istio.io/client-go/pkg/apis/networking/v1beta1"
	clientsecurity "istio.io/client-go/pkg/apis/security/v1"
	clienttelemetry "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

const (
	networkingGroup = "networking.istio.io"
	securityGroup   = "security.istio.io"
	telemetryGroup  = "telemetry.istio.io"
	extensionsGroup = "extensions.istio.io"
)

var (
	virtualServiceKind        = objects.Kind{Group: networkingGroup, Kind: "VirtualService"}
	destinationRuleKind       = objects.Kind{Group: networkingGroup, Kind: "DestinationRule"}
	gatewayKind               = objects.Kind{Group: networkingGroup, Kind: "Gateway"}
	serviceEntryKind          = objects.Kind{Group: networkingGroup, Kind: "ServiceEntry"}
	sidecarKind               = objects.Kind{Group: networkingGroup, Kind: "Sidecar"}
	workloadEntryKind         = objects.Kind{Group: networkingGroup, Kind: "WorkloadEntry"}
	workloadGroupKind         = objects.Kind{Group: networkingGroup, Kind: "WorkloadGroup"}
	envoyFilterKind           = objects.Kind{Group: networkingGroup, Kind: "EnvoyFilter"}
	proxyConfigKind           = objects.Kind{Group: networkingGroup, Kind: "ProxyConfig"}
	authorizationPolicyKind   = objects.Kind{Group: securityGroup, Kind: "AuthorizationPolicy"}
	peerAuthenticationKind    = objects.Kind{Group: securityGroup, Kind: "PeerAuthentication"}
	requestAuthenticationKind = objects.Kind{Group: securityGroup, Kind: "RequestAuthentication"}
	telemetryKind             = objects.Kind{Group: telemetryGroup, Kind: "Telemetry"}
	wasmPluginKind            = objects.Kind{Group: extensionsGroup, Kind: "WasmPlugin"}
	trafficExtensionKind      = objects.Kind{Group: extensionsGroup, Kind: "TrafficExtension"}

	configMapKind = objects.Kind{Kind: "ConfigMap"} // MeshConfig is in one
)

// Types implements translators.Translator. The versions of a kind have one and the
// same specification, so one Go type serves them all.
func (t *Translator) Types() []objects.Type {
	var out []objects.Type
	add := func(k objects.Kind, value func() any, versions ...string) {
		for _, v := range versions {
			out = append(out, objects.Type{Kind: k, Version: v, New: value, Namespaced: true})
		}
	}
	add(virtualServiceKind, func() any { return new(clientnetworking.VirtualService) }, "v1", "v1beta1", "v1alpha3")
	add(destinationRuleKind, func() any { return new(clientnetworking.DestinationRule) }, "v1", "v1beta1", "v1alpha3")
	add(gatewayKind, func() any { return new(clientnetworking.Gateway) }, "v1", "v1beta1", "v1alpha3")
	add(serviceEntryKind, func() any { return new(clientnetworking.ServiceEntry) }, "v1", "v1beta1", "v1alpha3")
	add(sidecarKind, func() any { return new(clientnetworking.Sidecar) }, "v1", "v1beta1", "v1alpha3")
	add(workloadEntryKind, func() any { return new(clientnetworking.WorkloadEntry) }, "v1", "v1beta1", "v1alpha3")
	add(workloadGroupKind, func() any { return new(clientnetworking.WorkloadGroup) }, "v1", "v1beta1", "v1alpha3")
	add(envoyFilterKind, func() any { return new(clientnetworkingalpha.EnvoyFilter) }, "v1alpha3")
	add(proxyConfigKind, func() any { return new(clientnetworkingbeta.ProxyConfig) }, "v1beta1")
	add(authorizationPolicyKind, func() any { return new(clientsecurity.AuthorizationPolicy) }, "v1", "v1beta1")
	add(peerAuthenticationKind, func() any { return new(clientsecurity.PeerAuthentication) }, "v1", "v1beta1")
	add(requestAuthenticationKind, func() any { return new(clientsecurity.RequestAuthentication) }, "v1", "v1beta1")
	add(telemetryKind, func() any { return new(clienttelemetry.Telemetry) }, "v1", "v1alpha1")
	add(wasmPluginKind, func() any { return new(clientextensions.WasmPlugin) }, "v1alpha1")
	add(trafficExtensionKind, func() any { return new(clientextensions.TrafficExtension) }, "v1alpha1")
	for _, typ := range gatewayapi.RouteTypes() { // read for where they lead, behind waypoints
		if typ.Kind != gatewayapi.ReferenceGrantKind {
			out = append(out, typ)
		}
	}
	for _, typ := range gatewayapi.OtherTypes() { // read for what waypoints are for
		if typ.Kind == gatewayapi.GatewayKind {
			out = append(out, typ)
		}
	}
	// As other readers of ConfigMaps name it; see objects.NewRegistry.
	return append(out, objects.Type{Kind: configMapKind, Version: "v1", New: func() any { return new(corev1.ConfigMap) }, Namespaced: true, Lenient: true,
		Only: objects.Only{Namespace: t.root, Name: meshConfigName}})
}

// The getters give nil for an object that could not be decoded; the generated
// getters of a nil message give zero values.

func virtualServiceSpec(o *objects.Object) *networking.VirtualService {
	if v, ok := o.Value.(*clientnetworking.VirtualService); ok && v != nil {
		return &v.Spec
	}
	return nil
}

func destinationRuleSpec(o *objects.Object) *networking.DestinationRule {
	if v, ok := o.Value.(*clientnetworking.DestinationRule); ok && v != nil {
		return &v.Spec
	}
	return nil
}

func authorizationPolicySpec(o *objects.Object) *security.AuthorizationPolicy {
	if v, ok := o.Value.(*clientsecurity.AuthorizationPolicy); ok && v != nil {
		return &v.Spec
	}
	return nil
}

func serviceEntrySpec(o *objects.Object) *networking.ServiceEntry {
	if v, ok := o.Value.(*clientnetworking.ServiceEntry); ok && v != nil {
		return &v.Spec
	}
	return nil
}

// serviceEntryAddresses are those that Istio has allocated for hosts.
func serviceEntryAddresses(o *objects.Object) []*networking.ServiceEntryAddress {
	if v, ok := o.Value.(*clientnetworking.ServiceEntry); ok && v != nil {
		return v.Status.GetAddresses()
	}
	return nil
}

func workloadEntrySpec(o *objects.Object) *networking.WorkloadEntry {
	if v, ok := o.Value.(*clientnetworking.WorkloadEntry); ok && v != nil {
		return &v.Spec
	}
	return nil
}

func sidecarSpec(o *objects.Object) *networking.Sidecar {
	if v, ok := o.Value.(*clientnetworking.Sidecar); ok && v != nil {
		return &v.Spec
	}
	return nil
}
