// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/linkerd/api"
)

// literal is one condition on path or method, or its opposite.
type literal struct {
	path  *model.StringMatch
	verb  string
	not   bool
	never bool // no request satisfies it
}

// maxMatches is how many matches a condition of a profile may come to.
const maxMatches = 64

var errTooManyMatches = errors.New("the condition comes to too many matches")

// conditions are the matches that a condition on requests comes to: it holds where one
// of them does. Without a condition every request is meant.
func conditions(m *api.RequestMatch) ([]model.RouteMatch, error) {
	if m == nil {
		return []model.RouteMatch{{}}, nil
	}
	all, err := expand(*m, false)
	if err != nil {
		return nil, err
	}
	var out []model.RouteMatch
next:
	for _, conjunction := range all {
		var rm model.RouteMatch
		for _, l := range conjunction {
			if l.never || !add(&rm, l) {
				continue next
			}
		}
		rm.Headers = model.SortContent(rm.Headers)
		out = append(out, rm)
	}
	return out, nil
}

// add puts a condition into a match; false if no request satisfies both.
func add(rm *model.RouteMatch, l literal) bool {
	switch {
	case l.path != nil && !l.not && rm.Path == nil && l.path.Kind != model.Present:
		rm.Path = l.path
	case l.path != nil && l.path.Kind == model.Present:
		return !l.not
	case l.path != nil:
		rm.Headers = append(rm.Headers, model.NamedMatch{Name: ":path", Match: beforeQuery(*l.path), Not: l.not})
	case l.not:
		rm.Headers = append(rm.Headers, model.NamedMatch{Name: ":method", Match: model.StringMatch{Kind: model.Exact, Value: l.verb}, Not: true})
	case rm.Method == nil:
		rm.Method = &model.StringMatch{Kind: model.Exact, Value: l.verb}
	default:
		return rm.Method.Value == l.verb
	}
	return true
}

// beforeQuery is a condition on a path as one on what a request line has, a query behind
// it.
func beforeQuery(m model.StringMatch) model.StringMatch {
	return model.StringMatch{Kind: model.Regex, Value: "(?:" + expression(m) + `)(?:\?.*)?`}
}

// expand gives a condition, or its opposite, as a disjunction of conjunctions. The parts
// of a condition must all hold.
func expand(m api.RequestMatch, not bool) ([][]literal, error) {
	var parts [][][]literal
	put := func(p [][]literal, err error) error {
		parts = append(parts, p)
		return err
	}
	if m.PathRegex != "" {
		path, err := pathExpression(m.PathRegex)
		if err != nil {
			return nil, err
		}
		parts = append(parts, [][]literal{{{path: &path, not: not}}})
	}
	if m.Method != "" {
		parts = append(parts, [][]literal{{{verb: strings.ToUpper(m.Method), not: not}}})
	}
	for _, x := range m.All {
		if err := put(expand(x, not)); err != nil {
			return nil, err
		}
	}
	for _, x := range m.Not {
		if err := put(expand(x, !not)); err != nil {
			return nil, err
		}
	}
	if len(m.Any) > 0 {
		var of [][][]literal
		for _, x := range m.Any {
			e, err := expand(x, not)
			if err != nil {
				return nil, err
			}
			of = append(of, e)
		}
		any, err := combine(of, !not)
		if err != nil {
			return nil, err
		}
		parts = append(parts, any)
	}
	if len(parts) == 0 && not {
		return [][]literal{{{never: true}}}, nil
	}
	return combine(parts, not)
}

// combine joins conditions of which one must hold (either), or all.
func combine(parts [][][]literal, either bool) ([][]literal, error) {
	if either {
		var out [][]literal
		for _, p := range parts {
			out = append(out, p...)
		}
		if len(out) > maxMatches {
			return nil, errTooManyMatches
		}
		return out, nil
	}
	out := [][]literal{nil}
	for _, p := range parts {
		var next [][]literal
		for _, a := range out {
			for _, b := range p {
				next = append(next, append(a[:len(a):len(a)], b...))
			}
			if len(next) > maxMatches {
				return nil, errTooManyMatches
			}
		}
		out = next
	}
	return out, nil
}

// pathExpression is an expression that must match a whole path, as Linkerd's proxies
// put anchors around it.
func pathExpression(s string) (model.StringMatch, error) {
	m, err := model.NormalizeRegex(strings.TrimSpace(s))
	if err != nil {
		return model.StringMatch{}, fmt.Errorf("%q is not an expression: %w", s, err)
	}
	return m, nil
}

// expression is a match as a regular expression without anchors.
func expression(m model.StringMatch) string {
	switch m.Kind {
	case model.Exact:
		return regexp.QuoteMeta(m.Value)
	case model.Prefix:
		return regexp.QuoteMeta(m.Value) + "[^?]*"
	}
	bare := strings.TrimPrefix(m.Value, "^")
	if strings.HasSuffix(bare, "$") && !strings.HasSuffix(bare, `\$`) {
		bare = strings.TrimSuffix(bare, "$")
	}
	return bare
}
