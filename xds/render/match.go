// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"fairlead.io/fairlead/model"
)

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
	case model.Present:
		return func(s string) bool { return s != "" }, nil
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
