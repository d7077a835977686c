// SPDX-License-Identifier: Apache-2.0

// Package gateway translates the Gateway API for traffic inside the cluster (GAMMA,
// GEP-1324 and GEP-1294): HTTPRoutes and GRPCRoutes whose parents are Services.
//
//	HTTPRoute, GRPCRoute ──by Service──► ports ──► audiences ──► Frontend
//
// Routes of the service's own namespace are for all clients. Those of another one are
// for the clients there, and take the place of the former. Within an audience routes
// are merged, and the most specific match comes first. What a request that comes to a
// service means is the shared package gatewayapi's; who may use a route is decided
// here. Conditions that the API writes into a route's status are diagnostics.
//
// The package has one entry point, New.
package gateway
