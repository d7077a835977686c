// SPDX-License-Identifier: Apache-2.0

package hubble

import (
	"strings"
	"testing"
)

// Each reason says what it means; of one that refuses it is known what to do: what objects
// say, or advice.
func TestReasonsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Reasons {
		key := string(r.By) + " " + r.Name
		if seen[key] || r.Name == "" || r.Text == "" || r.By != Kernel && r.By != Proxy {
			t.Errorf("%+v: no name, no text, or twice", r)
		}
		seen[key] = true
		if r.Refuses && !r.Policy && r.Advice == "" || !r.Refuses && (r.Policy || r.Advice != "") {
			t.Errorf("%s: refuses: %t, policy: %t, advice: %q", key, r.Refuses, r.Policy, r.Advice)
		}
	}
}

func TestExplain(t *testing.T) {
	by := []string{"AuthorizationPolicy shop/p"}
	for name, c := range map[string]struct {
		f               Flow
		meaning, advice string // is, begins with
	}{
		"allowed":             {Flow{Verdict: "forwarded", Reason: "allowed"}, "", ""},
		"no rule":             {Flow{Verdict: "dropped", Reason: ByPolicy, DecidedBy: by}, "no rule allows it", ""},
		"a rule":              {Flow{Verdict: "denied", Direction: "proxy", Reason: ByPolicy, Rule: "0a", DecidedBy: by}, "a rule denies it", ""},
		"observed":            {Flow{Verdict: "audited", Reason: ByPolicy, Rule: "0a", DecidedBy: by}, "a rule denies it", ""},
		"changed since":       {Flow{Verdict: "dropped", Reason: ByPolicy}, "no rule allows it", "no object says so any more"},
		"no policy's":         {Flow{Verdict: "dropped", Reason: "spoofed"}, "its source address is not the sender's", "find out what in the pod sends it"},
		"held, at connect":    {Flow{Verdict: "dropped", Direction: "connect", Reason: UnknownHost, DecidedBy: by}, "its host is nobody's, and who sends it may reach known ones alone", "declare the host"},
		"Envoy's flags":       {Flow{Verdict: "dropped", Direction: "proxy", Reason: "URX,UF"}, "the backend could not be connected to", "see whether it listens"},
		"of a later version":  {Flow{Verdict: "dropped", Reason: "reason-99"}, "", ""},
		"Envoy's own details": {Flow{Verdict: "forwarded", Direction: "proxy", Reason: "upstream_reset"}, "", ""},
	} {
		c.f.Explain()
		if c.f.Meaning != c.meaning || !strings.HasPrefix(c.f.Advice, c.advice) || (c.advice == "") != (c.f.Advice == "") {
			t.Errorf("%s: %q, %q", name, c.f.Meaning, c.f.Advice)
		}
	}
}

// What is missing is no flow that was seen.
func TestLostIsNotSeen(t *testing.T) {
	r := NewRing(4)
	r.Add(Flow{Verdict: "forwarded"})
	r.Add(Flow{Verdict: Lost, Reason: LostInKernel, Lost: 7})
	if seen, lost := r.Counts(); seen != 1 || lost != 0 {
		t.Errorf("seen %d, lost %d", seen, lost)
	}
	if got := r.Last(9, Filter{Verdict: "dropped"}); len(got) != 1 || got[0].Lost != 7 {
		t.Errorf("who asks for something else is not told: %+v", got)
	}
}
