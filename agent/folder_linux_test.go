// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
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

func TestARunFolderThatStays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := keepFolder(ctx, t.TempDir(), time.Millisecond); err != nil {
		t.Error(err)
	}
}
