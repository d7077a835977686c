// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"fairlead.io/fairlead/bpf"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func specs(t *testing.T) []*ebpf.CollectionSpec {
	t.Helper()
	var out []*ebpf.CollectionSpec
	for _, load := range []func() (*ebpf.CollectionSpec, error){bpf.LoadSock, bpf.LoadNet} {
		s, err := load()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func typeOf[T btf.Type](t *testing.T, name string) T {
	t.Helper()
	for _, s := range specs(t) {
		var out T
		if err := s.Types.TypeByName(name, &out); err == nil {
			return out
		}
	}
	t.Fatalf("no type %s in the programs", name)
	panic("unreachable")
}

// Go's structs have the fields of the kernel's, at their places.
func TestLayout(t *testing.T) {
	for name, v := range map[string]any{
		"fl_svc_key": serviceKey{}, "fl_svc": serviceValue{}, "fl_slot_key": slotKey{}, "fl_backend": backend{},
		"fl_address": addressValue{}, "fl_prefix_key": prefixKey{}, "fl_policy_key": policyKey{}, "fl_policy": policyValue{},
		"fl_pod": podValue{}, "fl_settings": settings{}, "fl_tuple": tuple{}, "fl_event": event{},
	} {
		kernel := typeOf[*btf.Struct](t, name)
		if got, want := binary.Size(v), int(kernel.Size); got != want {
			t.Errorf("%s: %d bytes, the kernel has %d", name, got, want)
		}
		offset, goType, members := 0, reflect.TypeOf(v), kernel.Members
		for i := range goType.NumField() {
			f := goType.Field(i)
			if i >= len(members) {
				t.Errorf("%s: no member for %s", name, f.Name)
				break
			}
			if got, want := offset, int(members[i].Offset.Bytes()); got != want {
				t.Errorf("%s: %s is at %d, the kernel's %s at %d", name, f.Name, got, members[i].Name, want)
			}
			offset += binary.Size(reflect.Zero(f.Type).Interface())
		}
	}
}

func TestMapNames(t *testing.T) {
	have := map[string]bool{}
	for _, s := range specs(t) {
		for name, m := range s.Maps {
			if m.Pinning == ebpf.PinByName {
				have[name] = true
			}
		}
	}
	for _, name := range []string{
		mapServices, mapRanges, mapSlots, mapReverse, mapAffinity, mapCaptured, mapAddresses, mapPrefixes, mapPolicy, mapPods, mapBridges,
		mapSettings, mapBank, mapBankOwn, mapConntrack, mapHeld, mapCounters, mapEvents,
	} {
		if !have[name] {
			t.Errorf("the programs have no pinned map %s", name)
		}
		delete(have, name)
	}
	if len(have) > 0 {
		t.Errorf("unknown pinned maps: %v", have)
	}
}

// Reasons are called as in the C enumeration.
func TestReasons(t *testing.T) {
	names, drop := Reasons(), 0
	for _, v := range typeOf[*btf.Enum](t, "fl_reason").Values {
		if v.Name == "FL_REASONS" {
			if int(v.Value) != len(names) {
				t.Errorf("%d reasons, the kernel has %d", len(names), v.Value)
			}
			continue
		}
		want := strings.TrimPrefix(v.Name, "FL_")
		if strings.HasPrefix(want, "DROP_") != Drops(names[v.Value]) && !slices.Contains([]string{"map-full"}, names[v.Value]) {
			t.Errorf("%s: drops: %t", v.Name, Drops(names[v.Value]))
		}
		if strings.HasPrefix(want, "DROP_") && drop == 0 {
			drop = int(v.Value)
		}
		want = strings.TrimPrefix(strings.TrimPrefix(want, "OK_"), "DROP_")
		want = strings.ToLower(strings.ReplaceAll(want, "_", "-"))
		if got := names[v.Value]; got != want {
			t.Errorf("reason %d is %q, the kernel's is %q", v.Value, got, want)
		}
	}
	if drop != firstDrop {
		t.Errorf("first reason that drops: %d, the kernel's %d", firstDrop, drop)
	}
	if names[lostEvents] != "event-lost" {
		t.Errorf("reason %d is %q", lostEvents, names[lostEvents])
	}
}

func TestActions(t *testing.T) {
	want := map[string]uint32{"FL_ALLOW": actionAllow, "FL_DENY": actionDeny, "FL_CHECK": actionCheck, "FL_REFUSE": actionRefuse, "FL_INBOUND": actionInbound}
	for _, v := range typeOf[*btf.Enum](t, "fl_action").Values {
		if n, ok := want[v.Name]; ok && uint64(n) != v.Value {
			t.Errorf("%s is %d, the kernel's is %d", v.Name, n, v.Value)
		}
	}
}

func TestEntries(t *testing.T) {
	v, err := verdictEntry(&plan.Verdict{Set: 1, Any: true, Class: 7, Port: 80, Proto: model.TCP, Action: plan.Check, Rule: 9})
	if err != nil {
		t.Fatal(err)
	}
	if want := encode(policyKey{Set: 1, Class: anyClass, Port: port{0, 80}, Proto: 6}); v.key != want {
		t.Errorf("key %x, want %x", v.key, want)
	}
	if want := encode(policyValue{Rule: 9, Action: actionCheck}); v.value != want {
		t.Errorf("value %x, want %x", v.value, want)
	}
	if _, err := verdictEntry(&plan.Verdict{Action: "perhaps"}); err == nil {
		t.Error("unknown action: no error")
	}
	for prefix, bits := range map[string]uint32{"10.0.0.0/8": 104, "0.0.0.0/0": 96, "fd00::/16": 16} {
		e := prefixEntry(&plan.Prefix{Prefix: netip.MustParsePrefix(prefix), Class: 3})
		var k prefixKey
		if err := decode(e.key, &k); err != nil || k.Bits != bits {
			t.Errorf("%s has %d bits in the kernel, want %d (%v)", prefix, k.Bits, bits, err)
		}
	}
	e := prefixEntry(&plan.Prefix{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Class: 3, Unassigned: true})
	if want := encode(addressValue{Class: 3, Flags: addressUnassigned}); e.value != want {
		t.Errorf("a pod range is %x, want %x", e.value, want)
	}
	p := podEntry(&plan.Pod{Addr: netip.MustParseAddr("10.0.0.1"), ProbePorts: []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9}}, place{ifindex: 5, cookie: 42}, modePorts{1: 15100, 9: 15107})
	var pv podValue
	if err := decode(p.value, &pv); err != nil || pv.Probes[7].host() != 8 || pv.Ports != (modePorts{1: 15100, 9: 15107}) || pv.Ifindex != 5 || pv.Netns != 42 {
		t.Errorf("pod %+v, %v", pv, err)
	}
}

