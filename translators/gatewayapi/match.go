// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// Match is one match of a rule.
type Match struct {
	model.RouteMatch
	// Prefix is the path prefix that is matched, without trailing slash but for "/"; ""
	// if the match is none of a prefix. RouteMatch has no path if it is "/".
	Prefix string
	Rank   Rank
	Field  string // spec.rules[0].matches[1], or the rule where the match is its default
	// Broken says that an expression cannot be read, or a name or path is none, so that
	// nothing matches. Validate says why.
	Broken bool
}

// Whole is the match with the prefix "/" written out, for routes that replace it.
func (m Match) Whole() model.RouteMatch {
	out := m.RouteMatch
	if m.Prefix == "/" {
		out.Path = &model.StringMatch{Kind: model.Segments, Value: "/"}
	}
	return out
}

// Rank is how specific a match is as the Gateway API sees it, from the first field to
// the last; more comes first. The API leaves open where regular expressions are: here
// behind exact paths and before prefixes, the longer first, because a prefix is often
// the catch-all that stands in for no path at all.
type Rank struct {
	Exact, Regex bool
	Path         int // characters of the path, of a gRPC service
	Method       int // whether there is one, or characters of a gRPC method
	Headers      int
	Query        int
}

// Compare orders ranks, the more specific first.
func (a Rank) Compare(b Rank) int {
	return cmp.Or(first(a.Exact, b.Exact), first(a.Regex, b.Regex), cmp.Compare(b.Path, a.Path), cmp.Compare(b.Method, a.Method),
		cmp.Compare(b.Headers, a.Headers), cmp.Compare(b.Query, a.Query))
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func httpMatch(field string, in gatewayv1.HTTPRouteMatch) Match {
	out := Match{Field: field}
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if in.Path != nil {
		kind, value = gatewayv1.PathMatchType(given(in.Path.Type, string(kind))), given(in.Path.Value, value)
	}
	switch kind {
	case gatewayv1.PathMatchExact:
		out.Broken = !isPath(value)
		out.Rank.Exact, out.Rank.Path = true, len(value)
		out.Path = &model.StringMatch{Kind: model.Exact, Value: value}
	case gatewayv1.PathMatchRegularExpression:
		out.Rank.Regex, out.Rank.Path = true, len(value)
		m, err := model.NormalizeRegex(value)
		out.Broken = err != nil
		if m.Kind != model.Present { // every path
			out.Path = &m
		}
	default:
		out.Broken = !isPath(value)
		out.Prefix = cmp.Or(strings.TrimRight(value, "/"), "/")
		out.Rank.Path = len(out.Prefix)
		if out.Prefix != "/" {
			out.Path = &model.StringMatch{Kind: model.Segments, Value: out.Prefix}
		}
	}
	if in.Method != nil {
		out.Rank.Method = 1
		out.Method = &model.StringMatch{Kind: model.Exact, Value: string(*in.Method)}
	}
	for _, h := range in.Headers {
		out.header(string(h.Name), given(h.Type, ""), h.Value)
	}
	for _, q := range in.QueryParams {
		if slices.ContainsFunc(out.RouteMatch.Query, func(m model.NamedMatch) bool { return m.Name == string(q.Name) }) {
			continue // as the API says
		}
		out.Broken = out.Broken || !headerName.MatchString(string(q.Name))
		out.RouteMatch.Query = append(out.RouteMatch.Query, model.NamedMatch{Name: string(q.Name), Match: out.compare(given(q.Type, ""), q.Value)})
	}
	out.count()
	return out
}

// isPath reports whether a text can be compared with a path.
func isPath(s string) bool { return strings.HasPrefix(s, "/") && pathText.MatchString(s) }

func grpcMatch(field string, in gatewayv1.GRPCRouteMatch) Match {
	out := Match{Field: field}
	if m := in.Method; m != nil {
		service, method := given(m.Service, ""), given(m.Method, "")
		out.Rank.Path, out.Rank.Method = len(service), len(method)
		if given(m.Type, "") == string(gatewayv1.GRPCMethodMatchRegularExpression) {
			out.grpcPath(group(service), group(method))
		} else {
			out.grpcPath(regexp.QuoteMeta(service), regexp.QuoteMeta(method))
		}
	}
	for _, h := range in.Headers {
		out.header(string(h.Name), given(h.Type, ""), h.Value)
	}
	out.count()
	return out
}

// segment is any service or method.
const segment = "[^/]+"

func group(expression string) string {
	if expression == "" {
		return ""
	}
	return "(?:" + expression + ")"
}

// grpcPath matches the path of the expressions; an empty one is any.
func (m *Match) grpcPath(service, method string) {
	switch {
	case service == "" && method == "":
		return
	case method == "":
		method = ".*" // a prefix, if the service is a literal
	case service == "":
		service = segment
	}
	path, err := model.NormalizeRegex("/" + service + "/" + method)
	if err != nil {
		m.Broken = true
	}
	m.Path = &path
}

// header adds a condition on a header. Of several on one header the first counts, as
// the API says. The header host is the authority.
func (m *Match) header(name, kind, value string) {
	m.Broken = m.Broken || !headerName.MatchString(name)
	name = strings.ToLower(name)
	match := m.compare(kind, value)
	if name == "host" {
		if m.Authority == nil {
			match.IgnoreCase = match.Kind != model.Present && match.Kind != model.Regex
			m.Authority = &match
		}
		return
	}
	if !slices.ContainsFunc(m.RouteMatch.Headers, func(h model.NamedMatch) bool { return h.Name == name }) {
		m.RouteMatch.Headers = append(m.RouteMatch.Headers, model.NamedMatch{Name: name, Match: match})
	}
}

// compare reads a value that is compared by a type, of headers, parameters or methods;
// the types have one spelling.
func (m *Match) compare(kind, value string) model.StringMatch {
	if kind != string(gatewayv1.HeaderMatchRegularExpression) {
		return model.StringMatch{Kind: model.Exact, Value: value}
	}
	match, err := model.NormalizeRegex(value)
	m.Broken = m.Broken || err != nil
	return match
}

// count ranks what was gathered, and puts it in the order of its content.
func (m *Match) count() {
	m.Rank.Headers = len(m.RouteMatch.Headers)
	if m.Authority != nil {
		m.Rank.Headers++
	}
	m.Rank.Query = len(m.RouteMatch.Query)
	m.RouteMatch.Headers = model.SortContent(m.RouteMatch.Headers)
	m.RouteMatch.Query = model.SortContent(m.RouteMatch.Query)
}
