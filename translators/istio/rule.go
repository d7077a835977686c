// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"

	"fairlead.io/fairlead/model"
)

// ruleTranslation turns the rules of one policy into rules of the model.
type ruleTranslation struct {
	t       *Translator
	n       *notes
	domains trustDomains
	deny    bool
	// byAddress says that the diagnostic about identities was given.
	byAddress bool
	// relayed says that this variant is for requests that name another address.
	relayed bool
	// at is where a policy for a waypoint is judged; nil for others.
	at *waypointReach
}

// rule translates one rule. It gives several where a source restricts the identity
// in more than one way, and none if the rule can match nothing.
//
// A rule about remote addresses is about the peer's own. A request that names another
// one (see forwardedFor) may come from anywhere: it is not allowed by such a rule,
// and one that denies has a variant that denies it.
func (c *ruleTranslation) rule(field string, r *security.Rule) []model.AuthRule {
	out := c.variant(field, r)
	if c.deny && (remoteWhen(r) || slices.ContainsFunc(r.GetFrom(), remoteFrom)) {
		relayed := &ruleTranslation{t: c.t, n: c.n, domains: c.domains, deny: true, byAddress: true, relayed: true, at: c.at}
		out = append(out, relayed.variant(field, r)...)
	}
	return out
}

// forwardedFor is the header in which proxies name the address that they act for.
const forwardedFor = "x-forwarded-for"

func forwarded() model.Condition {
	return model.Condition{Kind: model.OnHeader, Name: forwardedFor, Values: []model.StringMatch{{Kind: model.Present}}}
}

func notForwarded() model.Condition {
	return model.Condition{Kind: model.OnHeader, Name: forwardedFor, NotValues: []model.StringMatch{{Kind: model.Present}}}
}

func remoteWhen(r *security.Rule) bool {
	return slices.ContainsFunc(r.GetWhen(), func(w *security.Condition) bool { return w.GetKey() == attrRemoteIP })
}

func remoteFrom(f *security.Rule_From) bool {
	return len(f.GetSource().GetRemoteIpBlocks())+len(f.GetSource().GetNotRemoteIpBlocks()) > 0
}

func (c *ruleTranslation) variant(field string, r *security.Rule) []model.AuthRule {
	var when []model.Condition
	for i, w := range r.GetWhen() {
		cond, ok := c.condition(at(field+".when", i), w)
		if !ok {
			return nil
		}
		if cond != nil {
			when = append(when, *cond)
		}
	}
	if c.relayed {
		when = append(when, forwarded())
	} else if !c.deny && remoteWhen(r) {
		when = append(when, notForwarded())
	}
	src := []model.Source{c.n.o.Source(Plane, field)}
	to, ok := c.operations(field, r)
	if !ok {
		return nil
	}
	add := func(out []model.AuthRule, from []model.Peer, more []model.Condition) []model.AuthRule {
		rule := model.AuthRule{From: from, To: to, When: append(more, when...), Src: src}
		return append(out, rule.Canonical())
	}
	if len(r.GetFrom()) == 0 {
		return add(nil, nil, nil)
	}
	var out []model.AuthRule
	var simple []model.Peer
	for i, f := range r.GetFrom() {
		if c.relayed && !remoteFrom(f) && !remoteWhen(r) {
			continue // the other variant has it
		}
		peer, more, ok := c.source(at(field+".from", i)+".source", f.GetSource())
		switch {
		case !ok:
		case len(more) > 0:
			out = add(out, []model.Peer{peer}, more)
		case isAnyone(peer): // what else is allowed is of no interest
			return add(nil, nil, nil)
		default:
			simple = append(simple, peer)
		}
	}
	if len(simple) > 0 {
		out = add(out, simple, nil)
	}
	return out
}

func isAnyone(p model.Peer) bool {
	return len(p.Identities)+len(p.NotIdentities)+len(p.IPs)+len(p.NotIPs) == 0
}

