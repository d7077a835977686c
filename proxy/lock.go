// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockWait = 3 * time.Second
	lockPoll = 20 * time.Millisecond
)

// errHeld says that another process has a lock.
var errHeld = errors.New("held by another process")

// tryLock takes a lock: a file that is held open. The kernel gives it back when nobody
// has it open any more, however that came about; a file that is left says nothing. Of
// process numbers nobody could tell which pid namespace they are of.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errHeld
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// Locks of pid namespaces that are gone are removed: this one counts only if it is
	// still the file of that name.
	held, err := f.Stat()
	if err == nil {
		var now os.FileInfo
		now, err = os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(held, now) {
			err = errHeld // by who has just removed it: another try makes a file of its own
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// lockOwn makes sure that one proxy of this pid namespace runs on a folder. A proxy that
// is killed while it starts an Envoy leaves a copy of itself that is about to become that
// Envoy, and holds the lock until then. So it is waited for a little.
func lockOwn(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		f, err := tryLock(path)
		if err == nil || !errors.Is(err, errHeld) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock run folder: another proxy runs on %s, in the same pid namespace: one that is to follow it must have its own", filepath.Dir(path))
		case <-time.After(lockPoll):
		}
	}
}

// sweepOwn removes what proxies of pid namespaces that are gone have left.
func sweepOwn(runDir string) error {
	left, err := filepath.Glob(filepath.Join(runDir, "proxy-*.lock"))
	if err != nil {
		return err
	}
	for _, path := range left {
		f, err := tryLock(path)
		if err != nil {
			continue // somebody lives there
		}
		os.Remove(strings.TrimSuffix(path, ".lock") + ".sock")
		os.Remove(path)
		f.Close()
	}
	return nil
}
