// SPDX-License-Identifier: Apache-2.0

package datapath

// Level says how bad a finding is.
type Level string

// Levels of findings.
const (
	Fine    Level = "fine"
	Warning Level = "warning" // it works, but something does not
	Problem Level = "problem" // it does not work
)

// Finding is what was found of something that the datapath needs, or shares with others.
type Finding struct {
	Name   string `json:"name"`
	Level  Level  `json:"level"`
	Detail string `json:"detail,omitempty"` // what there is, or what is wrong
	Advice string `json:"advice,omitempty"`
}
