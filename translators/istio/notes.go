// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"regexp"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// notes collects diagnostics about one object.
type notes struct {
	o    *objects.Object
	list []model.Diagnostic
}

func (n *notes) say(d model.Diagnostic, field string) {
	d.Source = n.o.Source(Plane, field)
	n.list = append(n.list, d)
}

// refused notes a field that is not translated.
func (n *notes) refused(field, code string, effect model.Effect, msg, advice string) {
	n.say(model.Diagnostic{Code: code, Effect: effect, Outcome: model.Refused, Message: msg, Advice: advice}, field)
}

// approximated notes a field that does not mean here exactly what it means in Istio.
func (n *notes) approximated(field, code string, effect model.Effect, msg, advice string) {
	n.say(model.Diagnostic{Code: code, Effect: effect, Outcome: model.Approximated, Message: msg, Advice: advice}, field)
}

// surprising notes a field that is translated and may not do what its author thinks.
func (n *notes) surprising(field, code, msg, advice string) {
	n.say(model.Diagnostic{Code: code, Effect: model.Cosmetic, Outcome: model.Translated, Message: msg, Advice: advice}, field)
}

// invalid notes a value that Istio would not accept either.
func (n *notes) invalid(field, format string, args ...any) {
	n.refused(field, "invalid-value", model.Narrows, fmt.Sprintf(format, args...), "")
}

// sortDiagnostics orders and drops repeats.
func sortDiagnostics(ds []model.Diagnostic) []model.Diagnostic {
	slices.SortStableFunc(ds, model.CompareDiagnostics)
	return slices.Compact(ds)
}

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// entry is the path of a map's key.
func entry(field, key string) string {
	if plainKey.MatchString(key) {
		return field + "." + key
	}
	return fmt.Sprintf("%s[%q]", field, key)
}
