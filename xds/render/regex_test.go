// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

func pathRegex(expr string, ignoreCase bool) error {
	_, err := render.RouteTable(table(func(r *plan.Route) {
		r.Match.Path = &model.StringMatch{Kind: model.Regex, Value: expr, IgnoreCase: ignoreCase}
	}))
	return err
}

// TestRegexes: what Go's engine takes and Envoy's does not, or takes for something
// else, is refused; the proxy's tests try the others on Envoy.
func TestRegexes(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`(`, "missing closing"},
		{`\C`, "invalid escape"},
		{`a**`, "invalid nested"},
		{`x{1001}`, "repeat"},
		{`\p{Letter}`, `"Letter"`},
		{`\p{lu}`, `"lu"`},
		{`\P{Cn}`, `"Cn"`},
		{`[\pL\p{ASCII}]`, `"ASCII"`},
		{`\x{100}`, "ASCII"},
		{`[\xe9]`, "ASCII"},
		{`\351`, "ASCII"},
		{`[é]`, "several bytes"},
		{`[]é]`, "several bytes"},
		{`[^]é]`, "several bytes"},
		{`[[:alpha:]é]`, "several bytes"},
		{`é+`, "several bytes"},
		{`é{2}`, "several bytes"},
		{`(?i)café`, "several bytes"},
		{`((((.{30}){30}){30}){30})`, "repeat"},
		{strings.Repeat(`\w{1000}`, 10), "too large"},
		{strings.Repeat("a", 20000), "too large"},
	} {
		check(t, pathRegex(c.expr, false), "shop/web:80", "path", c.want)
	}
	check(t, pathRegex("/café", true), "several bytes")
	list, err := os.ReadFile("testdata/regexes.txt")
	if err != nil {
		t.Fatal(err)
	}
	for expr := range strings.Lines(string(list)) {
		expr = strings.TrimSuffix(expr, "\n")
		if err := pathRegex(expr, false); err != nil {
			t.Error(err)
		}
	}
	if err := pathRegex("/cafe", true); err != nil {
		t.Error(err)
	}
}

func TestSubstitutions(t *testing.T) {
	rewrite := func(text string) error {
		_, err := render.RouteTable(table(func(r *plan.Route) {
			r.Rewrite = &model.Rewrite{PathRegex: &model.RegexEdit{Match: "^/(a)/(b)", Replacement: text}}
		}))
		return err
	}
	for _, text := range []string{"", "/x", `/\2/\1/\0`, `\\`} {
		if err := rewrite(text); err != nil {
			t.Error(err)
		}
	}
	for text, want := range map[string]string{`/\3`: "no group 3", `/\`: "ends with", `/\n`: "means nothing"} {
		check(t, rewrite(text), "shop/web:80", "rewrite", want)
	}
}

// TestTemplates: Envoy aborts at a template that breaks its rules.
func TestTemplates(t *testing.T) {
	path := func(s string) error {
		_, err := render.Cluster(&plan.Cluster{Name: "c1", App: model.AppHTTP, Policy: &plan.Policy{
			Deny: []model.AuthRule{{To: []model.Operation{{Paths: []model.StringMatch{match(model.Template, s)}}}}},
		}})
		return err
	}
	for _, s := range []string{"/", "/{*}", "/{**}", "/a/{*}/b/{*}", "/a/{*}/b/{**}", "/a/{**}/b", "/a/", "/a%20b/{*}"} {
		if err := path(s); err != nil {
			t.Error(err)
		}
	}
	for s, want := range map[string]string{
		"":                                 "slash",
		"a/{*}":                            "slash",
		"/{**}/{*}":                        "after {**}",
		"/{**}/{**}":                       "after {**}",
		"/a{*}":                            "braces or *",
		"/{*}a/b":                          "braces or *",
		"/{a}/b":                           "braces or *",
		"/*/b":                             "braces or *",
		"/{/b":                             "braces or *",
		"//{*}":                            "empty segment",
		"/a//{*}":                          "empty segment",
		"/a b/{*}":                         "character",
		"/é/{*}":                           "character",
		"/" + strings.Repeat("a", 260):     "longer",
		"/{*}/" + strings.Repeat("a", 260): "longer",
	} {
		check(t, path(s), "c1", "path template", want)
	}
}

func FuzzRegex(f *testing.F) {
	for _, expr := range []string{`[]a\]\x41é]`, `\Qa\E\p{Lu}\pL\101\x{7f}`, `(?i)[^]é]{2}`, `\Q\`, `[[:alpha:]\d]`} {
		f.Add(expr)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		// Whatever it is, there is an answer; and what is plain text is itself.
		err := pathRegex(expr, false)
		if plain := regexp.QuoteMeta(expr); err != nil && expr != "" && utf8.ValidString(expr) && len(expr) < 1000 {
			if err := pathRegex(plain, false); err != nil {
				t.Errorf("%q: %v", plain, err)
			}
		}
	})
}
