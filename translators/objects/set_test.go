// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha1"

	"fairlead.io/fairlead/model"
)

// noCalls refuses groups with a match named "bad".
func noCalls(o *Object) []model.Diagnostic {
	g, ok := o.Value.(*specs1.HTTPRouteGroup)
	if ok && slices.ContainsFunc(g.Matches, func(m specs1.HTTPMatch) bool { return m.Name == "bad" }) {
		return []model.Diagnostic{{Source: o.Source("test", "matches[0].name"), Code: "bad", Outcome: model.Refused}}
	}
	return nil
}

func testGroup(name, match string) string {
	return fmt.Sprintf("apiVersion: specs.smi-spec.io/v1alpha1\nkind: HTTPRouteGroup\nmetadata: {name: %s}\nmatches: [{name: %s}]\n", name, match)
}

// inUse prints a set: "name match invalid".
func inUse(s *Set) []string {
	var out []string
	for _, o := range s.All() {
		m := ""
		if g := o.Value.(*specs1.HTTPRouteGroup); len(g.Matches) > 0 {
			m = g.Matches[0].Name
		}
		out = append(out, fmt.Sprintf("%s %s %t", o.Name, m, o.Invalid))
	}
	return out
}

func TestSetKeepsLastGood(t *testing.T) {
	s := NewSet(noCalls)
	for _, step := range []struct {
		name    string
		a, b    string // two files; "-" = not there
		want    []string
		changes int
		diags   []string
	}{
		{"first", testGroup("a", "x"), testGroup("b", "y"), []string{"a x false", "b y false"}, 2, nil},
		{"idle", testGroup("a", "x"), testGroup("b", "y"), []string{"a x false", "b y false"}, 0, nil},
		{"does not validate", testGroup("a", "bad"), testGroup("b", "y"), []string{"a x false", "b y false"}, 0, []string{"1 last-good-kept", "4 bad matches[0].name"}},
		{"does not decode", testGroup("a", "z") + "typo: 1\n", testGroup("b", "y"), []string{"a x false", "b y false"}, 0, []string{"1 last-good-kept", "5 unknown-field typo"}},
		{"does not parse", "kind: [\n", testGroup("b", "z"), []string{"a x false", "b z false"}, 1, []string{"1 broken-yaml", "1 last-good-kept"}},
		{"repaired", testGroup("a", "w"), testGroup("b", "z"), []string{"a w false", "b z false"}, 1, nil},
		{"taken out of a file", "# empty\n", testGroup("b", "z"), []string{"b z false"}, 1, nil},
		{"file gone", "-", testGroup("b", "z"), []string{"b z false"}, 0, nil},
		{"new and never valid", testGroup("a", "bad"), testGroup("b", "z"), []string{"a bad true", "b z false"}, 1, nil},
		{"still invalid, another way", testGroup("a", "x") + "typo: 1\n", testGroup("b", "z"), []string{"a x true", "b z false"}, 1, []string{"5 unknown-field typo"}},
		{"valid at last", testGroup("a", "x"), testGroup("b", "z"), []string{"a x false", "b z false"}, 1, nil},
	} {
		var in []Input
		for _, f := range [][2]string{{"a.yaml", step.a}, {"b.yaml", step.b}} {
			if f[1] != "-" {
				in = append(in, Input{Name: f[0], Data: []byte(f[1])})
			}
		}
		changes, diags := s.Replace(Decode(testRegistry(), in...))
		if d := cmp.Diff(step.want, inUse(s)); d != "" {
			t.Errorf("%s: in use (-want +got):\n%s", step.name, d)
		}
		if len(changes) != step.changes {
			t.Errorf("%s: %d changes, want %d: %v", step.name, len(changes), step.changes, changes)
		}
		if d := cmp.Diff(step.diags, lines(diags)); d != "" {
			t.Errorf("%s: diagnostics (-want +got):\n%s", step.name, d)
		}
	}
}

// A line that moves is a change: diagnostics would point at the wrong one.
func TestSetSeesMoves(t *testing.T) {
	s := NewSet(noCalls)
	s.Replace(decode(testGroup("a", "x")))
	if changes, _ := s.Replace(decode("\n" + testGroup("a", "x"))); len(changes) != 1 {
		t.Errorf("changes %v", changes)
	}
}

// A document more in one file leaves the objects of the next alone.
func TestOrderIsPerInput(t *testing.T) {
	s := NewSet(noCalls)
	load := func(first string) int {
		changes, _ := s.Replace(Decode(testRegistry(), Input{Name: "a", Data: []byte(first)}, Input{Name: "b", Data: []byte(testGroup("b", "y"))}))
		return len(changes)
	}
	load(testGroup("a", "x"))
	if n := load(testGroup("a", "x") + "---\n" + testGroup("c", "x")); n != 1 {
		t.Errorf("%d changes, want the new object alone", n)
	}
}

// A folder that cannot be listed has lost nothing yet.
func TestUnreadableFolder(t *testing.T) {
	s := NewSet(noCalls)
	in := func(name string) Input { return Input{Name: name, Data: []byte(testGroup(name[len(name)-1:], "x"))} }
	s.Replace(Decode(testRegistry(), in("dir/sub/a"), in("dir/b"), in("dirt/c"), in("d")))
	s.Replace(Decode(testRegistry(), Input{Name: "dir", Err: os.ErrPermission}))
	if d := cmp.Diff([]string{"a x false", "b x false"}, inUse(s)); d != "" {
		t.Error(d)
	}
}
