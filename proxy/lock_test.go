// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
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

// TestLockIsSweptMeanwhile: a proxy that starts has its lock looked at by another one that
// starts, as long as it has only made the file, and tries again.
func TestLockIsSweptMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "proxy-1.lock")
	over := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				if err := sweepOwn(dir); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 20_000 {
		f, err := tryLock(path)
		if err == nil {
			f.Close()
		} else if !errors.Is(err, errHeld) {
			t.Errorf("error %v", err)
			break
		}
	}
	close(over)
	sweeper.Wait()
}
