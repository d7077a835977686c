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
	"fairlead.io/fairlead/model/plan"
)

func rewritePath(a *route.RouteAction, r *plan.Route) error {
	if r.Rewrite == nil {
		return nil
	}
	if e := r.Rewrite.PathRegex; e != nil {
		if e.Match == "" {
			return errors.New("rewrite of an empty expression")
		}
		if err := checkRegex(e.Match); err != nil {
			return fmt.Errorf("rewrite: %w", err)
		}
		if err := checkSubstitution(e.Match, e.Replacement); err != nil {
			return fmt.Errorf("rewrite: %w", err)
		}
		a.RegexRewrite = substitute(e.Match, e.Replacement)
		return nil
	}
	if p := r.Rewrite.FullPath; p != "" {
		a.RegexRewrite = wholePath(p)
		return checkHeaderValue(":path", p)
	}
	p := r.Rewrite.Path
	if p == "" {
		return nil
	}
	if err := checkHeaderValue(":path", p); err != nil {
		return err
	}
	if !isPrefix(r.Match.Path) {
		a.RegexRewrite = wholePath(p)
		return nil
	}
	var err error
	a.PrefixRewrite, a.RegexRewrite, err = replacePrefix(*r.Match.Path, p)
	return err
}

func isPrefix(m *model.StringMatch) bool {
	return m != nil && (m.Kind == model.Prefix || m.Kind == model.Segments)
}

// replacePrefix replaces what a path was matched by: by what Envoy puts in its place, or
// by an expression, where nothing would be left to begin the path with a slash.
func replacePrefix(m model.StringMatch, by string) (string, *matcher.RegexMatchAndSubstitute, error) {
	if m.Kind == model.Prefix && by != "" {
		return by, nil, nil
	}
	// A prefix of segments ends before a slash, but for "/".
	by = strings.TrimRight(by, "/")
	switch {
	case by == "" && m.Value == "/":
		return "", nil, nil // it stays
	case m.Value == "/":
		return by + "/", nil, nil
	case by != "":
		return by, nil, nil
	}
	expr := regexp.QuoteMeta(strings.TrimSuffix(m.Value, "/"))
	if m.IgnoreCase {
		expr = "(?i:" + expr + ")"
	}
	expr = "^" + expr + "/?"
	return "", substitute(expr, "/"), checkRegex(expr)
}

// wholePath replaces the path, leaving the query; a backslash would refer to a group.
func wholePath(by string) *matcher.RegexMatchAndSubstitute {
	return substitute("^.+$", strings.ReplaceAll(by, `\`, `\\`))
}

func substitute(expr, replacement string) *matcher.RegexMatchAndSubstitute {
	return &matcher.RegexMatchAndSubstitute{
		Pattern:      &matcher.RegexMatcher{Regex: expr},
		Substitution: replacement,
	}
}
