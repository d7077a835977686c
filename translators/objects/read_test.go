// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A link to a folder is as good as the folder, by its own name.
func TestFilesBelowALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "v1"), filepath.Join(dir, "current")
	err := errors.Join(os.MkdirAll(filepath.Join(real, "sub"), 0o700), os.WriteFile(filepath.Join(real, "sub", "a.yaml"), []byte("a: b\n"), 0o600), os.Symlink(real, link))
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{real, link, link + "/"} {
		in := Files([]string{root}, nil)
		want := filepath.Join(root, "sub", "a.yaml")
		if len(in) != 1 || in[0].Err != nil || in[0].Name != want {
			t.Errorf("%s: %+v", root, in)
		}
	}
}
