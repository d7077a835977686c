// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

var setsSeed = flag.Uint64("sets-seed", 0, "of TestPoliciesChange; 0: another one each time")

// policy is what a set of the plan says: actions by class, 0 for any, and port, 0 for any.
type policy map[[2]uint16]plan.Action

// id is by content, as the plan's.
func (p policy) id() uint64 {
	if p == nil {
		return 0
	}
	return model.ID(fmt.Sprint(p))
}

func (p policy) verdicts() map[string]*plan.Verdict {
	out := map[string]*plan.Verdict{}
	for at, action := range p {
		v := &plan.Verdict{Set: p.id(), Class: uint64(at[0]), Any: at[0] == 0, Port: at[1], Action: action}
		if v.Port != 0 {
			v.Proto = model.TCP
		}
		out[v.Key()] = v
	}
	return out
}

func (p policy) judge(class, port uint16) plan.Action {
	if p == nil {
		return "open"
	}
	for _, at := range [][2]uint16{{class, port}, {0, port}, {class, 0}, {0, 0}} {
		if a, ok := p[at]; ok {
			return a
		}
	}
	return plan.Deny
}

func randomPolicy(rng *rand.Rand) policy {
	p := policy{{0, 0}: plan.Deny}
	for range rng.IntN(7) {
		p.edit(rng)
	}
	return p
}

func (p policy) edit(rng *rand.Rand) {
	actions := []plan.Action{plan.Allow, plan.Deny, plan.Check, plan.Refuse}
	at := [2]uint16{uint16(rng.IntN(4)), []uint16{0, 80, 81}[rng.IntN(3)]}
	if _, ok := p[at]; ok && at != [2]uint16{} && rng.IntN(2) == 0 {
		delete(p, at)
		return
	}
	p[at] = actions[rng.IntN(len(actions))]
}

// ruled is who is governed by what.
type ruled struct {
	policies []policy
	pods     map[netip.Addr]int // policy of each, by its number
}

func (w ruled) clone() ruled {
	out := ruled{pods: maps.Clone(w.pods)}
	for _, p := range w.policies {
		out.policies = append(out.policies, maps.Clone(p))
	}
	return out
}

func (w ruled) at(a netip.Addr) (p policy, there bool) {
	i, ok := w.pods[a]
	if !ok {
		return nil, false
	}
	return w.policies[i], true
}

func (w ruled) rows() map[string]incr.Row {
	out := map[string]incr.Row{}
	for a, i := range w.pods {
		p := w.policies[i]
		out["pod "+a.String()] = incr.Row{Table: plan.Pods, Key: a.String(), Value: &plan.Pod{Addr: a, Name: "ns/" + a.String(), Set: p.id()}}
		for key, v := range p.verdicts() {
			out["verdict "+key] = incr.Row{Table: plan.Verdicts, Key: key, Value: v}
		}
	}
	return out
}

func (w ruled) all() []incr.Row {
	rows := w.rows()
	var out []incr.Row
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, rows[k])
	}
	return out
}

// change mutates a ruled as users do.
func (w *ruled) change(rng *rand.Rand, before []policy) {
	i := rng.IntN(len(w.policies))
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + rng.IntN(6))})
	switch rng.IntN(8) {
	case 0:
		w.policies[i] = randomPolicy(rng)
	case 1:
		w.policies[i] = maps.Clone(w.policies[rng.IntN(len(w.policies))])
	case 2:
		if len(before) > 0 {
			w.policies[i] = maps.Clone(before[rng.IntN(len(before))])
		}
	case 3:
		w.policies[i] = nil // nobody governs its pods
	case 4:
		if _, ok := w.pods[a]; ok {
			delete(w.pods, a)
		} else {
			w.pods[a] = i
		}
	case 5:
		w.pods[a] = i
	default:
		if w.policies[i] == nil {
			w.policies[i] = randomPolicy(rng)
		}
		for range 1 + rng.IntN(3) {
			w.policies[i].edit(rng)
		}
	}
}

// differences are the changes from one to the other, and how many tuples of what stays with
// its pods they concern.
func differences(was, is ruled) []incr.Change {
	a, b := was.rows(), is.rows()
	var out []incr.Change
	for _, k := range slices.Sorted(maps.Keys(b)) {
		old, there := a[k]
		if there && fmt.Sprint(old.Value) == fmt.Sprint(b[k].Value) {
			continue
		}
		out = append(out, incr.Change{Table: b[k].Table, Key: b[k].Key, Old: old.Value, New: b[k].Value})
	}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if _, there := b[k]; !there {
			out = append(out, incr.Change{Table: a[k].Table, Key: a[k].Key, Old: a[k].Value})
		}
	}
	return out
}

// tuples is how many writes a change of one policy takes; false if it is another change, or
// the policy is, or becomes, others' too.
func tuples(was, is ruled) (int, bool) {
	if !maps.Equal(was.pods, is.pods) {
		return 0, false
	}
	var changed []int
	used := map[int]bool{}
	for _, i := range is.pods {
		used[i] = true
	}
	for i := range is.policies {
		if used[i] && was.policies[i].id() != is.policies[i].id() {
			changed = append(changed, i)
		}
	}
	if len(changed) != 1 || was.policies[changed[0]] == nil || is.policies[changed[0]] == nil {
		return 0, false
	}
	i := changed[0]
	for j := range is.policies {
		if j != i && used[j] && (was.policies[j].id() == was.policies[i].id() || is.policies[j].id() == is.policies[i].id()) {
			return 0, false
		}
	}
	n := 0
	for at, action := range is.policies[i] {
		if was.policies[i][at] != action {
			n++
		}
	}
	for at := range was.policies[i] {
		if _, ok := is.policies[i][at]; !ok {
			n++
		}
	}
	return n, true
}

