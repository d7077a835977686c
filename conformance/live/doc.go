// SPDX-License-Identifier: Apache-2.0

// Package live runs cases against a lab: two nodes with their agents, a stock Envoy
// each and the real kernel. A case is a txtar file in conformance/cases: manifests,
// then requests from inside pods with the answers that they must get.
// conformance/README.md tells how to write one.
//
//	case ── lab apply ──► agents have it ── requests ──► answers as expected?
//	                                   └── lab delete ──► nothing of it is left?
package live
