// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// memory is a kernel of maps that writes down what is done to it.
type memory struct {
	maps map[string]map[string]string
	log  []string
	full string         // map whose writes fail
	room map[string]int // entries of those that take no more; as in a hash table, they can be changed
	poor string         // map for whose keys there is no memory
	// watch is called after each write.
	watch func()
	left  int // of those that succeed; 0: all do
}

type memoryMap struct {
	name string
	of   *memory
}

// broken says that no more writes succeed.
func (m *memory) broken() error {
	if m.left == 1 {
		return errors.New("the kernel is broken")
	}
	if m.left > 1 {
		m.left--
	}
	return nil
}

func (m memoryMap) Update(k, v any, _ ebpf.MapUpdateFlags) error {
	if err := m.of.broken(); err != nil {
		return err
	}
	if m.of.full == m.name {
		return errors.New("full")
	}
	if m.of.poor == m.name {
		return unix.ENOMEM
	}
	room, limited := m.of.room[m.name]
	if _, ok := m.of.maps[m.name][string(k.([]byte))]; limited && !ok && len(m.of.maps[m.name]) >= room {
		return unix.E2BIG
	}
	m.of.log = append(m.of.log, "+"+m.name)
	m.of.maps[m.name][string(k.([]byte))] = string(v.([]byte))
	if m.of.watch != nil {
		m.of.watch()
	}
	return nil
}

func (m memoryMap) Delete(k any) error {
	if _, ok := m.of.maps[m.name][string(k.([]byte))]; !ok {
		return ebpf.ErrKeyNotExist
	}
	if err := m.of.broken(); err != nil {
		return err
	}
	m.of.log = append(m.of.log, "-"+m.name)
	delete(m.of.maps[m.name], string(k.([]byte)))
	if m.of.watch != nil {
		m.of.watch()
	}
	return nil
}

func (m *memory) table(name string) *table {
	if m.maps[name] == nil {
		m.maps[name] = map[string]string{}
	}
	return &table{name: name, kernel: memoryMap{name, m}, have: maps.Clone(m.maps[name])}
}

// memoryPods has every pod's interface.
type memoryPods struct{ table *table }

func (p memoryPods) put(row *plan.Pod, ports modePorts) {
	_ = p.table.put(podEntry(row, place{ifindex: 1}, ports))
}
func (p memoryPods) remove(row *plan.Pod) {
	_ = p.table.remove(podEntry(row, place{ifindex: 1}, modePorts{}).key)
}
func (p memoryPods) settle()                 {}
func (p memoryPods) sets() map[string]uint64 { return setsOf(p.table) }
func (p memoryPods) prune()                  {}
func (p memoryPods) keep(rows []*plan.Pod) {
	want := map[string]bool{}
	for _, r := range rows {
		want[podEntry(r, place{ifindex: 1}, modePorts{}).key] = true
	}
	_ = p.table.prune(want)
}

func newMemory() *memory { return &memory{maps: map[string]map[string]string{}} }

// open is what a new process finds.
func (m *memory) open(t *testing.T) *rows {
	t.Helper()
	m.log = nil
	s := &services{table: m.table("services"), slots: m.table("slots")}
	if err := s.adopt(); err != nil {
		t.Fatal(err)
	}
	return &rows{policy: m.table("policy"), addresses: m.table("addresses"), prefixes: m.table("prefixes"), ranges: m.table("ranges"),
		pods: memoryPods{m.table("pods")}, services: s}
}

// took is the log since the last call, repeats in a row once.
func (m *memory) took() string {
	out := strings.Join(slices.Compact(m.log), " ")
	m.log = nil
	return out
}

func noPorts(string) uint16 { return 0 }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func someService(backends ...string) *plan.Service {
	s := &plan.Service{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Protocol: model.TCP, Mode: plan.Kernel}
	for _, b := range backends {
		s.Backends = append(s.Backends, plan.KernelBackend{Addr: addrPort(b), Weight: 1})
	}
	return s
}

func oneOfEach() []incr.Row {
	a := netip.MustParseAddr("10.244.0.1")
	return []incr.Row{
		{Table: plan.Services, Key: "s", Value: someService("10.244.0.1:8080", "10.244.0.2:8080")},
		{Table: plan.Pods, Key: "p", Value: &plan.Pod{Addr: a, Name: "ns/p", Set: 1}},
		{Table: plan.Prefixes, Key: "x", Value: &plan.Prefix{Prefix: netip.MustParsePrefix("192.168.0.0/16"), Class: 2}},
		{Table: plan.Addresses, Key: "a", Value: &plan.Address{Addr: a, Class: 3}},
		{Table: plan.Verdicts, Key: "v", Value: &plan.Verdict{Set: 1, Class: 3, Action: plan.Allow}},
		{Table: plan.Clusters, Key: "c", Value: &plan.Cluster{Name: "c"}},
	}
}

