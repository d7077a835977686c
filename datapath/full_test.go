// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

func verdictRow(v plan.Verdict) incr.Row {
	return incr.Row{Table: plan.Verdicts, Key: v.Key(), Value: &v}
}

func addressRow(a string, class uint64) incr.Row {
	return incr.Row{Table: plan.Addresses, Key: a, Value: &plan.Address{Addr: netip.MustParseAddr(a), Class: class}}
}

func prefixRow(p string, class uint64) incr.Row {
	return incr.Row{Table: plan.Prefixes, Key: p, Value: &plan.Prefix{Prefix: netip.MustParsePrefix(p), Class: class}}
}

// judge is what the kernel would say, by what is in its maps.
func (m *memory) judge(t *testing.T, set, class uint64, port uint16) uint32 {
	t.Helper()
	for _, k := range []policyKey{
		{Set: set, Class: class, Port: toPort(port), Proto: 6}, {Set: set, Class: anyClass, Port: toPort(port), Proto: 6},
		{Set: set, Class: class}, {Set: set, Class: anyClass},
	} {
		if text, ok := m.maps["policy"][encode(k)]; ok {
			var v policyValue
			if err := decode(text, &v); err != nil {
				t.Fatal(err)
			}
			return v.Action
		}
	}
	return actionDeny
}

// A full map stops nothing but what it has no room for: what was allowed and is not any
// more is refused, by Apply and by Sync.
func TestFullMapRevokes(t *testing.T) {
	allow := func(class uint64) incr.Row { return verdictRow(plan.Verdict{Set: 1, Class: class, Action: plan.Allow}) }
	narrowed := verdictRow(plan.Verdict{Set: 1, Class: 2, Action: plan.Deny})
	for _, c := range []struct {
		name  string
		write func(r *rows) error
	}{
		{"apply", func(r *rows) error {
			return r.apply(t.Context(), append(changes([]incr.Row{allow(1)}, []incr.Row{allow(4), allow(5)}),
				incr.Change{Table: plan.Verdicts, Key: narrowed.Key, Old: allow(2).Value, New: narrowed.Value}), noPorts)
		}},
		{"sync", func(r *rows) error {
			return r.sync(t.Context(), []incr.Row{allow(4), allow(5), narrowed, allow(3)}, noPorts)
		}},
	} {
		m := newMemory()
		r := m.open(t)
		if err := r.sync(t.Context(), []incr.Row{allow(1), allow(2), allow(3)}, noPorts); err != nil {
			t.Fatal(err)
		}
		m.room = map[string]int{"policy": 3}
		r.policy.max = 3
		err := c.write(r)
		if left := (*leftOutError)(nil); !errors.As(err, &left) || len(left.left) != 1 {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, want := range []string{"left out", "policy: 1", "room for 3"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error does not say %q: %v", c.name, want, err)
			}
		}
		for class, want := range map[uint64]uint32{1: actionDeny, 2: actionDeny, 3: actionAllow, 4: actionAllow, 5: actionDeny} {
			if got := m.judge(t, 1, class, 80); got != want {
				t.Errorf("%s: class %d: %d, want %d", c.name, class, got, want)
			}
		}
		m.took()
		again := r.sync(t.Context(), []incr.Row{allow(4), allow(5), narrowed, allow(3)}, noPorts)
		if again == nil || m.took() != "" {
			t.Errorf("%s: again: %v, %s", c.name, again, m.took())
		}
		m.room = nil
		if err := r.sync(t.Context(), []incr.Row{allow(4), allow(5), narrowed, allow(3)}, noPorts); err != nil || m.judge(t, 1, 5, 80) != actionAllow {
			t.Errorf("%s: with room: %v", c.name, err)
		}
	}
}

