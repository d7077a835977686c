// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// feature is one that the datapath needs of the kernel.
type feature struct {
	name   string
	option string // that a kernel with it is built with
	try    func() error
}

func kernelFeatures() []feature {
	return []feature{
		{"TCX", "CONFIG_NET_XGRESS", probeTCX},
		{"cgroup sock_addr", "CONFIG_CGROUP_BPF", func() error { return features.HaveProgramType(ebpf.CGroupSockAddr) }},
		{"ring buffer", "CONFIG_BPF_SYSCALL", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"LPM trie", "CONFIG_BPF_SYSCALL", func() error { return features.HaveMapType(ebpf.LPMTrie) }},
		{"bpf_sk_assign", "CONFIG_INET", func() error { return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnSkAssign) }},
		{"bpf_get_netns_cookie", "CONFIG_CGROUP_BPF", func() error { return features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetNetnsCookie) }},
		{"BTF", "CONFIG_DEBUG_INFO_BTF", func() error { _, err := btf.LoadKernelSpec(); return err }},
	}
}

// probe tries what the datapath needs of the kernel; its version says nothing.
func probe() []Need {
	var out []Need
	for _, f := range kernelFeatures() {
		n := Need{Name: f.name, OK: true}
		if err := f.try(); err != nil {
			n.OK, n.Detail = false, err.Error()
		}
		out = append(out, n)
	}
	return out
}

// finding tries it, and says which kernel has it, if this one does not.
func (f feature) finding() Finding {
	err := f.try()
	if err == nil {
		return Finding{Name: f.name, Level: Fine}
	}
	return Finding{f.name, Problem, err.Error(), "run Linux 6.6 or newer, built with " + f.option +
		"; if this one is, see whether a seccomp profile, a security module or lockdown forbids it"}
}

// withLacking adds to an error what the kernel lacks, if that explains it.
func withLacking(err error, features []Need) error {
	var names []string
	for _, f := range features {
		if !f.OK {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return err
	}
	return fmt.Errorf("%w (kernel lacks %s; Linux 6.6 or newer has them)", err, strings.Join(names, ", "))
}

// probeTCX attaches a program that lets everything through, for a moment, to lo.
func probeTCX() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer p.Close()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: lo.Attrs().Index, Program: p, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	return l.Close()
}
