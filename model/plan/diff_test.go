// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// diff is empty if the two are equal. Of lists of strings it shows the lines that one
// of them lacks. The model imports the standard library alone, its tests included.
func diff(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	w, ok := want.([]string)
	g, also := got.([]string)
	if !ok || !also {
		return fmt.Sprintf("- %v\n+ %v", want, got)
	}
	var b strings.Builder
	for _, l := range w {
		if !slices.Contains(g, l) {
			fmt.Fprintf(&b, "- %s\n", l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			fmt.Fprintf(&b, "+ %s\n", l)
		}
	}
	if b.Len() == 0 {
		return "the same lines in another order, or more often"
	}
	return b.String()
}
