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
		if got, want := reasons(r.Last(10)), "01234"[max(0, i-3):i]; got != want {
			t.Errorf("after %d flows: %q, want %q", i, got, want)
		}
		r.Add(Flow{Reason: fmt.Sprint(i)})
	}
	if got := reasons(r.Last(2)); got != "34" {
		t.Errorf("last two: %q", got)
	}
}

func TestSlowFollowerLosesAndIsCounted(t *testing.T) {
	r := NewRing(1)
	recent, flows, stop := r.Follow(1)
	if len(recent) != 0 {
		t.Fatalf("recent = %v", recent)
	}
	for range 5000 {
		r.Add(Flow{})
	}
	if len(flows) != 4096 {
		t.Errorf("follower holds %d", len(flows))
	}
	if seen, lost := r.Counts(); seen != 5000 || lost != 5000-4096 {
		t.Errorf("seen %d, lost %d", seen, lost)
	}
	stop()
	r.Add(Flow{})
	if _, lost := r.Counts(); lost != 5000-4096 {
		t.Errorf("a stopped follower still loses: %d", lost)
	}
}
