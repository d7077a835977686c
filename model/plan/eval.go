// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
)

// truth is what is known of a rule before a request is seen.
type truth int

const (
	no truth = iota
	depends
	yes
)

func both(a, b truth) truth   { return min(a, b) }
func either(a, b truth) truth { return max(a, b) }

func known(b bool) truth {
	if b {
		return yes
	}
	return no
}

// question is what a rule is asked about: a class of sources at a port.
type question struct {
	class *Class
	port  uint16         // 0 = a port that no rule names
	proto model.Protocol // "" = either, with port 0
	http  bool           // requests can be seen
	deny  bool           // the rule is a Deny
}

// unseen is the value of a request condition: it depends on the request where
// requests can be seen; elsewhere it holds in a Deny and fails in an Allow, so that
// both refuse.
func (q question) unseen() truth {
	if q.http {
		return depends
	}
	return known(q.deny)
}

func (q question) rule(r model.AuthRule) truth {
	t := yes
	if len(r.From) > 0 {
		from := no
		for _, p := range r.From {
			from = either(from, known(q.peer(p)))
		}
		t = both(t, from)
	}
	if len(r.To) > 0 {
		to := no
		for _, o := range r.To {
			to = either(to, q.operation(o))
		}
		t = both(t, to)
	}
	for _, c := range r.When {
		t = both(t, q.condition(c))
	}
	return t
}

func (q question) peer(p model.Peer) bool {
	return q.identity(p.Identities, p.NotIdentities) && q.prefixes(p.IPs, p.NotIPs)
}

func (q question) identity(in, out []model.StringMatch) bool {
	is := func(m model.StringMatch) bool { return MatchesIdentity(m, q.class.Identity, q.class.Member) }
	return oneOf(in, out, is)
}

func (q question) prefixes(in, out []netip.Prefix) bool {
	inside := func(p netip.Prefix) bool { return slices.Contains(q.class.Prefixes, p) }
	return (len(in) == 0 || slices.ContainsFunc(in, inside)) && !slices.ContainsFunc(out, inside)
}

func (q question) ports(in, out []uint16) bool {
	return (len(in) == 0 || slices.Contains(in, q.port)) && !slices.Contains(out, q.port)
}

func (q question) operation(o model.Operation) truth {
	if !q.ports(o.Ports, o.NotPorts) || !q.transport(o.Protocol) {
		return no
	}
	if needsRequest(o) {
		return q.unseen()
	}
	return yes
}

// transport judges a restriction to one transport. Where the question is about
// either, it holds in a Deny and fails in an Allow, so that both refuse.
func (q question) transport(p model.Protocol) bool {
	return p == "" || p == q.proto || (q.proto == "" && q.deny)
}

func needsRequest(o model.Operation) bool {
	return len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths)+len(o.Headers) > 0
}

func (q question) condition(c model.Condition) truth {
	switch c.Kind {
	case model.OnIdentity:
		return known(q.identity(c.Values, c.NotValues))
	case model.OnSourceIP:
		return known(q.prefixes(c.Prefixes, c.NotPrefixes))
	case model.OnDestinationPort:
		return known(q.ports(c.Ports, c.NotPorts))
	case model.OnSNI:
		if !q.http {
			return known(q.deny) // inside TLS that nobody here reads
		}
		sni := func(m model.StringMatch) bool { return Matches(m, "") } // plaintext has none
		return known((len(c.Values) == 0 || slices.ContainsFunc(c.Values, sni)) && !slices.ContainsFunc(c.NotValues, sni))
	}
	return q.unseen()
}

// MatchesIdentity reports whether a source with an identity ("": none is known), member of
// a mesh or not, satisfies the match; see model.Peer.
func MatchesIdentity(m model.StringMatch, id string, member bool) bool {
	if asksForMember(m) {
		return member && id != ""
	}
	return id != "" && Matches(m, id)
}

