// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func apply(stored, change map[string]any) map[string]any {
	out := maps.Clone(stored)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range change {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// random statuses of ours, and of others.
func random(r *rand.Rand) *Status {
	s := &Status{}
	for i := range r.IntN(3) {
		s.Conditions = append(s.Conditions, Condition{Type: fmt.Sprintf("%sT%d", Prefix, i), Status: []Truth{True, False}[r.IntN(2)], Reason: "R", Message: fmt.Sprint(r.IntN(3))})
	}
	for i := range r.IntN(3) {
		s.Parents = append(s.Parents, Parent{Ref: map[string]any{"name": fmt.Sprint("svc", i), "port": int64(80)},
			Conditions: []Condition{{Type: "Accepted", Status: []Truth{True, False}[r.IntN(2)], Reason: "R"}}})
	}
	return s
}

func others(r *rand.Rand) map[string]any {
	out := map[string]any{}
	if r.IntN(2) == 0 {
		out["conditions"] = []any{map[string]any{"type": "Reconciled", "status": "True"}}
	}
	if r.IntN(2) == 0 {
		out["parents"] = []any{map[string]any{"controllerName": "istio.io/mesh", "parentRef": map[string]any{"name": "svc0", "port": int64(80)}}}
	}
	if r.IntN(2) == 0 {
		out["addresses"] = []any{"240.0.0.1"}
	}
	return out
}

// Whatever was wanted before, what is wanted now comes of it; twice is as once; and when
// nothing is wanted any more, what others have written is as it was.
func TestMergeProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		before := others(r)
		stored := maps.Clone(before)
		generation := int64(1)
		for range 4 {
			want := random(r)
			generation += int64(r.IntN(2))
			stored = apply(stored, Merge(stored, generation, want, noon.Add(time.Duration(r.IntN(100))*time.Second)))
			if again := Merge(stored, generation, want, noon.Add(time.Hour)); len(again) > 0 {
				t.Fatalf("stored %s: the same again changes %s", text(stored), text(again))
			}
			fresh := apply(before, Merge(before, generation, want, noon))
			if a, b := untimed(stored), untimed(fresh); len(a) != len(b) {
				t.Fatalf("%v, from scratch %v", a, b)
			}
		}
		stored = apply(stored, Merge(stored, 0, nil, noon))
		if d := cmp.Diff(before, stored); d != "" {
			t.Fatalf("left over: %s", d)
		}
		if Ours(stored) {
			t.Fatalf("ours: %s", text(stored))
		}
	}
}

// untimed lists what is said, in any order.
func untimed(status map[string]any) map[string]bool {
	out := map[string]bool{}
	for _, field := range []string{"conditions", "parents"} {
		for _, e := range entries(status, field) {
			b := text(e)
			for {
				i := strings.Index(b, `"lastTransitionTime":"`)
				if i < 0 {
					break
				}
				b = b[:i] + b[i+len(`"lastTransitionTime":"2026-05-01T12:00:00Z"`):]
			}
			out[field+b] = true
		}
	}
	return out
}

func TestTransitionTimes(t *testing.T) {
	c := Condition{Type: Prefix + "Accepted", Status: True, Reason: "Accepted"}
	since := func(s map[string]any) string {
		return s["conditions"].([]any)[0].(map[string]any)["lastTransitionTime"].(string)
	}
	s := apply(nil, Merge(nil, 1, &Status{Conditions: []Condition{c}}, noon))
	c.Message = "other words"
	s = apply(s, Merge(s, 2, &Status{Conditions: []Condition{c}}, noon.Add(time.Hour)))
	if got := since(s); got != "2026-05-01T12:00:00Z" {
		t.Errorf("the status is the same, and since %s", got)
	}
	c.Status = False
	s = apply(s, Merge(s, 2, &Status{Conditions: []Condition{c}}, noon.Add(2*time.Hour)))
	if got := since(s); got != "2026-05-01T14:00:00Z" {
		t.Errorf("the status is another since %s", got)
	}
}

func TestMessagesAreCut(t *testing.T) {
	c := Condition{Type: Prefix + "Accepted", Message: strings.Repeat("ü", MessageLimit)}
	s := apply(nil, Merge(nil, 1, &Status{Conditions: []Condition{c}}, noon))
	m := s["conditions"].([]any)[0].(map[string]any)["message"].(string)
	if len(m) > MessageLimit || !strings.HasSuffix(m, "ü...") {
		t.Errorf("%d bytes, ending in %q", len(m), m[len(m)-8:])
	}
}
