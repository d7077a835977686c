// SPDX-License-Identifier: Apache-2.0

// Package operator ties source, pipeline and the writers of an API server together, once
// for a cluster, as package agent does for a node: it says in users' objects what becomes
// of them, from the same computation that the agents serve.
//
//	kube.Source ──► pipeline (of no node) ──► conditions ──► kube/status: status, Events
//	                                          leader by Lease: kube/lead
//	                                          definitions that are missing: kube/crds
package operator
