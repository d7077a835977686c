// SPDX-License-Identifier: Apache-2.0

package hubble

import (
	"fmt"
	"testing"
)

func reasons(fs []Flow) string {
	s := ""
	for _, f := range fs {
		s += f.Reason
	}
	return s
}

func TestRingKeepsTheLast(t *testing.T) {
	r := NewRing(3)
	for i := range 5 {
		if got, want := reasons(r.Last(10, Filter{})), "01234"[max(0, i-3):i]; got != want {
			t.Errorf("after %d flows: %q, want %q", i, got, want)
		}
		r.Add(Flow{Reason: fmt.Sprint(i)})
	}
	if got := reasons(r.Last(2, Filter{})); got != "34" {
		t.Errorf("last two: %q", got)
	}
}

func TestSlowFollowerLosesAndIsCounted(t *testing.T) {
	r := NewRing(1)
	recent, f := r.Follow(1, Filter{})
	if len(recent) != 0 {
		t.Fatalf("recent = %v", recent)
	}
	for range 5000 {
		r.Add(Flow{})
	}
	if n := len(f.Flows()); n != 4096 {
		t.Errorf("follower holds %d", n)
	}
	if first, again := f.Lost(), f.Lost(); first != 5000-4096 || again != 0 {
		t.Errorf("the follower has lost %d, and then %d", first, again)
	}
	if seen, lost := r.Counts(); seen != 5000 || lost != 5000-4096 {
		t.Errorf("seen %d, lost %d", seen, lost)
	}
	f.Stop()
	r.Add(Flow{})
	if _, lost := r.Counts(); lost != 5000-4096 {
		t.Errorf("a stopped follower still loses: %d", lost)
	}
}

// What is counted is what is wanted, not what has come.
func TestFilteredFlows(t *testing.T) {
	r := NewRing(8)
	_, follower := r.Follow(0, Filter{Verdict: "denied"})
	defer follower.Stop()
	for i := range 10 {
		f := Flow{Reason: fmt.Sprint(i), Verdict: "forwarded"}
		if i%3 == 0 {
			f.Verdict, f.Destination.Pod = "denied", fmt.Sprint("shop/web-", i)
		}
		r.Add(f)
	}
	for name, c := range map[string]struct {
		n    int
		want Filter
		got  string
	}{
		"verdict":         {2, Filter{Verdict: "denied"}, "69"},
		"more than kept":  {9, Filter{Verdict: "denied"}, "369"},
		"pod":             {9, Filter{Pod: "web-6"}, "6"},
		"pod and verdict": {9, Filter{Pod: "shop/", Verdict: "forwarded"}, ""},
		"none":            {0, Filter{}, ""},
	} {
		if got := reasons(r.Last(c.n, c.want)); got != c.got {
			t.Errorf("%s: %q, want %q", name, got, c.got)
		}
	}
	if flows := follower.Flows(); len(flows) != 4 {
		t.Errorf("a follower of what is denied got %d", len(flows))
	}
}