// Matches reports whether the string satisfies the match.
func Matches(m model.StringMatch, s string) bool {
	v := m.Value
	if m.IgnoreCase {
		v, s = strings.ToLower(v), strings.ToLower(s)
	}
	switch m.Kind {
	case model.Exact:
		return s == v
	case model.Prefix:
		return strings.HasPrefix(s, v)
	case model.Segments:
		return s == v || strings.HasPrefix(s, strings.TrimSuffix(v, "/")+"/")
	case model.Suffix:
		return strings.HasSuffix(s, v)
	case model.Present:
		return true
	case model.Regex:
		flags := ""
		if m.IgnoreCase {
			flags = "(?i)"
		}
		re, err := regexp.Compile(flags + "^(?:" + m.Value + ")$")
		return err == nil && re.MatchString(s)
	case model.Template:
		re, err := regexp.Compile("^" + templateExpr(m.Value) + "$")
		return err == nil && re.MatchString(s)
	}
	return false
}

// segmentText are the characters that a wildcard of a template takes; as in Envoy's
// source/extensions/path/uri_template_lib/uri_template_internal.cc.
const segmentText = `a-zA-Z0-9\-._~%!$&'()+,;:@=`

// templateExpr is the expression that Envoy makes of a path template.
func templateExpr(s string) string {
	segments := strings.Split(s, "/")
	for i, seg := range segments {
		switch seg {
		case "{*}":
			segments[i] = "[" + segmentText + "]+"
		case "{**}":
			segments[i] = "[" + segmentText + "/]*"
		default:
			segments[i] = regexp.QuoteMeta(seg)
		}
	}
	return strings.Join(segments, "/")
}

// verdict judges a class at a port of a policy set.
func (g *Governed) verdict(c *Class, port uint16, proto model.Protocol, http bool) (Action, uint64) {
	refuse := Deny
	if http {
		refuse = Refuse
	}
	if c.Unassigned {
		return Deny, 0
	}
	needs := false
	var denied *model.AuthRule
	for i, r := range g.Deny {
		switch (question{c, port, proto, http, true}).rule(r) {
		case yes:
			if r.Closes {
				return Deny, RuleID(r)
			}
			if denied == nil {
				denied = &g.Deny[i]
			}
		case depends:
			needs = true
		}
	}
	if denied != nil {
		return refuse, RuleID(*denied)
	}
	var by uint64
	for _, group := range g.Allow {
		best := no
		for _, r := range group {
			t := (question{c, port, proto, http, false}).rule(r)
			if t == yes && by == 0 {
				by = RuleID(r)
			}
			best = either(best, t)
		}
		switch best {
		case no:
			return refuse, 0
		case depends:
			needs = true
		}
	}
	if needs {
		return Check, 0
	}
	return Allow, by
}

// Policy is what the proxy judges at one port, nil if nothing is left to judge:
// rules that are about other ports are gone, port conditions resolved.
func (g *Governed) Policy(port uint16) *Policy {
	p := &Policy{Deny: sortRules(atPort(g.Deny, port))}
	for _, group := range g.Allow {
		rules := sortRules(atPort(group, port))
		if !slices.ContainsFunc(rules, unconditional) {
			p.Allow = append(p.Allow, rules)
		}
	}
	p.Allow = sortGroups(p.Allow)
	if len(p.Deny) == 0 && len(p.Allow) == 0 {
		return nil
	}
	return p
}

func unconditional(r model.AuthRule) bool { return len(r.From)+len(r.To)+len(r.When) == 0 }

func atPort(rules []model.AuthRule, port uint16) []model.AuthRule {
	q := question{class: &Class{}, port: port, proto: model.TCP}
	var out []model.AuthRule
next:
	for _, r := range rules {
		var to []model.Operation
		anything := len(r.To) == 0
		for _, o := range r.To {
			if !q.ports(o.Ports, o.NotPorts) || !q.transport(o.Protocol) {
				continue
			}
			o.Protocol, o.Ports, o.NotPorts = "", nil, nil
			if !needsRequest(o) {
				anything = true
			}
			to = append(to, o)
		}
		if !anything && len(to) == 0 {
			continue
		}
		if anything {
			to = nil
		}
		var when []model.Condition
		for _, c := range r.When {
			if c.Kind == model.OnDestinationPort || c.Kind == model.OnSNI {
				q.http = true
				if q.condition(c) == no {
					continue next
				}
				continue
			}
			when = append(when, c)
		}
		out = append(out, model.AuthRule{From: r.From, To: to, When: when, Closes: r.Closes, Src: r.Src})
	}
	return out
}
