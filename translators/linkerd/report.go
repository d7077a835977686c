// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"regexp"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// report collects diagnostics.
type report struct{ out []model.Diagnostic }

func (r *report) say(o *objects.Object, field, code string, effect model.Effect, outcome model.Outcome, msg, advice string) {
	r.out = append(r.out, model.Diagnostic{Source: o.Source(Plane, field), Code: code, Effect: effect, Outcome: outcome,
		Message: msg, Advice: advice})
}

// refused says that a field is not done, and what becomes of traffic without it.
func (r *report) refused(o *objects.Object, field, code string, effect model.Effect, msg, advice string) {
	r.say(o, field, code, effect, model.Refused, msg, advice)
}

// approximated says in what the field means something else than in Linkerd.
func (r *report) approximated(o *objects.Object, field, code string, effect model.Effect, msg, advice string) {
	r.say(o, field, code, effect, model.Approximated, msg, advice)
}

// invalid is about a value that Linkerd does not accept either.
func (r *report) invalid(o *objects.Object, field string, effect model.Effect, format string, args ...any) {
	r.refused(o, field, "invalid-value", effect, fmt.Sprintf(format, args...), "")
}

// sorted gives the diagnostics in their order, without repeats.
func (r *report) sorted() []model.Diagnostic {
	slices.SortStableFunc(r.out, model.CompareDiagnostics)
	return slices.Compact(r.out)
}

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// annotation is the path of an annotation.
func annotation(key string) string {
	if plainKey.MatchString(key) {
		return "metadata.annotations." + key
	}
	return fmt.Sprintf("metadata.annotations[%q]", key)
}
