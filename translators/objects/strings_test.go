// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"strings"
	"testing"
)

func TestStringsHaveThePathsOfLines(t *testing.T) {
	r := NewRegistry(Type{Kind: Kind{"", "Thing"}, Version: "v1", Namespaced: true, New: func() any { return &map[string]any{} }})
	b := Decode(r, Input{Name: "f", Data: []byte(`apiVersion: v1
kind: Thing
metadata: {name: t}
spec:
  a:
  - {x: one, "d.e/f": two}
  - [three, 4]
  ab: other
`)})
	if len(b.Objects) != 1 {
		t.Fatalf("objects %v, %v", b.Objects, b.Diagnostics)
	}
	o := b.Objects[0]
	list := func(below string) string {
		var out []string
		for p, v := range o.Strings(below) {
			if _, known := o.Place.Lines[p]; !known {
				t.Errorf("%s has no line", p)
			}
			out = append(out, p+"="+v)
		}
		return strings.Join(out, " ")
	}
	if got, want := list("spec.a"), `spec.a[0]["d.e/f"]=two spec.a[0].x=one spec.a[1][0]=three`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := list("spec.ab"); got != "spec.ab=other" {
		t.Errorf("a field itself: %s", got)
	}
	for range o.Strings("") {
		break // may end early
	}
	for p := range (&Object{}).Strings("") {
		t.Errorf("an object without content has %s", p)
	}
}
