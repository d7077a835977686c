// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLockIsWaitedFor: what is left of a proxy that was killed may hold the lock for a
// moment.
func TestLockIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockOwn(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	const held = 200 * time.Millisecond
	time.AfterFunc(held, func() { first.Close() })
	began := time.Now()
	again, err := lockOwn(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if d := time.Since(began); d < held {
		t.Errorf("taken after %v, though it is held for %v", d, held)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockOwn(short, path); err == nil || !strings.HasPrefix(err.Error(), "lock run folder: another proxy runs on "+filepath.Dir(path)) {
		t.Errorf("error %v", err)
	}
}
