// SPDX-License-Identifier: Apache-2.0

package model

import (
	"regexp"
	"strings"
	"testing"
)

func TestNormalizeRegex(t *testing.T) {
	for pattern, want := range map[string]StringMatch{
		"":                {Kind: Exact},
		"/a":              {Kind: Exact, Value: "/a"},
		`/a\.b`:           {Kind: Exact, Value: "/a.b"},
		"^/a$":            {Kind: Exact, Value: "/a"},
		`\A/a\z`:          {Kind: Exact, Value: "/a"},
		"(/a)(?:b)":       {Kind: Exact, Value: "/ab"},
		"/a/.*":           {Kind: Prefix, Value: "/a/"},
		"/a/.*?":          {Kind: Prefix, Value: "/a/"},
		"/a(.*)":          {Kind: Prefix, Value: "/a"},
		"^/a.*.*$":        {Kind: Prefix, Value: "/a"},
		"(?s)/a.*":        {Kind: Prefix, Value: "/a"},
		".*":              {Kind: Present},
		"(.*)":            {Kind: Present},
		"^.*$":            {Kind: Present},
		".+":              {Kind: Regex, Value: ".+"},
		"/a.":             {Kind: Regex, Value: "/a."},
		".*/a":            {Kind: Regex, Value: ".*/a"},
		"(?i)/a":          {Kind: Regex, Value: "(?i)/a"},
		"/a|/b":           {Kind: Regex, Value: "/a|/b"},
		"/v[0-9]+/.*":     {Kind: Regex, Value: "/v[0-9]+/.*"},
		"(?m)^a$":         {Kind: Regex, Value: "(?m)^a$"},
		"a{3}":            {Kind: Regex, Value: "a{3}"},
		"/caf\u00e9\\Q.*": {Kind: Exact, Value: "/caf\u00e9.*"},
	} {
		got, err := NormalizeRegex(pattern)
		if err != nil || got != want {
			t.Errorf("NormalizeRegex(%q) = %v, %v; want %v", pattern, got, err, want)
		}
	}
	for _, bad := range []string{"(", "a{1001}", `\8`, "(?<!a)b", "[z-a]"} {
		if got, err := NormalizeRegex(bad); err == nil {
			t.Errorf("NormalizeRegex(%q) = %v, want an error", bad, got)
		}
	}
}

// FuzzNormalizeRegex compares the meaning before and after.
func FuzzNormalizeRegex(f *testing.F) {
	for _, s := range []string{"/a.*", "^/a$", "(a)(b.*)", ".*", "(?i)a", `\Qa.b\E.*`, "a|b.*", "(?m)^a$", "^^a", "a$$"} {
		f.Add(s, "/a")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if strings.ContainsAny(s, "\n\r") {
			return
		}
		got, err := NormalizeRegex(pattern)
		whole, werr := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil || werr != nil {
			return
		}
		want := whole.MatchString(s)
		var is bool
		switch got.Kind {
		case Exact:
			is = s == got.Value
		case Prefix:
			is = strings.HasPrefix(s, got.Value)
		case Present:
			is = true
		case Regex:
			is = want
		}
		if is != want {
			t.Fatalf("%q is %v: %q matches %v, was %v", pattern, got, s, is, want)
		}
	})
}
