// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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
	// Unsteady ones differed when they ran first and not when they ran again; they are
	// counted as what they were then, too.
	Unsteady int `json:"unsteady,omitempty"`
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
	if r.Unsteady != nil {
		c.Unsteady++
	}
}

// The shares of a run that may be declared, false alarms and unsteady, in hundredths.
const (
	maxDeclared    = 5
	maxFalseAlarms = 1
	maxUnsteady    = 1
)

// Within says which share is larger than it may be, if one is. Undeclared and broken ones
// are for the caller to tell of, one by one.
func (c Count) Within() error {
	n := c.Equal + c.Declared + c.Undeclared + c.Broken
	var errs []error
	for _, s := range []struct {
		what     string
		have, of int
	}{{"declared", c.Declared, maxDeclared}, {"false alarms", c.FalseAlarms, maxFalseAlarms}, {"unsteady", c.Unsteady, maxUnsteady}} {
		if s.have*100 > s.of*n {
			errs = append(errs, fmt.Errorf("%d of %d scenarios are %s: more than %d %%", s.have, n, s.what, s.of))
		}
	}
	return errors.Join(errs...)
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

// Counts are what a run came to.
type Counts struct {
	Written   Summary `json:"written"` // scenarios that somebody wrote
	Seed      int     `json:"seed"`    // of those that were made up
	Generated Summary `json:"generated"`
}

// Write puts the counts into a folder: counts.json, and counts.md for people.
func (c *Counts) Write(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "counts.json"), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "counts.md"), []byte(c.markdown()), 0o644); err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	return nil
}

func (c *Counts) markdown() string {
	var b strings.Builder
	b.WriteString("# Counts\n\nWritten by the long run. A scenario counts once for each kind and each field that it varies; of the fields, those\nare listed of which some scenario was not simply equal.\n")
	for _, part := range []struct {
		title string
		s     Summary
	}{{"Written down", c.Written}, {fmt.Sprintf("Made up from seed %d", c.Seed), c.Generated}} {
		fmt.Fprintf(&b, "\n## %s\n\n| | equal | declared | undeclared | false alarms | unsteady |\n|---|---|---|---|---|---|\n", part.title)
		row := func(name string, n Count) {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", name, n.Equal, n.Declared, n.Undeclared+n.Broken, n.FalseAlarms, n.Unsteady)
		}
		row("**all**", part.s.All)
		for _, k := range slices.Sorted(maps.Keys(part.s.Kinds)) {
			row("**"+k+"**", part.s.Kinds[k])
			for _, f := range slices.Sorted(maps.Keys(part.s.Fields)) {
				if n := part.s.Fields[f]; strings.HasPrefix(f, k+" ") && n.Declared+n.Undeclared+n.Broken+n.FalseAlarms+n.Unsteady > 0 {
					row(strings.TrimPrefix(f, k+" "), n)
				}
			}
		}
	}
	return b.String()
}

// Table is the summary for people.
func Table(all []Result) string {
	s := Sum(all)
	var b strings.Builder
	row := func(what string, c Count) {
		fmt.Fprintf(&b, "%-60s %6d %9d %11d %13d %7d %9d\n", what, c.Equal, c.Declared, c.Undeclared, c.FalseAlarms, c.Broken, c.Unsteady)
	}
	fmt.Fprintf(&b, "\n%-60s %6s %9s %11s %13s %7s %9s\n", "", "equal", "declared", "undeclared", "false alarms", "broken", "unsteady")
	row("all", s.All)
	for _, k := range slices.Sorted(maps.Keys(s.Kinds)) {
		row(k, s.Kinds[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Fields)) {
		if c := s.Fields[k]; c.Declared+c.Undeclared+c.FalseAlarms+c.Broken+c.Unsteady > 0 {
			row("  "+k, c)
		}
	}
	return b.String()
}
