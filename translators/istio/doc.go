// SPDX-License-Identifier: Apache-2.0

// Package istio reads Istio's configuration: VirtualService and DestinationRule
// become frontends of the services that they name, ServiceEntry and WorkloadEntry become
// services and workloads, AuthorizationPolicy and PeerAuthentication become
// authorizations, and every other kind and field is refused by name.
//
//	routes/NS/SVC ◄── Service, VirtualServices by host, DestinationRules by host
//	        └──► Frontend per TCP port that a VirtualService steers or a policy is for
//	entry/NS/HOST ◄── ServiceEntries by host, WorkloadEntries, Pods
//	        └──► Service, Endpoints, Workloads, and its Frontends as above
//	workloadentry/NS/NAME ──► Workload
//	host/HOST ◄── VirtualServices by host, if no service has it ──► Frontend of the host
//	virtualservice/NS/NAME, sidecar/NS/NAME and so on ──► what became of the fields
//	policy/NS/NAME ──► Authorization
//	other/KIND/NS/NAME ──► a refusal; where that would open something, a Deny
//
// Istio compiles a configuration for each client; here the service's frontend
// serves all clients, and what Istio decides by client (exportTo, Sidecars,
// sourceLabels, sourceNamespace) becomes conditions on the source. MeshConfig, the
// ConfigMap istio of the root namespace, is read by all of them; options of New come
// before it.
//
// README.md lists every field; a test generates its tables.
package istio
