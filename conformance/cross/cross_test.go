// SPDX-License-Identifier: Apache-2.0

// Package cross tests that an intent means the same in every control plane that can
// say it: with all defaults spelled out, the plans are equal byte for byte.
package cross

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
)

func load(t *testing.T, node string, inputs ...objects.Input) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	p.Load(inputs...)
	for _, d := range p.Diagnostics() {
		if d.IsError() {
			t.Errorf("%s: %s", d.Source, d.Message)
		}
	}
	return p
}

// dump is the node's plan, a row a line.
func dump(p *pipeline.Pipeline) string {
	var b strings.Builder
	for _, table := range plan.Tables() {
		for _, r := range p.Rows(table) {
			fmt.Fprintf(&b, "%s %s %s\n", table, r.Key, model.Bytes(r.Value))
		}
	}
	return b.String()
}

func base(t *testing.T) objects.Input {
	t.Helper()
	b, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return objects.Input{Name: "base.yaml", Data: b}
}

func TestIntentsAreEqualAcrossPlanes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 5 {
		t.Fatalf("cases: %v, %v", files, err)
	}
	common := base(t)
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			for _, node := range []string{"node-1", "node-2"} {
				nothing := dump(load(t, node, common))
				first := ""
				for i, f := range a.Files {
					got := dump(load(t, node, common, objects.Input{Name: f.Name, Data: f.Data}))
					if got == nothing {
						t.Errorf("%s changes nothing on %s", f.Name, node)
					}
					if i == 0 {
						first = got
					} else if d := cmp.Diff(first, got); d != "" {
						t.Errorf("%s: %s (-) and %s (+) differ:\n%s", node, a.Files[0].Name, f.Name, d)
					}
				}
			}
		})
	}
}
