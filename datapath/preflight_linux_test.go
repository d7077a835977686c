// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
