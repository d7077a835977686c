// SPDX-License-Identifier: Apache-2.0

package model

// OwnProxy is a proxy that a namespace does not share: on each node with workloads of the
// namespace, what these send, and what has to be judged on its way to them, passes a
// process of its own.
type OwnProxy struct {
	// Memory that it may use, in bytes; > 0.
	Memory uint64 `json:"memory"`
}
