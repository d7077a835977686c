// SPDX-License-Identifier: Apache-2.0

package live

import (
	"path/filepath"
	"testing"
)

// linkerdTable is Linkerd's decision table: one case a file.
func linkerdTable(t *testing.T) []*Case {
	t.Helper()
	files, err := filepath.Glob("../linkerd/cases/*.txtar")
	if err != nil || len(files) < 120 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	var out []*Case
	for _, file := range files {
		c, err := ReadCase(file)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// TestLinkerdTable asks the plan about every request of Linkerd's decision table.
func TestLinkerdTable(t *testing.T) {
	for _, c := range linkerdTable(t) {
		for _, v := range c.Variants {
			t.Run(c.Name, func(t *testing.T) {
				if foresee(t, c, v) == 0 {
					t.Error("nothing was asked")
				}
			})
		}
	}
}
