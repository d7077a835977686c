// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The decisions name cases that exist.
func TestReadmeNamesCases(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile(`(?m)\.\s\(([a-z0-9_, ]+)\)$`).FindAllStringSubmatch(string(text), -1) {
		for name := range strings.FieldsFuncSeq(m[1], func(r rune) bool { return r == ',' || r == ' ' }) {
			n++
			_, here := os.Stat(filepath.Join("testdata", name+".txtar"))
			_, there := os.Stat(filepath.Join("../../conformance/linkerd", name+".txtar"))
			if here != nil && there != nil {
				t.Errorf("README.md names %s: %v", name, here)
			}
		}
	}
	if n < 40 {
		t.Errorf("found %d names only", n)
	}
}
