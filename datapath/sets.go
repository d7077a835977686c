// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// sets names the policy sets of the plan in the kernel. The plan names a set by what it
// says, so that a changed policy is another set; where all pods of a set go to a new one,
// the kernel's is changed in place, under its name, and just the tuples are written that
// differ. A packet is judged at each moment as before or as after the change: see byRank.
type sets struct {
	names map[uint64]uint64     // the kernel's, by the plan's
	taken map[uint64]uint64     // the plan's, by the kernel's
	rows  map[uint64]int        // verdicts, by the plan's set
	users map[netip.Addr]uint64 // the plan's set of each pod's address that has one
}

func newSets() sets {
	return sets{map[uint64]uint64{}, map[uint64]uint64{}, map[uint64]int{}, map[netip.Addr]uint64{}}
}

func (s *sets) take(set, name uint64) { s.names[set], s.taken[name] = name, set }

// name is the kernel's for a set of the plan; a new one gets one that no other has. used are
// names that are in the kernel's maps; nil: just those of other sets.
func (s *sets) name(set uint64, used func(uint64) bool) uint64 {
	if name, ok := s.names[set]; ok {
		return name
	}
	name := set
	for {
		if _, taken := s.taken[name]; name != 0 && !taken && (used == nil || !used(name)) {
			break
		}
		name = name*6364136223846793005 + 1442695040888963407 // of a generator that comes to all numbers
	}
	s.take(set, name)
	return name
}

// rank orders the rows of a set as the kernel tries them.
func rank(v *plan.Verdict) int {
	n := 0
	if v.Any {
		n++
	}
	if v.Port == 0 {
		n += 2
	}
	return n
}

// byRank orders what is written from the special to the general, and what is taken away the
// other way round. So a packet that several rows hold for is judged as before until a
// single one of the writes, and from then on as after it:
// as long as anything is written, what is tried first is an old row, or the first of the new; and of
// the old rows that go, the one that was tried first goes last.
func byRank(verdicts []incr.Change) {
	order := func(c incr.Change) int {
		if c.New != nil {
			return rank(c.New.(*plan.Verdict))
		}
		return 3 - rank(c.Old.(*plan.Verdict))
	}
	slices.SortStableFunc(verdicts, func(a, b incr.Change) int { return order(a) - order(b) })
}

// setOf is the set of a pod's row, 0 if there is none.
func setOf(row any) uint64 {
	if p, ok := row.(*plan.Pod); ok && p != nil {
		return p.Set
	}
	return 0
}

// moves are the sets of the plan that become others in place, by what they become: all
// pods of the one go to the other, which nobody else has or gets. room: no new row will find
// the map full.
func (s *sets) moves(changes []incr.Change, room bool) map[uint64]uint64 {
	from, to, moving := map[uint64]uint64{}, map[uint64]uint64{}, map[uint64]int{}
	not, added, removed := map[uint64]bool{}, map[uint64]int{}, map[uint64]int{}
	for _, c := range changes {
		switch c.Table {
		case plan.Addresses, plan.Prefixes:
			// Whom a row holds for changes meanwhile: what is the first of the new rows is
			// not the same before and after.
			if classOf(c.Old) != classOf(c.New) {
				return nil
			}
		case plan.Verdicts:
			switch {
			case c.New == nil:
				removed[c.Old.(*plan.Verdict).Set]++
			case c.Old == nil:
				added[c.New.(*plan.Verdict).Set]++
			}
		case plan.Pods:
			was, is := setOf(c.Old), setOf(c.New)
			switch {
			case was == is:
			case was == 0 || is == 0:
				not[was], not[is] = true, true
			default:
				if before, ok := to[was]; ok && before != is {
					not[was] = true
				}
				if before, ok := from[is]; ok && before != was {
					not[is] = true
				}
				to[was], from[is] = is, was
				moving[was]++
			}
		}
	}
	if !room || len(from) == 0 {
		return nil
	}
	users := map[uint64]int{}
	for _, set := range s.users {
		users[set]++
	}
	maps.DeleteFunc(from, func(is, was uint64) bool {
		_, named := s.names[was]
		goes := s.rows[was] == removed[was] && added[was] == 0
		comes := s.rows[is] == 0 && added[is] > 0
		return not[was] || not[is] || !named || !goes || !comes || users[was] != moving[was]
	})
	return from
}

