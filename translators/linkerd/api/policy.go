// SPDX-License-Identifier: Apache-2.0

package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Server is v1beta3.
type Server struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ServerSpec `json:"spec"`
}

// ServerSpec chooses a port of pods.
type ServerSpec struct {
	PodSelector              *metav1.LabelSelector `json:"podSelector,omitempty"`
	ExternalWorkloadSelector *metav1.LabelSelector `json:"externalWorkloadSelector,omitempty"`
	Port                     intstr.IntOrString    `json:"port"`
	ProxyProtocol            string                `json:"proxyProtocol,omitempty"`
	AccessPolicy             string                `json:"accessPolicy,omitempty"`
}

// ServerBeta2 is v1beta2: without accessPolicy.
type ServerBeta2 struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		PodSelector              *metav1.LabelSelector `json:"podSelector,omitempty"`
		ExternalWorkloadSelector *metav1.LabelSelector `json:"externalWorkloadSelector,omitempty"`
		Port                     intstr.IntOrString    `json:"port"`
		ProxyProtocol            string                `json:"proxyProtocol,omitempty"`
	} `json:"spec"`
}

// ServerBeta1 is v1alpha1 and v1beta1: for pods alone.
type ServerBeta1 struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		PodSelector   *metav1.LabelSelector `json:"podSelector,omitempty"`
		Port          intstr.IntOrString    `json:"port"`
		ProxyProtocol string                `json:"proxyProtocol,omitempty"`
	} `json:"spec"`
}

// ServerAuthorization is v1alpha1 and v1beta1.
type ServerAuthorization struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Server struct {
			Name     string                `json:"name,omitempty"`
			Selector *metav1.LabelSelector `json:"selector,omitempty"`
		} `json:"server"`
		Client struct {
			Networks        []Network `json:"networks,omitempty"`
			Unauthenticated bool      `json:"unauthenticated,omitempty"`
			MeshTLS         *MeshTLS  `json:"meshTLS,omitempty"`
		} `json:"client"`
	} `json:"spec"`
}

// Network is a range of addresses with holes.
type Network struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

// MeshTLS asks for an identity.
type MeshTLS struct {
	UnauthenticatedTLS bool             `json:"unauthenticatedTLS,omitempty"`
	Identities         []string         `json:"identities,omitempty"`
	ServiceAccounts    []ServiceAccount `json:"serviceAccounts,omitempty"`
}

// ServiceAccount names an account; of the object's own namespace if it says none.
type ServiceAccount struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// AuthorizationPolicy is v1alpha1.
type AuthorizationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		TargetRef LocalRef `json:"targetRef"`
		// RequiredAuthenticationRefs is required, and may be empty; nil if it is not written.
		RequiredAuthenticationRefs []Ref `json:"requiredAuthenticationRefs"`
	} `json:"spec"`
}

// LocalRef names an object of the same namespace.
type LocalRef struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// Ref names an object; of the object's own namespace if it says none.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// MeshTLSAuthentication is v1alpha1.
type MeshTLSAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Identities   []string `json:"identities,omitempty"`
		IdentityRefs []Ref    `json:"identityRefs,omitempty"`
	} `json:"spec"`
}

// NetworkAuthentication is v1alpha1.
type NetworkAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Networks []Network `json:"networks"`
	} `json:"spec"`
}

// HTTPLocalRateLimitPolicy is v1alpha1.
type HTTPLocalRateLimitPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		TargetRef LocalRef        `json:"targetRef"`
		Total     *Limit          `json:"total,omitempty"`
		Identity  *Limit          `json:"identity,omitempty"`
		Overrides []LimitOverride `json:"overrides,omitempty"`
	} `json:"spec"`
}

// Limit is a number of requests in a second.
type Limit struct {
	RequestsPerSecond int64 `json:"requestsPerSecond"`
}

// LimitOverride is the limit of each of some clients.
type LimitOverride struct {
	RequestsPerSecond int64 `json:"requestsPerSecond"`
	ClientRefs        []Ref `json:"clientRefs"`
}
