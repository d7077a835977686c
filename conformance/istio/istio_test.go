// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package istio compares Fairlead with istiod's own code: the same manifests and the same
// requests, both in stock Envoys.
package istio

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"fairlead.io/fairlead/internal/need"

	"fairlead.io/fairlead/conformance/istio/generate"
	"fairlead.io/fairlead/conformance/istio/istiod"
	"fairlead.io/fairlead/conformance/istio/triage"
	"fairlead.io/fairlead/conformance/istio/world"
)

func TestMain(m *testing.M) {
	if os.Getenv(triage.WorkerEnv) != "" {
		if err := triage.Work(os.Stdin, os.Stdout, os.Getenv("ENVOY")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if dir := os.Getenv("COUNTS"); dir != "" {
		if err := counts.Write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// counts are those of the tests that have run; COUNTS names the folder that they are
// written to.
var counts triage.Counts

// needs makes sure that scenarios can be run.
func needs(t *testing.T) {
	t.Helper()
	need.Root(t)
	need.Command(t, "nft")
	need.Command(t, "ip")
	t.Setenv("ENVOY", need.Envoy(t))
}

// TestScenarios runs the scenarios that somebody wrote, one point each.
func TestScenarios(t *testing.T) {
	needs(t)
	pattern := "*.txtar"
	if p := os.Getenv("SCENARIO"); p != "" {
		pattern = p
	}
	files, err := filepath.Glob(filepath.Join("testdata/scenarios", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("scenarios: %v, %v", files, err)
	}
	var all []*world.Scenario
	for _, f := range files {
		s, err := world.Read(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	counts.Written = triage.Sum(run(t, all))
	if pattern == "*.txtar" {
		within(t, counts.Written)
	}
}

// TestGenerated runs scenarios that are made up: N of them, from a seed. With KEEP those
// that fail are written to that folder.
func TestGenerated(t *testing.T) {
	needs(t)
	n, seed, first := number(t, "N", 60), number(t, "SEED", 1), number(t, "FIRST", 0)
	var all []*world.Scenario
	for i := range n {
		s, err := generate.Scenario(uint64(seed), first+i, istiod.Valid)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	keep := os.Getenv("KEEP")
	results := run(t, all)
	counts.Seed, counts.Generated = seed, triage.Sum(results)
	if n >= shares {
		within(t, counts.Generated)
	}
	for i, r := range results {
		if keep == "" || r.Verdict == triage.Equal && !r.FalseAlarm {
			continue
		}
		if err := os.WriteFile(filepath.Join(keep, r.Scenario+".txtar"), all[i].Text, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// Of fewer scenarios shares say nothing.
const shares = 300

// within fails if more than may be are declared, false alarms or unsteady.
func within(t *testing.T, s triage.Summary) {
	t.Helper()
	if err := s.All.Within(); err != nil {
		t.Error(err)
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// run tells of everything that is not simply equal, and fails where something is
// undeclared.
func run(t *testing.T, all []*world.Scenario) []triage.Result {
	t.Helper()
	results, err := triage.Pool(runtime.GOMAXPROCS(0), all, func(r triage.Result) { report(t, r) })
	if err != nil {
		t.Fatal(err)
	}
	t.Log(triage.Table(results))
	return results
}

func report(t *testing.T, r triage.Result) {
	t.Helper()
	if r.Unsteady != nil {
		t.Logf("%s once, and not when it ran again:\n%s", r.Scenario, describe(*r.Unsteady))
	}
	if r.Verdict == triage.Equal && !r.FalseAlarm {
		return
	}
	if text := describe(r); r.Verdict == triage.Undeclared || r.Verdict == triage.Broken {
		t.Error(text)
	} else {
		t.Log(text)
	}
}

func describe(r triage.Result) string {
	text := fmt.Sprintf("%s: %s %v", r.Scenario, r.Verdict, r.About)
	if r.FalseAlarm {
		text += " (false alarm)"
	}
	if r.Problem != "" {
		text += "\n  " + r.Problem
	}
	for _, d := range r.Differences {
		text += fmt.Sprintf("\n  %s\n    istio    %s\n    fairlead %s", d.Request, d.Istio, d.Ours)
	}
	for _, d := range r.Declared {
		text += "\n  declared: " + d
	}
	if r.Verdict == triage.Undeclared {
		for _, d := range r.Others {
			text += "\n  other: " + d
		}
	}
	return text
}
