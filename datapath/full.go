// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// fullError says that a map takes no new key.
type fullError struct {
	name string
	max  uint32 // 0: not known
	err  error
}

func (e *fullError) Error() string {
	if e.max == 0 {
		return fmt.Sprintf("write %s: it is full: %v", e.name, e.err)
	}
	return fmt.Sprintf("write %s: it is full, with room for %d: %v", e.name, e.max, e.err)
}

func (e *fullError) Unwrap() error { return e.err }

// isFull: hash tables say E2BIG, tries ENOSPC, and both ENOMEM if the kernel has no memory.
func isFull(err error) bool {
	return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM)
}

// ErrLeftOut is what Sync and Apply return when rows found no room and all else was written
// and taken away; see errors.Is. What was left out is refused until something goes.
var ErrLeftOut = errors.New("rows are left out for want of room")

// leftOutError lists the rows that found no room. All else was written and taken away.
type leftOutError struct{ left []leftOut }

// leftOut is a row that found no room.
type leftOut struct {
	table incr.Table
	row   any
	err   error
}

// namedLeftOut is how many rows of each map an error names.
const namedLeftOut = 3

func (e *leftOutError) Error() string {
	counts, texts := map[string]int{}, map[string][]string{}
	for _, l := range e.left {
		name := string(l.table)
		if full := (*fullError)(nil); errors.As(l.err, &full) {
			name = full.name
		}
		counts[name]++
		if len(texts[name]) < namedLeftOut {
			texts[name] = append(texts[name], l.err.Error())
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("rows left out for want of room in %s: %d, such as %s", name, counts[name], strings.Join(texts[name], ", ")))
	}
	return strings.Join(out, "; ")
}

func (e *leftOutError) Unwrap() []error {
	out := []error{ErrLeftOut}
	for _, l := range e.left {
		out = append(out, l.err)
	}
	return out
}

// retryLeftOut writes again what found no room before others were taken away.
func (r *rows) retryLeftOut(left []leftOut, ports func(string) uint16) (still []leftOut, err error) {
	var errs []error
	for _, l := range left {
		switch _, err := r.put(l.table, l.row, ports); {
		case err == nil:
		case isFull(err):
			still = append(still, leftOut{l.table, l.row, err})
		default:
			errs = append(errs, err)
		}
	}
	return still, errors.Join(errs...)
}

// wanted is what the plan says of a key of the policy.
func (r *rows) wanted(key string) (policyValue, bool) {
	text, ok := r.closed[key]
	if !ok {
		text, ok = r.policy.have[key]
	}
	var v policyValue
	return v, ok && decode(text, &v) == nil
}

// judged is what the kernel finds for a key: see judge in bpf/fl_policy.h.
func (r *rows) judged(k policyKey) (key string, action uint32) {
	anyOf := func(k policyKey) policyKey { k.Class = anyClass; return k }
	atAll := func(k policyKey) policyKey { k.Port, k.Proto = port{}, 0; return k }
	for _, at := range []policyKey{k, anyOf(k), atAll(k), anyOf(atAll(k))} {
		if v, ok := r.wanted(encode(at)); ok {
			return encode(at), v.Action
		}
	}
	return "", actionDeny
}

// close refuses what is judged by something more general because of what was left out, if
// that is more lenient: what is there can be changed in a full map. Others whom the same
// entry judges are refused with it. What need not be closed any more is opened: left must be
// all that is left out.
func (r *rows) close(left []leftOut) error {
	closed := r.toClose(left)
	var errs []error
	for key, value := range r.closed {
		if !closed[key] {
			delete(r.closed, key)
			errs = append(errs, r.policy.put(entry{key, value}))
		}
	}
	return errors.Join(append(errs, r.setClosed(closed))...)
}

// shut closes and opens nothing: there may be more that is left out.
func (r *rows) shut(left []leftOut) error { return r.setClosed(r.toClose(left)) }

// toClose are the entries that are more lenient than what was left out.
func (r *rows) toClose(left []leftOut) map[string]bool {
	closed := map[string]bool{}
	if len(left) == 0 {
		return closed
	}
	shut := func(key string, have, want uint32) {
		if key != "" && have != want && want != actionAllow && have != actionDeny && have != actionRefuse {
			closed[key] = true
		}
	}
	keys := r.policyKeys()
	anyPort := map[uint64][]policyKey{} // those of a class at any port, by set
	for _, k := range keys {
		if k.Port == (port{}) && k.Class != anyClass {
			anyPort[k.Set] = append(anyPort[k.Set], k)
		}
	}
	instead := map[[2]uint64]bool{} // classes of addresses that are left out, and what they are taken for
	prefixes := r.knownPrefixes()
	for _, l := range left {
		switch v := l.row.(type) {
		case *plan.Verdict:
			r.withoutVerdict(v, anyPort, shut)
		case *plan.Address:
			instead[[2]uint64{v.Class, prefixes.class(v.Addr, 129)}] = true
		case *plan.Prefix:
			instead[[2]uint64{v.Class, prefixes.class(v.Prefix.Addr(), prefixBits(v.Prefix))}] = true
		}
	}
	for pair := range instead {
		for _, k := range keys {
			if k.Class != pair[0] && k.Class != pair[1] {
				continue
			}
			was, is := k, k
			was.Class, is.Class = pair[0], pair[1]
			_, want := r.judged(was)
			key, have := r.judged(is)
			shut(key, have, want)
		}
	}
	return closed
}

