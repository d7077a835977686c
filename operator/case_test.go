// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/translators/objects"
)

var update = flag.Bool("update", false, "rewrite what the cases expect")

// TestCases computes what objects have in their status, and the Events about those that
// have none. Files whose names begin with "then" are loaded in place of the others, after
// them.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := pipeline.New(pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var first, then []objects.Input
			at := -1
			for i, f := range ar.Files {
				switch in := (objects.Input{Name: "in.yaml", Data: f.Data}); {
				case f.Name == "want":
					at = i
				case strings.HasPrefix(f.Name, "then"):
					then = append(then, in)
				default:
					first = append(first, in)
				}
			}
			p.Load(first...)
			if len(then) > 0 {
				p.Load(then...)
			}
			got := said(conditions.NewView(p))
			if *update {
				if at < 0 {
					ar.Files, at = append(ar.Files, txtar.File{Name: "want"}), len(ar.Files)
				}
				ar.Files[at].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if at < 0 {
				t.Fatal("the case expects nothing: run with -update")
			}
			if d := cmp.Diff(string(ar.Files[at].Data), got); d != "" {
				t.Error(d)
			}
		})
	}
}

func said(v *conditions.View) string {
	var b strings.Builder
	all := Statuses(v, Judges(), func(objects.Ref) bool { return true })
	for _, ref := range slices.SortedFunc(maps.Keys(all), objects.CompareRefs) {
		if all[ref] == nil {
			continue
		}
		fmt.Fprintf(&b, "status %s\n", ref)
		print := func(indent string, cs []conditions.Condition) {
			for _, c := range cs {
				fmt.Fprintf(&b, "%s%s %s %s: %s\n", indent, c.Type, c.Status, c.Reason, c.Message)
			}
		}
		print("  ", all[ref].Conditions)
		for _, p := range all[ref].Parents {
			fmt.Fprintf(&b, "  parent %v\n", p.Ref)
			print("    ", p.Conditions)
		}
	}
	events, _ := Events(v, func(ref objects.Ref) bool { _, ok := all[ref]; return ok })
	for _, e := range events {
		typ := "Warning"
		if e.Normal {
			typ = "Normal"
		}
		fmt.Fprintf(&b, "event %s %s %s: %s\n", typ, e.About, e.Reason, e.Note)
	}
	return b.String()
}
