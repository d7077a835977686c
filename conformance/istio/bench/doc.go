// SPDX-License-Identifier: Apache-2.0

// Package bench measures Fairlead beside istiod's own code, in one process and in turns:
// what the configuration of a mesh costs until it is ready to be sent, all of it and after
// one change. make bench-istio runs it and prints tables.
//
// Both halves end in a stream of the delta protocol whose client, in this process, encodes
// what it is sent as gRPC would, counts the bytes, and acknowledges:
//
//	istiod     store ──► push context ──► generators with their cache ──► stream, one a workload
//	Fairlead   pipeline ──► renderer ──► agent's server ──► node proxy's server ──► stream, one a node
//
// Where the halves cannot be made equal, istiod has the better of it:
//
//   - Its registries of services and endpoints are filled before the clock starts, its
//     VirtualServices are parsed, validated and indexed. Fairlead's clock starts with the
//     decoded objects, those of Kubernetes among them.
//   - All workloads are of one namespace and have the same labels, so that one's routes,
//     clusters and endpoints come from its cache for all others. First loads come one after
//     another, and find that cache warm.
//   - It writes no logs, and no telemetry into its listeners.
//   - Fairlead's CPU is that of two hops, agent to proxy and proxy to Envoy. Both send as if
//     Envoy used every service; as the product runs, it gets what it asks for.
//
// What the kernel is told is computed with the rest of Fairlead's plan, but not written.
package bench
