// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"log/slog"
	"slices"
	"testing"
	"time"
)

// tables is a server of route tables and their clusters.
type tables map[string][]string

func (t tables) InUse() (names []string) {
	for n := range t {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (t tables) Clusters(table string) []string { return t[table] }

func (t tables) Evict(names ...string) {
	for _, n := range names {
		delete(t, n)
	}
}

// TestEvictsWhatIsIdle: rounds a second apart, with a limit of two.
func TestEvictsWhatIsIdle(t *testing.T) {
	server := tables{"redirect": nil, "used": {"a"}, "busy": {"b"}, "idle": {"c"}, "mirrors": {"c", "d"}, "drained": {"e"}, "two": {"f"}, "alone": {"g"}}
	now := time.Unix(1000, 0)
	e := newEvictor(server, 2*time.Second, slog.New(slog.DiscardHandler))
	e.now = func() time.Time { return now }
	at := func(total uint64, active bool) map[string]use {
		return map[string]use{"host": {total, active}}
	}
	evicted := 0
	for n, round := range []struct {
		all  map[int]usage
		idle []string
	}{
		{map[int]usage{
			1: {"a": at(5, false), "b": at(1, true), "c": at(9, false), "d": at(3, false), "f": at(1, false)},
			2: {"e": at(7, true)},
		}, nil},
		// A request to a, one to d; b and e are busy; f has another endpoint, that was
		// not used; an Envoy comes, with uses of before.
		{map[int]usage{
			1: {"a": at(6, false), "b": at(1, true), "c": at(9, false), "d": at(4, false), "f": {"other": {0, false}}},
			2: {"e": at(7, true)},
			3: {"c": at(100, false)},
		}, nil},
		{map[int]usage{
			1: {"a": at(6, false), "b": at(1, true), "c": at(9, false), "d": at(4, false), "f": {"other": {0, false}}},
			2: {"e": at(7, true)},
			3: {"c": at(100, false)},
		}, []string{"alone", "idle", "redirect", "two"}},
		// The Envoy with the long connection ends; so does the request of b.
		{map[int]usage{
			1: {"a": at(6, false), "b": at(1, false), "d": at(5, false)},
		}, []string{"used"}},
		{map[int]usage{1: {"b": at(1, false), "d": at(5, false)}}, []string{"busy", "drained"}},
		{map[int]usage{1: {"d": at(5, false)}}, []string{"mirrors"}},
	} {
		if gone := e.round(round.all); !slices.Equal(e.gone, round.idle) || gone != evicted {
			t.Errorf("round %d: evicted %q, want %q; %d are gone, want %d", n, e.gone, round.idle, gone, evicted)
		}
		evicted = len(round.idle)
		now = now.Add(time.Second)
	}
	if len(server) != 0 || len(e.last) != 0 {
		t.Errorf("left: %v %v", server, e.last)
	}
	// One that comes again has a time of its own.
	server["used"] = []string{"a"}
	if gone := e.round(map[int]usage{1: {}}); gone != 1 || len(e.gone) != 0 {
		t.Errorf("%d are gone, evicted %q", gone, e.gone)
	}
}