// Whatever policies become, whoever has them, whoever writes them and is stopped halfway: each
// packet is judged at each moment as before or as after, and a policy that is nobody else's is
// changed by writing what differs.
func TestPoliciesChange(t *testing.T) {
	seed := *setsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-sets-seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	inPlace, restarts, broken := 0, 0, 0
	for range 60 {
		m := newMemory()
		r := m.open(t)
		var before []policy
		is := ruled{policies: []policy{randomPolicy(rng), randomPolicy(rng), randomPolicy(rng)}, pods: map[netip.Addr]int{}}
		was := is.clone()
		say := func(when string) func() {
			return func() {
				if !t.Failed() {
					m.holds(t, when, was, is)
				}
			}
		}
		if err := r.sync(t.Context(), is.all(), noPorts); err != nil {
			t.Fatal(err)
		}
		for step := range 40 {
			was = is.clone()
			before = append(before, was.policies...)
			for range 1 + rng.IntN(2) {
				is.change(rng, before)
			}
			m.log = nil
			m.left = 0
			if rng.IntN(4) == 0 {
				m.left = 2 + rng.IntN(12)
			}
			var err error
			if rng.IntN(6) == 0 { // it changed while nobody was there
				restarts++
				r = m.open(t)
				m.watch = say(fmt.Sprintf("step %d, begun anew", step))
				err = r.sync(t.Context(), is.all(), noPorts)
			} else {
				m.watch = say(fmt.Sprintf("step %d", step))
				err = r.apply(t.Context(), differences(was, is), noPorts)
				if n, alone := tuples(was, is); err == nil && alone && m.left == 0 {
					if inPlace++; len(m.log) != n {
						t.Errorf("step %d: %d writes for %d tuples: %v", step, len(m.log), n, m.log)
					}
				}
			}
			if err != nil {
				broken++
				if m.left != 1 {
					t.Fatalf("step %d: %v", step, err)
				}
			}
			for again := 0; m.left == 1 || errors.Is(err, errUnsure); again++ {
				if m.left = 0; again < 2 && rng.IntN(3) == 0 {
					m.left = 2 + rng.IntN(8)
				}
				if rng.IntN(2) == 0 {
					r = m.open(t)
				}
				m.watch = say(fmt.Sprintf("step %d, after an error", step))
				if err = r.sync(t.Context(), is.all(), noPorts); err != nil && m.left != 1 {
					t.Fatalf("step %d: %v", step, err)
				}
			}
			m.watch, was = nil, is
			say(fmt.Sprintf("step %d, at the end", step))()
			if len(m.maps["pods"]) != len(is.pods) {
				t.Errorf("step %d: %d pods, want %d", step, len(m.maps["pods"]), len(is.pods))
			}
			if n := len(m.maps["policy"]); n != len(is.rows())-len(is.pods) {
				t.Errorf("step %d: the policy has %d entries, want %d", step, n, len(is.rows())-len(is.pods))
			}
			if t.Failed() {
				return
			}
			m.log = nil
			if err := r.sync(t.Context(), is.all(), noPorts); err != nil || len(m.log) > 0 {
				t.Fatalf("step %d: the same rows again: %v, %v", step, err, m.log)
			}
			if r2 := m.open(t); true {
				if err := r2.sync(t.Context(), is.all(), noPorts); err != nil || len(m.log) > 0 {
					t.Fatalf("step %d: the same rows, begun anew: %v, %v", step, err, m.log)
				}
			}
		}
	}
	t.Logf("%d changes in place, %d while nobody was there, %d broken off", inPlace, restarts, broken)
	if inPlace < 100 || restarts < 50 || broken < 50 {
		t.Error("too few of each to tell")
	}
}

// holds checks what the maps say of each pod.
func (m *memory) holds(t *testing.T, when string, was, is ruled) {
	t.Helper()
	names := map[uint32]plan.Action{actionAllow: plan.Allow, actionDeny: plan.Deny, actionCheck: plan.Check, actionRefuse: plan.Refuse}
	for key, text := range m.maps["pods"] {
		var v podValue
		if err := decode(text, &v); err != nil {
			t.Fatal(err)
		}
		a := addr([]byte(key)).addr()
		old, had := was.at(a)
		now, has := is.at(a)
		for class := range uint16(4) {
			for _, port := range []uint16{80, 81, 82} {
				got := plan.Action("open")
				if v.Set != 0 {
					got = names[m.judge(t, v.Set, uint64(class+1), port)]
				}
				if had && got == old.judge(class+1, port) || has && got == now.judge(class+1, port) {
					continue
				}
				t.Errorf("%s: %s, class %d, port %d: %s; before %s, after %s", when, a, class+1, port, got, old.judge(class+1, port), now.judge(class+1, port))
				return
			}
		}
	}
}
