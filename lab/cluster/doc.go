// SPDX-License-Identifier: Apache-2.0

// Package cluster plays Kubernetes' controllers and scheduler over manifests, and
// nothing else: workloads become pods with nodes and addresses, services get
// cluster addresses and EndpointSlices, and every object of the user is passed on
// as it was written.
//
//	objects ── Build ──► pods and what they run
//	   +                 files: one object each, as an agent's --source reads them
//	 State               State, for the next Build
//
// It is pure: same objects, options and state, same result. So the lab and
// "fairlead plan -f" see the same cluster.
package cluster
