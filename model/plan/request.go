// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// Request is one request as the proxy sees it, for those who want to know what becomes
// of it without sending it.
type Request struct {
	Method    string
	Scheme    string // "http" or "https"
	Authority string // as sent
	Path      string // normalised, without the query
	Query     string // without "?"
	// Headers in the order in which they are sent; lower-case names.
	Headers []model.Header
	Client  Client
}

// Client is who sends a request.
type Client struct {
	Identity string // SPIFFE id; "": none is known
	Member   bool   // of a mesh
	Addr     netip.Addr
	Labels   map[string]string // of its pod
}

// Header returns the header's value, several joined by commas as Envoy compares them,
// and whether it is there. Pseudo headers are there too.
func (q *Request) Header(name string) (string, bool) {
	switch name {
	case ":method":
		return q.Method, true
	case ":scheme":
		return q.Scheme, true
	case ":authority", "host":
		return q.Authority, true
	case ":path":
		if q.Query != "" {
			return q.Path + "?" + q.Query, true
		}
		return q.Path, true
	}
	var values []string
	for _, h := range q.Headers {
		if h.Name == name {
			values = append(values, h.Value)
		}
	}
	return strings.Join(values, ","), len(values) > 0
}

// MatchesRequest reports whether a route's match takes the request.
func MatchesRequest(m model.RouteMatch, q *Request) bool {
	if m.Path != nil && !Matches(*m.Path, q.Path) {
		return false
	}
	for want, have := range map[*model.StringMatch]string{m.Method: q.Method, m.Scheme: q.Scheme, m.Authority: q.Authority} {
		if want != nil && !Matches(*want, have) {
			return false
		}
	}
	for _, h := range m.Headers {
		value, there := q.Header(h.Name)
		if !named(h, value, there) {
			return false
		}
	}
	for _, p := range m.Query {
		value, there := queryValue(q.Query, p.Name)
		if !named(p, value, there) {
			return false
		}
	}
	return (m.SourceNamespace == "" || identityNamespace(q.Client.Identity) == m.SourceNamespace) && hasLabels(q.Client.Labels, m.SourceLabels)
}

// Takes reports whether the route takes the request. The tables are those of the node
// that the client is on.
func (r *Route) Takes(t interface{ Get(incr.Table, string) any }, q *Request) bool {
	m := r.Match
	if r.SourceSelects != "" {
		if m.SourceLabels, _ = t.Get(predicates, r.SourceSelects).(map[string]string); m.SourceLabels == nil {
			return false
		}
	}
	return MatchesRequest(m, q)
}

// named compares a header or parameter; see model.NamedMatch.
func named(m model.NamedMatch, value string, there bool) bool {
	if !there && m.MissingEmpty {
		there = m.Match.Kind != model.Present
	}
	if !there {
		return m.Not && m.Match.Kind == model.Present
	}
	return Matches(m.Match, value) != m.Not
}

// queryValue is the first value of a parameter, as it is written.
func queryValue(query, name string) (string, bool) {
	for p := range strings.SplitSeq(query, "&") {
		if k, v, _ := strings.Cut(p, "="); k == name {
			return v, true
		}
	}
	return "", false
}

// Decision is what a policy says about a request.
type Decision struct {
	Denied bool
	// Rule is the Deny that matched, or an Allow that did; nil if no Allow did, or none
	// is asked for.
	Rule *model.AuthRule
}

// AmbiguousPath is a regular expression, for all of a path, of those that servers read
// differently: with dot segments, empty ones, backslashes, a fragment, or some of that
// escaped. Requests have no such path when they come, as it is normalised or refused then;
// routes can give them one.
const AmbiguousPath = `(?i:[^?]*(//|\\|#|%2f|%5c|/(\.|%2e){1,2}[/;?]).*|[^?]*/(\.|%2e){1,2})`

var ambiguousPath = regexp.MustCompile("^(?:" + AmbiguousPath + ")$")

// AsksForPath reports whether some rule is about the path of a request. Such a policy
// refuses what has an ambiguous one.
func (p *Policy) AsksForPath() bool {
	const header = ":path"
	about := func(r model.AuthRule) bool {
		return slices.ContainsFunc(r.To, func(o model.Operation) bool {
			return len(o.Paths)+len(o.NotPaths) > 0 || slices.ContainsFunc(o.Headers, func(m model.NamedMatch) bool { return m.Name == header })
		}) || slices.ContainsFunc(r.When, func(c model.Condition) bool { return c.Kind == model.OnHeader && c.Name == header })
	}
	return slices.ContainsFunc(p.Deny, about) || slices.ContainsFunc(p.Allow, func(group []model.AuthRule) bool { return slices.ContainsFunc(group, about) })
}

