// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Down removes a lab and whatever is left of one that died. It goes by the lab's
// name alone: what was written down may be gone or wrong.
func Down(ctx context.Context, name string) error {
	name = cmp.Or(name, DefaultName)
	if err := checkName(name); err != nil {
		return err
	}
	there, err := remains(name)
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("lab %s: %w", name, ErrNoLab)
	}
	k, err := takeLock(ctx, name)
	if err != nil {
		return err
	}
	defer k.unlock()
	k.remove = true
	return tearDown(ctx, name)
}

// remains reports whether anything is left of a lab.
func remains(name string) (bool, error) {
	cgroup, err := cgroupOf(name)
	if err != nil {
		return false, err
	}
	for _, path := range []string{pathsOf(name).run, cgroup, lockFile(name)} {
		if _, err := os.Stat(path); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// tearDown removes everything of a lab. The caller has its lock.
func tearDown(ctx context.Context, name string) error {
	p := pathsOf(name)
	cgroup, err := cgroupOf(name)
	if err != nil {
		return err
	}
	if err := endCgroup(ctx, cgroup); err != nil {
		return err
	}
	if err := endRecorded(ctx, name); err != nil {
		return err
	}
	mounts, err := mountsBelow(p.run)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // the files below are still the kernel's
	}
	if err := os.RemoveAll(p.run); err != nil {
		return fmt.Errorf("remove run folder: %w", err)
	}
	return nil
}

// endRecorded kills those processes of the record that are not in the lab's
// cgroup: one that ended before it had taken its place, say.
func endRecorded(ctx context.Context, name string) error {
	r, err := loadRecord(name)
	if err != nil {
		return nil // without a record there is nothing to go by
	}
	var all []process
	for _, p := range r.Daemons {
		all = append(all, p)
	}
	for _, p := range r.Pods {
		all = append(all, p.Processes...)
	}
	for _, p := range all {
		if err := p.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	return poll(ctx, 5*time.Second, 2*time.Millisecond, func() (bool, error) {
		return !slices.ContainsFunc(all, process.alive), nil
	})
}
