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

// lockLong is how long an agent takes to end at most, as a rule.
const lockLong = time.Minute

// takeLock makes sure that one process at a time writes a node's datapath: each
// believes that what it knows of the maps is true. The next agent waits until the
// last one has ended or the context ends. A dead process has no lock.
func takeLock(ctx context.Context, stateDir, owner string, log *slog.Logger) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for state: %w", err)
	}
	file := filepath.Join(stateDir, "lock")
	begun, said := time.Now(), 0
	for {
		f, err := tryLock(file)
		if err == nil && owner != "" { // for who waits
			err = errors.Join(f.Truncate(0), writeAt(f, owner))
		}
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return f, err
		}
		has, _ := os.ReadFile(file) // who is not known may be waited for, too
		switch {
		case said == 0:
			log.Info("wait for another process that has the datapath", "stateDir", stateDir, "process", string(has))
			said++
		case said == 1 && time.Since(begun) > lockLong:
			log.Warn("another process keeps the datapath; if it is of a second installation, remove one of the two", "stateDir", stateDir, "process", string(has))
			said++
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process has the datapath of %s: %w", stateDir, ctx.Err())
		case <-time.After(lockRetry):
		}
	}
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
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