// source translates a source; ok is false if it can be nobody. A peer can hold one
// list of identities of which one must match; the others become conditions.
func (c *ruleTranslation) source(field string, s *security.Source) (p model.Peer, more []model.Condition, ok bool) {
	identities := func(name string, in, not []string, read func(string) model.StringMatch) {
		if len(in)+len(not) == 0 {
			return
		}
		f := field + "." + name
		if len(in) == 0 {
			f = field + ".not" + strings.ToUpper(name[:1]) + name[1:]
		}
		c.identityByAddress(f)
		p.NotIdentities = append(p.NotIdentities, each(not, read)...)
		switch {
		case len(in) == 0:
		case len(p.Identities) == 0:
			p.Identities = each(in, read)
		default:
			more = append(more, model.Condition{Kind: model.OnIdentity, Values: each(in, read)})
		}
	}
	identities("principals", c.domains.principals(s.GetPrincipals()), c.domains.principals(s.GetNotPrincipals()), c.principal)
	identities("namespaces", s.GetNamespaces(), s.GetNotNamespaces(), namespace)
	identities("serviceAccounts", s.GetServiceAccounts(), s.GetNotServiceAccounts(), c.serviceAccount)
	identities("trustDomains", c.domains.expand(s.GetTrustDomains()), c.domains.expand(s.GetNotTrustDomains()), c.trustDomain)
	p.IPs, p.NotIPs = prefixes(s.GetIpBlocks()), prefixes(s.GetNotIpBlocks())
	more = append(more, c.remoteBlocks(field, s, &p)...)
	known := c.token(field+".requestPrincipals", len(s.GetRequestPrincipals()) > 0)
	known = c.token(field+".notRequestPrincipals", len(s.GetNotRequestPrincipals()) > 0) && known
	return p, more, known
}

// token notes a condition on a token, which is never verified.
func (c *ruleTranslation) token(field string, set bool) bool {
	return !set || c.unknowable(field, "unsupported-token", "tokens are not verified")
}

// unknowable notes a condition that cannot be judged and reports whether the rest of
// the rule can still match.
func (c *ruleTranslation) unknowable(field, code, why string) bool {
	if c.deny {
		c.n.refused(field, code, model.Narrows, why+": the condition is taken to hold, and the rest of the rule denies", "")
	} else {
		c.n.refused(field, code, model.Narrows, why+": the condition never holds, and nothing is allowed by it", "")
	}
	return c.deny
}

// identityByAddress says once what identities rest on.
func (c *ruleTranslation) identityByAddress(field string) {
	if c.byAddress {
		return
	}
	c.byAddress = true
	c.n.approximated(field, "identity-by-address", model.Degrades,
		"there is no mutual TLS yet: who is named is known by the address, in the mesh or not, and nothing is encrypted", "")
}

// remoteBlocks adds the conditions on remote addresses to those on the peer's.
func (c *ruleTranslation) remoteBlocks(field string, s *security.Source, p *model.Peer) (more []model.Condition) {
	remote, not := prefixes(s.GetRemoteIpBlocks()), prefixes(s.GetNotRemoteIpBlocks())
	c.remote(field+".remoteIpBlocks", len(remote) > 0)
	c.remote(field+".notRemoteIpBlocks", len(not) > 0)
	if c.relayed || len(remote)+len(not) == 0 {
		return nil
	}
	p.NotIPs = append(p.NotIPs, not...)
	if len(p.IPs) == 0 {
		p.IPs = remote
	} else if len(remote) > 0 {
		more = append(more, model.Condition{Kind: model.OnSourceIP, Prefixes: remote})
	}
	if !c.deny {
		more = append(more, notForwarded())
	}
	return more
}

// remote says whose address is compared.
func (c *ruleTranslation) remote(field string, set bool) {
	if !set {
		return
	}
	const advice = "write ipBlocks, or source.ip, if the peer's address is meant"
	if c.deny {
		c.n.approximated(field, "remote-is-peer", model.Narrows,
			"the peer's own address is compared, as in Istio where a request has no X-Forwarded-For; of one that has, Istio believes the last address there, and here it is denied whatever that is, as is a connection that is not HTTP", advice)
	} else {
		c.n.approximated(field, "remote-is-peer", model.Narrows,
			"the peer's own address is compared, as in Istio where a request has no X-Forwarded-For; of one that has, Istio believes the last address there, and here it is not allowed by it whatever that is, nor is a connection that is not HTTP", advice)
	}
}