func changes(old, now []incr.Row) []incr.Change {
	var out []incr.Change
	for _, r := range now {
		out = append(out, incr.Change{Table: r.Table, Key: r.Key, New: r.Value})
	}
	for _, r := range old {
		out = append(out, incr.Change{Table: r.Table, Key: r.Key, Old: r.Value})
	}
	return out
}

func TestOrder(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	all := oneOfEach()
	if err := r.apply(t.Context(), changes(nil, all), noPorts); err != nil {
		t.Fatal(err)
	}
	if got, want := m.took(), "+policy +addresses +prefixes +pods +slots +services"; got != want {
		t.Errorf("written: %s, want %s", got, want)
	}
	if err := r.apply(t.Context(), changes(nil, all), noPorts); err != nil || m.took() != "" {
		t.Errorf("same rows again: %s, %v", m.took(), err)
	}
	if err := r.apply(t.Context(), changes(all, nil), noPorts); err != nil {
		t.Fatal(err)
	}
	if got, want := m.took(), "-services -slots -pods -prefixes -addresses -policy"; got != want {
		t.Errorf("taken away: %s, want %s", got, want)
	}
	for name, entries := range m.maps {
		if len(entries) > 0 {
			t.Errorf("%s is not empty", name)
		}
	}
}

func TestRestartWritesNothing(t *testing.T) {
	m := newMemory()
	if err := m.open(t).sync(t.Context(), oneOfEach(), noPorts); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(m.maps)
	if err := m.open(t).sync(t.Context(), oneOfEach(), noPorts); err != nil {
		t.Fatal(err)
	}
	if got := m.took(); got != "" || fmt.Sprint(m.maps) != before {
		t.Errorf("second process wrote: %s", got)
	}
	if err := m.open(t).sync(t.Context(), nil, noPorts); err != nil {
		t.Fatal(err)
	}
	if got, want := m.took(), "-pods -services -slots -prefixes -addresses -policy"; got != want {
		t.Errorf("without rows: %s, want %s", got, want)
	}
}

