// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Strings gives every string of the object at or below a field ("" for all of it)
// with its own path, in the order of the fields' names. An object that could not be
// decoded has none.
func (o *Object) Strings(below string) iter.Seq2[string, string] {
	return func(yield func(path, value string) bool) {
		var body any
		if json.Unmarshal(o.content, &body) == nil { // it was marshalled here, or is empty
			eachString(body, "", below, yield)
		}
	}
}

// eachString reports whether to go on.
func eachString(v any, path, below string, yield func(path, value string) bool) bool {
	switch v := v.(type) {
	case string:
		return !within(path, below) || yield(path, v)
	case []any:
		for i, item := range v {
			if !eachString(item, path+"["+strconv.Itoa(i)+"]", below, yield) {
				return false
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if !eachString(v[k], mapPath(path, k), below, yield) {
				return false
			}
		}
	}
	return true
}

// within reports whether a path is the field or leads from it.
func within(path, field string) bool {
	rest, ok := strings.CutPrefix(path, field)
	return ok && (field == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}