// A kernel without memory takes nothing new: what is there stays as it is.
func TestKernelWithoutMemory(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	denied, wider := verdictRow(plan.Verdict{Set: 1, Class: 7, Action: plan.Deny}), verdictRow(plan.Verdict{Set: 1, Any: true, Action: plan.Allow})
	if err := r.sync(t.Context(), []incr.Row{denied, wider}, noPorts); err != nil {
		t.Fatal(err)
	}
	m.poor, m.watch = "policy", nil
	check := verdictRow(plan.Verdict{Set: 1, Class: 7, Action: plan.Check})
	if err := r.sync(t.Context(), []incr.Row{check, wider}, noPorts); err == nil || m.judge(t, 1, 7, 80) != actionDeny {
		t.Errorf("%v: judged %d, want as before", err, m.judge(t, 1, 7, 80))
	}
	m.poor = ""
	if err := r.sync(t.Context(), []incr.Row{check, wider}, noPorts); err != nil || m.judge(t, 1, 7, 80) != actionCheck {
		t.Errorf("%v: judged %d", err, m.judge(t, 1, 7, 80))
	}
}

// An exception that finds no room must not be judged as what it is an exception from.
func TestFullMapIsNoWayIn(t *testing.T) {
	anyAt := func(port uint16) incr.Row {
		v := plan.Verdict{Set: 1, Any: true, Port: port, Action: plan.Allow}
		if port != 0 {
			v.Proto = "TCP"
		}
		return verdictRow(v)
	}
	deny := func(class uint64) incr.Row { return verdictRow(plan.Verdict{Set: 1, Class: class, Action: plan.Deny}) }
	other := verdictRow(plan.Verdict{Set: 2, Any: true, Action: plan.Allow})
	for _, c := range []struct {
		name       string
		rows       []incr.Row // what the last of the policy's says finds no room
		room       map[string]int
		class      uint64 // of whom is refused, or what it is taken for
		port       uint16
		alsoClosed bool // others are
	}{
		{"a class", []incr.Row{anyAt(0), other, deny(7)}, map[string]int{"policy": 2}, 7, 80, true},
		{"a class at a port", []incr.Row{anyAt(0), other, verdictRow(plan.Verdict{Set: 1, Class: 7, Port: 80, Proto: "TCP", Action: plan.Check})},
			map[string]int{"policy": 2}, 7, 80, true},
		{"any at a port", []incr.Row{anyAt(0), other, verdictRow(plan.Verdict{Set: 1, Any: true, Port: 80, Proto: "TCP", Action: plan.Deny})},
			map[string]int{"policy": 2}, 7, 80, true},
		{"any at a port, and a class", []incr.Row{verdictRow(plan.Verdict{Set: 1, Class: 7, Action: plan.Allow}), other,
			verdictRow(plan.Verdict{Set: 1, Any: true, Port: 80, Proto: "TCP", Action: plan.Deny})}, map[string]int{"policy": 2}, 7, 80, true},
		{"an address", []incr.Row{anyAt(0), other, deny(7), addressRow("10.0.0.1", 7)}, map[string]int{"addresses": 0}, 0, 80, true},
		{"an address in a prefix", []incr.Row{other, deny(7), verdictRow(plan.Verdict{Set: 1, Class: 8, Action: plan.Allow}), prefixRow("10.0.0.0/8", 8),
			prefixRow("10.1.0.0/16", 9), addressRow("10.0.0.1", 7)}, map[string]int{"addresses": 0}, 8, 80, true},
		{"a prefix in another", []incr.Row{other, verdictRow(plan.Verdict{Set: 1, Class: 8, Action: plan.Allow}), prefixRow("10.0.0.0/8", 8),
			prefixRow("10.1.0.0/16", 9)}, map[string]int{"prefixes": 1}, 8, 80, true},
		{"an address that may as much", []incr.Row{anyAt(0), other, addressRow("10.0.0.1", 7)}, map[string]int{"addresses": 0}, 1, 80, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory()
			r := m.open(t)
			if _, full := c.room["policy"]; full {
				if err := r.sync(t.Context(), c.rows[:len(c.rows)-1], noPorts); err != nil {
					t.Fatal(err)
				}
			}
			m.room = c.room
			want := actionAllow
			if c.alsoClosed {
				want = actionDeny
			}
			var first map[string]string
			for range 2 {
				if err := r.sync(t.Context(), c.rows, noPorts); !errors.Is(err, ErrLeftOut) {
					t.Fatal(err)
				}
				if got := m.judge(t, 1, c.class, c.port); got != want {
					t.Errorf("judged %d, want %d", got, want)
				}
				if got := m.judge(t, 2, c.class, c.port); got != actionAllow {
					t.Errorf("another set: %d", got)
				}
				if first != nil && m.took() != "" {
					t.Error("the second time something is written")
				}
				m.took()
				first = maps.Clone(m.maps["policy"])
			}
			// Changes of others do not open it, nor does whoever comes next and is stopped halfway.
			if err := r.apply(t.Context(), changes(nil, c.rows[:1]), noPorts); !errors.Is(err, errUnsure) || m.judge(t, 1, c.class, c.port) != want {
				t.Errorf("after a change: %v, judged %d", err, m.judge(t, 1, c.class, c.port))
			}
			r = m.open(t)
			m.watch = func() {
				if got := m.judge(t, 1, c.class, c.port); got != want {
					t.Errorf("by another that begins: judged %d for a moment", got)
				}
			}
			stopped, stop := context.WithCancel(t.Context())
			stop()
			if err := r.sync(stopped, c.rows, noPorts); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := r.sync(t.Context(), c.rows, noPorts); !errors.Is(err, ErrLeftOut) {
				t.Error(err)
			}
			m.watch = nil
			m.room = nil
			if err := r.sync(t.Context(), c.rows, noPorts); err != nil {
				t.Fatal(err)
			}
			fresh := newMemory()
			if err := fresh.open(t).sync(t.Context(), c.rows, noPorts); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(m.maps["policy"], fresh.maps["policy"]) {
				t.Error("with room the policy is another than one that was written in one go")
			}
		})
	}
}

