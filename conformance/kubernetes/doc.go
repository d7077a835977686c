// SPDX-License-Identifier: Apache-2.0

// Package kubernetes tests on a real Kubernetes: the two-node cluster of hack/cluster,
// which it puts up and takes away. It is a Go module of its own, so that what only these
// tests need is nobody else's; it speaks to the cluster as users do, by kubectl.
//
// It needs root and takes minutes, the first time for building Kubernetes many more:
// hack/kubernetes.sh runs it.
package kubernetes
