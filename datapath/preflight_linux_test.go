// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
)

// A node that has everything is told so, and what others have there is named.
func TestPreflight(t *testing.T) {
	need.Root(t)
	cg, err := os.MkdirTemp(cgroup2(t), "fairlead-preflight-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, os.Remove(cg)) })
	pins := t.TempDir()
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(pins, 0)) })
	opt := Options{PinDir: filepath.Join(pins, "fairlead"), Cgroup: cg, Uplinks: []string{"lo", "none0"}}
	of := func(name string) Finding {
		t.Helper()
		for _, f := range Preflight(opt) {
			if f.Name == name {
				return f
			}
		}
		t.Fatalf("nothing is said of %s", name)
		return Finding{}
	}
	for _, name := range []string{"privileges", "TCX", "bpf_sk_assign", "BPF file system", "cgroup2", "nftables", "source ports", "socket load balancing"} {
		if f := of(name); f.Level != Fine {
			t.Errorf("%+v", f)
		}
	}
	if f := of("uplink none0"); f.Level != Warning || f.Advice == "" { // the other one is there
		t.Errorf("%+v", f)
	}
	opt.Uplinks = []string{"none0", "none1"}
	if f := of("uplink none0"); f.Level != Problem || f.Advice == "" {
		t.Errorf("%+v", f)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "their_connect", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cg, Attach: ebpf.AttachCGroupInet4Connect, Program: prog})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if f := of("socket load balancing"); f.Level != Warning || !strings.Contains(f.Detail, "connect4: their_connect") {
		t.Errorf("%+v", f)
	}
	opt.Cgroup = t.TempDir()
	if f := of("cgroup2"); f.Level != Problem {
		t.Errorf("%+v", f)
	}
	opt.PinDir = filepath.Join(t.TempDir(), "pins")
	if f := of("BPF file system"); f.Level != Problem || Worst(Preflight(opt)) != Problem {
		t.Errorf("%+v", f)
	}
}

// A capability that is missing is named, each of them; the process that lacks it is another
// one.
func TestPrivileges(t *testing.T) {
	need.Root(t)
	const told = "FAIRLEAD_TEST_PRIVILEGES"
	parts := map[string]struct {
		needs []capability
		look  func() Finding
	}{"agent": {agentNeeds, Privileges}, "proxy": {proxyNeeds, ProxyPrivileges}}
	if part, ok := parts[os.Getenv(told)]; ok {
		f := part.look()
		fmt.Printf("%s: %s; %s\n", f.Level, f.Detail, f.Advice)
		return
	}
	need.Command(t, "setpriv")
	for name, part := range parts {
		if f := part.look(); f.Level != Fine {
			t.Errorf("%s, root: %+v", name, f)
		}
		without := func(caps ...string) {
			t.Helper()
			var lacks []string
			for _, c := range caps {
				lacks = append(lacks, "CAP_"+c)
			}
			drop := "--bounding-set=-" + strings.ToLower(strings.Join(caps, ",-"))
			if slices.Contains(caps, "BPF") {
				drop += ",-sys_admin"
			}
			cmd := exec.CommandContext(t.Context(), "setpriv", drop, os.Args[0], "-test.run=^TestPrivileges$")
			cmd.Env = append(os.Environ(), told+"="+name)
			out, err := cmd.CombinedOutput()
			if want := "problem: lacks " + strings.Join(lacks, ", ") + "; run it as root; in a pod, add these"; err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s without %v: %v: %s, want %q", name, caps, err, out, want)
			}
		}
		for _, c := range part.needs {
			without(c.name)
		}
		without("CHOWN", "NET_ADMIN")
	}
}

// A feature that the kernel lacks is named, with what has it: here the kernel refuses a
// command of bpf(), or does not show its types, to a process of its own.
func TestKernelWithoutFeatures(t *testing.T) {
	need.Root(t)
	const told = "FAIRLEAD_TEST_REFUSED"
	kinds := []struct {
		refused string
		refuse  func() error
		lacks   map[string]string // the feature, and the option it comes with
	}{
		{"links", func() error { return refuseBPF(unix.BPF_LINK_CREATE) }, map[string]string{"TCX": "CONFIG_NET_XGRESS"}},
		{"maps", func() error { return refuseBPF(unix.BPF_MAP_CREATE) }, map[string]string{"ring buffer": "CONFIG_BPF_SYSCALL", "LPM trie": "CONFIG_BPF_SYSCALL"}},
		{"programs", func() error { return refuseBPF(unix.BPF_PROG_LOAD) }, map[string]string{"TCX": "CONFIG_NET_XGRESS", "cgroup sock_addr": "CONFIG_CGROUP_BPF",
			"bpf_sk_assign": "CONFIG_INET", "bpf_get_netns_cookie": "CONFIG_CGROUP_BPF"}},
		{"types", func() error { return unix.Mount("none", "/sys/kernel/btf", "tmpfs", 0, "") }, map[string]string{"BTF": "CONFIG_DEBUG_INFO_BTF"}},
	}
	if kind := os.Getenv(told); kind != "" {
		for _, k := range kinds {
			if k.refused == kind {
				check(t, k.refuse())
			}
		}
		for _, f := range Preflight(Options{}) {
			fmt.Printf("%s: %s: %s; %s\n", f.Name, f.Level, f.Detail, f.Advice)
		}
		return
	}
	for _, k := range kinds {
		t.Run(k.refused, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKernelWithoutFeatures$")
			cmd.Env = append(os.Environ(), told+"="+k.refused)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // its mounts are its own
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, f := range kernelFeatures() {
				line := ""
				for l := range strings.Lines(string(out)) {
					if strings.HasPrefix(l, f.name+": ") {
						line = l
					}
				}
				level, rest, _ := strings.Cut(strings.TrimPrefix(line, f.name+": "), ": ")
				why, advice, _ := strings.Cut(rest, "; ")
				option, lacks := k.lacks[f.name]
				switch {
				case lacks && (level != string(Problem) || why == "" || !strings.HasPrefix(advice, "run Linux 6.6 or newer, built with "+option+"; ")):
					t.Errorf("of %s it is said %q", f.name, line)
				case !lacks && level != string(Fine):
					t.Errorf("the kernel has %s, and it is said %q", f.name, line)
				}
			}
		})
	}
}

// refuseBPF has the kernel answer a command of bpf() to this process as one that does not
// know it.
func refuseBPF(command uint32) error {
	const (
		number = 0  // of the system call, in struct seccomp_data
		first  = 16 // its first argument, on little-endian machines
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: first},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: command, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("install seccomp filter: %w", errno)
	}
	return nil
}
