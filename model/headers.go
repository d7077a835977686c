// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"slices"
	"strings"
)

// Then is one edit after another, as one edit. Within an edit removals come first, as
// in Envoy.
func (e HeaderEdit) Then(next HeaderEdit) HeaderEdit {
	set := map[string]string{}
	for _, x := range slices.Concat(without(e.Set, next.Remove), next.Set) {
		set[x.Name] = x.Value
	}
	var out HeaderEdit
	for _, name := range slices.Sorted(maps.Keys(set)) {
		out.Set = append(out.Set, Header{Name: name, Value: set[name]})
	}
	for _, x := range without(e.Add, next.Remove) {
		if !slices.ContainsFunc(next.Set, func(y Header) bool { return y.Name == x.Name }) {
			out.Add = append(out.Add, x)
		}
	}
	out.Add = append(out.Add, next.Add...)
	slices.SortStableFunc(out.Add, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	if remove := slices.Concat(e.Remove, next.Remove); len(remove) > 0 {
		slices.Sort(remove)
		out.Remove = slices.Compact(remove)
	}
	return out
}

// without leaves out the headers of those names.
func without(in []Header, names []string) []Header {
	return slices.DeleteFunc(slices.Clone(in), func(h Header) bool { return slices.Contains(names, h.Name) })
}
