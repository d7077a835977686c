// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

// maxProgram is how many instructions an expression may take.
const maxProgram = 32768

// Runtime is what a node's bootstrap must set of Envoy's runtime. By default Envoy
// refuses expressions of more than 100 instructions, which is less than users write.
func Runtime() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"re2.max_program_size.error_level": structpb.NewNumberValue(maxProgram),
	}}
}

// checkRegex accepts an expression that Envoy accepts, and that means there what it
// means to those who write it. Envoy's engine has Go's syntax, but it takes bytes for
// characters: outside of ASCII only what stands for itself, once, is the same.
func checkRegex(expr string) error {
	fail := func(err error) error { return fmt.Errorf("regular expression %.200q: %w", expr, err) }
	if _, err := regexp.Compile(expr); err != nil {
		return fail(err)
	}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return fail(err)
	}
	if err := checkBytes(expr, re); err != nil {
		return fail(err)
	}
	if programSize(re) > maxProgram {
		return fail(errors.New("too large"))
	}
	return nil
}

// checkBytes refuses what means something else, or nothing, to an engine that knows
// bytes. The expression is one that compiles.
func checkBytes(expr string, re *syntax.Regexp) error {
	folds := strings.IndexFunc(expr, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 && foldsCase(re)
	inClass := false
	for i := 0; i < len(expr); {
		r, n := utf8.DecodeRuneInString(expr[i:])
		rest := expr[i+n:]
		switch {
		case r == '\\':
			length, err := checkEscape(rest)
			if err != nil {
				return err
			}
			n += length
		case r >= utf8.RuneSelf:
			if inClass || folds || rest != "" && strings.IndexByte("*+?{", rest[0]) >= 0 {
				return fmt.Errorf("%q is several bytes, and can only stand for itself, once", r)
			}
		case inClass && strings.HasPrefix(expr[i:], "[:"):
			n = strings.Index(expr[i:], ":]") + 2
		case inClass:
			inClass = r != ']'
		case r == '[':
			inClass = true
			after := strings.TrimPrefix(rest, "^")
			n += len(rest) - len(after)
			if strings.HasPrefix(after, "]") { // the first is one of the class
				n++
			}
		}
		i += n
	}
	return nil
}

// checkEscape looks at what follows a backslash, and says how much belongs to it.
func checkEscape(s string) (int, error) {
	code := func(digits string, base, length int) (int, error) {
		if v, err := strconv.ParseUint(digits, base, 32); err == nil && v >= utf8.RuneSelf {
			return 0, fmt.Errorf(`\%s is not of ASCII`, s[:length])
		}
		return length, nil
	}
	switch s[0] {
	case 'Q':
		quoted, _, ended := strings.Cut(s, `\E`)
		if ended {
			return len(quoted) + 2, nil
		}
		return len(quoted), nil
	case 'x':
		if s[1] == '{' {
			end := strings.IndexByte(s, '}')
			return code(s[2:end], 16, end+1)
		}
		return code(s[1:3], 16, 3)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		end := 1
		for end < len(s) && end < 3 && '0' <= s[end] && s[end] <= '7' {
			end++
		}
		return code(s[:end], 8, end)
	case 'p', 'P':
		name, length := s[1:2], 2
		if name == "{" {
			length = strings.IndexByte(s, '}') + 1
			name = s[2 : length-1]
		}
		if !knownClass(strings.TrimPrefix(name, "^")) {
			return 0, fmt.Errorf("no class of characters is named %q", name)
		}
		return length, nil
	}
	_, n := utf8.DecodeRuneInString(s)
	return n, nil
}

// knownClass reports whether Envoy's engine has the Unicode class; Go's has more names
// for them.
func knownClass(name string) bool {
	switch name {
	case "Any":
		return true
	case "Cn", "LC":
		return false
	}
	return unicode.Categories[name] != nil || unicode.Scripts[name] != nil
}

func foldsCase(re *syntax.Regexp) bool {
	if re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase != 0 {
		return true
	}
	for _, sub := range re.Sub {
		if foldsCase(sub) {
			return true
		}
	}
	return false
}

// programSize is not less than the number of instructions that Envoy's engine needs.
func programSize(re *syntax.Regexp) int {
	n := 4
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			n += 2 * utf8.RuneLen(r)
		}
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune) && re.Rune[i] <= 0xff; i += 2 {
			n += 2
		}
	}
	for _, sub := range re.Sub {
		n += programSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min+1, re.Max)
	}
	return min(n, maxProgram+1)
}

// checkSubstitution accepts what a match of the expression can be replaced by: text in
// which \0 is the whole match and \1 to \9 are its groups.
func checkSubstitution(expr, text string) error {
	re, err := regexp.Compile(expr)
	if err != nil {
		return err
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++
		switch {
		case i == len(text):
			return fmt.Errorf("replacement %q ends with a backslash", text)
		case text[i] == '\\':
		case text[i] < '0' || text[i] > '9':
			return fmt.Errorf("replacement %q: \\%c means nothing", text, text[i])
		case int(text[i]-'0') > re.NumSubexp():
			return fmt.Errorf("replacement %q: %q has no group %c", text, expr, text[i])
		}
	}
	return nil
}
