// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func fieldName(path []string) string { return strings.ReplaceAll(strings.Join(path, "."), ".[", "[") }

// leaves lists the paths of a type's fields that hold plain values; lists are entered by
// their first element, and a type within itself once.
func leaves(t reflect.Type, path []string, within []reflect.Type) [][]string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if u := reflect.PointerTo(t); u.Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return [][]string{slices.Clone(path)}
	}
	var out [][]string
	switch t.Kind() {
	case reflect.Struct:
		if n := len(slices.DeleteFunc(slices.Clone(within), func(w reflect.Type) bool { return w != t })); n > 1 {
			return nil
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[metav1.ObjectMeta]() || len(path) == 0 && name == "status" {
				continue
			}
			to := slices.Clone(path)
			if name != "" { // else inline
				to = append(to, name)
			}
			out = append(out, leaves(f.Type, to, append(slices.Clone(within), t))...)
		}
		return out
	case reflect.Slice:
		return leaves(t.Elem(), append(slices.Clone(path), "[0]"), within)
	}
	return [][]string{slices.Clone(path)}
}

// nearest is the body that has most of the way to a field.
func nearest(bodies []string, path []string) int {
	best, most := 0, -1
	for i, b := range bodies {
		var at any
		if err := json.Unmarshal([]byte(b), &at); err != nil {
			panic(err) // bodies have been read
		}
		n := 0
		for _, p := range path {
			switch a := at.(type) {
			case map[string]any:
				at = a[p]
			case []any:
				at = nil
				if len(a) > 0 {
					at = a[0]
				}
			default:
				at = nil
			}
			if at == nil {
				break
			}
			n++
		}
		if n > most {
			best, most = i, n
		}
	}
	return best
}

// Set writes a value at a path of names and "[0]", making what is missing on the way.
func Set(o map[string]any, path []string, v any) {
	var at any = o
	for i, p := range path {
		last := i == len(path)-1
		var next any
		if !last {
			next = map[string]any{}
			if strings.HasPrefix(path[i+1], "[") {
				next = []any{map[string]any{}}
			}
		} else {
			next = v
		}
		switch a := at.(type) {
		case map[string]any:
			if have, ok := a[p]; ok && !last {
				next = have
			}
			a[p] = next
		case []any:
			if !last {
				next = a[0]
			}
			a[0] = next
		default:
			panic(fmt.Sprintf("no way to %v", path))
		}
		at = next
	}
}
