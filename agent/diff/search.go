// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// term is a conjunction over requests: a route's match, or one operation of a rule with
// the rule's conditions.
type term []condition

// condition looks at one thing about a request.
type condition struct {
	on      string // "path", "header x"
	holds   func(*plan.Request) bool
	matches []model.StringMatch // that it is made of
}

// search finds requests that terms tell apart: one for each set of terms that a request
// can satisfy, as far as the values go that the conditions name. Only the first of a list
// that is satisfied counts, so sets that differ behind it are one.
type search struct {
	terms []term
	lists [][]int // indices of terms, in the order in which they are tried
	split int     // where in lists those of the new side begin
}

// list adds terms that are tried in order.
func (s *search) list(terms ...term) {
	var at []int
	for _, t := range terms {
		at = append(at, len(s.terms))
		s.terms = append(s.terms, t)
	}
	s.lists = append(s.lists, at)
}

// most is how many sets of terms are followed.
const most = 1 << 13

// set has a bit for each term that can still be satisfied.
type set []uint64

func (b set) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b set) drop(i int)     { b[i/64] &^= 1 << (i % 64) }
func (b set) and(o set) set {
	out := slices.Clone(b)
	for i := range out {
		out[i] &= o[i]
	}
	return out
}
func (b set) key() string {
	var s strings.Builder
	for _, w := range b {
		for i := range 8 {
			s.WriteByte(byte(w >> (8 * i)))
		}
	}
	return s.String()
}

func full(n int) set {
	out := make(set, (n+63)/64)
	for i := range out {
		out[i] = ^uint64(0)
	}
	return out
}

// found is a set of terms with the request that satisfies them.
type found struct {
	left set
	q    plan.Request
}

// plain is a request that nothing is special about.
func plain() plan.Request { return plan.Request{Method: "GET", Scheme: "http", Path: "/"} }

// requests lists those that the terms tell apart; all is false if there were too many.
func (s *search) requests() (out []plan.Request, all bool) {
	ons := s.ons()
	last := s.lastOf(ons)
	states, all := []found{{full(len(s.terms)), plain()}}, true
	s.prune(states[0].left, last, -1)
	for i, on := range ons {
		values := s.values(on)
		var next []found
		seen := map[string]bool{}
		for _, st := range states {
			for _, v := range values {
				left := st.left.and(v.left)
				s.prune(left, last, i)
				k := left.key()
				if seen[k] {
					continue
				}
				if len(next) == most {
					all = false
					break
				}
				seen[k] = true
				q := st.q
				q.Headers = slices.Clone(q.Headers)
				v.set(&q)
				next = append(next, found{left, q})
			}
		}
		states = next
	}
	s.sort(states)
	for _, st := range states {
		out = append(out, st.q)
	}
	return out, all
}

// ons are the things that the terms look at, the one that most of them do first.
func (s *search) ons() []string {
	count := map[string]int{}
	for _, t := range s.terms {
		for _, c := range t {
			count[c.on]++
		}
	}
	return slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(count[b]-count[a], cmp.Compare(a, b)) })
}

// lastOf is, for each term, where in ons the last of its conditions is; -1: it has none.
func (s *search) lastOf(ons []string) []int {
	out := make([]int, len(s.terms))
	for i, t := range s.terms {
		out[i] = -1
		for _, c := range t {
			out[i] = max(out[i], slices.Index(ons, c.on))
		}
	}
	return out
}

// prune drops what stands behind a term that is satisfied, all of whose conditions are
// about the things up to done.
func (s *search) prune(left set, last []int, done int) {
	for _, list := range s.lists {
		satisfied := false
		for _, t := range list {
			switch {
			case satisfied:
				left.drop(t)
			case last[t] <= done && left.has(t):
				satisfied = true
			}
		}
	}
}

// setting is a value of one thing, with the terms that do not miss it.
type setting struct {
	set  func(*plan.Request)
	left set
}

// values are those of one thing that some condition tells apart.
func (s *search) values(on string) []setting {
	conditions := map[int][]condition{}
	sets := []func(*plan.Request){func(*plan.Request) {}}
	var matches []model.StringMatch
	had := map[model.StringMatch]bool{}
	for i, t := range s.terms {
		for _, c := range t {
			if c.on == on {
				conditions[i] = append(conditions[i], c)
				for _, m := range c.matches {
					if !had[m] {
						had[m] = true
						matches = append(matches, m)
					}
				}
			}
		}
	}
	sets = append(sets, settings(on, matches)...)
	var out []setting
	seen := map[string]bool{}
	for _, set := range sets {
		q := plain()
		set(&q)
		left := full(len(s.terms))
		for i, cs := range conditions {
			if slices.ContainsFunc(cs, func(c condition) bool { return !c.holds(&q) }) {
				left.drop(i)
			}
		}
		if k := left.key(); !seen[k] {
			seen[k] = true
			out = append(out, setting{set, left})
		}
	}
	return out
}

// sort puts requests in the order of the terms that they satisfy first.
func (s *search) sort(in []found) {
	first := func(f found, list []int) int {
		if i := slices.IndexFunc(list, f.left.has); i >= 0 {
			return i
		}
		return len(list)
	}
	slices.SortStableFunc(in, func(a, b found) int {
		for _, l := range s.lists {
			if c := first(a, l) - first(b, l); c != 0 {
				return c
			}
		}
		return 0
	})
}

