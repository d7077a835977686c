// SPDX-License-Identifier: Apache-2.0

package incr

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Table names a table.
type Table string

// Row is a value in a table.
type Row struct {
	Table Table
	Key   string
	Value any
}

// Stage computes the rows of keys.
type Stage struct {
	Name string
	// Keys gives, for each input table, the keys that exist because a row does.
	Keys map[Table]func(key string, value any) []string
	// Compute gives a key's rows. Two keys may give the same row (shared rows,
	// keyed by their content); if they differ, the smaller key's stands.
	Compute func(r *Reader, key string) []Row
}

// Change is a row's new value, nil if it is gone.
type Change struct {
	Table Table
	Key   string
	Old   any
	New   any
}

// Store holds the tables. It is not safe for concurrent use.
type Store struct {
	tables map[Table]*table
	stages []*stage
	order  map[string]int
	edited map[Table]map[string]edit // since the last Run
	counts map[string]int            // computations per stage
	// readers are the computations that an answer is read by.
	readers map[query]map[unit]struct{}
}

// edit is what a row was before it was written.
type edit struct {
	old   any
	again bool // written more than once: it may be as it was
}

type unit struct {
	stage *stage
	key   string
}

type query struct {
	table Table
	index string // "" = by key, "*" = whole table
	value string
}

type table struct {
	rows      map[string]any
	producers map[string]*producers // by row key (derived tables)
	indexes   map[string]*index
}

type index struct {
	values func(key string, v any) []string
	rows   map[string]map[string]struct{}
}

type stage struct {
	Stage
	refs    map[string]int                // key -> how many input rows want it
	wants   map[Table]map[string][]string // input row -> keys
	reads   map[string][]query
	outputs map[string][]Row
	stale   map[string]struct{}
}

// New returns an empty store.
func New() *Store {
	return &Store{tables: map[Table]*table{}, order: map[string]int{}, edited: map[Table]map[string]edit{}, counts: map[string]int{},
		readers: map[query]map[unit]struct{}{}}
}

func (s *Store) table(t Table) *table {
	tb := s.tables[t]
	if tb == nil {
		tb = &table{rows: map[string]any{}, producers: map[string]*producers{}, indexes: map[string]*index{}}
		s.tables[t] = tb
	}
	return tb
}

// Index makes the query name available for a table. Call it before any row is set.
func (s *Store) Index(t Table, name string, values func(key string, v any) []string) {
	tb := s.table(t)
	if _, ok := tb.indexes[name]; ok || len(tb.rows) > 0 {
		panic(fmt.Sprintf("incr: index %s of %s added twice or late", name, t))
	}
	tb.indexes[name] = &index{values: values, rows: map[string]map[string]struct{}{}}
}

// Add appends a stage. Its inputs come from Set or from stages before it.
func (s *Store) Add(st Stage) {
	if _, ok := s.order[st.Name]; ok {
		panic("incr: stage " + st.Name + " added twice")
	}
	s.order[st.Name] = len(s.stages)
	s.stages = append(s.stages, &stage{Stage: st, refs: map[string]int{}, wants: map[Table]map[string][]string{},
		reads: map[string][]query{}, outputs: map[string][]Row{}, stale: map[string]struct{}{}})
}

// Set writes an input row. Equal values (reflect.DeepEqual) change nothing.
func (s *Store) Set(t Table, key string, value any) {
	if old, ok := s.table(t).rows[key]; ok && reflect.DeepEqual(old, value) {
		return
	}
	s.write(t, key, value, true)
}

// Delete removes an input row.
func (s *Store) Delete(t Table, key string) { s.write(t, key, nil, false) }

// Get returns a row's value as it stands, nil if it is not there.
func (s *Store) Get(t Table, key string) any { return s.table(t).rows[key] }

// Rows returns a table in the order of its keys.
func (s *Store) Rows(t Table) []Row {
	tb := s.table(t)
	out := make([]Row, 0, len(tb.rows))
	for _, k := range sortedKeys(tb.rows) {
		out = append(out, Row{t, k, tb.rows[k]})
	}
	return out
}

// Select returns the rows whose index contains the value, in the order of their keys.
func (s *Store) Select(t Table, name, value string) []Row {
	return (&Reader{store: s, seen: map[query]struct{}{}}).Select(t, name, value)
}

// Len is the number of rows in a table.
func (s *Store) Len(t Table) int { return len(s.table(t).rows) }

// Computed returns how many keys each stage computed since the store was made.
func (s *Store) Computed() map[string]int { return maps.Clone(s.counts) }

func (s *Store) write(t Table, key string, value any, present bool) {
	tb := s.table(t)
	old, had := tb.rows[key]
	if !had && !present {
		return
	}
	if e, ok := s.edited[t][key]; !ok {
		if s.edited[t] == nil {
			s.edited[t] = map[string]edit{}
		}
		s.edited[t][key] = edit{old: old}
	} else if !e.again {
		s.edited[t][key] = edit{e.old, true}
	}
	touched := []query{{t, "", key}, {t, "*", ""}}
	for name, ix := range tb.indexes {
		if had {
			for _, v := range ix.values(key, old) {
				delete(ix.rows[v], key)
				if len(ix.rows[v]) == 0 {
					delete(ix.rows, v)
				}
				touched = append(touched, query{t, name, v})
			}
		}
		if present {
			for _, v := range ix.values(key, value) {
				if ix.rows[v] == nil {
					ix.rows[v] = map[string]struct{}{}
				}
				ix.rows[v][key] = struct{}{}
				touched = append(touched, query{t, name, v})
			}
		}
	}
	if present {
		tb.rows[key] = value
	} else {
		delete(tb.rows, key)
	}
	for _, q := range touched {
		for u := range s.readers[q] {
			u.stage.stale[u.key] = struct{}{}
		}
	}
	for _, st := range s.stages {
		st.inputChanged(t, key, value, present)
	}
}

