// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"regexp/syntax"
)

// NormalizeRegex compiles an RE2 pattern that must match a whole string and gives
// it the simplest form that means the same: Exact for a literal, Prefix for a
// literal that anything may follow, Present for a pattern that matches everything,
// else Regex with the pattern as it was written. Anchors at its ends, which a full
// match has anyway, are no part of the meaning.
//
// Two planes that write the same condition as a regex and as a plain string thus
// give the same bytes. "Anything" is taken to include the newline, which is in
// neither paths nor header values.
func NormalizeRegex(pattern string) (StringMatch, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return StringMatch{}, fmt.Errorf("parse regular expression %q: %w", pattern, err)
	}
	parts := flatten(re, nil)
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		parts = parts[:n-1]
	}
	if len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		parts = parts[1:]
	}
	open := false
	for n := len(parts); n > 0 && anything(parts[n-1]); n = len(parts) {
		open, parts = true, parts[:n-1]
	}
	literal := ""
	for _, p := range parts {
		if p.Op != syntax.OpLiteral || p.Flags&syntax.FoldCase != 0 {
			return StringMatch{Kind: Regex, Value: pattern}, nil
		}
		literal += string(p.Rune)
	}
	switch {
	case !open:
		return StringMatch{Kind: Exact, Value: literal}, nil
	case literal == "":
		return StringMatch{Kind: Present}, nil
	}
	return StringMatch{Kind: Prefix, Value: literal}, nil
}

// flatten lists what an expression matches one after the other, without the groups
// around it.
func flatten(re *syntax.Regexp, out []*syntax.Regexp) []*syntax.Regexp {
	switch re.Op {
	case syntax.OpConcat:
		for _, s := range re.Sub {
			out = flatten(s, out)
		}
		return out
	case syntax.OpCapture:
		return flatten(re.Sub[0], out)
	case syntax.OpEmptyMatch:
		return out
	}
	return append(out, re)
}

// anything reports whether the expression is ".*" in one of its spellings.
func anything(re *syntax.Regexp) bool {
	return re.Op == syntax.OpStar && (re.Sub[0].Op == syntax.OpAnyChar || re.Sub[0].Op == syntax.OpAnyCharNotNL)
}
