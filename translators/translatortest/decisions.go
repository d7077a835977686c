// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// decision is the end of a line of a README that names its cases.
var decision = regexp.MustCompile(`(?m)\.\s\(([a-z0-9_, ]+)\)$`)

// Decisions checks that the cases that a README names, in brackets at the end of its
// lines, are in one of the folders. At least so many must be named.
func Decisions(t *testing.T, readme string, least int, folders ...string) {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range decision.FindAllStringSubmatch(string(text), -1) {
		for name := range strings.FieldsFuncSeq(m[1], func(r rune) bool { return r == ',' || r == ' ' }) {
			if name == "to" {
				continue
			}
			n++
			found := false
			for _, f := range folders {
				_, err := os.Stat(filepath.Join(f, name+".txtar"))
				found = found || err == nil
			}
			if !found {
				t.Errorf("%s names the case %s, which is not there", readme, name)
			}
		}
	}
	if n < least {
		t.Errorf("%s names %d cases", readme, n)
	}
}
