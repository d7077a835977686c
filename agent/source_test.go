// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWatchFolderWakesForFilesThatCount(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		done <- watchFolder(ctx, slog.New(slog.DiscardHandler), dir, func() { calls <- struct{}{} })
	}()
	woken := func(what string, want bool) {
		t.Helper()
		select {
		case <-calls:
			if !want {
				t.Errorf("woken by %s", what)
			}
		case <-time.After(time.Second / 2 * 3):
			if want {
				t.Errorf("not woken by %s", what)
			}
		}
		for len(calls) > 0 { // one write may be several events
			<-calls
		}
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	woken("the start", true)
	write("a.yaml")
	woken("a file", true)
	write(".a.yaml.new")
	woken("a file that is being written", false)
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	woken("a folder", true)
	write("sub/b.yaml")
	woken("a file in a new folder", true)
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	woken("a file that goes", true)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// watch runs watchFolder and returns the channel of its calls, after the first.
func watch(t *testing.T, dir string) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		done <- watchFolder(ctx, slog.New(slog.DiscardHandler), dir, func() { calls <- struct{}{} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-calls
	return calls
}

func await(t *testing.T, calls <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-calls:
	case <-time.After(5 * time.Second):
		t.Fatalf("not woken by %s", what)
	}
	time.Sleep(2 * settle)
	for len(calls) > 0 {
		<-calls
	}
}

func TestWatchFolderThatGoesAndComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "source")
	for _, gone := range []struct {
		how string
		do  func() error
	}{
		{"removal", func() error { return os.RemoveAll(dir) }},
		{"renaming", func() error { return os.Rename(dir, dir+".old") }},
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		calls := watch(t, dir)
		if err := gone.do(); err != nil {
			t.Fatal(err)
		}
		await(t, calls, gone.how)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		await(t, calls, "a folder in its place, after "+gone.how)
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		await(t, calls, "a file in the new folder, after "+gone.how)
	}
}

// Kubernetes mounts a configuration as links to links, and exchanges one of them.
func TestWatchFolderOfAMountedConfiguration(t *testing.T) {
	dir := t.TempDir()
	mount := func(version string) {
		t.Helper()
		real := filepath.Join(dir, "..data_"+version)
		for _, err := range []error{
			os.Mkdir(real, 0o700),
			os.WriteFile(filepath.Join(real, "a.yaml"), []byte(version), 0o600),
			os.Symlink("..data_"+version, filepath.Join(dir, "..data_tmp")),
			os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	mount("1")
	if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	calls := watch(t, dir)
	mount("2")
	await(t, calls, "an exchanged link")
}

// A link to a folder is watched as the folder that it leads to, and so is the next one.
func TestWatchFolderBehindALink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "current")
	for _, v := range []string{"v1", "v2"} {
		if err := os.MkdirAll(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	point := func(v string) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := errors.Join(os.Symlink(v, next), os.Rename(next, link)); err != nil {
			t.Fatal(err)
		}
	}
	point("v1")
	calls := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = watchFolder(ctx, slog.New(slog.DiscardHandler), link, func() { calls <- struct{}{} })
	}()
	woken := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(5 * time.Second):
			t.Fatalf("not woken by %s", what)
		}
		time.Sleep(100 * time.Millisecond)
		for len(calls) > 0 {
			<-calls
		}
	}
	write := func(v string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, v, "a.yaml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	woken("the start")
	write("v1")
	woken("a file behind the link")
	point("v2")
	woken("another folder behind the link")
	write("v2")
	woken("a file behind the link as it is now")
}

// Links below the folder are watched, those that come later too, and what they lead to
// when they are exchanged.
func TestWatchFolderWithLinks(t *testing.T) {
	dir, shared := t.TempDir(), t.TempDir()
	for _, v := range []string{"v1", "v2", "more"} {
		if err := os.Mkdir(filepath.Join(shared, v), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	point := func(link, to string) {
		t.Helper()
		next := filepath.Join(dir, ".next")
		if err := errors.Join(os.Symlink(filepath.Join(shared, to), next), os.Rename(next, filepath.Join(dir, link))); err != nil {
			t.Fatal(err)
		}
	}
	write := func(to string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(shared, to, "a.yaml"), []byte(time.Now().String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	point("base", "v1")
	calls := watch(t, dir)
	write("v1")
	await(t, calls, "a file behind a link")
	point("more", "more")
	await(t, calls, "a new link")
	write("more")
	await(t, calls, "a file behind a new link")
	point("base", "v2")
	await(t, calls, "an exchanged link")
	write("v2")
	await(t, calls, "a file behind an exchanged link")
}
