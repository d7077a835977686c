// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Host is what a node has that the datapath could change.
type Host struct {
	Rules, Routes, Tables []string
	Sysctls               map[string]string
	Programs              map[string]int // by interface, and by attach type of the cgroup
}

// Host reads it.
func (h *Helper) Host(cgroup string, out *Host) error {
	*out = Host{Sysctls: map[string]string{}, Programs: map[string]int{}}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			out.Rules = append(out.Rules, fmt.Sprint(family, r, r.Mark))
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue // the kernel's own, some time after an interface is up
			}
			out.Routes = append(out.Routes, fmt.Sprint(r.Table, r.Type, r.Dst, r.LinkIndex))
		}
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		out.Tables = append(out.Tables, t.Name)
	}
	for _, name := range []string{
		"net/ipv4/ip_forward", "net/ipv4/ip_local_port_range", "net/ipv4/tcp_tw_reuse", "net/ipv4/conf/lo/accept_local", "net/ipv4/conf/lo/src_valid_mark",
		"net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0/accept_ra",
	} {
		v, err := readSysctl(name)
		if err != nil {
			return err
		}
		out.Sysctls[name] = v
	}
	slices.Sort(out.Routes)
	return out.programs(cgroup)
}

func (h *Host) programs(cgroup string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: at})
			if err != nil {
				return err
			}
			h.Programs[l.Attrs().Name] += len(r.Programs)
		}
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, at := range []ebpf.AttachType{ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Recvmsg} {
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: at})
		if err != nil {
			return err
		}
		h.Programs[at.String()] = len(r.Programs)
	}
	return nil
}

// busy is a plan with something of everything.
func (w *world) busy(p *Planned) {
	p.Services = append(p.Services, w.service("10.96.0.1", 80, model.TCP, plan.Kernel, "a1", "b1"),
		w.service("fd96::2", 80, model.TCP, plan.HTTP, "b1"))
	p.govern("a2", setA2, &plan.Verdict{Any: true, Action: plan.Allow})
	p.capture("a1")
}

func (w *world) writes(node string) uint64 {
	w.t.Helper()
	return call[uint64](w.proc[node], "Writes", None{})
}

// What stands is not written again, by the same process or by the next.
func testNoWrites(t *testing.T, w *world) {
	w.set("a", w.busy)
	w.ready()
	before := w.writes("a")
	for range 3 {
		w.set("a", w.busy)
	}
	if got := w.writes("a"); got != before {
		t.Errorf("the same plan again: %d writes", got-before)
	}
	w.restart("a")
	if got := w.writes("a"); got != 0 {
		t.Errorf("the next process: %d writes", got)
	}
}

// restart ends a node's process as a crash does and starts the next one.
func (w *world) restart(node string) {
	w.t.Helper()
	w.proc[node].stop()
	w.outer.proc[node] = w.outer.start(node)
	w.proc[node] = &process{t: w.t, Client: w.outer.proc[node].Client, cmd: w.outer.proc[node].cmd}
	call[None](w.proc[node], "Open", w.options(node))
	call[None](w.proc[node], "Sync", w.plan[node])
	w.ready()
}

// Nothing that passes a node needs its process to be alive, and the next process
// interrupts nothing.
func testTakeOver(t *testing.T, w *world) {
	w.set("a", w.busy)
	w.ready()
	open := Client{Network: "tcp", Addr: "10.96.0.1:80", Keep: "long"}
	before := w.mustDial("a2", open)
	w.proc["a"].stop()
	if got := call[Answer](w.proc["a2"], "Ask", "long"); got.Server != before.Server {
		t.Errorf("without a process: %+v", got)
	}
	w.mustDial("a2", Client{Network: "tcp", Addr: "10.96.0.1:80"})
	done := make(chan error)
	stop := make(chan struct{})
	client := w.proc["a2"]
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := try[Answer](client, "Dial", Client{Network: "tcp", Addr: "10.96.0.1:80"}); err != nil {
				done <- err
				return
			}
		}
	}()
	w.restart("a")
	w.restart("a")
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("a new connection while the next process takes over: %v", err)
	}
	if got := call[Answer](w.proc["a2"], "Ask", "long"); got.Server != before.Server || got.Peer != "10.96.0.1:80" {
		t.Errorf("a connection of before: %+v", got)
	}
	st := call[Status](w.proc["a"], "Status", None{})
	if len(st.Cgroup.Programs) != len(cgroupPrograms()) || len(st.Interfaces) != 4+w.bridges() {
		t.Errorf("attached: %+v, %+v", st.Cgroup, st.Interfaces)
	}
	for _, i := range st.Interfaces {
		want := []string{progFromPod, progToPod}
		switch i.Name {
		case "eth0":
			want = []string{progFromNet, progToNet}
		case "lo":
			want = []string{progFromNode}
		case bridgeName:
			want = []string{progFromBridge}
		}
		if !slices.Equal(i.Programs, want) {
			t.Errorf("%s has %v, want %v", i.Name, i.Programs, want)
		}
	}
	for _, n := range append(st.Host, st.Features...) {
		if !n.OK {
			t.Errorf("%s: %s", n.Name, n.Detail)
		}
	}
}