func each(in []string, read func(string) model.StringMatch) []model.StringMatch {
	var out []model.StringMatch
	for _, s := range in {
		out = append(out, read(s))
	}
	return out
}

// wildcard reads Istio's strings: exact, "prefix*", "*suffix" and "*" for anything.
func wildcard(s string) model.StringMatch {
	switch {
	case s == "*":
		return model.StringMatch{Kind: model.Present}
	case strings.HasPrefix(s, "*"):
		return model.StringMatch{Kind: model.Suffix, Value: s[1:]}
	case strings.HasSuffix(s, "*"):
		return model.StringMatch{Kind: model.Prefix, Value: s[:len(s)-1]}
	}
	return model.StringMatch{Kind: model.Exact, Value: s}
}

// prefixes reads addresses and CIDRs that Validate has accepted.
func prefixes(in []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range in {
		if p, err := parsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
}

func ports(in []string) []uint16 {
	var out []uint16
	for _, s := range in {
		if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			out = append(out, uint16(n))
		}
	}
	return out
}

// operations gives those of a rule. As in Istio, a rule that allows, and anywhere asks for
// something that only a request has, allows no connection of a port that is not HTTP: so
// its other operations ask for a request, too. ok is false if none can match.
func (c *ruleTranslation) operations(field string, r *security.Rule) (out []model.Operation, ok bool) {
	all := operations(r.GetTo())
	for i, o := range all {
		op, known, possible := c.at.atPods(o)
		if !known && !c.unknowable(at(field+".to", i)+".operation", "ports-of-waypoint", "ports are those of the service at a waypoint, and which of the pods' that are cannot be said") {
			continue
		}
		if possible {
			out = append(out, op)
		}
	}
	if len(all) > 0 && len(out) == 0 {
		return nil, false
	}
	if c.deny || !slices.ContainsFunc(all, asksRequest) && !slices.ContainsFunc(r.GetFrom(), tokenFrom) {
		return out, true
	}
	if len(out) == 0 {
		out = []model.Operation{{}}
	}
	for i := range out {
		if !asksRequest(out[i]) {
			out[i].Protocol, out[i].Methods = "", []model.StringMatch{{Kind: model.Present}}
		}
	}
	return out, true
}

func asksRequest(o model.Operation) bool {
	return len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0
}

func tokenFrom(f *security.Rule_From) bool {
	return len(f.GetSource().GetRequestPrincipals())+len(f.GetSource().GetNotRequestPrincipals()) > 0
}

// operations translates "to". An operation about ports alone is about TCP, the only
// transport that these policies know.
func operations(in []*security.Rule_To) []model.Operation {
	var out []model.Operation
	for _, to := range in {
		op := to.GetOperation()
		o := model.Operation{
			Hosts: each(op.GetHosts(), hostMatch), NotHosts: each(op.GetNotHosts(), hostMatch),
			Ports: ports(op.GetPorts()), NotPorts: ports(op.GetNotPorts()),
			Methods: each(op.GetMethods(), wildcard), NotMethods: each(op.GetNotMethods(), wildcard),
			Paths: each(op.GetPaths(), pathMatch), NotPaths: each(op.GetNotPaths(), pathMatch),
		}
		if !asksRequest(o) {
			o.Protocol = model.TCP
		}
		out = append(out, o)
	}
	return out
}

// hostMatch is compared without regard to case.
func hostMatch(s string) model.StringMatch { return wildcard(strings.ToLower(s)) }

// pathMatch reads a path or, if it has {*} or {**}, a template.
func pathMatch(s string) model.StringMatch {
	if isTemplate(s) {
		return model.StringMatch{Kind: model.Template, Value: s}
	}
	return wildcard(s)
}

func isTemplate(s string) bool { return strings.Contains(s, "{*}") || strings.Contains(s, "{**}") }
