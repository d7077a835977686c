// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"regexp/syntax"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// sample is a string that satisfies a match, and others gives strings near to it that
// may not.
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

// paths are those that a match and its neighbours tell apart.
func paths(m *model.StringMatch) []string {
	if m == nil {
		return []string{"/"}
	}
	s := sample(*m)
	out := []string{s}
	switch m.Kind {
	case model.Prefix, model.Segments:
		base := strings.TrimSuffix(s, "/")
		out = append(out, base, base+"x", base+"/x", base+"/")
	case model.Exact, model.Regex, model.Template:
		out = append(out, s+"/", s+"/x", s+"x")
	}
	if m.IgnoreCase {
		out = append(out, strings.ToUpper(s))
	}
	return slices.DeleteFunc(out, func(p string) bool { return !strings.HasPrefix(p, "/") })
}

// requests are those that a route's match tells apart from others: what it takes, and
// what it misses by one condition.
func requests(m model.RouteMatch) []plan.Request {
	base := plan.Request{Method: "GET", Scheme: "http", Path: "/"}
	if m.Method != nil {
		base.Method = sample(*m.Method)
	}
	if m.Scheme != nil {
		base.Scheme = sample(*m.Scheme)
	}
	if m.Authority != nil {
		base.Authority = sample(*m.Authority)
	}
	for _, h := range m.Headers {
		if v, ok := value(h); ok {
			base.Headers = append(base.Headers, model.Header{Name: h.Name, Value: v})
		}
	}
	for _, p := range m.Query {
		if v, ok := value(p); ok {
			base.Query = strings.TrimPrefix(base.Query+"&"+p.Name+"="+v, "&")
		}
	}
	var out []plan.Request
	for _, p := range paths(m.Path) {
		q := base
		q.Path = p
		out = append(out, q)
	}
	full := out[0]
	for i := range full.Headers {
		q := full
		q.Headers = slices.Delete(slices.Clone(full.Headers), i, i+1)
		out = append(out, q)
		q.Headers = slices.Clone(full.Headers)
		q.Headers[i].Value += "x"
		out = append(out, q)
	}
	for _, h := range m.Headers {
		if h.Not {
			q := full
			q.Headers = append(slices.Clone(full.Headers), model.Header{Name: h.Name, Value: sample(h.Match)})
			out = append(out, q)
		}
	}
	if full.Query != "" {
		q := full
		q.Query = ""
		out = append(out, q)
	}
	if m.Method != nil {
		for _, other := range []string{"GET", "POST", "DELETE"} {
			q := full
			q.Method = other
			out = append(out, q)
		}
	}
	return out
}

// value is what a header or parameter has to be; false: it has to be left out.
func value(m model.NamedMatch) (string, bool) {
	switch {
	case m.Not && m.Match.Kind == model.Present:
		return "", false
	case m.Not && m.MissingEmpty:
		return "", false
	case m.Not:
		return sample(m.Match) + "-not", true
	}
	return sample(m.Match), true
}

// ofOperation are requests that an operation of a policy tells apart.
func ofOperation(o model.Operation) []plan.Request {
	first := func(in []model.StringMatch) *model.StringMatch {
		if len(in) == 0 {
			return nil
		}
		return &in[0]
	}
	m := model.RouteMatch{Method: first(o.Methods), Authority: first(o.Hosts), Headers: o.Headers}
	var out []plan.Request
	all := slices.Concat(o.Paths, o.NotPaths)
	if len(all) == 0 {
		out = requests(m)
	}
	for i := range all {
		m.Path = &all[i]
		out = append(out, requests(m)...)
	}
	for _, more := range slices.Concat(o.Methods, o.NotMethods) {
		for _, q := range out[:min(len(out), 1)] {
			q.Method = sample(more)
			out = append(out, q)
		}
	}
	for _, more := range slices.Concat(o.Hosts, o.NotHosts) {
		for _, q := range out[:min(len(out), 1)] {
			q.Authority = sample(more)
			out = append(out, q)
		}
	}
	return out
}

// ofRules are requests that rules tell apart.
func ofRules(rules []model.AuthRule) []plan.Request {
	var out []plan.Request
	for _, r := range rules {
		for _, o := range r.To {
			out = append(out, ofOperation(o)...)
		}
		for _, c := range r.When {
			if c.Kind != model.OnHeader {
				continue
			}
			for _, v := range slices.Concat(c.Values, c.NotValues) {
				out = append(out, plan.Request{Method: "GET", Scheme: "http", Path: "/", Headers: []model.Header{{Name: c.Name, Value: sample(v)}}})
			}
		}
	}
	return out
}

// distinct drops repeats; the plainest request, which no match is about, comes last.
func distinct(in []plan.Request) []plan.Request {
	in = append(in, plan.Request{Method: "GET", Scheme: "http", Path: "/"}, plan.Request{Method: "POST", Scheme: "http", Path: "/other/path"})
	seen := map[string]bool{}
	var out []plan.Request
	for _, q := range in {
		if k := model.Hash(q); !seen[k] {
			seen[k] = true
			out = append(out, q)
		}
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
