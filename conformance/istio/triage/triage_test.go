// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"testing"

	"fairlead.io/fairlead/model"
)

// TestNames: a diagnostic declares what it names, what holds that, and a part of it.
func TestNames(t *testing.T) {
	about := []string{"VirtualService http.fault.abort.httpStatus", "MeshConfig pathNormalization"}
	for _, c := range []struct {
		kind, field string
		outcome     model.Outcome
		want        bool
	}{
		{"VirtualService", "spec.http[0].fault.abort.httpStatus", model.Approximated, true},
		{"VirtualService", "spec.http[2].fault", model.Approximated, true},
		{"VirtualService", "spec.http[2].fault.delay", model.Approximated, false},
		{"VirtualService", "spec.http[2].fault.abort.httpStatus.x", model.Approximated, true},
		{"VirtualService", "spec.http[2].faults", model.Approximated, false},
		{"DestinationRule", "spec.http[0].fault", model.Approximated, false},
		{"VirtualService", "spec", model.Approximated, false},
		{"VirtualService", "spec", model.Refused, true}, // nothing of it is in use
		{"ConfigMap", "data.mesh.pathNormalization.normalization", model.Approximated, true},
		{"ConfigMap", "data.mesh.rootNamespace", model.Approximated, false},
	} {
		d := model.Diagnostic{Source: model.Source{Kind: c.kind, Field: c.field}, Outcome: c.outcome}
		if got := names(d, about); got != c.want {
			t.Errorf("%s %s: %v", c.kind, c.field, got)
		}
	}
}

// TestAlike: shares agree as far as their number can tell.
func TestAlike(t *testing.T) {
	for _, c := range []struct {
		a, b Outcome
		want bool
	}{
		{Outcome{"x": 5}, Outcome{"x": 5}, true},
		{Outcome{"x": 50}, Outcome{"y": 50}, false},
		{Outcome{"x": 75, "y": 25}, Outcome{"x": 70, "y": 30}, true},
		{Outcome{"x": 750, "y": 250}, Outcome{"x": 600, "y": 400}, false},
		{Outcome{"x": 240}, Outcome{"x": 220, "y": 20}, false},
		{Outcome{}, Outcome{"x": 1}, false},
	} {
		if got := alike(c.a, c.b); got != c.want {
			t.Errorf("%v and %v: %v", c.a, c.b, got)
		}
	}
}

func TestSum(t *testing.T) {
	s := Sum([]Result{
		{About: []string{"A x", "A y"}, Verdict: Equal},
		{About: []string{"A x"}, Verdict: Declared},
		{About: []string{"B z"}, Verdict: Equal, FalseAlarm: true},
	})
	if s.All != (Count{Equal: 2, Declared: 1, FalseAlarms: 1}) || s.Kinds["A"] != (Count{Equal: 1, Declared: 1}) || s.Fields["A y"] != (Count{Equal: 1}) {
		t.Errorf("%+v", s)
	}
}

// TestSteady: a scenario fails only if it fails twice, and what was seen first is kept.
func TestSteady(t *testing.T) {
	for _, c := range []struct {
		runs     []Verdict
		want     Verdict
		unsteady bool
	}{
		{[]Verdict{Equal}, Equal, false},
		{[]Verdict{Declared}, Declared, false},
		{[]Verdict{Undeclared, Undeclared}, Undeclared, false},
		{[]Verdict{Undeclared, Broken}, Broken, false},
		{[]Verdict{Undeclared, Equal}, Equal, true},
		{[]Verdict{Broken, Declared}, Declared, true},
	} {
		n := 0
		got := steady(func() Result { n++; return Result{Verdict: c.runs[n-1]} })
		if got.Verdict != c.want || n != len(c.runs) || (got.Unsteady != nil) != c.unsteady {
			t.Errorf("%v: %+v after %d runs", c.runs, got, n)
		} else if c.unsteady && got.Unsteady.Verdict != c.runs[0] {
			t.Errorf("%v: kept %s", c.runs, got.Unsteady.Verdict)
		}
	}
}

// TestWithin: each share has a limit of its own.
func TestWithin(t *testing.T) {
	for _, c := range []struct {
		count Count
		ok    bool
	}{
		{Count{Equal: 95, Declared: 5, FalseAlarms: 1, Unsteady: 1}, true},
		{Count{Equal: 94, Declared: 6}, false},
		{Count{Equal: 100, FalseAlarms: 2}, false},
		{Count{Equal: 100, Unsteady: 2}, false},
	} {
		if err := c.count.Within(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.count, err)
		}
	}
}
