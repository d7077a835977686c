// SPDX-License-Identifier: Apache-2.0

package incr

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// sumStage adds up, per first letter, the values of the rows of a table.
func sumStage(from, to Table) Stage {
	return Stage{
		Name: string(to),
		Keys: map[Table]func(string, any) []string{from: func(key string, _ any) []string { return []string{key[:1]} }},
		Compute: func(r *Reader, key string) []Row {
			n := 0
			for _, row := range r.Select(from, "letter", key) {
				n += row.Value.(int)
			}
			return []Row{{to, key, n}}
		},
	}
}

func letter(key string, _ any) []string { return []string{key[:1]} }

func TestOnlyReadersAreComputed(t *testing.T) {
	s := New()
	s.Index("in", "letter", letter)
	s.Add(sumStage("in", "sum"))
	s.Add(Stage{Name: "even", Keys: map[Table]func(string, any) []string{"sum": func(k string, _ any) []string { return []string{k} }},
		Compute: func(r *Reader, k string) []Row { return []Row{{"even", k, r.Get("sum", k).(int)%2 == 0}} }})
	for _, k := range []string{"a1", "a2", "b1"} {
		s.Set("in", k, 1)
	}
	if got := len(s.Run()); got != 3+2+2 {
		t.Errorf("%d changes", got)
	}
	count := func(do func()) (map[string]int, []Change) {
		before := s.Computed()
		do()
		changes := s.Run()
		out := map[string]int{}
		for k, n := range s.Computed() {
			if n -= before[k]; n > 0 {
				out[k] = n
			}
		}
		return out, changes
	}
	for _, c := range []struct {
		name    string
		do      func()
		counts  map[string]int
		changes []string
	}{
		{"idle", func() {}, map[string]int{}, nil},
		{"same value", func() { s.Set("in", "a1", 1) }, map[string]int{}, nil},
		{"there and back", func() { s.Set("in", "a1", 5); s.Set("in", "a1", 1) }, map[string]int{"sum": 1}, nil},
		{"one row", func() { s.Set("in", "a1", 2) }, map[string]int{"sum": 1, "even": 1}, []string{"even a", "in a1", "sum a"}},
		{"the wave stops", func() { s.Set("in", "a1", 4) }, map[string]int{"sum": 1, "even": 1}, []string{"in a1", "sum a"}},
		{"two that cancel", func() { s.Set("in", "a1", 3); s.Set("in", "a2", 2) }, map[string]int{"sum": 1}, []string{"in a1", "in a2"}},
		{"last row of a key", func() { s.Delete("in", "b1") }, map[string]int{}, []string{"even b", "in b1", "sum b"}},
		{"not there", func() { s.Delete("in", "b1") }, map[string]int{}, nil},
	} {
		counts, changes := count(c.do)
		var got []string
		for _, ch := range changes {
			got = append(got, string(ch.Table)+" "+ch.Key)
		}
		if d := diff(c.counts, counts); d != "" {
			t.Errorf("%s: computed (-want +got):\n%s", c.name, d)
		}
		if d := diff(c.changes, got); d != "" {
			t.Errorf("%s: changed (-want +got):\n%s", c.name, d)
		}
	}
}

func TestAbsentRowIsARead(t *testing.T) {
	s := New()
	s.Add(Stage{Name: "has", Keys: map[Table]func(string, any) []string{"want": func(k string, _ any) []string { return []string{k} }},
		Compute: func(r *Reader, k string) []Row { return []Row{{"has", k, r.Get("in", k) != nil}} }})
	s.Set("want", "x", true)
	s.Run()
	if s.Get("has", "x") != false {
		t.Fatal("found what is not there")
	}
	s.Set("in", "x", 1)
	s.Run()
	if s.Get("has", "x") != true {
		t.Error("did not see the row arrive")
	}
}

func TestSmallestProducerStands(t *testing.T) {
	s := New()
	s.Add(Stage{Name: "share", Keys: map[Table]func(string, any) []string{"in": func(k string, _ any) []string { return []string{k} }},
		Compute: func(r *Reader, k string) []Row { return []Row{{"out", "shared", r.Get("in", k)}} }})
	for _, k := range []string{"c", "a", "b"} {
		s.Set("in", k, "by "+k)
	}
	s.Run()
	if got := s.Get("out", "shared"); got != "by a" {
		t.Errorf("%v stands", got)
	}
	s.Delete("in", "a")
	s.Run()
	if got := s.Get("out", "shared"); got != "by b" {
		t.Errorf("%v stands after a is gone", got)
	}
	s.Delete("in", "b")
	s.Delete("in", "c")
	s.Run()
	if s.Len("out") != 0 {
		t.Error("a row without producer stays")
	}
}

func TestMisuse(t *testing.T) {
	for name, f := range map[string]func(*Store){
		"stage twice": func(s *Store) { s.Add(Stage{Name: "a"}); s.Add(Stage{Name: "a"}) },
		"index twice": func(s *Store) { s.Index("t", "i", letter); s.Index("t", "i", letter) },
		"index late":  func(s *Store) { s.Set("t", "k", 1); s.Index("t", "i", letter) },
		"no index":    func(s *Store) { (&Reader{store: s, seen: map[query]struct{}{}}).Select("t", "i", "v") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(New())
		})
	}
}

// inputTables and stages of random graphs.
const (
	inputTables = 2
	rowKeys     = 6
)

func hash(parts ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return h.Sum64()
}

func tableName(i int) Table { return Table(fmt.Sprintf("t%d", i)) }

func bucket(_ string, v any) []string { return []string{fmt.Sprint(v.(uint64) % 3)} }

