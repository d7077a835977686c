// SPDX-License-Identifier: Apache-2.0

package objects

import (
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
		if df := cmp.Diff(want, got, cmp.AllowUnexported(Object{})); df != "" {
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
