// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
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