// classOf is the class of an address or a prefix, and whether there is one.
func classOf(row any) (out struct {
	class uint64
	there bool
}) {
	switch v := row.(type) {
	case *plan.Address:
		out.class, out.there = v.Class, true
	case *plan.Prefix:
		out.class, out.there = v.Class, true
	}
	return out
}

// follow gives changes of the plan the kernel's names of sets, and an order.
func (s *sets) follow(changes []incr.Change, room bool) []incr.Change {
	if s.names == nil { // nothing was there before
		*s = newSets()
	}
	moves := s.moves(changes, room)
	moved := map[uint64]uint64{} // names of sets that have become others
	for _, is := range slices.Sorted(maps.Keys(moves)) {
		was := moves[is]
		moved[was] = s.names[was]
		delete(s.names, was)
		s.take(is, moved[was])
	}
	var verdicts, others, gone []incr.Change
	put := map[string]bool{}
	for _, c := range changes {
		switch {
		case c.Table == plan.Verdicts && c.New == nil:
			gone = append(gone, c)
		case c.Table == plan.Verdicts:
			v := c.New.(*plan.Verdict)
			if c.Old == nil {
				s.rows[v.Set]++
			}
			c.New = renamed(v, s.name(v.Set, nil))
			put[c.New.(*plan.Verdict).Key()] = true
			verdicts = append(verdicts, c)
		case c.Table == plan.Pods:
			s.use(c.Old, c.New)
			if p, ok := c.New.(*plan.Pod); ok {
				c.New = s.placed(p)
			}
			others = append(others, c)
		default:
			others = append(others, c)
		}
	}
	for _, c := range gone {
		v := c.Old.(*plan.Verdict)
		name, ok := moved[v.Set]
		if !ok {
			name = s.name(v.Set, nil)
		}
		c.Old = renamed(v, name)
		if !put[c.Old.(*plan.Verdict).Key()] {
			verdicts = append(verdicts, c)
		}
	}
	for _, c := range gone {
		s.forget(c.Old.(*plan.Verdict).Set)
	}
	byRank(verdicts)
	return append(verdicts, others...)
}

// forget a row of a set; with the last, its name is free.
func (s *sets) forget(set uint64) {
	if s.rows[set]--; s.rows[set] > 0 {
		return
	}
	delete(s.rows, set)
	if name, ok := s.names[set]; ok {
		delete(s.names, set)
		delete(s.taken, name)
	}
}

func (s *sets) use(was, is any) {
	if p, ok := was.(*plan.Pod); ok {
		delete(s.users, p.Addr)
	}
	if p, ok := is.(*plan.Pod); ok && p.Set != 0 {
		s.users[p.Addr] = p.Set
	}
}

func renamed(v *plan.Verdict, name uint64) *plan.Verdict {
	if v.Set == name {
		return v
	}
	out := *v
	out.Set = name
	return &out
}

func (s *sets) placed(p *plan.Pod) *plan.Pod {
	if p.Set == 0 || s.names[p.Set] == p.Set {
		return p
	}
	out := *p
	out.Set = s.name(p.Set, nil)
	return &out
}

// known is what the kernel's maps hold of sets.
type known struct {
	rows map[uint64]map[string]string // of each set, by the rest of their keys
	pods map[string]uint64            // the sets of pods, by the keys of their addresses
}

func (r *rows) known() known {
	out := known{map[uint64]map[string]string{}, r.pods.sets()}
	for text, value := range r.policy.have {
		var k policyKey
		if decode(text, &k) != nil {
			continue
		}
		if out.rows[k.Set] == nil {
			out.rows[k.Set] = map[string]string{}
		}
		out.rows[k.Set][withoutSet(text)] = value
	}
	return out
}

// setsOf are those of the entries of pods, by their keys.
func setsOf(pods *table) map[string]uint64 {
	out := map[string]uint64{}
	for key, text := range pods.have {
		var v podValue
		if decode(text, &v) == nil {
			out[key] = v.Set
		}
	}
	return out
}

