// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Count is how scenarios about something came out.
type Count struct {
	Equal       int `json:"equal"`
	Declared    int `json:"declared"`
	Undeclared  int `json:"undeclared"`
	Broken      int `json:"broken,omitempty"`
	FalseAlarms int `json:"falseAlarms"`
}

func (c *Count) add(r Result) {
	switch r.Verdict {
	case Equal:
		c.Equal++
	case Declared:
		c.Declared++
	case Undeclared:
		c.Undeclared++
	case Broken:
		c.Broken++
	}
	if r.FalseAlarm {
		c.FalseAlarms++
	}
}

// Summary counts scenarios by what they vary.
type Summary struct {
	All    Count            `json:"all"`
	Kinds  map[string]Count `json:"kinds"`
	Fields map[string]Count `json:"fields"` // "Kind path"
}

// Sum counts. A scenario counts once for each kind, and each field, that it varies.
func Sum(all []Result) Summary {
	s := Summary{Kinds: map[string]Count{}, Fields: map[string]Count{}}
	for _, r := range all {
		s.All.add(r)
		kinds := map[string]bool{}
		for _, a := range r.About {
			kind, _, _ := strings.Cut(a, " ")
			kinds[kind] = true
			c := s.Fields[a]
			c.add(r)
			s.Fields[a] = c
		}
		for k := range kinds {
			c := s.Kinds[k]
			c.add(r)
			s.Kinds[k] = c
		}
	}
	return s
}

// Table is the summary for people.
func Table(all []Result) string {
	s := Sum(all)
	var b strings.Builder
	row := func(what string, c Count) {
		fmt.Fprintf(&b, "%-60s %6d %9d %11d %13d %7d\n", what, c.Equal, c.Declared, c.Undeclared, c.FalseAlarms, c.Broken)
	}
	fmt.Fprintf(&b, "\n%-60s %6s %9s %11s %13s %7s\n", "", "equal", "declared", "undeclared", "false alarms", "broken")
	row("all", s.All)
	for _, k := range slices.Sorted(maps.Keys(s.Kinds)) {
		row(k, s.Kinds[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Fields)) {
		if c := s.Fields[k]; c.Declared+c.Undeclared+c.FalseAlarms+c.Broken > 0 {
			row("  "+k, c)
		}
	}
	return b.String()
}
