// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock that somebody has is asked for.
const lockRetry = 50 * time.Millisecond

// takeLock makes sure that one process at a time writes a node's datapath: each
// believes that what it knows of the maps is true. The next agent waits until the
// last one has ended or the context ends. A dead process has no lock.
func takeLock(ctx context.Context, stateDir string, log *slog.Logger) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for state: %w", err)
	}
	for said := false; ; said = true {
		f, err := tryLock(filepath.Join(stateDir, "lock"))
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return f, err
		}
		if !said {
			log.Info("wait for another process that has the datapath", "stateDir", stateDir)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process has the datapath of %s: %w", stateDir, ctx.Err())
		case <-time.After(lockRetry):
		}
	}
}

func tryLock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock datapath: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock datapath: %w", err), f.Close())
	}
	// Uninstall removes the file: the lock counts only if it is still that one.
	held, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock datapath: %w", err), f.Close())
	}
	now, err := os.Stat(file)
	if err != nil || !os.SameFile(held, now) {
		return nil, errors.Join(unix.EWOULDBLOCK, f.Close())
	}
	return f, nil
}
