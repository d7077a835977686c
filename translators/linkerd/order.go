// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/gatewayapi"
)

// candidate is a match of a rule, for one of its route's hosts.
type candidate struct {
	gatewayapi.Match
	host string // exact or "*.suffix"; "" is any
	rule int    // whose match it is
	grpc bool
	// whole asks for the prefix "/" to be written out, for what replaces it.
	whole bool
	// place is where it came in, and takes whether it matches a path: both are set by
	// orderOfHost.
	place int
	takes func(path string) bool
}

// placed is a match in the place where the first that matches is the best.
type placed struct {
	match model.RouteMatch
	rule  int
	field string
}

// order puts matches, which come in the order of their routes and rules, so that the
// first that takes a request is the one that Linkerd takes: of all that match, the one
// with the most specific host; then that which matches the most characters of the path;
// then one with a method, with more headers, with more parameters; then the first.
//
// An exact path and a regular expression match all characters of the path, so they are
// before any prefix that is shorter than the path. A prefix that is the whole path ties
// with them: where that can happen, it is among them as an exact path, too.
//
// Source: linkerd2-proxy, linkerd/http/route, Match::cmp of http and grpc.
func order(in []candidate) []placed {
	hosts := map[string][]candidate{}
	var names []string
	for _, c := range in {
		if c.Broken {
			continue
		}
		if hosts[c.host] == nil {
			names = append(names, c.host)
		}
		hosts[c.host] = append(hosts[c.host], c)
	}
	slices.SortFunc(names, compareHosts)
	var out []placed
	for _, h := range names {
		for _, c := range orderOfHost(hosts[h]) {
			out = append(out, placed{c.routeMatch(), c.rule, c.Field})
		}
	}
	return out
}

// compareHosts puts exact hosts first, then suffixes, the longer first, then any. No two
// of one rank can be those of one request, so their order has no meaning.
func compareHosts(a, b string) int {
	rank := func(h string) int {
		switch {
		case h == "":
			return 2
		case strings.HasPrefix(h, "*."):
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
}

func orderOfHost(in []candidate) []candidate {
	var full, prefixes []candidate
	for i, c := range in {
		c.place = i
		if c.Prefix != "" && !c.grpc {
			prefixes = append(prefixes, c)
		} else {
			c.takes = pathMatcher(c.Path)
			full = append(full, c)
		}
	}
	exact := slices.Clone(full)
	for _, p := range prefixes {
		if slices.ContainsFunc(full, func(c candidate) bool { return compareRest(p, c) <= 0 && c.takes(p.Prefix) }) {
			exact = append(exact, p.asExact())
		}
	}
	// What ties is in the order in which it came, copies of prefixes too.
	slices.SortStableFunc(exact, func(a, b candidate) int {
		return cmp.Or(compareGRPC(a, b), compareRest(a, b), cmp.Compare(a.place, b.place))
	})
	slices.SortStableFunc(prefixes, func(a, b candidate) int { return cmp.Or(cmp.Compare(len(b.Prefix), len(a.Prefix)), compareRest(a, b)) })
	return append(exact, prefixes...)
}

// compareRest compares all but paths.
func compareRest(a, b candidate) int {
	if a.grpc {
		return cmp.Compare(b.Rank.Headers, a.Rank.Headers)
	}
	return cmp.Or(cmp.Compare(b.Rank.Method, a.Rank.Method), cmp.Compare(b.Rank.Headers, a.Rank.Headers), cmp.Compare(b.Rank.Query, a.Rank.Query))
}

// compareGRPC compares the characters of service and method.
func compareGRPC(a, b candidate) int {
	if !a.grpc {
		return 0
	}
	return cmp.Or(cmp.Compare(b.Rank.Path, a.Rank.Path), cmp.Compare(b.Rank.Method, a.Rank.Method))
}

// pathMatcher reports whether a match of a whole path takes a path.
func pathMatcher(p *model.StringMatch) func(string) bool {
	switch {
	case p == nil:
		return func(string) bool { return true } // an expression that any path satisfies
	case p.Kind == model.Regex:
		re, err := regexp.Compile("^(?:" + p.Value + ")$")
		return func(path string) bool { return err == nil && re.MatchString(path) }
	case p.Kind == model.Prefix: // a simple expression
		return func(path string) bool { return strings.HasPrefix(path, p.Value) }
	}
	return func(path string) bool { return path == p.Value }
}

// asExact is a prefix where it is the whole path.
func (c candidate) asExact() candidate {
	c.Path = &model.StringMatch{Kind: model.Exact, Value: c.Prefix}
	c.whole = false
	return c
}

// routeMatch is the match for the candidate's host.
func (c candidate) routeMatch() model.RouteMatch {
	m := c.RouteMatch
	if c.whole {
		m = c.Whole()
	}
	if c.host == "" {
		return m
	}
	if m.Authority != nil { // asked for as a header, too
		m.Headers = model.SortContent(append(slices.Clone(m.Headers), model.NamedMatch{Name: ":authority", Match: *m.Authority}))
	}
	m.Authority = authority(c.host)
	return m
}

// authority matches a host, with whatever port, as requests name it.
func authority(host string) *model.StringMatch {
	expression := regexp.QuoteMeta(host)
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		expression = ".+" + regexp.QuoteMeta(suffix)
	}
	if !strings.HasSuffix(host, ".") {
		expression += `\.?`
	}
	return &model.StringMatch{Kind: model.Regex, Value: "(?i)" + expression + "(:[0-9]+)?"}
}
