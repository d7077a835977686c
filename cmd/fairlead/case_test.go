// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what comes out as what is wanted")

// commandCase is a file with the commands to run in its first lines, the files that they
// read, and in the section "want" what they write.
type commandCase struct {
	path     string
	archive  *txtar.Archive
	commands []string
	want     *txtar.File
}

// eachCase unpacks the cases one after the other, and runs a test in the folder of each.
func eachCase(t *testing.T, pattern string, run func(*testing.T, *commandCase)) {
	t.Helper()
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
			c := &commandCase{path: path}
			if c.archive, err = txtar.ParseFile(path); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(c.archive.Comment)) {
				c.commands = append(c.commands, strings.TrimSpace(line))
			}
			t.Chdir(t.TempDir())
			t.Setenv("KUBECONFIG", "/nowhere/kubeconfig") // whatever this machine has
			for i, f := range c.archive.Files {
				if f.Name == "want" {
					c.want = &c.archive.Files[i]
					continue
				}
				if err := os.MkdirAll(filepath.Dir(f.Name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.want == nil {
				t.Fatal("there is no section want")
			}
			run(t, c)
		})
	}
}

// judge compares what came out with what is wanted.
func (c *commandCase) judge(t *testing.T, got string) {
	t.Helper()
	if *update {
		c.want.Data = []byte(got)
		if err := os.WriteFile(c.path, txtar.Format(c.archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(string(c.want.Data), got); d != "" {
		t.Error(d)
	}
}

// runCases runs the commands of cases, and compares what each writes and its exit status.
func runCases(t *testing.T, pattern string) {
	t.Helper()
	eachCase(t, pattern, func(t *testing.T, c *commandCase) {
		got := ""
		for _, command := range c.commands {
			r := fairlead(t, "", strings.Fields(command)...)
			got += fmt.Sprintf("$ fairlead %s\n%s%sexit %d\n", command, r.out, r.err, r.code)
		}
		c.judge(t, got)
	})
}

func TestDiff(t *testing.T) { runCases(t, "testdata/diff/*.txtar") }

func TestExplainRequest(t *testing.T) { runCases(t, "testdata/request/*.txtar") }

func TestTranslate(t *testing.T) { runCases(t, "testdata/translate/*.txtar") }
