// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Preflight looks whether a node has what the datapath needs, and who else takes part in
// what it does there. It changes nothing: what it tries, it takes away at once.
func Preflight(opt Options) []Finding {
	out := []Finding{Privileges()}
	if out[0].Level != Fine {
		return out // nothing could be tried
	}
	for _, f := range kernelFeatures() {
		out = append(out, f.finding())
	}
	out = append(out,
		mounted("BPF file system", nearest(opt.PinDir), unix.BPF_FS_MAGIC, "mount -t bpf bpf /sys/fs/bpf"),
		mounted("cgroup2", opt.Cgroup, unix.CGROUP2_SUPER_MAGIC, "name the folder where cgroups of version 2 are by --cgroup"),
		tables())
	return append(out, Others(opt)...)
}

// Others is the part of Preflight that may be otherwise at any time: who else takes part. It
// costs little and tries nothing.
func Others(opt Options) []Finding {
	mine := pinnedPrograms(opt.PinDir)
	out := []Finding{socketPrograms(opt.Cgroup, mine), rules(), sourcePorts()}
	for _, name := range opt.Uplinks {
		f := uplink(name, mine)
		if !present(name) && slices.ContainsFunc(opt.Uplinks, present) {
			f.Level, f.Advice = Warning, "it is attached to when it comes; take it out of the uplinks if it is not to"
		}
		out = append(out, f)
	}
	return append(out, ipv6(opt.Uplinks))
}

// present: there is an interface of that name.
func present(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// ipv6 looks whether packets may come that the redirect does not know.
func ipv6(uplinks []string) Finding {
	f := Finding{Name: "IPv6", Level: Fine}
	if hasIPv6() {
		return f
	}
	for _, name := range uplinks {
		if off, err := readSysctl("net/ipv6/conf/" + name + "/disable_ipv6"); err == nil && off == "0" {
			f.Level, f.Detail = Warning, "it is switched off for lo, and on for "+name+": requests by IPv6 do not reach the proxy, and those that policy wants judged there are refused"
			f.Advice = "set net.ipv6.conf.lo.disable_ipv6=0, or switch it off for all"
		}
	}
	return f
}

// Worst is the level of the worst of them.
func Worst(all []Finding) Level {
	levels := []Level{Fine, Warning, Problem}
	at := 0
	for _, f := range all {
		at = max(at, slices.Index(levels, f.Level))
	}
	return levels[at]
}

// capability is one that a part of the node needs. Either of its bits will do.
type capability struct {
	name string
	bits []int
}

// agentNeeds are the capabilities that the agent needs, and for what.
var agentNeeds = []capability{
	{"CHOWN", []int{unix.CAP_CHOWN}},           // sockets that are Envoy's user's
	{"NET_ADMIN", []int{unix.CAP_NET_ADMIN}},   // programs on interfaces, rules, routes, nftables
	{"SYS_ADMIN", []int{unix.CAP_SYS_ADMIN}},   // network namespaces of pods; here also BPF and PERFMON
	{"SYS_PTRACE", []int{unix.CAP_SYS_PTRACE}}, // /proc/PID/ns/net of pods
}

// proxyNeeds are those that the proxy needs.
var proxyNeeds = []capability{
	{"BPF", []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}}, // tell the kernel which Envoy takes new connections
	{"CHOWN", []int{unix.CAP_CHOWN}},                 // sockets and a folder are Envoy's user's
	{"KILL", []int{unix.CAP_KILL}},                   // end Envoy, another user's process
	{"NET_ADMIN", []int{unix.CAP_NET_ADMIN}},         // Envoy's sockets have pods' addresses
	{"SETGID", []int{unix.CAP_SETGID}},               // run Envoy as a user of its own
	{"SETUID", []int{unix.CAP_SETUID}},
}

// Privileges looks whether this process has the capabilities that the agent needs.
func Privileges() Finding { return privileges(agentNeeds) }