// withoutVerdict shuts what stands in for a verdict.
func (r *rows) withoutVerdict(v *plan.Verdict, anyPort map[uint64][]policyKey, shut func(key string, have, want uint32)) {
	e, err := verdictEntry(v)
	if err != nil {
		return
	}
	var k policyKey
	var want policyValue
	if decode(e.key, &k) != nil || decode(e.value, &want) != nil {
		return
	}
	key, have := r.judged(k)
	shut(key, have, want.Action)
	if !v.Any || v.Port == 0 {
		return
	}
	for _, other := range anyPort[k.Set] {
		other.Port, other.Proto = k.Port, k.Proto
		key, have := r.judged(other)
		shut(key, have, want.Action)
	}
}

func (r *rows) setClosed(closed map[string]bool) error {
	var errs []error
	for key := range closed {
		if _, ok := r.closed[key]; ok {
			continue
		}
		v, _ := r.wanted(key)
		r.keepClosed(key, r.policy.have[key])
		v.Action = actionDeny
		errs = append(errs, r.policy.put(entry{key, encode(v)}))
	}
	return errors.Join(errs...)
}

func (r *rows) keepClosed(key, value string) {
	if r.closed == nil {
		r.closed = map[string]string{}
	}
	r.closed[key] = value
}

// leaveClosed opens nothing any more of sets that are to go: until their pods have others they
// are judged by them.
func (r *rows) leaveClosed() {
	maps.DeleteFunc(r.closed, func(key, _ string) bool {
		var k policyKey
		if decode(key, &k) != nil {
			return true
		}
		_, named := r.sets.taken[k.Set]
		return !named
	})
}

// putVerdict leaves closed what is. What denies is opened with the rest, when it is known
// whether it stands in for something that finds no room: also by an agent of before.
func (r *rows) putVerdict(e entry) error {
	_, closed := r.closed[e.key]
	if closed || denies(r.policy.have[e.key]) && !denies(e.value) {
		r.keepClosed(e.key, e.value)
		return nil
	}
	return r.policy.put(e)
}

func denies(value string) bool {
	var v policyValue
	return value != "" && decode(value, &v) == nil && v.Action == actionDeny
}

func (r *rows) removeVerdict(key string) error {
	delete(r.closed, key)
	return r.policy.remove(key)
}

func (r *rows) pruneVerdicts(want map[string]bool) error {
	maps.DeleteFunc(r.closed, func(key, _ string) bool { return !want[key] })
	var errs []error
	for _, key := range r.policy.toPrune(want) {
		errs = append(errs, r.policy.remove(key))
	}
	return errors.Join(errs...)
}

// hasRoom reports whether so many more verdicts will find room.
func (r *rows) hasRoom(n int) bool {
	return r.policy.max == 0 || len(r.policy.have)+n <= int(r.policy.max)
}

func (r *rows) policyKeys() []policyKey {
	var out []policyKey
	for text := range r.policy.have {
		var k policyKey
		if decode(text, &k) == nil {
			out = append(out, k)
		}
	}
	return out
}

// knownPrefixes are the classes of the prefixes that the kernel has, by length.
type knownPrefixes map[int]map[netip.Prefix]uint64

func (r *rows) knownPrefixes() knownPrefixes {
	out := knownPrefixes{}
	for key, value := range r.prefixes.have {
		var k prefixKey
		var v addressValue
		if decode(key, &k) != nil || decode(value, &v) != nil {
			continue
		}
		bits := int(k.Bits)
		if out[bits] == nil {
			out[bits] = map[netip.Prefix]uint64{}
		}
		out[bits][netip.PrefixFrom(netip.AddrFrom16(k.Addr), bits).Masked()] = v.Class
	}
	return out
}

// class is that of the longest prefix of an address that is shorter than some bits.
func (k knownPrefixes) class(a netip.Addr, below int) uint64 {
	for bits := below - 1; bits >= 0; bits-- {
		if c, ok := k[bits][netip.PrefixFrom(netip.AddrFrom16(a.As16()), bits).Masked()]; ok {
			return c
		}
	}
	return 0
}

func prefixBits(p netip.Prefix) int {
	if p.Addr().Is4() {
		return p.Bits() + 96
	}
	return p.Bits()
}
