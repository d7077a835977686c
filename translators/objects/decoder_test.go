// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What did not change is not decoded again, and comes out as if it had been.
func TestDecoderKeepsParts(t *testing.T) {
	in := func(name, text string) Input { return Input{Name: name, Data: []byte(text)} }
	d := NewDecoder(testRegistry())
	steps := [][]Input{
		{in("a", testGroup("a", "x")), in("b", testGroup("b", "y")+"typo: 1\n")},
		{in("a", testGroup("a", "x")), in("b", testGroup("b", "z"))},
		{in("b", testGroup("b", "z")), in("a", testGroup("a", "x")), in("c", testGroup("a", "w"))},
		{in("b", testGroup("b", "z")), {Name: "a", Err: os.ErrPermission}},
		{in("b", testGroup("b", "z")), in("a", testGroup("a", "x"))},
		{in("b", "kind: [\n")},
		{},
	}
	var before *Object
	for i, inputs := range steps {
		got, want := d.Decode(inputs...), Decode(testRegistry(), inputs...)
		if df := cmp.Diff(content(want), content(got), cmp.AllowUnexported(Object{})); df != "" {
			t.Errorf("step %d (-fresh +kept):\n%s", i, df)
		}
		if i == 0 {
			before = got.Objects[0]
		}
		if i == 1 && got.Objects[0] != before {
			t.Error("an input that is as it was was decoded again")
		}
	}
	if len(d.kept) > 0 {
		t.Errorf("kept %v", d.kept)
	}
}

// content is a batch without what tells it apart.
func content(b *Batch) any {
	return []any{b.Objects, b.Diagnostics, b.Broken}
}

// Edits in place take a shorter way, with the same end.
func TestEditsInPlaceEqualTheWhole(t *testing.T) {
	choices := func(file string) []string {
		return []string{testGroup(file, "x"), testGroup(file, "x"), testGroup(file, "y"), testGroup(file, "z"), "\n" + testGroup(file, "x"),
			testGroup(file, "bad"), testGroup(file, "x") + "typo: 1\n", "kind: [\n", "# empty\n", testGroup("shared", "x"),
			testGroup(file, "x") + "---\n" + testGroup(file+"2", "y"), testGroup(file, "y") + "---\n" + testGroup(file+"2", "y")}
	}
	r := rand.New(rand.NewPCG(1, 2))
	files := []string{"a", "b", "c", "d"}
	now := make([]Input, len(files))
	for i, f := range files {
		now[i] = Input{Name: f, Data: []byte(testGroup(f, "x"))}
	}
	d, short, long := NewDecoder(testRegistry()), NewSet(noCalls), NewSet(noCalls)
	edits := 0
	for step := range 400 {
		i := r.IntN(len(files))
		all := choices(files[i])
		n := len(all)
		if step/20%2 == 0 { // for a while, nothing but edits
			n = 5
		}
		now[i].Data = []byte(all[r.IntN(n)])
		b, whole := d.Decode(now...), Decode(testRegistry(), now...)
		if b.base != nil && len(b.edited) > 0 {
			edits++
		}
		if df := cmp.Diff(content(whole), content(b), cmp.AllowUnexported(Object{})); df != "" {
			t.Fatalf("step %d (-whole +edited):\n%s", step, df)
		}
		want, wantDiags := long.Replace(whole)
		got, gotDiags := short.Replace(b)
		if df := cmp.Diff(want, got, cmp.AllowUnexported(Object{})); df != "" {
			t.Fatalf("step %d: changes (-whole +edited):\n%s", step, df)
		}
		if df := cmp.Diff(wantDiags, gotDiags); df != "" {
			t.Fatalf("step %d: diagnostics (-whole +edited):\n%s", step, df)
		}
		if df := cmp.Diff(long.All(), short.All(), cmp.AllowUnexported(Object{})); df != "" {
			t.Fatalf("step %d: in use (-whole +edited):\n%s", step, df)
		}
	}
	if edits < 60 {
		t.Errorf("%d edits took the shorter way", edits)
	}
}
