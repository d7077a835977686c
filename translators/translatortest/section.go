// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Section compares the part of a document between "<!-- name -->" and the next
// "<!-- end -->" with what a test found; -update rewrites it.
func Section(t *testing.T, file, name, want string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), "<!-- "+name+" -->\n")
	have, after, closed := strings.Cut(rest, "<!-- end -->")
	switch {
	case !ok || !closed:
		t.Fatalf("%s has no section %q", file, name)
	case have == want:
	case *update && !t.Failed(): // what has failed is not to be written down
		text := before + "<!-- " + name + " -->\n" + want + "<!-- end -->" + after
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s, section %q is not up to date; run the test with -update:\n%s", file, name, cmp.Diff(have, want))
	}
}
