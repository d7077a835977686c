// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// report says in the suite's own words what came of it.
type report struct {
	MeshName    string   `json:"meshname"`
	CasesPassed int      `json:"casespassed"`
	Cases       int      `json:"cases"`
	PassPercent string   `json:"passpercent"`
	Status      string   `json:"status"`
	Details     []detail `json:"details"`
}

// detail is one case of the suite.
type detail struct {
	SmiSpec     string       `json:"smispec"`
	SpecVersion string       `json:"specversion"`
	Assertions  int          `json:"assertions"`
	Passed      int          `json:"passed"`
	Duration    string       `json:"duration"`
	Capability  string       `json:"capability"`
	Status      string       `json:"status"`
	Steps       []stepResult `json:"steps"`
}

type stepResult struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

const (
	statusPassed  = "PASSED"
	statusFailed  = "FAILED"
	statusSkipped = "SKIPPED"
)

// sum judges as the suite does: FULL without a failure, HALF if at least half of the steps
// passed before it, or else NONE.
func (d *detail) sum() {
	for _, s := range d.Steps {
		if s.Status == statusPassed {
			d.Passed++
		}
	}
	switch {
	case d.Passed == d.Assertions:
		d.Capability, d.Status = "FULL", statusPassed
	case 2*d.Passed >= d.Assertions:
		d.Capability, d.Status = "HALF", statusFailed
	default:
		d.Capability, d.Status = "NONE", statusFailed
	}
}

func (r *report) sum() {
	r.Status = statusPassed
	for _, d := range r.Details {
		r.CasesPassed += d.Passed
		r.Cases += d.Assertions
		if d.Status != statusPassed {
			r.Status = statusFailed
		}
	}
	r.PassPercent = strconv.FormatFloat(100*float64(r.CasesPassed)/float64(max(r.Cases, 1)), 'f', -1, 64)
}

// table is the report for people.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: SMI conformance\n\n%d of %d cases passed, %s %%: %s. Written by `hack/smi.sh -run TestSMI/suite -update`.\n\n",
		r.MeshName, r.CasesPassed, r.Cases, r.PassPercent, r.Status)
	b.WriteString("| Specification | Version | Passed | Capability | Status | Duration |\n|---|---|---|---|---|---|\n")
	for _, d := range r.Details {
		fmt.Fprintf(&b, "| %s | %s | %d/%d | %s | %s | %s |\n", d.SmiSpec, d.SpecVersion, d.Passed, d.Assertions, d.Capability, d.Status, d.Duration)
	}
	b.WriteString("\n| Case | What | Result |\n|---|---|---|\n")
	for _, d := range r.Details {
		for _, s := range d.Steps {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", s.ID, s.Name, s.Status)
		}
	}
	return b.String()
}

// keep compares the report with the one that is kept; durations differ.
func (r *report) keep(t *testing.T) {
	t.Helper()
	t.Logf("report:\n%s", r.table())
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *update && !t.Failed() {
		for file, content := range map[string]string{"report.json": string(text) + "\n", "report.md": r.table()} {
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	had, err := os.ReadFile("report.json")
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	var kept report
	if err := json.Unmarshal(had, &kept); err != nil {
		t.Fatalf("report.json: %v", err)
	}
	if kept.Cases != r.Cases || kept.CasesPassed != r.CasesPassed || kept.Status != r.Status {
		t.Errorf("report.json has %d of %d passed (%s), now it is %d of %d (%s)", kept.CasesPassed, kept.Cases, kept.Status, r.CasesPassed, r.Cases, r.Status)
	}
	words, err := os.ReadFile("report.md")
	if err != nil || string(words) != kept.table() {
		t.Errorf("report.md is not what report.json says: %v", err)
	}
}
