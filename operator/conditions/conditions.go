// SPDX-License-Identifier: Apache-2.0

// Package conditions says what users' objects are to have in their status. It is pure: it
// reads what the pipeline has computed, which is what the agents serve, and has no client
// and no clock.
//
//	pipeline ──► View ──► Judge of an API group ──► Status ──► Merge with what is stored
//	                └───► Events, for kinds that have no status
//
// A Judge says what is so; which generation it was seen in, since when it is so, and what
// others have written beside it is Merge's.
package conditions

import (
	"fairlead.io/fairlead/translators/objects"
)

// Controller is the name under which parents of routes have their status.
const Controller = "fairlead.io/mesh-controller"

// Prefix is that of the types of conditions which are Fairlead's own in an object's
// status.conditions.
const Prefix = "fairlead.io/"

// Status is what Fairlead says in an object's status, whole: what it said before and does
// not say now goes. nil and the zero value say nothing.
type Status struct {
	// Conditions in status.conditions. Their types begin with Prefix; conditions of other
	// types belong to others and stay.
	Conditions []Condition
	// Parents in status.parents of a route, under Controller's name. Those of other
	// controllers stay.
	Parents []Parent
}

// Condition is one condition without generation and time.
type Condition struct {
	Type    string
	Status  Truth
	Reason  string // CamelCase
	Message string // for people; it is cut at MessageLimit
}

// Truth of a condition.
type Truth string

const (
	True    Truth = "True"
	False   Truth = "False"
	Unknown Truth = "Unknown"
)

// Parent is an entry of status.parents.
type Parent struct {
	// Ref is the parentRef as the spec has it, in the API's own field names, with the
	// values that encoding/json gives (numbers as int64).
	Ref        map[string]any
	Conditions []Condition
}

// MessageLimit is the length at which messages are cut. metav1.Condition takes 32768; what
// is longer than a screen nobody reads.
const MessageLimit = 2048

// Judge says what objects of one API group have in their status.
type Judge interface {
	// Covers reports whether the judge speaks for a kind. A kind that no judge covers, or
	// whose resource has no status, gets Events.
	Covers(k objects.Kind) bool
	// Judge says what an object is to have; nil: nothing. The object is the one in use:
	// where its newest version is invalid, the last valid one; the diagnostics are then
	// about the newest.
	Judge(v *View, o *objects.Object) *Status
}
