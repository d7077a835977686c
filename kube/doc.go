// SPDX-License-Identifier: Apache-2.0

// Package kube reads objects from a Kubernetes API server. It is the only package with a
// client; what it hands out are the objects that files give, and everything after it is the
// same code.
//
//	discovery, definitions ──► which kinds, in which version
//	                              │
//	a controller-runtime cache for each: list, watch ──► trim, decode ──► Source ──► edits by key
//
// What holds, whatever becomes of the server:
//
//   - Nothing is handed out until all was read once; a kind that appears later comes whole.
//   - What was read stays. A kind is forgotten only when the server itself knows it no more,
//     twice, and nothing defines it.
//   - A kind that may not be read is told of and costs the others nothing, unless more could
//     be allowed without it: then nothing is handed out until it may be read.
//   - A lone change is handed out at once, a burst in batches; what costs time is what changed.
//   - Health says what is wrong, since when, and what to do.
//
// It never writes; the packages below it do: status writes statuses and Events, crds
// definitions that are missing, lead the Lease by which one of several leads.
package kube
