// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"
)

// compareReport holds a report against the one that is kept.
func compareReport(t *testing.T, now *confv1.ConformanceReport) {
	t.Helper()
	slices.SortFunc(now.ProfileReports, func(a, b confv1.ProfileReport) int { return strings.Compare(a.Name, b.Name) })
	text, err := yaml.Marshal(now)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("report:\n%s", text)
	file := filepath.Join("reports", fmt.Sprintf("%s-%s-%s.yaml", now.GatewayAPIVersion, now.GatewayAPIChannel, now.Mode))
	if *update && !t.Failed() {
		if err := os.MkdirAll("reports", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	had, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v; keep this one with -update", err)
	} else if err != nil {
		t.Fatal(err)
	}
	var kept confv1.ConformanceReport
	if err := yaml.UnmarshalStrict(had, &kept); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, what := range worse(&kept, now) {
		t.Errorf("worse than %s: %s", file, what)
	}
}

// worse tells what a report has less of than one before.
func worse(before, now *confv1.ConformanceReport) []string {
	var out []string
	for _, had := range before.ProfileReports {
		i := slices.IndexFunc(now.ProfileReports, func(r confv1.ProfileReport) bool { return r.Name == had.Name })
		if i < 0 {
			out = append(out, had.Name+": not there")
			continue
		}
		has := now.ProfileReports[i]
		out = append(out, fewer(had.Name+" core", had.Core, has.Core)...)
		if had.Extended == nil {
			continue
		}
		extended := cmp.Or(has.Extended, &confv1.ExtendedStatus{})
		out = append(out, fewer(had.Name+" extended", had.Extended.Status, extended.Status)...)
		for _, f := range had.Extended.SupportedFeatures {
			if !slices.Contains(extended.SupportedFeatures, f) {
				out = append(out, had.Name+": no "+f)
			}
		}
	}
	return out
}

func fewer(what string, had, has confv1.Status) []string {
	var out []string
	if has.Passed < had.Passed {
		out = append(out, fmt.Sprintf("%s: %d pass, %d did", what, has.Passed, had.Passed))
	}
	if has.Failed > had.Failed {
		out = append(out, fmt.Sprintf("%s: %v fail", what, has.FailedTests))
	}
	if has.Skipped > had.Skipped {
		out = append(out, fmt.Sprintf("%s: %v are skipped", what, has.SkippedTests))
	}
	return out
}

// Each way of being worse is told.
func TestWorse(t *testing.T) {
	good := func() *confv1.ConformanceReport {
		return &confv1.ConformanceReport{ProfileReports: []confv1.ProfileReport{{Name: "MESH-HTTP",
			Core:     confv1.Status{Statistics: confv1.Statistics{Passed: 7}},
			Extended: &confv1.ExtendedStatus{Status: confv1.Status{Statistics: confv1.Statistics{Passed: 2}}, SupportedFeatures: []string{"A"}}}}}
	}
	if got := worse(good(), good()); len(got) > 0 {
		t.Errorf("the same is worse: %v", got)
	}
	for want, change := range map[string]func(*confv1.ProfileReport){
		"MESH-HTTP: not there":                               func(p *confv1.ProfileReport) { p.Name = "other" },
		"MESH-HTTP core: 6 pass, 7 did":                      func(p *confv1.ProfileReport) { p.Core.Passed-- },
		"MESH-HTTP core: [X] fail":                           func(p *confv1.ProfileReport) { p.Core.Failed, p.Core.FailedTests = 1, []string{"X"} },
		"MESH-HTTP extended: [X] are skipped":                func(p *confv1.ProfileReport) { p.Extended.Skipped, p.Extended.SkippedTests = 1, []string{"X"} },
		"MESH-HTTP: no A":                                    func(p *confv1.ProfileReport) { p.Extended.SupportedFeatures = nil },
		"MESH-HTTP extended: 0 pass, 2 did; MESH-HTTP: no A": func(p *confv1.ProfileReport) { p.Extended = nil },
	} {
		now := good()
		change(&now.ProfileReports[0])
		if got := strings.Join(worse(good(), now), "; "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// compareTable holds the README's table of tests against what came of them.
func compareTable(t *testing.T, results map[string]string) {
	t.Helper()
	var rows, others []string
	for _, test := range tests.ConformanceTests {
		if !needsOnlyMesh(test) {
			others = append(others, test.ShortName)
			continue
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", test.ShortName, strings.Join(profiles(test), ", "), results[test.ShortName]))
	}
	slices.Sort(rows)
	slices.Sort(others)
	section(t, "tests", "| Test | Profile | Result |\n|---|---|---|\n"+strings.Join(rows, ""))
	section(t, "others", fmt.Sprintf("%d tests: %s.\n", len(others), strings.Join(others, ", ")))
}

// profiles are those that count a test, and in which part.
func profiles(test suite.ConformanceTest) []string {
	var out []string
	for _, p := range []suite.ConformanceProfile{suite.MeshHTTPConformanceProfile, suite.MeshGRPCConformanceProfile} {
		part := "core"
		for _, f := range test.Features {
			switch {
			case p.CoreFeatures.Has(f):
			case p.ExtendedFeatures.Has(f):
				part = "extended"
			default:
				part = ""
			}
			if part == "" {
				break
			}
		}
		if part != "" {
			out = append(out, fmt.Sprintf("%s %s", p.Name, part))
		}
	}
	if len(out) == 0 {
		return []string{"none: " + beyond(test)}
	}
	return out
}

// beyond are the features because of which no profile counts a test.
func beyond(test suite.ConformanceTest) string {
	var out []string
	for _, f := range test.Features {
		if !suite.MeshHTTPConformanceProfile.CoreFeatures.Has(f) && !suite.MeshHTTPConformanceProfile.ExtendedFeatures.Has(f) {
			out = append(out, string(f))
		}
	}
	return strings.Join(out, ", ")
}

// section holds the part of the README between "<!-- name -->" and the next
// "<!-- end -->" against what it should be; -update writes it.
func section(t *testing.T, name, want string) {
	t.Helper()
	const file = "README.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), "<!-- "+name+" -->\n")
	have, after, closed := strings.Cut(rest, "<!-- end -->")
	switch {
	case !ok || !closed:
		t.Errorf("%s has no section %q", file, name)
	case have == want:
	case *update && !t.Failed():
		if err := os.WriteFile(file, []byte(before+"<!-- "+name+" -->\n"+want+"<!-- end -->"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s, section %q is not up to date; have\n%swant\n%s", file, name, have, want)
	}
}
