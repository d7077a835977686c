// SPDX-License-Identifier: Apache-2.0

// Package istio says what objects of Istio's API have in their status.
//
// IstioStatus has conditions of any type; Fairlead's are its own. Reconciled is istiod's,
// which reports by it how far its proxies have got, and validationMessages are its
// analyzers': both stay as they are.
package istio

import (
	"strings"

	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/translators/objects"
)

// Judge of Istio's groups.
type Judge struct{}

// Covers implements conditions.Judge.
func (Judge) Covers(k objects.Kind) bool { return strings.HasSuffix(k.Group, ".istio.io") }

// Judge implements conditions.Judge.
func (Judge) Judge(v *conditions.View, o *objects.Object) *conditions.Status {
	s := &conditions.Status{Conditions: []conditions.Condition{conditions.Accepted(v, o)}}
	if c, ok := conditions.Serving(v, o); ok {
		s.Conditions = append(s.Conditions, c)
	}
	if c, ok := conditions.Enforced(v, o); ok {
		s.Conditions = append(s.Conditions, c)
	}
	return s
}