// withoutSet is what follows the set in a policy's key.
func withoutSet(key string) string { return key[8:] }

// is reports whether a set of the kernel may become this one, or is it: because it says
// the same; or the same of any class, which the rules of a policy alone decide, and it has the
// same pods. Rows may be missing in a full map, or deny for want of others. Without room for
// another set, pods may come, too.
func (k known) is(name uint64, want wanted, room bool) bool {
	have, there := k.rows[name]
	if !there {
		return false
	}
	if maps.Equal(have, want.rows) {
		return true
	}
	for key, value := range have {
		other, ok := want.rows[key]
		if isOfAnyone(key) && (!ok || other != value && !denies(value)) {
			return false
		}
	}
	for pod, other := range k.pods {
		if other == name && !want.pods[pod] {
			return false
		}
	}
	for pod := range want.pods {
		if room && k.pods[pod] != name {
			return false
		}
	}
	return true
}

// wanted is a set of the plan.
type wanted struct {
	rows map[string]string // by their keys without the set
	pods map[string]bool   // by the keys of their addresses
}

// isOfAnyone: the rest of a key is for any class.
func isOfAnyone(rest string) bool {
	var k policyKey
	return decode(encode(uint64(0))+rest, &k) == nil && k.Class == anyClass
}

// begin gives all rows of the plan the kernel's names of sets, and an order. A set that the
// kernel has goes by the name that it has there; but what is not the same policy is
// made anew, under another name, if there is room.
func (s *sets) begin(all []incr.Row, k known, room bool) []incr.Row {
	before := s.names
	*s = newSets()
	want := map[uint64]wanted{}
	of := func(set uint64) wanted {
		w, ok := want[set]
		if !ok {
			w = wanted{map[string]string{}, map[string]bool{}}
			want[set] = w
		}
		return w
	}
	for _, row := range all {
		switch v := row.Value.(type) {
		case *plan.Verdict:
			s.rows[v.Set]++
			if e, err := verdictEntry(v); err == nil { // else it is not written, and said
				of(v.Set).rows[withoutSet(e.key)] = e.value
			}
		case *plan.Pod:
			s.use(nil, v)
			if v.Set != 0 {
				of(v.Set).pods[encode(toAddr(v.Addr))] = true
			}
		}
	}
	var fresh []uint64
	for _, set := range slices.Sorted(maps.Keys(want)) {
		candidates := []uint64{before[set], set}
		for pod := range want[set].pods {
			candidates = append(candidates, k.pods[pod])
		}
		slices.Sort(candidates[2:])
		i := slices.IndexFunc(candidates, func(name uint64) bool {
			_, taken := s.taken[name]
			return name != 0 && !taken && k.is(name, want[set], room)
		})
		if i < 0 {
			fresh = append(fresh, set)
			continue
		}
		s.take(set, candidates[i])
	}
	for _, set := range fresh {
		s.name(set, func(name uint64) bool { _, there := k.rows[name]; return there })
	}
	out := slices.Clone(all)
	for i := range out {
		switch v := out[i].Value.(type) {
		case *plan.Verdict:
			out[i].Value = renamed(v, s.name(v.Set, nil))
		case *plan.Pod:
			out[i].Value = s.placed(v)
		}
	}
	slices.SortStableFunc(out, func(a, b incr.Row) int {
		x, ok := a.Value.(*plan.Verdict)
		y, and := b.Value.(*plan.Verdict)
		if !ok || !and {
			return 0
		}
		return rank(x) - rank(y)
	})
	return out
}

// toPrune are the keys of a policy that are not wanted, from the general to the special.
func (t *table) toPrune(want map[string]bool) []string {
	var gone []string
	for key := range t.have {
		if !want[key] {
			gone = append(gone, key)
		}
	}
	order := func(key string) int {
		var k policyKey
		if decode(key, &k) != nil {
			return 0
		}
		return rank(&plan.Verdict{Any: k.Class == anyClass, Port: k.Port.host()})
	}
	slices.SortFunc(gone, func(a, b string) int { return order(b) - order(a) })
	return gone
}
