// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupMount finds the cgroup2 file system, "" if none is mounted.
func cgroupMount() (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" && !strings.HasPrefix(f[1], Root+"/") {
			return f[1], nil
		}
	}
	return "", nil
}

// cgroupOf is the folder of a lab's processes. Where no cgroup2 is mounted it is
// on a mount of the lab's own, if that is there.
func cgroupOf(name string) (string, error) {
	root, err := cgroupMount()
	if err != nil {
		return "", err
	}
	if root == "" {
		root = filepath.Join(pathsOf(name).run, "cgroup")
	}
	return filepath.Join(root, "fairlead-lab-"+name), nil
}

// makeCgroup makes the lab's folder, mounting cgroup2 if nobody has.
func makeCgroup(name string) (string, error) {
	dir, err := cgroupOf(name)
	if err != nil {
		return "", err
	}
	if root := filepath.Dir(dir); strings.HasPrefix(root, Root+"/") {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return "", fmt.Errorf("mount cgroup2: %w", err)
		}
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			return "", fmt.Errorf("mount cgroup2: %w", err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	return dir, nil
}

// joinCgroup moves the calling process. It makes the last folder of dir, and not
// those above: a process that comes late must not bring back a lab that has gone.
func joinCgroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter cgroup %s: %w", dir, err)
	}
	return nil
}

// endCgroup kills every process below a cgroup and removes it. One that is not
// there is none.
func endCgroup(ctx context.Context, dir string) error {
	err := poll(ctx, 10*time.Second, 2*time.Millisecond, func() (bool, error) {
		// Processes may still come in that were started before: kill as often as it
		// takes.
		err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		return removeCgroups(dir)
	})
	if err != nil {
		return fmt.Errorf("end processes of cgroup %s: %w", dir, err)
	}
	return nil
}

// removeCgroups removes a cgroup and those below it; done is false if one of them
// still has a process.
func removeCgroups(dir string) (done bool, err error) {
	var dirs []string
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("list cgroups: %w", err)
	}
	slices.Reverse(dirs) // children first
	for _, d := range dirs {
		switch err := unix.Rmdir(d); {
		case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY):
			return false, nil
		case err != nil && !errors.Is(err, unix.ENOENT):
			return false, fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return true, nil
}

// poll asks done again and again until it is true or fails, or time is up.
func poll(ctx context.Context, limit, every time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
