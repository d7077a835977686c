// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func routeMatch(r *plan.Route) (*route.RouteMatch, error) {
	m := &route.RouteMatch{}
	if err := pathMatch(m, r.Match.Path); err != nil {
		return nil, err
	}
	for _, h := range []struct {
		name  string
		match *model.StringMatch
	}{{":method", r.Match.Method}, {":scheme", r.Match.Scheme}, {":authority", r.Match.Authority}} {
		if h.match == nil {
			continue
		}
		hm, err := headerMatcher(model.NamedMatch{Name: h.name, Match: *h.match})
		if err != nil {
			return nil, err
		}
		m.Headers = append(m.Headers, hm)
	}
	for _, h := range r.Match.Headers {
		hm, err := headerMatcher(h)
		if err != nil {
			return nil, err
		}
		m.Headers = append(m.Headers, hm)
	}
	for _, q := range r.Match.Query {
		qm, err := queryMatcher(q)
		if err != nil {
			return nil, err
		}
		m.QueryParameters = append(m.QueryParameters, qm)
	}
	if ns := r.Match.SourceNamespace; ns != "" {
		m.FilterState = append(m.FilterState, &matcher.FilterStateMatcher{
			Key: IdentityKey,
			Matcher: &matcher.FilterStateMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
				MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{
					Regex: namespaceRegex(ns),
				}},
			}},
		})
	}
	if p := r.SourceSelects; p != "" {
		m.FilterState = append(m.FilterState, &matcher.FilterStateMatcher{
			Key: SelectsKey,
			Matcher: &matcher.FilterStateMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
				MatchPattern: &matcher.StringMatcher_Contains{Contains: "|" + p + "|"},
			}},
		})
	} else if len(r.Match.SourceLabels) > 0 {
		return nil, errors.New("labels of the source without the predicate that stands for them")
	}
	return m, nil
}

// namespaceRegex is of the identities of a namespace.
func namespaceRegex(ns string) string { return `spiffe://[^/]+/ns/` + regexp.QuoteMeta(ns) + `/sa/.+` }

func pathMatch(m *route.RouteMatch, p *model.StringMatch) error {
	if p == nil {
		// Of any request. ("OPTIONS *" gets 404 from Envoy before a route is looked up.)
		m.PathSpecifier = &route.RouteMatch_Prefix{}
		return nil
	}
	if p.IgnoreCase {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	switch p.Kind {
	case model.Exact:
		m.PathSpecifier = &route.RouteMatch_Path{Path: p.Value}
	case model.Prefix:
		m.PathSpecifier = &route.RouteMatch_Prefix{Prefix: p.Value}
	case model.Segments:
		if p.Value == "/" {
			m.PathSpecifier = &route.RouteMatch_Prefix{Prefix: p.Value}
			return nil
		}
		m.PathSpecifier = &route.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: p.Value}
		return checkSegments(p.Value)
	case model.Regex:
		expr, err := wholeRegex(*p)
		if err != nil {
			return fmt.Errorf("path: %w", err)
		}
		m.CaseSensitive = nil // not for expressions, which say it themselves
		m.PathSpecifier = &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: expr}}
	default:
		return fmt.Errorf("path: match of kind %q cannot be used here", p.Kind)
	}
	return nil
}

func queryMatcher(q model.NamedMatch) (*route.QueryParameterMatcher, error) {
	if q.Not || q.MissingEmpty {
		return nil, fmt.Errorf("query parameter %s: only a positive match can be used here", q.Name)
	}
	m := &route.QueryParameterMatcher{Name: q.Name}
	if q.Match.Kind == model.Present {
		m.QueryParameterMatchSpecifier = &route.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		return m, nil
	}
	s, err := stringMatcher(q.Match)
	if err != nil {
		return nil, fmt.Errorf("query parameter %s: %w", q.Name, err)
	}
	m.QueryParameterMatchSpecifier = &route.QueryParameterMatcher_StringMatch{StringMatch: s}
	return m, nil
}

