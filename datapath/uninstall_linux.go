// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/link"
)

// Uninstall gives the node back as it was: programs, pins, rule, routes, nftables
// table, sysctls. It needs no process that has the datapath open, and waits until
// there is none. It acts on the network namespace of the process. Doing it again is
// nothing.
func Uninstall(ctx context.Context, opt Options) error {
	l, err := takeLock(ctx, opt.StateDir, "", opt.Log)
	if err != nil {
		return err
	}
	defer l.Close()
	return errors.Join(unpin(opt.PinDir), newHost(opt).restore(ctx), os.Remove(l.Name()))
}

// unpin detaches our programs and gives up the maps. Files of others stay.
func unpin(dir string) error {
	links := filepath.Join(dir, linkDir)
	errs := []error{eachFile(links, func(file string) error {
		l, err := link.LoadPinnedLink(file, nil)
		if err != nil {
			return fmt.Errorf("open link %s: %w", file, err)
		}
		if err := removeLink(l); err != nil {
			return fmt.Errorf("remove link %s: %w", file, err)
		}
		return nil
	})}
	errs = append(errs, eachFile(dir, func(file string) error {
		if !strings.HasPrefix(filepath.Base(file), "fl_") {
			return nil
		}
		return os.Remove(file)
	}))
	for _, d := range []string{links, dir} {
		// A folder that is a mount point is not ours.
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EBUSY) {
			errs = append(errs, fmt.Errorf("remove folder for pins: %w", err))
		}
	}
	return errors.Join(errs...)
}

// eachFile calls fn for the files of a folder, not for its folders. No folder, no files.
func eachFile(dir string, fn func(file string) error) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var errs []error
	for _, f := range files {
		if !f.IsDir() {
			errs = append(errs, fn(filepath.Join(dir, f.Name())))
		}
	}
	return errors.Join(errs...)
}