// ProxyPrivileges looks whether it has those that the proxy needs.
func ProxyPrivileges() Finding { return privileges(proxyNeeds) }

func privileges(needs []capability) Finding {
	f := Finding{Name: "privileges", Level: Fine}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Finding{Name: f.Name, Level: Problem, Detail: err.Error()}
	}
	var has uint64
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if has, err = strconv.ParseUint(strings.TrimSpace(v), 16, 64); err != nil {
				return Finding{Name: f.Name, Level: Problem, Detail: err.Error()}
			}
		}
	}
	var lacks []string
	for _, c := range needs {
		if !slices.ContainsFunc(c.bits, func(bit int) bool { return has&(1<<bit) != 0 }) {
			lacks = append(lacks, "CAP_"+c.name)
		}
	}
	if len(lacks) > 0 {
		f.Level, f.Detail = Problem, "lacks "+strings.Join(lacks, ", ")
		f.Advice = "run it as root; in a pod, add these to securityContext.capabilities, as the chart does"
	}
	return f
}

// nearest is a folder, or the first above it that is there.
func nearest(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// mounted checks that a folder is on a file system of a kind.
func mounted(name, dir string, magic int64, advice string) Finding {
	f := Finding{Name: name, Level: Fine, Detail: dir}
	var st unix.Statfs_t
	switch err := unix.Statfs(dir, &st); {
	case err != nil:
		f.Level, f.Detail, f.Advice = Problem, fmt.Sprintf("%s: %v", dir, err), advice
	case int64(st.Type) != magic: //nolint:unconvert // its type is not the same everywhere
		f.Level, f.Detail, f.Advice = Problem, dir+" is none", advice
	}
	return f
}

func tables() Finding {
	n, err := nftNeed().check()
	if err != nil {
		return Finding{"nftables", Problem, err.Error(), "run a kernel that is built with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET, or load its module nf_tables"}
	}
	if n.OK {
		return Finding{"nftables", Fine, n.Detail, ""}
	}
	return Finding{"nftables", Fine, "can be written", ""}
}

// pinnedPrograms are the numbers of the programs whose links are pinned below a folder.
func pinnedPrograms(dir string) map[ebpf.ProgramID]bool {
	out := map[ebpf.ProgramID]bool{}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what cannot be read is not known as ours
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return nil // a map
		}
		defer l.Close()
		if info, err := l.Info(); err == nil {
			out[info.Program] = true
		}
		return nil
	})
	return out
}

// socketHooks are where sockets are balanced.
var socketHooks = []struct {
	at   ebpf.AttachType
	name string
}{
	{ebpf.AttachCGroupInet4Connect, "connect4"}, {ebpf.AttachCGroupInet6Connect, "connect6"},
	{ebpf.AttachCGroupUDP4Sendmsg, "sendmsg4"}, {ebpf.AttachCGroupUDP6Sendmsg, "sendmsg6"},
	{ebpf.AttachCGroupUDP4Recvmsg, "recvmsg4"}, {ebpf.AttachCGroupUDP6Recvmsg, "recvmsg6"},
	{ebpf.AttachCgroupInet4GetPeername, "getpeername4"}, {ebpf.AttachCgroupInet6GetPeername, "getpeername6"},
	{ebpf.AttachCGroupGetsockopt, "getsockopt"},
}

