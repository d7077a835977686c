// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"

	"fairlead.io/fairlead/conformance/istio/wire"
	"fairlead.io/fairlead/conformance/istio/world"
)

// Verdict of a scenario.
type Verdict string

// Verdicts.
const (
	Equal      Verdict = "equal"
	Declared   Verdict = "declared"   // they differ, and a diagnostic names a field that was varied
	Undeclared Verdict = "undeclared" // they differ, and none does: a bug
	Broken     Verdict = "broken"     // could not be compared
)

// Difference is one request that the halves answer differently.
type Difference struct {
	Request string `json:"request"`
	Istio   string `json:"istio"`
	Ours    string `json:"fairlead"`
}

// Result is what came of a scenario.
type Result struct {
	Scenario string   `json:"scenario"`
	About    []string `json:"about"`
	Verdict  Verdict  `json:"verdict"`
	// FalseAlarm: equal, though a diagnostic names a field that was varied.
	FalseAlarm  bool         `json:"falseAlarm,omitempty"`
	Differences []Difference `json:"differences,omitempty"`
	Declared    []string     `json:"declared,omitempty"` // diagnostics about what was varied
	Others      []string     `json:"others,omitempty"`   // diagnostics about anything else
	Problem     string       `json:"problem,omitempty"`
	Requests    int          `json:"requests"`
}

// Ours is the half that declares.
type Ours interface {
	Half
	Found() (found []model.Diagnostic, rejected []string)
}

// Istio is the half that is the measure.
type Istio interface {
	Half
	// Alive is an error if answers are not Istio's any more.
	Alive() error
}

// Run compares the halves at a scenario.
func Run(istio Istio, ours Ours, echo *wire.Echo, s *world.Scenario) Result {
	r := Result{Scenario: s.Name, About: s.About, Requests: len(s.Requests)}
	if err := istio.Load(s); err != nil {
		r.Verdict, r.Problem = Broken, err.Error()
		return r
	}
	if err := ours.Load(s); err != nil {
		r.Verdict, r.Problem = Broken, err.Error()
		return r
	}
	found, rejected := ours.Found()
	for _, d := range found {
		text := fmt.Sprintf("%s: %s (%s, %s): %s", d.Source, d.Code, d.Outcome, d.Effect, d.Message)
		if names(d, s.About) {
			if !unseen[d.Code] && d.Outcome != model.Translated && d.Effect != model.Cosmetic {
				r.Declared = append(r.Declared, text)
			}
		} else {
			r.Others = append(r.Others, text)
		}
	}
	mirrors := strings.Contains(s.Istio, "mirror")
	for _, q := range s.Requests {
		d, err := compare(istio, ours, echo, s.World, q, mirrors)
		if err != nil {
			r.Verdict, r.Problem = Broken, err.Error()
			return r
		}
		if d != nil {
			r.Differences = append(r.Differences, *d)
		}
	}
	if err := istio.Alive(); err != nil {
		r.Verdict, r.Problem = Broken, err.Error()
		return r
	}
	r.Verdict = Equal
	switch {
	case len(rejected) > 0:
		r.Verdict, r.Problem = Undeclared, "Envoy's configuration: "+strings.Join(rejected, "; ")
	case len(r.Differences) > 0 && len(r.Declared) > 0:
		r.Verdict = Declared
	case len(r.Differences) > 0:
		r.Verdict = Undeclared
	default:
		r.FalseAlarm = len(r.Declared) > 0
	}
	return r
}

// compare asks a few times, and more often where that does not settle it.
func compare(istio, ours Half, echo *wire.Echo, w *world.World, q *world.Request, mirrors bool) (*Difference, error) {
	n := q.N
	if n == 0 {
		n = few
	}
	var a, b Outcome
	for try := 0; ; try++ {
		var err error
		if a, err = ask(istio, echo, w, q, n, mirrors); err != nil {
			return nil, err
		}
		if b, err = ask(ours, echo, w, q, n, mirrors); err != nil {
			return nil, err
		}
		if alike(a, b) && (sameSupport(a, b) || q.N > 0 && n >= few) {
			return nil, nil
		}
		// More of the same; what is slow is not sent often, and what is the same each
		// time need not be.
		switch {
		case try == 2:
			return &Difference{Request: q.Text, Istio: a.String(), Ours: b.String()}, nil
		case q.N == 0 && (len(a) > 1 || len(b) > 1):
			n = many
		}
	}
}

// unseen are diagnostics about what requests cannot show: that nothing is encrypted. They
// are neither a declaration nor a false alarm.
var unseen = map[string]bool{"identity-by-address": true}

var position = regexp.MustCompile(`\[[^\]]*\]`)

// plain is a field without its place in lists, and without "spec".
func plain(field string) string {
	return strings.TrimPrefix(strings.TrimPrefix(position.ReplaceAllString(field, ""), "spec"), ".")
}

// names reports whether a diagnostic is about one of the fields, or about what holds it,
// or about a part of it.
func names(d model.Diagnostic, about []string) bool {
	return slices.ContainsFunc(about, func(a string) bool {
		kind, field, _ := strings.Cut(a, " ")
		if kind != d.Source.Kind && !(kind == "MeshConfig" && d.Source.Kind == "ConfigMap") {
			return false
		}
		have := plain(d.Source.Field)
		have = strings.TrimPrefix(strings.TrimPrefix(have, "data.mesh"), ".")
		return have == field || within(have, field) || within(field, have)
	})
}

func within(a, b string) bool { return a == "" || strings.HasPrefix(b, a+".") }
