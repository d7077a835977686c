// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	"fairlead.io/fairlead/model"
)

// maxRegex bounds an expression, so that one object cannot make Envoy's compiled
// ones arbitrarily large.
const maxRegex = 1024

func checkRegex(s string) error {
	if len(s) > maxRegex {
		return fmt.Errorf("the expression is longer than %d bytes", maxRegex)
	}
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Errorf("not a regular expression: %w", err)
	}
	return nil
}

// whole reads an expression that checkRegex accepts and that must match the whole
// string, as the simplest match that means the same.
func whole(s string) model.StringMatch {
	m, err := model.NormalizeRegex(s)
	if err != nil {
		return model.StringMatch{Kind: model.Regex, Value: s} // of an invalid group, which nobody uses
	}
	return m
}

// anything is ".*": the strings that are compared have no line ends.
func anything(re *syntax.Regexp) bool {
	return re.Op == syntax.OpStar && (re.Sub[0].Op == syntax.OpAnyCharNotNL || re.Sub[0].Op == syntax.OpAnyChar)
}

// openEnded reports whether an author anchored the start alone, and so may expect
// a prefix match.
func openEnded(s string) bool {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil || re.Op != syntax.OpConcat || re.Sub[0].Op != syntax.OpBeginText {
		return false
	}
	last := re.Sub[len(re.Sub)-1]
	return last.Op != syntax.OpEndText && !anything(last)
}
