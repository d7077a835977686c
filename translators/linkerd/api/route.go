// SPDX-License-Identifier: Apache-2.0

package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// HTTPRoute is policy.linkerd.io/v1beta3. Its parts are the Gateway API's.
type HTTPRoute struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		ParentRefs []gatewayv1.ParentReference `json:"parentRefs,omitempty"`
		Hostnames  []gatewayv1.Hostname        `json:"hostnames,omitempty"`
		Rules      []HTTPRouteRule             `json:"rules,omitempty"`
	} `json:"spec"`
}

// HTTPRouteRule is a rule of an HTTPRoute.
type HTTPRouteRule struct {
	Matches     []gatewayv1.HTTPRouteMatch   `json:"matches,omitempty"`
	Filters     []HTTPRouteFilter            `json:"filters,omitempty"`
	BackendRefs []HTTPBackendRef             `json:"backendRefs,omitempty"`
	Timeouts    *gatewayv1.HTTPRouteTimeouts `json:"timeouts,omitempty"`
}

// HTTPRouteFilter is what a rule does to requests and answers.
type HTTPRouteFilter struct {
	Type                   string                               `json:"type"`
	RequestHeaderModifier  *gatewayv1.HTTPHeaderFilter          `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *gatewayv1.HTTPHeaderFilter          `json:"responseHeaderModifier,omitempty"`
	RequestRedirect        *gatewayv1.HTTPRequestRedirectFilter `json:"requestRedirect,omitempty"`
}

// HTTPBackendRef is a backend of a rule.
type HTTPBackendRef struct {
	gatewayv1.BackendRef `json:",inline"`

	Filters []HTTPBackendFilter `json:"filters,omitempty"`
}

// HTTPBackendFilter is what is done to a backend's share: more may be written than
// Linkerd does.
type HTTPBackendFilter struct {
	Type                   string                               `json:"type"`
	RequestHeaderModifier  *gatewayv1.HTTPHeaderFilter          `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *gatewayv1.HTTPHeaderFilter          `json:"responseHeaderModifier,omitempty"`
	RequestMirror          *gatewayv1.HTTPRequestMirrorFilter   `json:"requestMirror,omitempty"`
	RequestRedirect        *gatewayv1.HTTPRequestRedirectFilter `json:"requestRedirect,omitempty"`
	URLRewrite             *gatewayv1.HTTPURLRewriteFilter      `json:"urlRewrite,omitempty"`
	ExtensionRef           *gatewayv1.LocalObjectReference      `json:"extensionRef,omitempty"`
}

// HTTPRouteBeta2 is v1beta2: without timeouts.
type HTTPRouteBeta2 struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		ParentRefs []gatewayv1.ParentReference `json:"parentRefs,omitempty"`
		Hostnames  []gatewayv1.Hostname        `json:"hostnames,omitempty"`
		Rules      []struct {
			Matches     []gatewayv1.HTTPRouteMatch `json:"matches,omitempty"`
			Filters     []HTTPRouteFilter          `json:"filters,omitempty"`
			BackendRefs []HTTPBackendRef           `json:"backendRefs,omitempty"`
		} `json:"rules,omitempty"`
	} `json:"spec"`
}

// HTTPRouteBeta1 is v1alpha1 and v1beta1: without backends.
type HTTPRouteBeta1 struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		ParentRefs []gatewayv1.ParentReference `json:"parentRefs,omitempty"`
		Hostnames  []gatewayv1.Hostname        `json:"hostnames,omitempty"`
		Rules      []struct {
			Matches []gatewayv1.HTTPRouteMatch `json:"matches,omitempty"`
			Filters []HTTPRouteFilter          `json:"filters,omitempty"`
		} `json:"rules,omitempty"`
	} `json:"spec"`
}