// ofMatch is the term of a route's match.
func ofMatch(m model.RouteMatch) term {
	var out term
	text := func(on string, m *model.StringMatch, of func(*plan.Request) string) {
		if m != nil {
			matches := matcher(*m)
			out = append(out, condition{on, func(q *plan.Request) bool { return matches(of(q)) }, []model.StringMatch{*m}})
		}
	}
	text("path", m.Path, func(q *plan.Request) string { return q.Path })
	text("method", m.Method, func(q *plan.Request) string { return q.Method })
	text("scheme", m.Scheme, func(q *plan.Request) string { return q.Scheme })
	text("authority", m.Authority, func(q *plan.Request) string { return q.Authority })
	add := func(on string, part model.RouteMatch, of model.StringMatch) {
		out = append(out, condition{on, func(q *plan.Request) bool { return plan.MatchesRequest(part, q) }, []model.StringMatch{of}})
	}
	for _, h := range m.Headers {
		add(headerOn(h.Name), model.RouteMatch{Headers: []model.NamedMatch{h}}, h.Match)
	}
	for _, p := range m.Query {
		add("parameter "+p.Name, model.RouteMatch{Query: []model.NamedMatch{p}}, p.Match)
	}
	if m.SourceNamespace != "" {
		add("namespace", model.RouteMatch{SourceNamespace: m.SourceNamespace}, model.StringMatch{Kind: model.Exact, Value: m.SourceNamespace})
	}
	for _, k := range slices.Sorted(maps.Keys(m.SourceLabels)) {
		v := m.SourceLabels[k]
		add("label "+k, model.RouteMatch{SourceLabels: map[string]string{k: v}}, model.StringMatch{Kind: model.Exact, Value: v})
	}
	return out
}

// matcher is plan.Matches with the expression compiled once.
func matcher(m model.StringMatch) func(string) bool {
	if m.Kind == model.Regex && !m.IgnoreCase {
		if re, err := regexp.Compile("^(?:" + m.Value + ")$"); err == nil {
			return re.MatchString
		}
	}
	return func(s string) bool { return plan.Matches(m, s) }
}

// ofRule are the terms of a rule, for a client that its sources mean: a request that
// satisfies one of them matches.
func ofRule(r model.AuthRule) []term {
	when := term{}
	for _, c := range r.When {
		if c.Kind == model.OnHeader {
			when = append(when, condition{headerOn(c.Name), holds(model.AuthRule{When: []model.Condition{c}}), slices.Concat(c.Values, c.NotValues)})
		}
	}
	if len(r.To) == 0 {
		return []term{when}
	}
	var out []term
	for _, o := range r.To {
		out = append(out, append(ofOperation(o), when...))
	}
	return out
}

func ofOperation(o model.Operation) term {
	var out term
	add := func(on string, part model.Operation, of ...model.StringMatch) {
		if len(of) > 0 {
			out = append(out, condition{on, holds(model.AuthRule{To: []model.Operation{part}}), of})
		}
	}
	add("path", model.Operation{Paths: o.Paths, NotPaths: o.NotPaths}, slices.Concat(o.Paths, o.NotPaths)...)
	add("method", model.Operation{Methods: o.Methods, NotMethods: o.NotMethods}, slices.Concat(o.Methods, o.NotMethods)...)
	add("authority", model.Operation{Hosts: o.Hosts, NotHosts: o.NotHosts}, slices.Concat(o.Hosts, o.NotHosts)...)
	for _, h := range o.Headers {
		add(headerOn(h.Name), model.Operation{Headers: []model.NamedMatch{h}}, h.Match)
	}
	return out
}

// holds reports whether a request matches a rule.
func holds(r model.AuthRule) func(*plan.Request) bool {
	p := &plan.Policy{Allow: [][]model.AuthRule{{r}}}
	return func(q *plan.Request) bool { return !p.Judge(q).Denied }
}

// headerOn is what a condition on a header looks at.
func headerOn(name string) string {
	switch name {
	case ":path":
		return "path"
	case ":method":
		return "method"
	case ":scheme":
		return "scheme"
	case ":authority", "host":
		return "authority"
	}
	return "header " + name
}

// depends reports whether terms look at anything.
func (s *search) depends() bool {
	return slices.ContainsFunc(s.terms, func(t term) bool { return len(t) > 0 })
}

// uncertain says why requests that show no difference do not prove that there is none: ""
// if they do. all is that of requests.
func (s *search) uncertain(all bool) string {
	if !all {
		return "there are too many conditions to try all that they tell apart"
	}
	// Of an expression some texts are tried; the same one is the same on both sides.
	if !maps.Equal(s.expressions(s.lists[:s.split]), s.expressions(s.lists[s.split:])) {
		return "the expressions are not the same"
	}
	return ""
}

func (s *search) expressions(lists [][]int) map[model.StringMatch]bool {
	out := map[model.StringMatch]bool{}
	for _, t := range slices.Concat(lists...) {
		for _, c := range s.terms[t] {
			for _, m := range c.matches {
				if m.Kind == model.Regex || m.Kind == model.Template {
					out[m] = true
				}
			}
		}
	}
	return out
}
