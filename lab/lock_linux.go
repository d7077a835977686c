// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock makes this the only verb that works on a lab. The file is beside the run
// folder, so that it outlives it; unlock removes it if remove is set.
type lock struct {
	file   *os.File
	remove bool
}

func lockFile(name string) string { return filepath.Join(Root, "."+name+".lock") }

func takeLock(ctx context.Context, name string) (*lock, error) {
	if err := os.MkdirAll(Root, 0o755); err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", name, err)
	}
	path := lockFile(name)
	var got *lock
	err := poll(ctx, time.Minute, 50*time.Millisecond, func() (bool, error) {
		if err := os.MkdirAll(Root, 0o755); err != nil { // the last lab may just have left
			return false, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return false, nil
			}
			return false, err
		}
		// Whoever had it before may have removed the file that this is.
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return false, err
		}
		if there, err := os.Stat(path); err != nil || !os.SameFile(mine, there) {
			f.Close()
			return false, nil
		}
		got = &lock{file: f}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock lab %s: another verb is at work: %w", name, err)
	}
	return got, nil
}

// unlock lets the next one in.
func (l *lock) unlock() {
	if l.remove {
		_ = os.Remove(l.file.Name()) // it stays if it cannot go, and does no harm
		_ = os.Remove(Root)          // if this was the last lab
		_ = os.Remove(filepath.Dir(Root))
	}
	l.file.Close()
}
