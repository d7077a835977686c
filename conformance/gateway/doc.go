// SPDX-License-Identifier: Apache-2.0

// Package gateway runs the conformance suite of the Gateway API, as its project
// publishes it, on the two-node Kubernetes of hack/cluster. It is a Go module of its own,
// so that what only the suite needs is nobody else's.
//
// It needs root and takes minutes the first time: hack/gateway.sh runs it.
package gateway
