// SPDX-License-Identifier: Apache-2.0

package blame

import (
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// objectOf is the object that a source names, nil if it is not there.
func objectOf(t Tables, s model.Source) *objects.Object {
	key := s.Name
	if s.Namespace != "" {
		key = s.Namespace + "/" + s.Name
	}
	for _, k := range t.Registry().Kinds() {
		if k.Kind != s.Kind {
			continue
		}
		if o, ok := t.Get(translators.Objects(k), key).(*objects.Object); ok {
			return o
		}
	}
	return nil
}

// at is a source with another field of its object.
func at(t Tables, s model.Source, field string) model.Source {
	return objectOf(t, s).Source(s.Plane, field)
}

// fieldOf finds where a value stands in a source: at or below its field, else below
// the nearest field around that which has it; "" if it is nowhere.
func fieldOf(t Tables, s model.Source, value string) string {
	o := objectOf(t, s)
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
