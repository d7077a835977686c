// SPDX-License-Identifier: Apache-2.0

// Package lab runs a small cluster on one machine: nodes and pods are network
// namespaces, what runs in them are processes, and ordinary manifests say what
// there is. It plays the controllers, the scheduler and as much of a kubelet as
// that takes; each node runs the same agent and proxy as a node of a real cluster.
//
//	manifests ── lab/cluster ──► RUN/source/   one file per object, read by the agents
//	                         └─► pods          namespace, veth, cgroup, processes
//
//	           ┌─ bridge ─┬───────────┐
//	        node-1     node-2      outside     10.240.0.N, fd40::N
//	        │    │     │    │
//	       pod  pod   pod  pod                 10.244.NODE.N, fd44:NODE::N
//
// There is no daemon of the lab's own: every verb takes a lock, does its work and
// ends. All that a lab leaves on the machine is below its run folder and its
// cgroup, both named after it, so that Down needs no records to clean up.
//
//	RUN/source/    the cluster as the agents read it
//	RUN/netns/     network namespaces: NODE, NODE_NAMESPACE_POD, fabric, outside
//	RUN/NODE/      run folder of a node's agent and proxy; bpf/ is its BPF file system
//	RUN/etc/       what processes find in their places: resolv.conf and the like
//	RUN/bin/       commands that every place has
//	RUN/logs/      what the programs print
//	RUN/lab.json   objects, places, addresses, processes
package lab
