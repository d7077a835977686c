// SPDX-License-Identifier: Apache-2.0

// Package trace follows one request through a node's plan: by what it finds its routes,
// which route it takes, to whom it goes, and what each policy on the way says, with the
// objects that decided. It sends nothing and reads nothing but the plan's tables, so
// that of the same objects it says the same of files as of a running mesh.
//
//	Query ──► source (a pod, a node, an address) and destination (an address)
//	      ──► who balances: the kernel, or a listener of the proxy
//	      ──► route table ──► route ──► shares of it ──► policy ──► Outcomes
//
// What is left to chance (weights, faults in a share of the requests) gives several
// outcomes, each with its share.
package trace
