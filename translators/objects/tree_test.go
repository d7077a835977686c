// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is no file, and is called as if it were one, is told and not waited for.
func TestNoFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.WriteFile(at("a.yaml"), []byte("a: b\n"), 0o600), syscall.Mkfifo(at("pipe.yaml"), 0o600), syscall.Mkfifo(at("pipe"), 0o600),
		os.Symlink("pipe", at("link.yaml")), os.Symlink("/dev/zero", at("zero.json")), os.Symlink(os.DevNull, at("masked.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := net.Listen("unix", at("s.yml"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []string
	for _, in := range Files([]string{dir}, nil) {
		word := "read"
		if in.Err != nil {
			word = in.Err.Error()
		}
		got = append(got, filepath.Base(in.Name)+": "+word)
	}
	const named = ", not a file: put one in its place"
	if want := []string{"a.yaml: read", "link.yaml: it is a named pipe" + named, "pipe.yaml: it is a named pipe" + named, "s.yml: it is a socket" + named,
		"zero.json: it is a device" + named}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A link to a whole machine costs what is beside it nothing, and not long.
func TestFarTooMuch(t *testing.T) {
	dir := t.TempDir()
	small, big := filepath.Join(dir, "small"), filepath.Join(dir, "big")
	err := errors.Join(os.Mkdir(small, 0o700), os.MkdirAll(filepath.Join(big, "sub"), 0o700), os.WriteFile(filepath.Join(small, "a.yaml"), nil, 0o600),
		os.Symlink(big, filepath.Join(small, "link")), os.Symlink(dir, filepath.Join(small, "up")))
	for i := range 40 {
		err = errors.Join(err, os.WriteFile(filepath.Join(big, "sub", fmt.Sprint(i, ".yaml")), nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	tr := treeOf(small, 40)
	if len(tr.files) != 1 || len(tr.folders) != 1 || len(tr.broken) != 2 || !strings.Contains(tr.broken[0].Err.Error(), "more than 40 files and folders") {
		t.Errorf("files %v, folders %v, broken %v", tr.files, tr.folders, tr.broken)
	}
	if tr = treeOf(big, 40); len(tr.files) > 0 || !slices.Equal(tr.folders, []string{big}) || len(tr.broken) != 1 {
		t.Errorf("files %v, folders %v, broken %v", tr.files, tr.folders, tr.broken)
	}
	if tr = treeOf(small, 1000); len(tr.files) != 41 || len(tr.broken) > 0 {
		t.Errorf("files %v, broken %v", tr.files, tr.broken)
	}
}

func TestLinkToTheRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/", filepath.Join(dir, "root")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	in := Files([]string{dir}, nil)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	t.Logf("%d inputs in %s", len(in), time.Since(start))
}