// A pod may come after its row, move to another interface, and go.
func testPodsComeAndGo(t *testing.T, w *world) {
	w.set("a", w.busy)
	w.ready()
	a, a1 := w.hosts["a"], w.hosts["a1"]
	w.unplug(a, a1)
	w.wait("a", func(st Status) string {
		if st.Pods[0].Ready || st.Pods[0].Reason == "" || len(st.Interfaces) != 3+w.bridges() {
			return fmt.Sprintf("its interface is gone: %+v, %+v", st.Pods[0], st.Interfaces)
		}
		return ""
	})
	w.plug(a, a1)
	w.ready()
	if got := w.mustDial("b", Client{Network: "tcp", Addr: at(a1.v4, 8080)}); got.Server != "a1" {
		t.Errorf("with a new interface: %+v", got)
	}

	without := func(p *Planned) {
		w.busy(p)
		p.Pods = slices.DeleteFunc(p.Pods, func(row *plan.Pod) bool { return row.Name == "ns/a1" })
	}
	w.set("a", without)
	host := call[Host](w.proc["a"], "Host", a.cgroup)
	if n := host.Programs["lxa1"]; n != 0 {
		t.Errorf("%d programs on a pod's interface that is not ours any more", n)
	}
	st := call[Status](w.proc["a"], "Status", None{})
	for _, m := range st.Maps {
		want := map[string]int{mapPods: 2, mapCaptured: 0}
		if n, ok := want[m.Name]; ok && n != m.Entries {
			t.Errorf("%s has %d entries, want %d", m.Name, m.Entries, n)
		}
	}
	w.set("a", w.busy)
	w.ready()

	// An address that is given to another pod.
	w.set("a", func(p *Planned) {
		w.busy(p)
		for _, row := range p.Pods {
			row.Name = strings.Replace(row.Name, "a1", "a1-new", 1)
		}
	})
	w.ready()
	if got := w.mustDial("b", Client{Network: "tcp", Addr: at(a1.v4, 8080)}); got.Server != "a1" {
		t.Errorf("under a new name: %+v", got)
	}
}

// An uplink that is made anew gets its program again.
func testUplink(t *testing.T, w *world) {
	a := w.hosts["a"]
	l, err := a.link.LinkByName("eth0")
	check(t, err)
	check(t, a.link.LinkDel(l))
	uplink := func(st Status) Attached {
		i := slices.IndexFunc(st.Interfaces, func(a Attached) bool { return a.Name == "eth0" })
		return st.Interfaces[i]
	}
	w.wait("a", func(st Status) string {
		if i := uplink(st); i.Name != "eth0" || len(i.Programs) > 0 || i.Reason == "" {
			return fmt.Sprintf("the uplink is gone: %+v", st.Interfaces)
		}
		return ""
	})
	w.connectNodes()
	for pod, node := range map[string]string{"a1": "a", "a2": "a", "b1": "b"} {
		w.podRoutes(w.hosts[node], w.hosts[pod])
	}
	for _, node := range []string{"a", "b"} {
		w.wait(node, func(st Status) string {
			if i := uplink(st); i.Name != "eth0" || !slices.Equal(i.Programs, []string{progFromNet, progToNet}) || i.Reason != "" {
				return fmt.Sprintf("the uplink is back: %+v", st.Interfaces)
			}
			return ""
		})
	}
	w.mustDial("a1", Client{Network: "tcp", Addr: at(w.hosts["b1"].v4, 8080)})
}

// Addresses that lead nowhere, or elsewhere, are said to.
func testPending(t *testing.T, w *world) {
	w.set("a", func(p *Planned) {
		for name, a := range map[string]string{"nowhere": "10.244.9.9", "elsewhere": "10.244.2.11", "itself": "10.240.0.1"} {
			p.Pods = append(p.Pods, &plan.Pod{Addr: mustAddr(a), Name: "ns/" + name})
		}
	})
	want := map[string]string{"ns/nowhere": "no route", "ns/elsewhere": "uplink", "ns/itself": "no veth"}
	for _, p := range call[Status](w.proc["a"], "Status", None{}).Pods {
		if text, ok := want[p.Name]; ok && (p.Ready || !strings.Contains(p.Reason, text)) {
			t.Errorf("%+v, want %q", p, text)
		}
	}
	w.set("a", nil)
	w.ready()
}

