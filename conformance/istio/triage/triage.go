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
	// Unsteady is what was undeclared, or broken, when the scenario ran first, and was not
	// when both halves were loaded once more.
	Unsteady *Result `json:"unsteady,omitempty"`
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
	seen := false // something that requests could show
	for _, d := range found {
		text := fmt.Sprintf("%s: %s (%s, %s): %s", d.Source, d.Code, d.Outcome, d.Effect, d.Message)
		if names(d, s.About) {
			if d.Outcome != model.Translated && d.Effect != model.Cosmetic {
				r.Declared = append(r.Declared, text)
				seen = seen || !unseen[d.Code]
			}
		} else {
			r.Others = append(r.Others, text)
		}
	}
	for _, q := range s.Requests {
		d, err := compare(istio, ours, &asker{world: s.World, echo: echo, mirrors: strings.Contains(s.Istio, "mirror"), delays: strings.Contains(s.Istio, "Delay"),
			refuses: strings.Contains(s.Mesh+s.Istio, "REGISTRY_ONLY")}, q)
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
		r.FalseAlarm = seen
	}
	return r
}

// steady runs a scenario once more if it fails: a difference is one of configuration only
// if it is there each time. What is not, by a machine that stands still for a moment or by
// a fault that comes and goes, is kept in the result and counted.
func steady(run func() Result) Result {
	first := run()
	if first.Verdict != Undeclared && first.Verdict != Broken {
		return first
	}
	second := run()
	if second.Verdict == Undeclared || second.Verdict == Broken {
		return second
	}
	second.Unsteady = &first
	return second
}

// compare asks a few times, and more often where that does not settle it.
func compare(istio, ours Half, a *asker, q *world.Request) (*Difference, error) {
	n := q.N
	if n == 0 {
		n = few
	}
	var theirs, own Outcome
	for try := 0; ; try++ {
		var err error
		if theirs, err = a.ask(istio, q, n); err != nil {
			return nil, err
		}
		if own, err = a.ask(ours, q, n); err != nil {
			return nil, err
		}
		if alike(theirs, own) && (sameSupport(theirs, own) || q.N > 0 && n >= enough) {
			return nil, nil
		}
		// More of the same; what is slow is not sent often, and what is the same each
		// time need not be.
		switch {
		case try == 2:
			return &Difference{Request: q.Text, Istio: theirs.String(), Ours: own.String()}, nil
		case q.N == 1:
			n = 24
		case q.Spread && n < enough:
			n = enough
		case q.N == 0 && (len(theirs) > 1 || len(own) > 1):
			n = many
		}
	}
}

// unseen are diagnostics about what the requests of a scenario need not show, though it is
// so. Where nothing else is shown they are no false alarm.
var unseen = map[string]bool{
	"identity-by-address": true, // nothing is encrypted, and an address is believed
	"counted-by-node":     true, // what one client's requests do alone is the same
	"remote-is-peer":      true, // there is no other proxy in front
	"unsupported-gateway": true, // nobody asks at a gateway
}

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
		if have == "" { // the whole object
			return d.Outcome == model.Refused
		}
		return have == field || within(have, field) || within(field, have)
	})
}

func within(a, b string) bool { return strings.HasPrefix(b, a+".") }
