// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"maps"
	"regexp/syntax"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// sample is a string that satisfies a match.
func sample(m model.StringMatch) string {
	switch m.Kind {
	case model.Regex:
		return ofRegex(m.Value)
	case model.Template:
		return strings.NewReplacer("{**}", "x/y", "{*}", "x").Replace(m.Value)
	case model.Present:
		return "x"
	case model.Suffix:
		return "x" + m.Value
	}
	return m.Value
}

// ofRegex is a string that an expression matches; "" if none is found.
func ofRegex(expr string) string {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return ""
	}
	return ofSyntax(re.Simplify())
}

// moreOfRegex are others: with each alternative, and with what is repeated once more.
func moreOfRegex(expr string) []string {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil
	}
	var out []string
	for _, v := range variants(re) {
		out = append(out, ofSyntax(v))
	}
	return out
}

// variants are expressions for some of what one takes, each with one part of it chosen
// otherwise than ofSyntax does.
func variants(re *syntax.Regexp) []*syntax.Regexp {
	var out []*syntax.Regexp
	with := func(i int, sub *syntax.Regexp) {
		c := *re
		c.Sub = slices.Clone(re.Sub)
		c.Sub[i] = sub
		out = append(out, &c)
	}
	concat := func(subs ...*syntax.Regexp) *syntax.Regexp {
		return &syntax.Regexp{Op: syntax.OpConcat, Sub: subs}
	}
	switch re.Op {
	case syntax.OpAlternate:
		out = append(out, re.Sub[1:]...)
	case syntax.OpPlus:
		out = append(out, concat(re.Sub[0], re.Sub[0]))
	case syntax.OpStar:
		out = append(out, re.Sub[0], concat(re.Sub[0], re.Sub[0]), concat())
	case syntax.OpQuest:
		out = append(out, concat())
	case syntax.OpRepeat:
		if re.Max < 0 || re.Max > max(1, re.Min) {
			out = append(out, concat(slices.Repeat([]*syntax.Regexp{re.Sub[0]}, max(1, re.Min)+1)...))
		}
		return out
	}
	for i, sub := range re.Sub {
		for _, v := range variants(sub) {
			if re.Op == syntax.OpConcat || re.Op == syntax.OpCapture {
				with(i, v)
			} else {
				out = append(out, v)
			}
		}
	}
	return out
}

func ofSyntax(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 { // a printable one, if there is any
			for c := max(re.Rune[i], '0'); c <= min(re.Rune[i+1], 'z'); c++ {
				if c >= '0' && c <= '9' || c >= 'a' {
					return string(c)
				}
			}
		}
		if len(re.Rune) > 0 {
			return string(re.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "x"
	case syntax.OpCapture, syntax.OpPlus, syntax.OpQuest:
		return ofSyntax(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(ofSyntax(re.Sub[0]), max(1, re.Min))
	case syntax.OpStar:
		if re.Sub[0].Op == syntax.OpAnyChar || re.Sub[0].Op == syntax.OpAnyCharNotNL {
			return "x"
		}
	case syntax.OpConcat:
		out := ""
		for _, s := range re.Sub {
			out += ofSyntax(s)
		}
		return out
	case syntax.OpAlternate:
		return ofSyntax(re.Sub[0])
	}
	return ""
}

// pairs is how many prefixes and ends are put together at most.
const pairs = 1000

// samples are strings that satisfy matches, alone or several at once, or nearly do.
func samples(in ...model.StringMatch) []string {
	var out, begins, ends []string
	for _, m := range in {
		s := sample(m)
		out = append(out, s)
		switch m.Kind {
		case model.Prefix, model.Segments:
			base := strings.TrimSuffix(s, "/")
			out = append(out, base, base+"x", base+"/x", base+"/")
			begins = append(begins, s)
		case model.Suffix:
			ends = append(ends, m.Value)
		case model.Template:
			out = append(out, strings.NewReplacer("{**}", "", "{*}", "x").Replace(m.Value), strings.NewReplacer("{**}", "x/y", "{*}", "x/y").Replace(m.Value))
		case model.Regex:
			out = append(out, moreOfRegex(m.Value)...)
			ends = append(ends, s)
		}
		out = append(out, s+"/", s+"/x", s+"x", "x"+s)
		if m.IgnoreCase {
			out = append(out, strings.ToUpper(s))
		}
	}
	for i := range min(pairs, len(begins)*len(ends)) {
		out = append(out, begins[i/len(ends)]+ends[i%len(ends)])
	}
	return out
}

// sets makes each of some strings a request's, by set.
func sets(values []string, set func(q *plan.Request, value string)) []func(*plan.Request) {
	var out []func(*plan.Request)
	for _, v := range values {
		out = append(out, func(q *plan.Request) { set(q, v) })
	}
	return out
}

// settings are what one thing about a request may be that matches of it tell apart; on is
// as conditions have it.
func settings(on string, in []model.StringMatch) []func(*plan.Request) {
	values := samples(in...)
	kind, name, _ := strings.Cut(on, " ")
	switch kind {
	case "path":
		for i, p := range values {
			if !strings.HasPrefix(p, "/") {
				values[i] = "/" + p
			}
		}
		return sets(append(values, "/other/path"), func(q *plan.Request, v string) { q.Path, q.Query, _ = strings.Cut(v, "?") })
	case "method":
		usual := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"} // first: they are shown
		return sets(slices.Concat(usual, values, []string{"OTHER"}), func(q *plan.Request, v string) { q.Method = v })
	case "scheme":
		return sets(append(values, "https"), func(q *plan.Request, v string) { q.Scheme = v })
	case "authority":
		for _, h := range values {
			values = append(values, h+":80")
		}
		values = slices.DeleteFunc(values, func(h string) bool { return strings.Contains(h, "/") })
		return sets(append(values, "other.example"), func(q *plan.Request, v string) { q.Authority = v })
	case "server-name":
		return sets(append(values, "other.example"), func(q *plan.Request, v string) { q.Authority = v })
	case "header":
		return sets(append(values, ""), func(q *plan.Request, v string) {
			q.Headers = append(q.Headers, model.Header{Name: name, Value: v})
		})
	case "parameter":
		return sets(append(values, ""), func(q *plan.Request, v string) {
			q.Query = strings.TrimPrefix(q.Query+"&"+name+"="+v, "&")
		})
	case "namespace":
		return sets(exactly(in), func(q *plan.Request, v string) { q.Client.Identity = model.SPIFFE("example", v, "default") })
	}
	return sets(exactly(in), func(q *plan.Request, v string) {
		labels := map[string]string{name: v}
		maps.Copy(labels, q.Client.Labels)
		q.Client.Labels = labels
	})
}

func exactly(in []model.StringMatch) []string {
	out := make([]string, len(in))
	for i := range in {
		out[i] = in[i].Value
	}
	return out
}

// example writes a request for people.
func example(q *plan.Request) string {
	s := q.Method + " " + q.Path
	if q.Query != "" {
		s += "?" + q.Query
	}
	if q.Authority != "" {
		s += " host=" + q.Authority
	}
	if q.Scheme != "http" {
		s += " scheme=" + q.Scheme
	}
	for _, h := range q.Headers {
		s += " " + h.Name + ":" + h.Value
	}
	return s
}
