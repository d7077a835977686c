// SPDX-License-Identifier: Apache-2.0

package agent

import "fairlead.io/fairlead/agent/explain"

// Explanation is what becomes of a target, and, from a running agent, what has become
// of it.
type Explanation struct {
	Node string `json:"node,omitempty"` // whose plan it is; "": of no node in particular
	*explain.Answer
	Live *Live `json:"live,omitempty"` // nil: of files
}

// Live is what an agent knows of an answer.
type Live struct {
	Rejected []Rejected `json:"rejected,omitempty"` // of the answer's resources
	// InUse lists those of the answer's route tables that Envoy has asked for: others
	// have not been used, and cost it nothing.
	InUse      []string `json:"inUse"`
	InUseError string   `json:"inUseError,omitempty"` // why that is not known
	// Ports of the answer's listeners, 0 for one that Envoy has not acknowledged.
	Ports map[string]uint16 `json:"ports,omitempty"`
}