// A pod has the ports of its listeners once that for requests has one.
func TestPortsOf(t *testing.T) {
	ports := map[string]uint16{"h": 15100, "t": 15101, "d3": 15102}
	of := func(name string) uint16 { return ports[name] }
	for _, c := range []struct {
		listeners map[plan.Mode]string
		want      modePorts
		bits      uint32
		fails     bool
	}{
		{listeners: nil},
		{map[plan.Mode]string{plan.HTTP: "h"}, modePorts{1: 15100}, 1, false},
		{map[plan.Mode]string{plan.HTTP: "h", plan.TLS: "t", plan.Detect3: "d3", plan.Any: "none yet"}, modePorts{1: 15100, 2: 15101, 7: 15102}, 1<<0 | 1<<1 | 1<<6, false},
		{listeners: map[plan.Mode]string{plan.HTTP: "none yet", plan.TLS: "t"}},
		{listeners: map[plan.Mode]string{plan.TLS: "t"}},
		{listeners: map[plan.Mode]string{plan.HTTP: "h", plan.Kernel: "t"}, fails: true},
		{listeners: map[plan.Mode]string{plan.HTTP: "h", "other": "t"}, fails: true},
	} {
		got, err := portsOf(&plan.Pod{Name: "ns/p", Listeners: c.listeners}, of)
		if got != c.want || got.bits() != c.bits || (err != nil) != c.fails {
			t.Errorf("%v: %v, bits %#x, %v; want %v, bits %#x, an error: %v", c.listeners, got, got.bits(), err, c.want, c.bits, c.fails)
		}
	}
}

// Modes are numbered as in the C enumeration.
func TestModes(t *testing.T) {
	kernel := map[string]uint64{}
	for _, v := range typeOf[*btf.Enum](t, "fl_mode").Values {
		kernel[strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(v.Name, "FL_MODE_")), "any_", "any-")] = v.Value
	}
	if n := kernel["fl_modes"]; int(n) > len(modePorts{}) || n > serviceMode+1 {
		t.Errorf("the kernel has %d modes, a pod %d ports", n, len(modePorts{}))
	}
	delete(kernel, "fl_modes")
	for _, m := range append(plan.Modes(), plan.Kernel) {
		n, err := modeNumber(m)
		if want, ok := kernel[string(m)]; err != nil || !ok || uint64(n) != want {
			t.Errorf("mode %s is %d (%v), the kernel's is %d", m, n, err, want)
		}
		delete(kernel, string(m))
	}
	if len(kernel) > 0 {
		t.Errorf("the plan has no modes %v", kernel)
	}
	if _, err := modeNumber("other"); err == nil {
		t.Error("unknown mode: no error")
	}
	if n, err := modeNumber(plan.HTTP); n != modeHTTP || err != nil {
		t.Errorf("HTTP is %d, %v", n, err)
	}
}

func TestBankOffset(t *testing.T) {
	for _, v := range typeOf[*btf.Enum](t, "fl_bank").Values {
		if v.Value != BankOffset {
			t.Errorf("%s is %d, want %d", v.Name, v.Value, BankOffset)
		}
	}
}

func TestSlots(t *testing.T) {
	want := map[string]uint64{"FL_OWN_FIRST": slotFirst, "FL_OWN_PORTS": SlotPorts, "FL_OWN_SLOTS": Slots}
	for _, v := range typeOf[*btf.Enum](t, "fl_own").Values {
		if v.Value != want[v.Name] {
			t.Errorf("%s is %d, want %d", v.Name, v.Value, want[v.Name])
		}
		delete(want, v.Name)
	}
	if len(want) > 0 {
		t.Errorf("the kernel has no %v", want)
	}
	if last := SlotPort(Slots) + SlotPorts - 1 + BankOffset; last >= 32768 || SlotPort(1)+Slots*SlotPorts > SlotPort(1)+BankOffset {
		t.Errorf("ports up to %d", last)
	}
}

// The limits that users are told are those of the maps.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs(t) {
		for name, m := range spec.Maps {
			if m.Pinning != ebpf.PinByName || !slices.Contains([]ebpf.MapType{ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie}, m.Type) {
				continue
			}
			if want := fmt.Sprintf("| `%s` | %d |", name, m.MaxEntries); !strings.Contains(string(text), want) {
				t.Errorf("deploy/README.md lacks %q", want)
			}
		}
	}
}
