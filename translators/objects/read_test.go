// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// Links below a folder are followed, each folder is read once, and what leads nowhere is
// told.
func TestLinksBelowAFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("a: b\n"), 0o600))
	}
	link := func(to, name string) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(to, path))
	}
	err := errors.Join(
		write("shared/base/a.yaml"), write("shared/base/deep/b.yml"), write("shared/c.json"), write("shared/notes.txt"),
		write("root/app.yaml"), write("root/own/d.yaml"), write("root/.git/e.yaml"),
		link("../shared/base", "root/base"), link("../shared/base", "root/zz-the-same"), link("own", "root/also-own"),
		link("../../shared/c.json", "root/own/c.yaml"),
		link("..", "shared/base/deep/up"), link("../../root", "shared/base/back"), // loops
		link("../gone", "root/gone"), link("gone.yaml", "root/lost.yaml"), link("gone.txt", "root/notes.txt"), link("self", "root/self"),
		link("../shared", "root/.hidden"), link("/dev/null", "root/null.yaml"),
	)
	if err != nil {
		t.Fatal(err)
	}
	var read, broken []string
	for _, in := range Files([]string{filepath.Join(dir, "root")}, nil) {
		name, err := filepath.Rel(filepath.Join(dir, "root"), in.Name)
		if err != nil {
			t.Fatal(err)
		}
		if in.Err != nil {
			broken = append(broken, name)
		} else {
			read = append(read, name)
		}
	}
	if want := []string{"app.yaml", "base/a.yaml", "base/deep/b.yml", "own/c.yaml", "own/d.yaml"}; !slices.Equal(read, want) {
		t.Errorf("read %v, want %v", read, want)
	}
	if want := []string{"gone", "lost.yaml", "self"}; !slices.Equal(broken, want) {
		t.Errorf("broken are %v, want %v", broken, want)
	}
	if got := Folders(filepath.Join(dir, "root")); len(got) != 4 {
		t.Errorf("folders %v", got)
	}
}
