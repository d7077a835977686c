// SPDX-License-Identifier: Apache-2.0

package api

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EgressNetwork is v1alpha1.
type EgressNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		TrafficPolicy string    `json:"trafficPolicy"`
		Networks      []Network `json:"networks,omitempty"`
	} `json:"spec"`
}

// ExternalWorkload is v1beta1.
type ExternalWorkload struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		MeshTLS     ExternalTLS    `json:"meshTLS"`
		Ports       []ExternalPort `json:"ports,omitempty"`
		WorkloadIPs []ExternalIP   `json:"workloadIPs,omitempty"`
	} `json:"spec"`
}

// ExternalWorkloadAlpha1 is v1alpha1, which spells one field otherwise.
type ExternalWorkloadAlpha1 struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		MeshTLS     ExternalTLS    `json:"meshTls"`
		Ports       []ExternalPort `json:"ports,omitempty"`
		WorkloadIPs []ExternalIP   `json:"workloadIPs,omitempty"`
	} `json:"spec"`
}

// ExternalTLS is how a workload is known.
type ExternalTLS struct {
	Identity   string `json:"identity"`
	ServerName string `json:"serverName"`
}

// ExternalPort is a port of a workload.
type ExternalPort struct {
	Name     string `json:"name,omitempty"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol,omitempty"`
}

// ExternalIP is an address of a workload.
type ExternalIP struct {
	IP string `json:"ip"`
}

// Link ties clusters together; v1alpha1 to v1alpha3. Nothing of it is read.
type Link map[string]any
