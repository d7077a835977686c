// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// One process at a time has a node's datapath.
func TestLock(t *testing.T) {
	dir, log := filepath.Join(t.TempDir(), "state"), slog.New(slog.DiscardHandler)
	first, err := takeLock(t.Context(), dir, "first", log)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := takeLock(ctx, dir, "first", log); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second process: %v", err)
	}
	done := make(chan error)
	go func() {
		second, err := takeLock(t.Context(), dir, "first", log)
		done <- errors.Join(err, second.Close())
	}()
	// As Uninstall does: the waiting process must not lock a file that is gone.
	check(t, errors.Join(os.Remove(first.Name()), first.Close()))
	if err := <-done; err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	n := newNetwork(t)
	p := n.start("a")
	for name, c := range map[string]struct {
		edit func(*Options)
		want string
	}{
		"uplink": {func(o *Options) { o.Uplinks = []string{"eth9"} }, "attach fl_from_net to eth9: "},
		"cgroup": {func(o *Options) { o.Cgroup = "/nowhere" }, "attach fl_getpeername4 to /nowhere: "},
		"pins":   {func(o *Options) { o.PinDir = filepath.Join(n.dir, "pins") }, "is not on a BPF file system"},
	} {
		o := n.options("a")
		c.edit(&o)
		if _, err := try[None](p, "Open", o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	call[None](p, "Uninstall", n.options("a"))
}

// An uplink that is not there is waited for if another one is.
func TestUplinkComesLater(t *testing.T) {
	n := newNetwork(t)
	p := n.start("a")
	o := n.options("a")
	o.Uplinks = []string{"eth9", "eth0"}
	call[None](p, "Open", o)
	t.Cleanup(func() {
		call[None](p, "Close", None{})
		call[None](p, "Uninstall", o)
	})
	call[None](p, "Sync", Planned{})
	late := func() (out Attached) {
		for _, a := range call[Status](p, "Status", None{}).Interfaces {
			if a.Name == "eth9" {
				out = a
			}
		}
		return out
	}
	if a := late(); len(a.Programs) > 0 || !strings.Contains(a.Reason, "eth9") {
		t.Errorf("before it is there: %+v", a)
	}
	found := call[[]Finding](p, "Others", o)
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.Name == "uplink eth9" }); i < 0 || found[i].Level != Warning {
		t.Errorf("%+v", found)
	}
	check(t, inNetns(n.hosts["a"].netns, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth9"}, PeerName: "eth9-peer"})
	}))
	w := &world{network: n, proc: map[string]*process{"a": p}}
	w.wait("a", func(Status) string {
		if a := late(); len(a.Programs) != 2 || a.Reason != "" {
			return fmt.Sprintf("when it is there: %+v", a)
		}
		return ""
	})
}

// Others is who else takes part.
func (h *Helper) Others(o Options, out *[]Finding) error {
	*out = Others(o)
	return nil
}

// Programs follow when the node's cgroup is another one.
func TestOtherCgroup(t *testing.T) {
	n := newNetwork(t)
	other := filepath.Join(n.hosts["a"].cgroup, "other")
	check(t, os.Mkdir(other, 0o755))
	defer os.Remove(other)
	first, second := n.start("a"), n.start("a")
	call[None](first, "Open", n.options("a"))
	call[None](first, "Close", None{})
	o := n.options("a")
	o.Cgroup = other
	call[None](second, "Open", o)
	for cgroup, want := range map[string]int{n.hosts["a"].cgroup: 0, other: 1} {
		if got := call[Host](second, "Host", cgroup).Programs["CGroupInet4Connect"]; got != want {
			t.Errorf("%s has %d programs, want %d", cgroup, got, want)
		}
	}
	call[None](second, "Close", None{})
	call[None](second, "Uninstall", o)
}

// A full map is an error that names the row, and Sync goes on from there.
func TestFullMap(t *testing.T) {
	n := newNetwork(t)
	p := n.start("a")
	o := n.options("a")
	o.MapSizes = map[string]uint32{mapServices: 2}
	call[None](p, "Open", o)
	var all Planned
	for i := range byte(3) {
		all.Services = append(all.Services, &plan.Service{
			Addr: netip.AddrFrom4([4]byte{10, 96, 0, i}), Port: 80, Protocol: model.TCP, Mode: plan.Kernel,
			Backends: []plan.KernelBackend{{Addr: addrPort("10.0.0.1:80"), Weight: 1}},
		})
	}
	if _, err := try[None](p, "Sync", all); err == nil || !strings.Contains(err.Error(), "service TCP/10.96.0.2:80: write fl_services_v2: ") {
		t.Errorf("three services in a map for two: %v", err)
	}
	all.Services = all.Services[:2]
	call[None](p, "Sync", all)
	for _, m := range call[Status](p, "Status", None{}).Maps {
		if want := map[string]int{mapServices: 2, mapSlots: 2}; want[m.Name] != 0 && m.Entries != want[m.Name] {
			t.Errorf("%+v, want %d entries", m, want[m.Name])
		}
		if m.Name == mapServices && m.Max != 2 {
			t.Errorf("%+v, want room for 2", m)
		}
	}
	// A pinned map keeps its size.
	call[None](p, "Close", None{})
	call[None](p, "Open", n.options("a"))
	call[None](p, "Sync", all)
	if got := call[uint64](p, "Writes", None{}); got != 0 {
		t.Errorf("%d writes after opening without a size", got)
	}
	call[None](p, "Close", None{})
	call[None](p, "Uninstall", o)
}

