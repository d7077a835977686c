// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Worth are the diagnostics that are worth a condition's or an Event's words: those that
// make a difference to traffic, errors first.
func Worth(ds []model.Diagnostic) []model.Diagnostic {
	var out []model.Diagnostic
	for _, d := range ds {
		if d.IsError() || d.Effect != model.Cosmetic {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b model.Diagnostic) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

func rank(d model.Diagnostic) int {
	switch {
	case d.Effect == model.Widens:
		return 0
	case d.IsError():
		return 1
	}
	return 2
}

// Text tells of diagnostics: field, message and advice of each, as many as a length has
// room for, and how many more there are.
func Text(ds []model.Diagnostic, limit int) string {
	var b strings.Builder
	for i, d := range ds {
		text := One(d)
		if i > 0 {
			text = " | " + text
		}
		more := ""
		if rest := len(ds) - i; rest > 1 {
			more = fmt.Sprintf(" | and %d more: see fairlead check", rest)
		}
		if i > 0 && b.Len()+len(text)+len(more) > limit {
			fmt.Fprintf(&b, " | and %d more: see fairlead check", len(ds)-i)
			break
		}
		b.WriteString(text)
	}
	return cut(b.String(), limit)
}

// One is a diagnostic in a line: "field: message (advice)".
func One(d model.Diagnostic) string {
	s := d.Message
	if d.Source.Field != "" {
		s = d.Source.Field + ": " + s
	}
	if d.Advice != "" {
		s += " (" + d.Advice + ")"
	}
	return s
}

// Kept reports whether the last valid version of an object is in use in place of its
// newest.
func Kept(ds []model.Diagnostic) bool {
	return slices.ContainsFunc(ds, func(d model.Diagnostic) bool { return d.Code == objects.LastGoodKept })
}

// Reason is a stable code as the reason of a condition or an Event: "unknown-field" is
// "UnknownField".
func Reason(code string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(code, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
