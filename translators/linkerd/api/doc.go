// SPDX-License-Identifier: Apache-2.0

// Package api has the Go types of Linkerd's kinds, for every version that it serves.
// Linkerd's own types are part of a server that is written in Rust; these hold what
// its CRDs say, no more, so that a field that a version does not have is an error.
//
//	linkerd.io             ServiceProfile
//	policy.linkerd.io      Server, ServerAuthorization, AuthorizationPolicy,
//	                       MeshTLSAuthentication, NetworkAuthentication, HTTPRoute,
//	                       HTTPLocalRateLimitPolicy, EgressNetwork
//	workload.linkerd.io    ExternalWorkload
//	multicluster.linkerd.io  Link
//
// Versions of a kind that have the same fields share a type.
package api