// Judge says whether a request passes; nil judges nothing. The rules of a Policy are
// about one port.
func (p *Policy) Judge(q *Request) Decision {
	if p == nil {
		return Decision{}
	}
	if p.AsksForPath() && ambiguousPath.MatchString(q.Path) {
		return Decision{Denied: true}
	}
	for i := range p.Deny {
		if ruleMatches(p.Deny[i], q) {
			return Decision{Denied: true, Rule: &p.Deny[i]}
		}
	}
	var by *model.AuthRule
	for _, group := range p.Allow {
		i := slices.IndexFunc(group, func(r model.AuthRule) bool { return ruleMatches(r, q) })
		if i < 0 {
			return Decision{Denied: true}
		}
		if by == nil {
			by = &group[i]
		}
	}
	return Decision{Rule: by}
}

func ruleMatches(r model.AuthRule, q *Request) bool {
	return (len(r.From) == 0 || slices.ContainsFunc(r.From, func(p model.Peer) bool { return peerMatches(p, q) })) &&
		(len(r.To) == 0 || slices.ContainsFunc(r.To, func(o model.Operation) bool { return operationMatches(o, q) })) &&
		!slices.ContainsFunc(r.When, func(c model.Condition) bool { return !conditionHolds(c, q) })
}

// oneOf reports whether one of in matches, if there are any, and none of out.
func oneOf[T any](in, out []T, matches func(T) bool) bool {
	return (len(in) == 0 || slices.ContainsFunc(in, matches)) && !slices.ContainsFunc(out, matches)
}

func peerMatches(p model.Peer, q *Request) bool {
	return oneOf(p.Identities, p.NotIdentities, q.hasIdentity) && oneOf(p.IPs, p.NotIPs, q.isIn)
}

func (q *Request) hasIdentity(m model.StringMatch) bool {
	return MatchesIdentity(m, q.Client.Identity, q.Client.Member)
}

func (q *Request) isIn(p netip.Prefix) bool { return p.Contains(q.Client.Addr.Unmap()) }

func operationMatches(o model.Operation, q *Request) bool {
	is := func(s string, fold bool) func(model.StringMatch) bool {
		return func(m model.StringMatch) bool {
			m.IgnoreCase = m.IgnoreCase || fold
			return Matches(m, s)
		}
	}
	return oneOf(o.Hosts, o.NotHosts, is(q.Authority, true)) && oneOf(o.Methods, o.NotMethods, is(q.Method, false)) &&
		oneOf(o.Paths, o.NotPaths, is(q.Path, false)) &&
		!slices.ContainsFunc(o.Headers, func(m model.NamedMatch) bool {
			value, there := q.Header(m.Name)
			return !named(m, value, there)
		})
}

func conditionHolds(c model.Condition, q *Request) bool {
	switch c.Kind {
	case model.OnIdentity:
		return oneOf(c.Values, c.NotValues, q.hasIdentity)
	case model.OnSourceIP:
		return oneOf(c.Prefixes, c.NotPrefixes, q.isIn)
	case model.OnHeader:
		value, there := q.Header(c.Name)
		return oneOf(c.Values, c.NotValues, func(m model.StringMatch) bool { return there && Matches(m, value) })
	case model.OnSNI:
		return oneOf(c.Values, c.NotValues, func(m model.StringMatch) bool { return Matches(m, "") })
	}
	return false // resolved before: none is left in a Policy
}

// Verdict judges what a class of sources sends to a port of a workload: what its node's
// kernel does with it. The rule is 0 if no rule decided. nil governs nothing.
func (g *Governed) Verdict(c *Class, port uint16, proto model.Protocol) (Action, uint64) {
	if g == nil || g.ID == 0 {
		return Allow, 0
	}
	for _, p := range g.Ports {
		if p.Port == port {
			return g.verdictAt(c, p, proto)
		}
	}
	return g.verdict(c, port, proto, false)
}

// InboundRoutes are what the inbound listener has for requests to a port; see Inbound.
func (g *Governed) InboundRoutes(w *model.Workload, port uint16) []Route {
	for _, p := range g.Ports {
		if p.Port == port {
			return g.inboundRoutes(w, p)
		}
	}
	return nil
}
