// SPDX-License-Identifier: Apache-2.0

// Package swap gives a namespace to another control plane by one write, and takes it
// back: the owner that the Namespace object names.
//
//	SetOwner   the write, to a manifest as its author wrote it
//	Watch      what fails before and after it
package swap
