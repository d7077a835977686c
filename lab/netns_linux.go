// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// newNetns makes a network namespace with a file that keeps it alive, and runs
// setup inside.
func newNetns(file string, setup func() error) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep network namespace: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		return setup()
	})
}

// inNetns runs f inside a network namespace.
func inNetns(file string, f func() error) error {
	return onThread(func() error {
		if err := enterNetns(file); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it, so that f may change what the
// thread belongs to.
func onThread(f func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end before the process. While it waits here,
			// another one is found.
			errs <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		errs <- f() // still locked: the thread is not used again
	}()
	return <-errs
}

// enterNetns moves the calling thread.
func enterNetns(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", file, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", file, err)
	}
	return nil
}

// deleteNetns lets go of a namespace: the kernel takes it away, with all devices
// in it, when its last process has ended.
func deleteNetns(file string) error {
	if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete network namespace %s: %w", file, err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	return nil
}

// netnsHandle is netlink inside a namespace.
type netnsHandle struct {
	*netlink.Handle
	ns netns.NsHandle
}

func openNetns(file string) (*netnsHandle, error) {
	ns, err := netns.GetFromPath(file)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", file, err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("open netlink in %s: %w", file, err)
	}
	return &netnsHandle{h, ns}, nil
}

func (h *netnsHandle) close() {
	h.Handle.Close()
	h.ns.Close()
}

// sysctls sets values below /proc/sys/net in the calling thread's namespace.
func sysctls(values map[string]string) error {
	for name, v := range values {
		file := filepath.Join("/proc/sys/net", name)
		if err := os.WriteFile(file, []byte(v), 0); err != nil {
			return fmt.Errorf("set %s to %s: %w", file, v, err)
		}
	}
	return nil
}
