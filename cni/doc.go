// SPDX-License-Identifier: Apache-2.0

// Package cni is what the chained CNI plugin (cmd/fairlead-cni) and a node's agent have
// in common: a container runtime calls the plugin before a pod's containers start, and
// the plugin lets it go on when the agent says that the kernel has the pod's policy.
//
//	runtime ──ADD──► plugin ── record ──► RUN/cni/ID.IFNAME.json ──► agent's source
//	                   └────── asks ────► RUN/cni.sock           ◄── when it is applied
//
// The folder of records is the truth: it says which attachments there are, whether or
// not an agent was there when they came, and outlives both. The socket only tells when
// one of them is done. Without an agent the plugin judges by a file that the last one
// left (Closed), for it has no other way to know whose pods must not run unguarded.
//
// The package imports nothing of the rest: the plugin is copied to nodes, and starts
// with every pod.
package cni
