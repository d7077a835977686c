// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// runCases runs the commands that the first lines of cases have on their files, and
// compares what each writes, with its exit status, with the section want.
func runCases(t *testing.T, pattern string) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("cases: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			path, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			var want *txtar.File
			for i, f := range c.Files {
				if f.Name == "want" {
					want = &c.Files[i]
					continue
				}
				if err := os.MkdirAll(filepath.Dir(f.Name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want == nil {
				t.Fatal("there is no section want")
			}
			got := ""
			for line := range strings.Lines(string(c.Comment)) {
				r := fairlead(t, "", strings.Fields(line)...)
				got += "$ fairlead " + line + r.out + r.err + "exit " + string(rune('0'+r.code)) + "\n"
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(c), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(want.Data), got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDiff(t *testing.T) { runCases(t, "testdata/diff/*.txtar") }

func TestExplainRequest(t *testing.T) { runCases(t, "testdata/request/*.txtar") }
