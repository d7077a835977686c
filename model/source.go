// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"fmt"
	"strings"
)

// Source says where a piece of configuration was written.
type Source struct {
	Plane     string `json:"plane,omitempty"` // translator that read it: "istio", "smi", "kubernetes"
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Field     string `json:"field,omitempty"` // path in the object, for example spec.http[0].route[1].weight
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"` // 1-based; 0 if unknown
	Group     string `json:"-"`              // of the kind: two planes may have kinds of one name
}

// Object is the object without field or place, for example "VirtualService shop/web".
func (s Source) Object() string {
	if s.Namespace == "" {
		return strings.TrimSpace(s.Kind + " " + s.Name)
	}
	return strings.TrimSpace(s.Kind + " " + s.Namespace + "/" + s.Name)
}

// String gives "file:line: Kind ns/name field", leaving out what is not known.
func (s Source) String() string {
	var b strings.Builder
	if s.File != "" {
		b.WriteString(s.File)
		if s.Line > 0 {
			fmt.Fprintf(&b, ":%d", s.Line)
		}
		b.WriteString(": ")
	}
	b.WriteString(s.Object())
	if s.Field != "" {
		b.WriteString(" " + s.Field)
	}
	return b.String()
}

// CompareSources orders by place, then by object and field.
func CompareSources(a, b Source) int {
	return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
		strings.Compare(a.Plane, b.Plane), strings.Compare(a.Kind, b.Kind),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
		strings.Compare(a.Field, b.Field), strings.Compare(a.Group, b.Group))
}

// Effect says what a diagnostic does to traffic.
type Effect string

const (
	Widens   Effect = "widens"   // more is allowed or reached than was asked for
	Narrows  Effect = "narrows"  // less is allowed or reached
	Degrades Effect = "degrades" // works, with a weaker guarantee
	Cosmetic Effect = "cosmetic" // traffic is the same
)

// Outcome says what became of the field.
type Outcome string

const (
	Translated   Outcome = "translated"
	Approximated Outcome = "approximated"
	Refused      Outcome = "refused"
)

// Diagnostic tells the user about one field that does not mean here exactly what
// it says. Nothing is dropped without one.
type Diagnostic struct {
	Source  Source  `json:"source"`
	Code    string  `json:"code"` // stable, kebab-case: "unknown-field"
	Effect  Effect  `json:"effect"`
	Outcome Outcome `json:"outcome"`
	Message string  `json:"message"`          // what is wrong, for people
	Advice  string  `json:"advice,omitempty"` // what to do next
}

// IsError reports whether something was refused or would widen access.
func (d Diagnostic) IsError() bool {
	return d.Outcome == Refused || d.Effect == Widens
}

// CompareDiagnostics orders by source, then code and message.
func CompareDiagnostics(a, b Diagnostic) int {
	return cmp.Or(CompareSources(a.Source, b.Source), strings.Compare(a.Code, b.Code),
		strings.Compare(a.Message, b.Message))
}