// matches is the match as Envoy's stringMatcher would do it.
func matches(m model.StringMatch) (func(string) bool, error) {
	fold := func(s string) string { return s }
	if m.IgnoreCase {
		fold = strings.ToLower
	}
	want := fold(m.Value)
	switch m.Kind {
	case model.Exact:
		return func(s string) bool { return fold(s) == want }, nil
	case model.Prefix:
		return func(s string) bool { return strings.HasPrefix(fold(s), want) }, nil
	case model.Suffix:
		return func(s string) bool { return strings.HasSuffix(fold(s), want) }, nil
	case model.Regex:
		expr, err := wholeRegex(m)
		if err != nil {
			return nil, err
		}
		re, err := regexp.Compile(`^(?:` + expr + `)$`) // nested once more than what was checked
		if err != nil {
			return nil, fmt.Errorf("regular expression %q: %w", expr, err)
		}
		return re.MatchString, nil
	}
	return nil, fmt.Errorf("match of kind %q cannot be used here", m.Kind)
}

// headerMatcher compares a request header, or a pseudo-header.
func headerMatcher(m model.NamedMatch) (*route.HeaderMatcher, error) {
	if name := strings.TrimPrefix(m.Name, ":"); checkHeaderName(name) != nil {
		return nil, checkHeaderName(m.Name)
	}
	h := &route.HeaderMatcher{Name: m.Name, InvertMatch: m.Not, TreatMissingHeaderAsEmpty: m.MissingEmpty}
	if m.Match.Kind == model.Present {
		h.TreatMissingHeaderAsEmpty = false // presence is about missing or not
		h.HeaderMatchSpecifier = &route.HeaderMatcher_PresentMatch{PresentMatch: true}
		return h, nil
	}
	s, err := stringMatcher(m.Match)
	if err != nil {
		return nil, fmt.Errorf("header %s: %w", m.Name, err)
	}
	h.HeaderMatchSpecifier = &route.HeaderMatcher_StringMatch{StringMatch: s}
	return h, nil
}

// stringMatcher takes all kinds but Present and Template, which depend on what is
// matched.
func stringMatcher(m model.StringMatch) (*matcher.StringMatcher, error) {
	s := &matcher.StringMatcher{IgnoreCase: m.IgnoreCase}
	switch m.Kind {
	case model.Exact:
		s.MatchPattern = &matcher.StringMatcher_Exact{Exact: m.Value}
	case model.Prefix, model.Suffix:
		if m.Value == "" { // of everything; Envoy wants it said otherwise
			return &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: "(?s).*"}}}, nil
		}
		s.MatchPattern = &matcher.StringMatcher_Prefix{Prefix: m.Value}
		if m.Kind == model.Suffix {
			s.MatchPattern = &matcher.StringMatcher_Suffix{Suffix: m.Value}
		}
	case model.Regex:
		expr, err := wholeRegex(m)
		if err != nil {
			return nil, err
		}
		s.IgnoreCase = false // Envoy ignores it here; the expression says it
		s.MatchPattern = &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: expr}}
	default:
		return nil, fmt.Errorf("match of kind %q cannot be used here", m.Kind)
	}
	return s, nil
}

// wholeRegex is a checked expression; Envoy matches the whole string with it.
func wholeRegex(m model.StringMatch) (string, error) {
	if m.Value == "" {
		return "", errors.New("empty regular expression")
	}
	expr := m.Value
	if m.IgnoreCase {
		expr = "(?i)" + expr
	}
	return expr, checkRegex(expr)
}

// checkSegments refuses what Envoy refuses as a prefix of whole segments; "/" is not one.
func checkSegments(path string) error {
	if len(path) < 2 || path[0] != '/' || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?#") {
		return fmt.Errorf("segments %q of a path", path)
	}
	return nil
}
