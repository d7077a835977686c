// SPDX-License-Identifier: Apache-2.0

// Package datapath puts a plan's kernel rows into the node's kernel: it loads the
// programs of package bpf, attaches them, fills their maps, finds the interfaces
// and namespaces of local pods, gives the host what the redirect needs, and reads
// what the programs report.
//
//	plan rows ──Sync, Apply──▶ pinned maps ◀── programs on the cgroup, uplinks, veths
//	                                │
//	Flow ◀──Events── ring buffer ◀──┘
//
// Everything that forwards traffic is pinned. A process that ends, however it ends,
// leaves it running; the next one takes it over with [Open], replaces programs in
// place and loses no connection. [Uninstall] gives the node back as it was.
//
// It never computes policy and knows no control plane: rows are written as they
// come, in an order in which nothing points to what is not there yet.
//
// Only Linux has the part that touches the kernel; layouts, flows and status build
// everywhere.
package datapath
