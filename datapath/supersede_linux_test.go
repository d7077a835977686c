// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// earlier makes of a pinned map one of an earlier layout, which is all that the next
// process finds. The programs in the links keep the map that they have.
func (w *world) earlier(node, name, was string, valueSize uint32, convert func(value string) string) {
	w.t.Helper()
	dir := w.options(node).PinDir
	now, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	check(w.t, err)
	defer now.Close()
	old, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: was, Type: now.Type(), KeySize: now.KeySize(), ValueSize: valueSize, MaxEntries: now.MaxEntries(), Flags: now.Flags(),
	})
	check(w.t, err)
	defer old.Close()
	have, err := read(now)
	check(w.t, err)
	if len(have) == 0 {
		w.t.Errorf("%s is empty", name)
	}
	for k, v := range have {
		check(w.t, old.Put([]byte(k), []byte(convert(v))))
	}
	check(w.t, old.Pin(filepath.Join(dir, was)))
	check(w.t, os.Remove(filepath.Join(dir, name)))
}

// fewerReasons puts counters of an earlier release in the place of the pinned ones.
func (w *world) fewerReasons(node string) {
	w.t.Helper()
	file := filepath.Join(w.options(node).PinDir, mapCounters)
	old, err := ebpf.NewMap(&ebpf.MapSpec{Name: mapCounters, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(Reasons()) - 1)})
	check(w.t, err)
	defer old.Close()
	check(w.t, os.Remove(file))
	check(w.t, old.Pin(file))
}

// The process that follows one of an earlier release interrupts nothing, also before it
// is told what to write.
func testEarlierLayouts(t *testing.T, w *world) {
	proxy := w.start("a")
	call[None](proxy, "Redirected", Proxy{Port: outPort + 50, Name: "proxy"})
	w.set("a", func(p *Planned) {
		w.busy(p)
		p.Services = append(p.Services, w.service("10.96.1.1", 80, model.TCP, plan.HTTP, "b1"))
		p.Ports[outbound] = outPort + 50
		p.Prefixes = append(p.Prefixes, &plan.Prefix{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Class: 9})
	})
	w.ready()
	captured, balanced := Client{Network: "tcp", Addr: "10.96.1.1:80"}, Client{Network: "tcp", Addr: "10.96.0.1:80"}
	kept := map[string]string{}
	for from, c := range map[string]Client{"a1": captured, "a2": balanced} {
		c.Keep = "earlier"
		kept[from] = w.mustDial(from, c).Server
	}
	w.proc["a"].stop()
	w.earlier("a", mapServices, "fl_services_v1", 16, func(value string) string {
		var v serviceValue
		check(t, decode(value, &v))
		return encode(serviceV1{ID: v.ID, Slots: v.Slots, Affinity: v.Affinity, Flags: v.Flags})
	})
	w.earlier("a", mapPods, "fl_pods_v1", 32, func(value string) string {
		var v podValue
		check(t, decode(value, &v))
		return encode(podV1{Set: v.Set, Ifindex: v.Ifindex, HTTPPort: v.Ports[modeHTTP], Probes: v.Probes})
	})
	w.earlier("a", mapPrefixes, "fl_prefixes_v1", 8, func(value string) string {
		var v addressValue
		check(t, decode(value, &v))
		return encode(v.Class)
	})

	w.fewerReasons("a")

	stop, done := make(chan struct{}), make(chan error)
	for from, c := range map[string]Client{"a1": captured, "a2": balanced} {
		client := w.proc[from]
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if _, err := try[Answer](client, "Dial", c); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	w.outer.proc["a"] = w.outer.start("a")
	w.proc["a"] = &process{t: t, Client: w.outer.proc["a"].Client, cmd: w.outer.proc["a"].cmd}
	call[None](w.proc["a"], "Open", w.options("a"))
	for range 5 { // nothing was written yet
		if got := w.mustDial("a1", captured); got.Server != "proxy" {
			t.Errorf("a captured pod: %+v", got)
		}
		w.mustDial("b", Client{Network: "tcp", Addr: at(w.hosts["a2"].v4, 8080)})
	}
	call[None](w.proc["a"], "Sync", w.plan["a"])
	w.ready()
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("a new connection: %v", err)
		}
	}
	for from, server := range kept {
		if got := call[Answer](w.proc[from], "Ask", "earlier"); got.Server != server {
			t.Errorf("%s asks by a connection of before: %+v, was served by %s", from, got, server)
		}
	}
	if got := w.writes("a"); got != 0 {
		t.Errorf("%d writes of what was brought over", got)
	}
	counters, err := ebpf.LoadPinnedMap(filepath.Join(w.options("a").PinDir, mapCounters), nil)
	check(t, err)
	defer counters.Close()
	if n := int(counters.MaxEntries()); n != len(Reasons()) {
		t.Errorf("%d reasons are counted, there are %d", n, len(Reasons()))
	}
	left, err := filepath.Glob(filepath.Join(w.options("a").PinDir, "*_v1"))
	check(t, err)
	for _, f := range left {
		if name := filepath.Base(f); slices.Contains([]string{"fl_services_v1", "fl_pods_v1", "fl_prefixes_v1"}, name) {
			t.Errorf("%s is left", name)
		}
	}
}