// socketPrograms looks for others who balance the sockets of the same processes.
func socketPrograms(cgroup string, mine map[ebpf.ProgramID]bool) Finding {
	f := Finding{Name: "socket load balancing", Level: Fine, Detail: "nobody else's"}
	dir, err := os.Open(cgroup)
	if err != nil {
		return Finding{f.Name, Problem, err.Error(), ""}
	}
	defer dir.Close()
	var theirs []string
	var errs []error
	for _, h := range socketHooks {
		names, err := others(int(dir.Fd()), h.at, mine)
		errs = append(errs, err)
		for _, n := range names {
			theirs = append(theirs, h.name+": "+n)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Finding{f.Name, Warning, "it cannot be seen: " + err.Error(), ""}
	}
	if len(theirs) > 0 {
		f.Level, f.Detail = Warning, "others' programs stand at "+cgroup+": "+strings.Join(theirs, "; ")
		f.Advice = "who translates a service's address before Fairlead does has its requests pass by unrouted: turn that off (Cilium: socketLB.enabled=false), or leave such namespaces uncaptured; policy holds all the same"
	}
	return f
}

// others names the programs at a hook that are not ours.
func others(target int, at ebpf.AttachType, mine map[ebpf.ProgramID]bool) ([]string, error) {
	r, err := link.QueryPrograms(link.QueryOptions{Target: target, Attach: at})
	if err != nil {
		return nil, fmt.Errorf("list programs at %s: %w", at, err)
	}
	var out []string
	for _, p := range r.Programs {
		if mine[p.ID] {
			continue
		}
		name := fmt.Sprintf("program %d", p.ID)
		if prog, err := ebpf.NewProgramFromID(p.ID); err == nil { // else it has just gone
			if info, err := prog.Info(); err == nil && info.Name != "" {
				name = fmt.Sprintf("%s (%d)", info.Name, p.ID)
			}
			_ = prog.Close() // was only read
		}
		out = append(out, name)
	}
	return out, nil
}

// rules looks for others who use the mark, or the table, that packets for the proxy carry.
func rules() Finding {
	f := Finding{Name: "packet mark", Level: Fine, Detail: fmt.Sprintf("%#x/%#x is free", toProxyMark, markMask)}
	all, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return Finding{f.Name, Problem, err.Error(), "list ip rules"}
	}
	for _, r := range all {
		ours := r.Priority == rulePriority && r.Table == proxyTable
		mask := ^uint32(0)
		if r.Mask != nil {
			mask = *r.Mask
		}
		switch {
		case ours:
		case r.Table == proxyTable:
			f.Level, f.Detail = Problem, fmt.Sprintf("another's rule leads to table %d: %s", proxyTable, r)
			f.Advice = "packets for the proxy and theirs would meet there: move their rule to another table"
		case r.Mark != 0 && mask&markMask != 0 && r.Mark&markMask == toProxyMark&mask:
			f.Level, f.Detail = Warning, fmt.Sprintf("another's rule looks at the same bits of the mark: %s", r)
			f.Advice = "packets that Fairlead leads to the proxy may take their route: move their mark to other bits"
		}
	}
	return f
}

// uplink looks at an interface towards other nodes, and who else has programs there.
func uplink(name string, mine map[ebpf.ProgramID]bool) Finding {
	f := Finding{Name: "uplink " + name, Level: Fine}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return Finding{f.Name, Problem, err.Error(), "name the interface towards the other nodes by --uplink"}
	}
	a := l.Attrs()
	if a.EncapType != "ether" && a.EncapType != "" {
		return Finding{f.Name, Problem, "it has no Ethernet header (" + a.EncapType + ")", "only interfaces with Ethernet headers are supported: name one that has them"}
	}
	var theirs []string
	for _, h := range []struct {
		at   ebpf.AttachType
		name string
	}{{ebpf.AttachTCXIngress, "ingress"}, {ebpf.AttachTCXEgress, "egress"}} {
		names, err := others(a.Index, h.at, mine)
		if err != nil {
			return Finding{f.Name, Warning, "its programs cannot be seen: " + err.Error(), ""}
		}
		for _, n := range names {
			theirs = append(theirs, h.name+": "+n)
		}
	}
	if len(theirs) > 0 {
		f.Level, f.Detail = Warning, "others' programs stand there, too: "+strings.Join(theirs, "; ")
		f.Advice = "both run, in the order of their attachment; one that redirects or drops packets before Fairlead sees them takes them away from it"
	}
	return f
}
