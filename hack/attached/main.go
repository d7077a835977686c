// SPDX-License-Identifier: Apache-2.0

// attached lists the programs that are attached to the interfaces of the network namespace
// that it runs in, and to a cgroup, for tests that compare a node before and after:
//
//	attached /sys/fs/cgroup
//
// A line for each: where, at which hook, and the program's name.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: attached CGROUP")
		os.Exit(2)
	}
	if err := list(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "attached:", err)
		os.Exit(1)
	}
}

func list(cgroup string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			errs = append(errs, show(l.Attrs().Name, l.Attrs().Index, at))
		}
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("open cgroup: %w", err))...)
	}
	defer dir.Close()
	for _, at := range []ebpf.AttachType{
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
		ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg, ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername,
		ebpf.AttachCGroupGetsockopt,
	} {
		errs = append(errs, show(cgroup, int(dir.Fd()), at))
	}
	return errors.Join(errs...)
}

func show(where string, target int, at ebpf.AttachType) error {
	r, err := link.QueryPrograms(link.QueryOptions{Target: target, Attach: at})
	if err != nil {
		return fmt.Errorf("%s, %s: %w", where, at, err)
	}
	for _, p := range r.Programs {
		name := fmt.Sprint(p.ID)
		if program, err := ebpf.NewProgramFromID(p.ID); err == nil {
			if info, err := program.Info(); err == nil {
				name = info.Name
			}
			_ = program.Close()
		}
		fmt.Println(where, at, name)
	}
	return nil
}