// Backends that are gone go, also where others find no room.
func TestFullSlots(t *testing.T) {
	m := newMemory()
	r := m.open(t)
	backends := func() (out []string) {
		v := r.services.current(must(serviceEntryKey(someService())))
		for n := range v.Slots {
			var b backend
			if err := decode(m.maps["slots"][encode(slotKey{v.ID, n})], &b); err != nil {
				t.Fatal(err)
			}
			out = append(out, netip.AddrPortFrom(b.Addr.addr(), b.Port.host()).String())
		}
		return out
	}
	sync := func(s *plan.Service) error {
		return r.sync(t.Context(), []incr.Row{{Table: plan.Services, Key: "s", Value: s}}, noPorts)
	}
	if err := sync(someService("10.0.0.1:1", "10.0.0.2:1")); err != nil {
		t.Fatal(err)
	}
	m.room = map[string]int{"slots": 2}
	for _, c := range []struct {
		name  string
		wants *plan.Service
		has   string
		err   bool
	}{
		{"a third", someService("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"), "10.0.0.1:1 10.0.0.2:1", true},
		{"another for one", someService("10.0.0.2:1", "10.0.0.3:1"), "10.0.0.2:1 10.0.0.3:1", false},
		{"two others for one", someService("10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1"), "10.0.0.3:1", true},
		{"another one", someService("10.0.0.6:1"), "10.0.0.6:1", false},
		{"three others", someService("10.0.0.7:1", "10.0.0.8:1", "10.0.0.9:1"), "", true},
	} {
		err := sync(c.wants)
		if got := strings.Join(backends(), " "); got != c.has || (err != nil) != c.err || err != nil && !errors.Is(err, ErrLeftOut) {
			t.Errorf("%s: %q, want %q: %v", c.name, got, c.has, err)
		}
		if got := len(m.maps["slots"]); got != len(backends()) {
			t.Errorf("%s: %d slots, of which %d are in use", c.name, got, len(backends()))
		}
	}
}

// staleTrie is one of an older kernel: full, it does not change what it has.
type staleTrie struct{ memoryMap }

func (m staleTrie) Update(k, v any, flags ebpf.MapUpdateFlags) error {
	if len(m.of.maps[m.name]) >= m.of.room[m.name] {
		return unix.ENOSPC
	}
	return m.memoryMap.Update(k, v, flags)
}

func TestFullTrieOfOlderKernel(t *testing.T) {
	m := newMemory()
	m.room = map[string]int{"x": 1}
	x := m.table("x")
	x.kernel = staleTrie{memoryMap{"x", m}}
	for _, e := range []entry{{"k", "1"}, {"k", "2"}} {
		if err := x.put(e); err != nil || m.maps["x"]["k"] != e.value {
			t.Errorf("%v: %v", m.maps["x"], err)
		}
	}
	if err := x.put(entry{"l", "1"}); !isFull(err) {
		t.Errorf("no room: %v", err)
	}
}
