// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestARunFolderThatIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- keepFolder(ctx, dir, time.Millisecond) }()
	time.Sleep(20 * time.Millisecond) // the socket is not there yet: no reason to end
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Socket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-ended:
		t.Fatalf("ended: %v", err)
	default:
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "go on") {
		t.Errorf("%v", err)
	}
}

// TestWhatIsLeft: the next agent has the ports of the one whose folder was removed, and the
// kernel's part is left when the folder is there.
func TestWhatIsLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ports.json")
	p, err := openPorts(file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var want []uint16
	for _, name := range []string{"one", "two"} {
		n, err := p.allocate(name)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, n)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	there := false
	a := &agent{opts: Options{RunDir: dir}, ports: p, log: slog.New(slog.DiscardHandler)}
	a.leaveFolder(func() error {
		_, err := os.Stat(dir)
		there = err == nil
		return err
	})
	next, err := openPorts(file, time.Now)
	if err != nil || !there || next.get("one") != want[0] || next.get("two") != want[1] {
		t.Errorf("%v, %v: left %d and %d, want %d", err, there, next.get("one"), next.get("two"), want)
	}
}

func TestARunFolderThatStays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := keepFolder(ctx, t.TempDir(), time.Millisecond); err != nil {
		t.Error(err)
	}
}
