// SPDX-License-Identifier: Apache-2.0

// Package linkerd translates the configuration of Linkerd: its own kinds, the routes
// of the Gateway API as Linkerd reads them, and the annotations that change traffic.
//
//	Server, the authorizations and authentications, annotations of pods and
//	namespaces ── by pod ──► Authorization, Inbound
//	HTTPRoute, GRPCRoute, ServiceProfile, annotations of services
//	          ── by service ──► Frontend
//
// A proxy of Linkerd's decides for its own pod, from what is known of the pod and not
// of the services before it. So permissions are computed pod by pod, with named ports
// and overlapping Servers resolved. What a client gets is computed service by service,
// for clients of each namespace that has routes or a profile of its own, and for all
// others.
//
// Linkerd finds the best match of all, by its own rules; the model takes the first
// that matches. order.go puts routes so that both find the same.
//
// Identities are names in DNS in Linkerd, and SPIFFE ids here; see identity.go.
package linkerd