// inputChanged keeps the set of a stage's keys.
func (st *stage) inputChanged(t Table, row string, value any, present bool) {
	f := st.Keys[t]
	if f == nil {
		return
	}
	before := st.wants[t][row]
	var after []string
	if present {
		after = f(row, value)
	}
	for _, k := range after {
		st.refs[k]++
		if st.refs[k] == 1 {
			st.stale[k] = struct{}{}
		}
	}
	for _, k := range before {
		st.refs[k]--
		if st.refs[k] == 0 {
			delete(st.refs, k)
			st.stale[k] = struct{}{}
		}
	}
	if st.wants[t] == nil {
		st.wants[t] = map[string][]string{}
	}
	if len(after) > 0 {
		st.wants[t][row] = after
	} else {
		delete(st.wants[t], row)
	}
}

// Run recomputes what is stale and returns every row, of any table, that is not as
// it was at the last Run; sorted by table and key.
func (s *Store) Run() []Change {
	for i, st := range s.stages {
		for len(st.stale) > 0 {
			keys := sortedKeys(st.stale)
			clear(st.stale)
			for _, k := range keys {
				s.compute(i, st, k)
			}
		}
	}
	var out []Change
	for t, rows := range s.edited {
		for k, e := range rows {
			now := s.table(t).rows[k]
			if e.old == nil && now == nil || e.again && reflect.DeepEqual(e.old, now) {
				continue
			}
			out = append(out, Change{t, k, e.old, now})
		}
	}
	clear(s.edited)
	slices.SortFunc(out, func(a, b Change) int {
		if c := strings.Compare(string(a.Table), string(b.Table)); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	return out
}

func (s *Store) compute(i int, st *stage, key string) {
	u := unit{st, key}
	for _, q := range st.reads[key] {
		delete(s.readers[q], u)
		if len(s.readers[q]) == 0 {
			delete(s.readers, q)
		}
	}
	delete(st.reads, key)
	var rows []Row
	if st.refs[key] > 0 {
		s.counts[st.Name]++
		r := &Reader{store: s, seen: map[query]struct{}{}}
		rows = st.Compute(r, key)
		reads := make([]query, 0, len(r.seen))
		for q := range r.seen {
			reads = append(reads, q)
			if s.readers[q] == nil {
				s.readers[q] = map[unit]struct{}{}
			}
			s.readers[q][u] = struct{}{}
		}
		st.reads[key] = reads
	}
	producer := fmt.Sprintf("%04d/%s", i, key)
	old := st.outputs[key]
	if len(rows) > 0 {
		st.outputs[key] = rows
	} else {
		delete(st.outputs, key)
	}
	now := make(map[query]struct{}, len(rows))
	for _, r := range rows {
		now[query{r.Table, "", r.Key}] = struct{}{}
		s.produce(r.Table, r.Key, producer, r.Value)
	}
	for _, r := range old {
		if _, ok := now[query{r.Table, "", r.Key}]; !ok {
			s.produce(r.Table, r.Key, producer, nil)
		}
	}
}

// produce sets or withdraws (nil) one producer's value of a derived row.
func (s *Store) produce(t Table, key, producer string, value any) {
	tb := s.table(t)
	ps := tb.producers[key]
	switch {
	case value == nil && ps != nil:
		ps.remove(producer)
	case value != nil:
		if ps == nil {
			ps = newProducers()
			tb.producers[key] = ps
		}
		ps.set(producer, value)
	}
	if ps == nil || len(ps.values) == 0 {
		delete(tb.producers, key)
		s.write(t, key, nil, false)
		return
	}
	now := ps.first()
	if had, ok := tb.rows[key]; !ok || !reflect.DeepEqual(had, now) {
		s.write(t, key, now, true)
	}
}

// Reader gives a computation its inputs and records them.
type Reader struct {
	store *Store
	seen  map[query]struct{}
}

// Get returns the row's value, nil if there is none.
func (r *Reader) Get(t Table, key string) any {
	r.seen[query{t, "", key}] = struct{}{}
	return r.store.table(t).rows[key]
}

// All returns the whole table in the order of its keys.
func (r *Reader) All(t Table) []Row {
	r.seen[query{t, "*", ""}] = struct{}{}
	return r.store.Rows(t)
}

// Select returns the rows whose index contains the value, in the order of their keys.
func (r *Reader) Select(t Table, name, value string) []Row {
	tb := r.store.table(t)
	ix := tb.indexes[name]
	if ix == nil {
		panic(fmt.Sprintf("incr: table %s has no index %s", t, name))
	}
	r.seen[query{t, name, value}] = struct{}{}
	keys := sortedKeys(ix.rows[value])
	out := make([]Row, 0, len(keys))
	for _, k := range keys {
		out = append(out, Row{t, k, tb.rows[k]})
	}
	return out
}

// sortedKeys is slices.Sorted of a map's keys, without what that allocates on the way:
// most queries find one row or none.
func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