func TestFullMapStopsWhatFollows(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	m.full = "policy"
	if err := r.apply(t.Context(), changes(nil, oneOfEach()), noPorts); err == nil || m.took() != "" {
		t.Errorf("wrote %s after an error, %v", m.took(), err)
	}
	m.full = ""
	if err := r.sync(t.Context(), oneOfEach(), noPorts); err != nil || len(m.maps["pods"]) != 1 {
		t.Errorf("sync after the error: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	m := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.open(t).apply(ctx, changes(nil, oneOfEach()), noPorts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownRow(t *testing.T) {
	r := newMemory().open(t)
	err := r.apply(t.Context(), []incr.Change{{Table: plan.Pods, Key: "k", New: "text"}}, noPorts)
	if err == nil {
		t.Error("no error")
	}
}

func putService(t *testing.T, r *rows, s *plan.Service) serviceValue {
	t.Helper()
	key, err := r.services.put(s)
	if err != nil {
		t.Fatal(err)
	}
	return r.services.current(key)
}

func TestServiceGenerations(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	first := putService(t, r, someService("10.0.0.1:1", "10.0.0.2:1"))
	m.took()
	second := putService(t, r, someService("10.0.0.1:1"))
	if first.ID == second.ID || second.Slots != 1 {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if got, want := m.took(), "+slots +services -slots"; got != want {
		t.Errorf("new backends: %s, want %s", got, want)
	}
	if got := len(m.maps["slots"]); got != 1 {
		t.Errorf("%d slots, want 1", got)
	}

	proxied := someService("10.0.0.1:1")
	proxied.Mode, proxied.Affinity = plan.HTTP, 1500*time.Millisecond
	third := putService(t, r, proxied)
	if got, want := third, (serviceValue{ID: second.ID, Slots: 1, Affinity: 2, Flags: modeHTTP}); got != want {
		t.Errorf("other mode: %+v, want %+v", got, want)
	}
	if got, want := m.took(), "+services"; got != want {
		t.Errorf("other mode: %s, want %s", got, want)
	}

	none := putService(t, r, someService())
	if none.Slots != 0 || len(m.maps["slots"]) != 0 {
		t.Errorf("no backends: %+v, %d slots", none, len(m.maps["slots"]))
	}
	again := putService(t, r, someService("10.0.0.1:1"))
	if again.ID <= second.ID {
		t.Errorf("id %d is used again", again.ID)
	}
}

// A service whose routes the kernel follows has two sets of backends, of which each stays
// as long as it is the same; both are changed with one write.
func TestRoutedService(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	routed := func(own *plan.Service, led ...string) *plan.Service {
		own.Routed = &plan.KernelRoute{Backends: someService(led...).Backends}
		return own
	}
	for _, step := range []struct {
		what       string
		row        *plan.Service
		did        string
		own, led   uint32
		keep, swap bool // the ids of before: the own one's, and the own one's as that of the routes
	}{
		{"without routes", someService("10.0.0.1:1", "10.0.0.2:1"), "+slots +services", 2, 0, false, false},
		{"a route", routed(someService("10.0.0.1:1", "10.0.0.2:1"), "10.0.0.3:1"), "+slots +services", 2, 1, true, false},
		{"the same", routed(someService("10.0.0.1:1", "10.0.0.2:1"), "10.0.0.3:1"), "", 2, 1, true, false},
		{"another route", routed(someService("10.0.0.1:1", "10.0.0.2:1"), "10.0.0.4:1"), "+slots +services -slots", 2, 1, true, false},
		{"another endpoint", routed(someService("10.0.0.1:1"), "10.0.0.4:1"), "+slots +services -slots", 1, 1, false, false},
		{"both", routed(someService("10.0.0.5:1"), "10.0.0.6:1", "10.0.0.7:1"), "+slots +services -slots", 1, 2, false, false},
		{"what was everybody's is the routes'", routed(someService("10.0.0.8:1"), "10.0.0.5:1"), "+slots +services -slots", 1, 1, false, true},
		{"nowhere", routed(someService("10.0.0.8:1")), "+services -slots", 1, 0, true, false},
		{"no routes any more", someService("10.0.0.8:1"), "+services", 1, 0, true, false},
	} {
		before := r.services.current(must(serviceEntryKey(step.row)))
		m.took()
		v := putService(t, r, step.row)
		if got := m.took(); got != step.did || v.Slots != step.own || v.RoutedSlots != step.led {
			t.Errorf("%s: %s, want %s: %+v", step.what, got, step.did, v)
		}
		if (v.ID == before.ID) != step.keep || (v.RoutedID != 0 && v.RoutedID == before.ID) != step.swap {
			t.Errorf("%s: %+v was %+v", step.what, v, before)
		}
		if got := len(m.maps["slots"]); got != int(step.own+step.led) {
			t.Errorf("%s: %d slots, want %d", step.what, got, step.own+step.led)
		}
		r = m.open(t) // the next process goes on from there
		if again := putService(t, r, step.row); again != v || m.took() != "" {
			t.Errorf("%s: a second process has %+v, want %+v", step.what, again, v)
		}
	}
	if _, err := r.services.put(routed(someService("10.0.0.8:1"), "10.0.0.9:1")); err != nil {
		t.Fatal(err)
	}
	m.full = "slots"
	if _, err := r.services.put(routed(someService("10.0.0.1:1"), "10.0.0.2:1")); err == nil {
		t.Error("no error")
	}
	m.full = ""
	if err := r.sync(t.Context(), nil, noPorts); err != nil || len(m.maps["slots"])+len(m.maps["services"]) != 0 {
		t.Errorf("left: %v, %v", m.maps, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestServiceFlags(t *testing.T) {
	r := newMemory().open(t)
	addr := netip.MustParseAddr("10.244.0.1")
	for _, c := range []struct {
		row  plan.Service
		want uint32
	}{
		{plan.Service{Addr: addr, Mode: plan.Kernel}, 0},
		{plan.Service{Addr: addr, Mode: plan.HTTP}, 1},
		{plan.Service{Addr: addr, Mode: plan.Detect3}, 7},
		{plan.Service{Addr: addr, Mode: plan.HTTP, Direct: true}, 1 | 1<<4},
		{plan.Service{Addr: addr, Mode: plan.Kernel, Direct: true}, 1 << 4},
		{plan.Service{Addr: netip.IPv4Unspecified(), Mode: plan.Any}, 4 | 1<<4},
		{plan.Service{Addr: netip.IPv6Unspecified(), Mode: plan.Any}, 4 | 1<<4},
		{plan.Service{Addr: netip.IPv6Unspecified(), Mode: plan.Kernel}, 1 << 4},
		{plan.Service{Addr: addr, Mode: plan.Kernel, Routed: &plan.KernelRoute{}}, 1 << 5},
	} {
		c.row.Port, c.row.Protocol = 80, model.TCP
		if got := putService(t, r, &c.row); got != (serviceValue{Flags: c.want}) {
			t.Errorf("%+v: %+v, want flags %#x", c.row, got, c.want)
		}
	}
	// v4-mapped, not the same as the other family's.
	key, err := serviceEntryKey(&plan.Service{Addr: netip.IPv4Unspecified(), Port: 80, Protocol: model.TCP})
	if want := encode(serviceKey{Addr: addr16("::ffff:0.0.0.0"), Port: toPort(80), Proto: 6}); key != want || err != nil {
		t.Errorf("key %x (%v), want %x", key, err, want)
	}
	if _, err := r.services.put(&plan.Service{Addr: addr, Port: 80, Protocol: model.TCP, Mode: "other"}); err == nil {
		t.Error("unknown mode: no error")
	}
}

func addr16(s string) addr { return netip.MustParseAddr(s).As16() }

func TestServiceWeights(t *testing.T) {
	m := newMemory()
	s := someService("10.0.0.1:1", "10.0.0.2:1")
	s.Backends[0].Weight, s.Backends[1].Weight = 3, 0
	if v := putService(t, m.open(t), s); v.Slots != 3 {
		t.Errorf("%+v, want 3 slots", v)
	}
	got := map[string]int{}
	for _, b := range m.maps["slots"] {
		var v backend
		if err := decode(b, &v); err != nil {
			t.Fatal(err)
		}
		got[netip.AddrPortFrom(v.Addr.addr(), v.Port.host()).String()]++
	}
	if diff := cmp.Diff(map[string]int{"10.0.0.1:1": 3}, got); diff != "" {
		t.Error(diff)
	}
}

// What a process leaves that died between two writes is put right.
func TestServiceCrash(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	m.full = "services"
	if _, err := r.services.put(someService("10.0.0.1:1")); err == nil {
		t.Fatal("no error")
	}
	if len(m.maps["slots"]) != 0 {
		t.Error("slots of a service that could not be written stay")
	}
	m.full = ""
	putService(t, r, someService("10.0.0.1:1", "10.0.0.2:1"))
	for k := range m.maps["slots"] {
		delete(m.maps["slots"], k) // one of two
		break
	}
	m.maps["slots"][encode(slotKey{99, 0})] = encode(backend{})
	r = m.open(t)
	rows := []incr.Row{{Table: plan.Services, Key: "s", Value: someService("10.0.0.1:1", "10.0.0.2:1")}}
	if err := r.sync(t.Context(), rows, noPorts); err != nil {
		t.Fatal(err)
	}
	if got := len(m.maps["slots"]); got != 2 {
		t.Errorf("%d slots, want 2", got)
	}
	var k slotKey
	for key := range m.maps["slots"] {
		if err := decode(key, &k); err != nil || k.ID != 100 {
			t.Errorf("slots of id %d, want 100: 99 was in use", k.ID)
		}
	}
}

func TestServiceIDsWrap(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	first := putService(t, r, someService("10.0.0.1:1"))
	r.services.last = ^uint32(0)
	other := someService("10.0.0.1:1")
	other.Port = 81
	if v := putService(t, r, other); v.ID == 0 || v.ID == first.ID {
		t.Errorf("id %d: 0 is none and %d is in use", v.ID, first.ID)
	}
}

// A service with a range of addresses has a map of its own.
func TestRanges(t *testing.T) {
	m := newMemory()
	rows := []incr.Row{
		{Table: plan.Services, Key: "4", Value: &plan.Service{Addr: netip.MustParseAddr("10.9.0.0"), Bits: 16, Port: 9000, Protocol: model.TCP, Mode: plan.AnyOpaque, Direct: true}},
		{Table: plan.Services, Key: "6", Value: &plan.Service{Addr: netip.MustParseAddr("fd09::"), Bits: 32, Port: 443, Protocol: model.TCP, Mode: plan.AnyDetect, Direct: true}},
	}
	r := m.open(t)
	if err := r.sync(t.Context(), rows, noPorts); err != nil {
		t.Fatal(err)
	}
	for key, flags := range map[rangeKey]uint32{
		{Bits: 32 + 96 + 16, Port: toPort(9000), Proto: 6, Addr: toAddr(netip.MustParseAddr("10.9.0.0"))}: 9 | 1<<4,
		{Bits: 32 + 32, Port: toPort(443), Proto: 6, Addr: toAddr(netip.MustParseAddr("fd09::"))}:         8 | 1<<4,
	} {
		if got := m.maps["ranges"][encode(key)]; got != encode(flags) {
			t.Errorf("%+v has %x, want %x", key, got, encode(flags))
		}
	}
	if len(m.maps["services"]) != 0 {
		t.Errorf("services %v", m.maps["services"])
	}
	if err := r.apply(t.Context(), changes(rows[:1], nil), noPorts); err != nil || len(m.maps["ranges"]) != 1 {
		t.Errorf("%d ranges, %v", len(m.maps["ranges"]), err)
	}
	if err := r.sync(t.Context(), nil, noPorts); err != nil || len(m.maps["ranges"]) != 0 {
		t.Errorf("%d ranges, %v", len(m.maps["ranges"]), err)
	}
}
