// SPDX-License-Identifier: Apache-2.0

// Package serve is a delta ADS server: it holds resources by type and name and
// sends each client what it wants, as little as possible, in dependable order.
//
// The agent serves the node proxy with it and the node proxy serves Envoy. What
// it does that general servers do not:
//
//   - A change costs what changed: bodies are marshalled once, by the caller, and
//     compared by version.
//   - Push goes in phases, each acknowledged before the next: clusters with their
//     endpoints, routes, scopes, listeners; then what is taken away, in reverse.
//   - A change is one resource per response, so that a rejection names its culprit
//     and costs nothing else. What comes in bulk (a first answer, a change of very
//     many) is batched, and a rejected batch is sent again in halves.
//   - Each client is given the newest version that it has not rejected: what is wanted,
//     else what was wanted before and nobody has judged, else what was accepted last.
//     When there is none, Options.StandIn is asked. Clients that come later get what
//     those that are there take.
//   - Endpoints are sent again after their cluster changed: Envoy waits for them
//     but does not ask.
//   - A client that comes back says what it has; it gets the difference, and what
//     vanished meanwhile is taken away last.
//
// A lazy server, besides:
//
//   - Sends a client the clusters of the route tables that it asks for, each acknowledged
//     before the routes, and takes them away some time after no table needs them.
//     Changes of what a client does not use are not sent.
//
//   - Gives scopes the form in which Envoy asks for their tables when the first request
//     comes, or at once for tables that were in use before the client came.
//
//   - Takes tables from Envoy by pointing their scopes at an alias; see Server.Evict.
//
//   - Gives what Envoy asks for as a cluster by name the first of its candidates, and
//     follows it: Envoy asks once for good. See Options.Candidates.
//
//     Envoy                  server
//     │ routes "r"           │
//     ├─────────────────────►│
//     │        clusters of r │
//     │◄─────────────────────┤
//     │ endpoints, ACK       │
//     ├─────────────────────►│
//     │             routes r │
//     │◄─────────────────────┤
//
// Lock order: a server has one lock, and callbacks run under it.
package serve
