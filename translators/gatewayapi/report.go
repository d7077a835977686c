// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Report collects what a plane has to say about one object.
type Report struct {
	Plane       string
	Object      *objects.Object
	Diagnostics []model.Diagnostic
}

// Say adds a diagnostic about a field.
func (r *Report) Say(field, code string, effect model.Effect, outcome model.Outcome, msg, advice string) {
	r.Diagnostics = append(r.Diagnostics, model.Diagnostic{Source: r.Object.Source(r.Plane, field), Code: code, Effect: effect,
		Outcome: outcome, Message: msg, Advice: advice})
}

// Refuse says that a field is not done, which makes traffic fail that should not.
func (r *Report) Refuse(field, code, msg, advice string) {
	r.Say(field, code, model.Degrades, model.Refused, msg, advice)
}

// invalid says that an API server would not have taken the value.
func (r *Report) invalid(field, format string, args ...any) {
	r.Say(field, InvalidValue, model.Degrades, model.Refused, fmt.Sprintf(format, args...), "")
}

// Codes of diagnostics. Those that a status condition of the API has a reason for are
// called like it.
const (
	InvalidValue      = "invalid-value"     // an API server would reject it
	UnsupportedValue  = "unsupported-value" // Accepted=False
	BackendNotFound   = "backend-not-found" // ResolvedRefs=False, as the next two
	InvalidKind       = "invalid-kind"
	RefNotPermitted   = "ref-not-permitted"
	UnsupportedFilter = "unsupported-filter" // ResolvedRefs=False of extensions, Accepted=False of others
)
