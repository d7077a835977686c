// SPDX-License-Identifier: Apache-2.0

// Package smi runs SMI's conformance suite, its decision table and what is between versions
// on a real Kubernetes: hack/smi.sh.
package smi