// Programs of others stay where they are.
func testOthers(t *testing.T, w *world) {
	other, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	check(t, err)
	defer other.Close()
	var theirs link.Link
	check(t, inNetns(w.hosts["a"].netns, func() error {
		l, err := netlink.LinkByName("lxa2")
		if err != nil {
			return err
		}
		theirs, err = link.AttachTCX(link.TCXOptions{Interface: l.Attrs().Index, Program: other, Attach: ebpf.AttachTCXIngress})
		return err
	}))
	defer theirs.Close()
	w.set("a", func(p *Planned) { p.Pods = nil })
	host := call[Host](w.proc["a"], "Host", w.hosts["a"].cgroup)
	if host.Programs["lxa2"] != 1 {
		t.Errorf("without ours: %d programs, want theirs", host.Programs["lxa2"])
	}
	w.set("a", nil)
	w.ready()
	host = call[Host](w.proc["a"], "Host", w.hosts["a"].cgroup)
	if host.Programs["lxa2"] != 3 {
		t.Errorf("with ours: %d programs, want 3", host.Programs["lxa2"])
	}
	w.mustDial("a2", Client{Network: "tcp", Addr: at(w.hosts["b1"].v4, 8080)})
}

// RepairHost does at once what is done now and then, and tells what was lacking.
func (h *Helper) RepairHost(None, *None) error {
	h.datapath.repairHost()
	return nil
}

// What somebody takes from the host comes back.
func testRepair(t *testing.T, w *world) {
	a := w.hosts["a"]
	before := call[Host](w.proc["a"], "Host", a.cgroup)
	check(t, inNetns(a.netns, func() error {
		return errors.Join(netlink.RuleDel(proxyRule(unix.AF_INET)), removeTable(),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	}))
	w.wait("a", func(st Status) string {
		if n := slices.DeleteFunc(st.Host, func(n Need) bool { return n.OK }); len(n) != 3 {
			return fmt.Sprintf("three things are missing, the status says %+v", n)
		}
		return ""
	})
	call[None](w.proc["a"], "RepairHost", None{})
	if diff := cmp.Diff(before, call[Host](w.proc["a"], "Host", a.cgroup)); diff != "" {
		t.Error(diff)
	}
}

// Leave writes what the node had before.
func (h *Helper) Leave(None, *None) error { return h.datapath.Leave() }

// The node is given back as it was, also if it is asked for twice, and if its state was removed
// while the datapath lived.
func testUninstall(t *testing.T, w *world) {
	w.set("b", w.busy)
	check(t, os.Remove(filepath.Join(w.options("b").StateDir, "host.json")))
	call[None](w.proc["b"], "Leave", None{})
	call[None](w.proc["b"], "Close", None{})
	if got := call[Host](w.proc["b"], "Host", w.hosts["b"].cgroup); cmp.Equal(w.before, got) {
		t.Error("closing took everything away")
	}
	for range 2 {
		call[None](w.proc["b"], "Uninstall", w.options("b"))
		got := call[Host](w.proc["b"], "Host", w.hosts["b"].cgroup)
		if diff := cmp.Diff(w.before, got); diff != "" {
			t.Errorf("before and after: %s", diff)
		}
	}
	if _, err := os.Stat(w.options("b").PinDir); !os.IsNotExist(err) {
		t.Errorf("%s is still there", w.options("b").PinDir)
	}
	if files, err := os.ReadDir(w.options("b").StateDir); err != nil || len(files) > 0 {
		t.Errorf("left in the state folder: %v, %v", files, err)
	}
	// And may be prepared anew.
	call[None](w.proc["b"], "Open", w.options("b"))
	call[None](w.proc["b"], "Sync", w.plan["b"])
	w.ready()
	if got := w.mustDial("b", Client{Network: "tcp", Addr: "10.96.0.1:80"}); got.Took > time.Second {
		t.Errorf("after installing again: %+v", got)
	}
	// A host that forwards hears of routers only if it is told to.
	if got := call[Host](w.proc["b"], "Host", w.hosts["b"].cgroup).Sysctls["net/ipv6/conf/eth0/accept_ra"]; got != "2" {
		t.Errorf("accept_ra is %s, want 2", got)
	}
}
