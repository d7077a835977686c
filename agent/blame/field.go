// SPDX-License-Identifier: Apache-2.0

package blame

import (
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// at is a source with another field of its object.
func at(t Tables, s model.Source, field string) model.Source {
	return translators.ObjectOf(t, s).Source(s.Plane, field)
}

// fieldOf finds where a value stands in a source: at or below its field, else below
// the nearest field around that which has it; "" if it is nowhere.
func fieldOf(t Tables, s model.Source, value string) string {
	o := translators.ObjectOf(t, s)
	if o == nil {
		return ""
	}
	for below := s.Field; ; below = parent(below) {
		if f := closest(o, below, value); f != "" {
			return f
		}
		if parent(below) == "" || below == "spec" {
			return ""
		}
	}
}

// parent is a field without its last part.
func parent(field string) string {
	if i := strings.LastIndexAny(field, ".["); i >= 0 {
		return field[:i]
	}
	return ""
}

// closest is the field whose value, or whose own name, is the value, or else has to do
// with it: a translation may have put it into something longer, or cut it down.
func closest(o *objects.Object, below, value string) string {
	named, near := "", ""
	for path, v := range o.Strings(below) {
		switch {
		case v == value:
			return path
		case named == "" && (strings.HasSuffix(path, "."+value) || strings.HasSuffix(path, `["`+value+`"]`)):
			named = path
		case near == "" && !isWord(v) && !isWord(value) && (strings.Contains(value, v) || strings.Contains(v, value)):
			near = path
		}
	}
	if named != "" {
		return named
	}
	return near
}
