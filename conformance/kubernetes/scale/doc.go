// SPDX-License-Identifier: Apache-2.0

// Package scale measures what a big cluster costs: 2,000 services, 10,000 endpoints with as
// many pods, and 2,000 policies in the API server of a real Kubernetes. Most of the pods are
// on nodes that do not exist; the others, and Fairlead, on two that do. It measures the
// same before the cluster is filled, so that there are ratios. hack/kubernetes.sh scale runs
// it; the figures are in docs/performance.md.
package scale