// graph is a store with random stages; the same seed gives the same stages. Each
// computation decides by the values that it reads what else it reads.
func graph(seed uint64) *Store {
	s := New()
	stages := 2 + int(seed%4)
	for i := range inputTables + stages {
		s.Index(tableName(i), "bucket", bucket)
	}
	for i := range stages {
		out := inputTables + i
		keys := map[Table]func(string, any) []string{}
		for in := range out {
			if hash(seed, i, in)%2 == 0 || in == out-1 {
				keys[tableName(in)] = func(key string, v any) []string {
					return []string{key, fmt.Sprint(v.(uint64) % rowKeys)}[:1+hash(seed, key)%2]
				}
			}
		}
		s.Add(Stage{Name: fmt.Sprint("stage", i), Keys: keys, Compute: func(r *Reader, key string) []Row {
			acc := hash(seed, i, key)
			for range 3 {
				from := tableName(int(acc % uint64(out)))
				switch (acc >> 8) % 4 {
				case 0, 1:
					acc = hash(acc, r.Get(from, fmt.Sprint((acc>>16)%rowKeys)))
				case 2:
					acc = hash(acc, r.Select(from, "bucket", fmt.Sprint((acc>>16)%3)))
				case 3:
					acc = hash(acc, r.All(from))
				}
			}
			var rows []Row
			for n := range acc % 3 { // shared keys: several computations give the same row
				rows = append(rows, Row{tableName(out), fmt.Sprint((acc >> (8 * n)) % rowKeys), acc >> (4 * n) % 1000})
			}
			return rows
		}})
	}
	return s
}

func dump(s *Store) []Row {
	var out []Row
	for _, t := range slices.Sorted(maps.Keys(s.tables)) {
		out = append(out, s.Rows(t)...)
	}
	return out
}

// leftovers counts what the store still holds about rows and computations.
func leftovers(s *Store) string {
	var out []string
	for name, tb := range s.tables {
		n := len(tb.rows) + len(tb.producers)
		for _, ix := range tb.indexes {
			n += len(ix.rows)
		}
		if n > 0 {
			out = append(out, fmt.Sprintf("%s: %d", name, n))
		}
	}
	if n := len(s.readers); n > 0 {
		out = append(out, fmt.Sprintf("readers: %d", n))
	}
	for _, st := range s.stages {
		n := len(st.refs) + len(st.reads) + len(st.outputs) + len(st.stale)
		for _, w := range st.wants {
			n += len(w)
		}
		if n > 0 {
			out = append(out, fmt.Sprintf("%s: %d", st.Name, n))
		}
	}
	return strings.Join(out, ", ")
}

// check edits a random graph and compares it with one made from scratch, its
// changes with the difference of the tables, and an empty one with nothing.
func check(t *testing.T, seed uint64, edits []byte) {
	live := graph(seed)
	inputs := map[Table]map[string]uint64{}
	before := map[string]any{}
	apply := func(table Table, key string, v uint64, remove bool) {
		if inputs[table] == nil {
			inputs[table] = map[string]uint64{}
		}
		if remove {
			delete(inputs[table], key)
			live.Delete(table, key)
			return
		}
		inputs[table][key] = v
		live.Set(table, key, v)
	}
	verify := func() {
		changes := live.Run()
		scratch := graph(seed)
		for _, table := range slices.Backward(slices.Sorted(maps.Keys(inputs))) {
			for k, v := range inputs[table] {
				scratch.Set(table, k, v)
			}
		}
		scratch.Run()
		if d := diff(dump(scratch), dump(live)); d != "" {
			t.Fatalf("seed %d, edits %v: differs from scratch (-scratch +live):\n%s", seed, edits, d)
		}
		after := map[string]any{}
		for _, r := range dump(live) {
			after[string(r.Table)+"/"+r.Key] = r.Value
		}
		for _, c := range changes {
			k := string(c.Table) + "/" + c.Key
			if before[k] != c.Old || after[k] != c.New || c.Old == c.New {
				t.Fatalf("seed %d, edits %v: change %+v, row was %v and is %v", seed, edits, c, before[k], after[k])
			}
			delete(before, k)
			if c.New != nil {
				before[k] = c.New
			}
		}
		if d := diff(after, before); d != "" {
			t.Fatalf("seed %d, edits %v: changes do not add up:\n%s", seed, edits, d)
		}
		computed := live.Computed()
		if len(live.Run()) > 0 || !maps.Equal(computed, live.Computed()) {
			t.Fatalf("seed %d: an idle run is not idle", seed)
		}
	}
	for i, e := range edits {
		apply(tableName(int(e)%inputTables), fmt.Sprint(e/2%rowKeys), uint64(e)>>4, e%5 == 0)
		if e%3 == 0 || i == len(edits)-1 {
			verify()
		}
	}
	for table, rows := range inputs {
		for k := range maps.Clone(rows) {
			apply(table, k, 0, true)
		}
	}
	verify()
	if l := leftovers(live); l != "" {
		t.Fatalf("seed %d: left over: %s", seed, l)
	}
}

func TestEditsEqualScratch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for seed := range uint64(300) {
		edits := make([]byte, 40)
		for i := range edits {
			edits[i] = byte(r.Uint32())
		}
		check(t, seed, edits)
	}
}

func FuzzEditsEqualScratch(f *testing.F) {
	f.Add(uint64(1), []byte{1, 2, 3, 0, 5, 200})
	f.Fuzz(func(t *testing.T, seed uint64, edits []byte) {
		check(t, seed, edits[:min(len(edits), 60)])
	})
}
