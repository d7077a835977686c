// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented is of this file, which tests no behaviour of Envoy.
const documented = "TestDocumented"

// Every test is a row of the document, and every row has a test, and packages.
func TestDocumented(t *testing.T) {
	const document, root = "../../docs/envoy.md", "../.."
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	quoted := regexp.MustCompile("`([^`]+)`")
	rows := 0
	named := map[string]bool{}
	relied, ofVersions := true, false
	for i, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, "## ") {
			relied = line != "## What is not relied on"
			ofVersions = strings.HasPrefix(line, "## Try")
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[0]) == "Behaviour" || ofVersions {
			continue
		}
		rows++
		if len(cells) != 3 {
			t.Errorf("line %d has %d cells", i+1, len(cells))
			continue
		}
		of := quoted.FindAllStringSubmatch(cells[1], -1)
		if len(of) == 0 {
			t.Errorf("line %d names no test", i+1)
		}
		for _, m := range of {
			named[m[1]] = true
			if !slices.Contains(tests, m[1]) {
				t.Errorf("line %d: there is no %s", i+1, m[1])
			}
		}
		packages := quoted.FindAllStringSubmatch(cells[2], -1)
		if (len(packages) > 0) != relied {
			t.Errorf("line %d: %d packages rely on it", i+1, len(packages))
		}
		for _, m := range packages {
			if src, err := filepath.Glob(filepath.Join(root, m[1], "*.go")); err != nil || len(src) == 0 {
				t.Errorf("line %d: there is no package %s", i+1, m[1])
			}
		}
	}
	if rows == 0 {
		t.Error("no table")
	}
	for _, name := range tests {
		if !named[name] && name != documented {
			t.Errorf("%s is not in %s", name, document)
		}
	}
}

// testNames are the tests of this package, of any platform.
func testNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" {
				names = append(names, fn.Name.Name)
			}
		}
	}
	return names
}