// What full maps of the kernel hold can be changed and taken away.
func TestFullMapRevokesInKernel(t *testing.T) {
	n := newNetwork(t)
	p := n.start("a")
	o := n.options("a")
	o.MapSizes = map[string]uint32{mapPolicy: 2, mapPrefixes: 2, mapAddresses: 2}
	call[None](p, "Open", o)
	t.Cleanup(func() {
		call[None](p, "Close", None{})
		call[None](p, "Uninstall", o)
	})
	three := func(action plan.Action, class uint64, from int) (out Planned) {
		for i := from; i < from+3; i++ {
			out.Verdicts = append(out.Verdicts, &plan.Verdict{Set: 1, Class: uint64(i), Action: action})
			out.Prefixes = append(out.Prefixes, &plan.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16), Class: class})
			out.Addresses = append(out.Addresses, &plan.Address{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Class: class})
		}
		return out
	}
	_, err := try[None](p, "Sync", three(plan.Allow, 1, 0))
	for _, name := range []string{mapPolicy, mapPrefixes, mapAddresses} {
		if want := name + ": 1, such as write " + name + ": it is full, with room for 2"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("three in a map for two: %v, want %q", err, want)
		}
	}
	// Changes in place; others in the stead of all.
	for _, c := range []Planned{three(plan.Deny, 2, 0), three(plan.Deny, 3, 10)} {
		if _, err := try[None](p, "Sync", c); err == nil {
			t.Error("three in a map for two: no error")
		}
		want := map[string]map[string]bool{mapPolicy: {}, mapPrefixes: {}, mapAddresses: {}}
		for i := range c.Verdicts {
			e, err := verdictEntry(c.Verdicts[i])
			check(t, err)
			for name, e := range map[string]entry{mapPolicy: e, mapPrefixes: prefixEntry(c.Prefixes[i]), mapAddresses: addressEntry(c.Addresses[i])} {
				want[name][e.key+"="+e.value] = true
			}
		}
		for name := range want {
			m, err := ebpf.LoadPinnedMap(filepath.Join(o.PinDir, name), nil)
			check(t, err)
			have, err := read(m)
			check(t, errors.Join(err, m.Close()))
			if len(have) != 2 {
				t.Errorf("%s has %d entries", name, len(have))
			}
			for k, v := range have {
				if !want[name][k+"="+v] {
					t.Errorf("%s has what is no more wanted: %x=%x", name, k, v)
				}
			}
		}
	}
}

func TestRoom(t *testing.T) {
	for entries, want := range map[int]Level{0: Fine, 900: Fine, 901: Warning, 999: Warning, 1000: Problem} {
		if f := room("fl_x", entries, 1000); f.Level != want || (f.Detail == "") != (want == Fine) {
			t.Errorf("%d of 1000: %+v, want %s", entries, f, want)
		}
	}
	if room("fl_x", 910, 1000) != room("fl_x", 950, 1000) {
		t.Error("it is told again with every entry")
	}
}

// No thread stays where it was sent.
func TestInNetns(t *testing.T) {
	n := newNetwork(t)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			inside := errors.New("inside")
			if err := inNetns(n.hosts["a"].netns, func() error { return inside }); !errors.Is(err, inside) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	home, err := os.Readlink("/proc/self/ns/net")
	check(t, err)
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	check(t, err)
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil && ns != home {
			t.Errorf("%s is in %s, not in %s", task, ns, home)
		}
	}
	if err := inNetns(filepath.Join(n.dir, "none"), func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := namespaceID(n.dir); err == nil {
		t.Error("a folder is a namespace")
	}
}

func TestLackingFeatures(t *testing.T) {
	load := errors.New("load")
	if got := withLacking(load, []Need{{Name: "TCX", OK: true}}); got != load {
		t.Errorf("nothing is lacking: %v", got)
	}
	got := withLacking(load, []Need{{Name: "TCX"}, {Name: "BTF", OK: true}, {Name: "ring buffer"}})
	if want := "load (kernel lacks TCX, ring buffer; Linux 6.6 or newer has them)"; got.Error() != want || !errors.Is(got, load) {
		t.Errorf("got %q, want %q", got, want)
	}
}
