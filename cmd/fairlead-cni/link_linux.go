// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/cni"
)

// lookAt finds where a pod's interface ends on the node. The pod has no process yet by
// which an agent could find it, and the file of its network namespace may be where an
// agent that is a pod itself does not see it.
func lookAt(netns, ifName string) (cni.Link, error) {
	var cookie uint64
	var own, peer int
	err := within(netns, func() error {
		l, err := netlink.LinkByName(ifName)
		if err != nil {
			return fmt.Errorf("find its interface %s: %w", ifName, err)
		}
		if l.Type() != "veth" {
			return fmt.Errorf("its interface %s is a %s and no veth", ifName, l.Type())
		}
		own, peer = l.Attrs().Index, l.Attrs().ParentIndex
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a socket in its network: %w", err)
		}
		defer unix.Close(s)
		if cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			return fmt.Errorf("read the cookie of its network: %w", err)
		}
		return nil
	})
	if err != nil {
		return cni.Link{}, err
	}
	l, err := netlink.LinkByIndex(peer)
	if err != nil || l.Type() != "veth" || l.Attrs().ParentIndex != own {
		return cni.Link{}, fmt.Errorf("the other end of its interface %s is not in the node's network", ifName)
	}
	return cni.Link{Index: peer, Name: l.Attrs().Name, Cookie: cookie}, nil
}

// within runs f in a network namespace, on a thread that is used for nothing else: it is
// not brought back, but ends.
func within(netns string, f func() error) error {
	file, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("open its network: %w", err)
	}
	defer file.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter its network: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
