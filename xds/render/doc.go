// SPDX-License-Identifier: Apache-2.0

// Package render turns plan rows into Envoy resources, one row at a time. It is
// pure, and deterministic to the byte: the same row gives the same version on
// every node and in every process.
//
// A row that Envoy would reject, abort at, or take for something else than it says,
// is an error that names the row: messages are validated, regular expressions, path
// templates, hosts, header names and values checked. For a route table that is in error
// callers serve RouteTable500 under its name.
//
// # Layout
//
// All listeners share one table of scopes. A listener writes the address that
// the client had dialled into the header x-fl-dst, the scope of that address
// names the frontend's own small RouteConfiguration, and its routes name
// clusters:
//
//	Listener ─x-fl-dst─► Scope ─► RouteTable ─► Cluster ─► Endpoints
//
// So a change of routes is one small resource, and a listener, whose change
// drains every connection, hardly ever changes. Which modes of listeners there are,
// plan.Mode says. A route may be several in Envoy, see Parts.
//
// Where a plane routes by authority, a table's virtual host "own" has the routes, for
// the frontend's names. Other requests go to virtual host "*", whose filter asks the
// node proxy for the scope of the Host and has the route looked up anew:
//
//	Scope ─► RouteTable "own" ─► Cluster
//	                    "*" ─► fl.authority ─x-fl-dst─► Scope ─► RouteTable
//
// Connections that are not read as requests have clusters named by the address that
// the client had dialled; see plan.ConnectionCluster and Candidates.
//
// # Policy
//
// A destination's policy is folded into its cluster: RBAC filters among the
// cluster's upstream filters judge the request as it was rewritten, by the
// identity that the listener put into filter state. Inbound listeners serve
// sources of which only the address is known; there the policy stands on the
// route, as the configuration of filters that every chain has.
package render
