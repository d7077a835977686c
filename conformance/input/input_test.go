// SPDX-License-Identifier: Apache-2.0

// Package input tests what becomes of configuration that is wrong: each mistake is
// found with file and line, the last good version stands for what it touches, and
// nothing else changes.
//
// A case is a txtar file: good.yaml as it was, bad.yaml as somebody has saved it,
// with "# want: CODE" at the lines that are to be found. "then: same" says that the
// plan stays as it was, "then: EXPRESSION" that only rows that it matches may change.
package input

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
)

var wanted = regexp.MustCompile(`# want: ([a-z0-9-]+)`)

func TestMistakes(t *testing.T) {
	common, err := os.ReadFile("../cross/testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	base := objects.Input{Name: "base.yaml", Data: common}
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatalf("cases: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil || len(a.Files) != 2 || a.Files[0].Name != "good.yaml" || a.Files[1].Name != "bad.yaml" {
				t.Fatalf("want good.yaml and bad.yaml: %v, %v", a, err)
			}
			_, then, _ := strings.Cut(strings.TrimSpace(string(a.Comment)), "then: ")
			for _, node := range []string{"node-1", "node-2"} {
				check(t, node, then, base, a.Files[0].Data, a.Files[1].Data)
			}
		})
	}
}

func check(t *testing.T, node, then string, base objects.Input, good, bad []byte) {
	p, err := pipeline.New(pipeline.Options{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	// Both under one name: somebody has saved a file.
	p.Load(base, objects.Input{Name: "mesh.yaml", Data: good})
	for _, d := range p.Diagnostics() {
		if d.IsError() {
			t.Errorf("good.yaml: %s: %s", d.Source, d.Message)
		}
	}
	before := rows(p)
	p.Load(base, objects.Input{Name: "mesh.yaml", Data: bad})
	found(t, p.Diagnostics(), bad)
	after := rows(p)
	if then == "same" {
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("%s: the plan changed:\n%s", node, d)
		}
	} else {
		for _, key := range changed(before, after) {
			if !regexp.MustCompile(then).MatchString(key + before[key] + after[key]) {
				t.Errorf("%s: changed, though not about %s: %s", node, then, key)
			}
		}
		if len(changed(before, after)) == 0 {
			t.Errorf("%s: nothing changed, so the case should say \"then: same\"", node)
		}
	}
	// Repaired, everything is as before.
	p.Load(base, objects.Input{Name: "mesh.yaml", Data: good})
	if d := cmp.Diff(before, rows(p)); d != "" {
		t.Errorf("%s: the plan is another after the repair:\n%s", node, d)
	}
}

// found compares what was found with the marks in the file.
func found(t *testing.T, got []model.Diagnostic, bad []byte) {
	t.Helper()
	lines := strings.Split(string(bad), "\n")
	for i, line := range lines {
		for _, m := range wanted.FindAllStringSubmatch(line, -1) {
			if !slices.ContainsFunc(got, func(d model.Diagnostic) bool {
				return d.Source.File == "mesh.yaml" && d.Source.Line == i+1 && d.Code == m[1] && d.Message != ""
			}) {
				t.Errorf("line %d: %s was not found among %v", i+1, m[1], tell(got))
			}
		}
	}
	for _, d := range got {
		if d.IsError() && (d.Source.File != "mesh.yaml" || d.Source.Line == 0 || d.Source.Line > len(lines) || !strings.Contains(lines[d.Source.Line-1], "# want: ")) {
			t.Errorf("found too, or without a place: %s", tell([]model.Diagnostic{d}))
		}
	}
}

func tell(ds []model.Diagnostic) []string {
	var out []string
	for _, d := range ds {
		out = append(out, fmt.Sprintf("%s [%s] %s", d.Source, d.Code, d.Message))
	}
	return out
}

// rows are the node's plan but for the sources, whose lines move with the file.
func rows(p *pipeline.Pipeline) map[string]string {
	out := map[string]string{}
	for _, table := range plan.Tables() {
		for _, r := range p.Rows(table) {
			if table != plan.Origins {
				out[string(table)+" "+r.Key] = string(model.Bytes(r.Value))
			}
		}
	}
	return out
}

func changed(before, after map[string]string) []string {
	var out []string
	for k, v := range after {
		if before[k] != v {
			out = append(out, k)
		}
	}
	for k := range before {
		if _, ok := after[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
