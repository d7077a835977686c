// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfig "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	template "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// RuleName is the name of a rule in RBAC policies, and so in the details of a
// denied request in access logs: the rule's id, as the plan's Origins have it.
func RuleName(r *model.AuthRule) string { return fmt.Sprintf("%016x", model.ID(r)) }

// sources says how a policy knows who the source is.
type sources interface {
	// identity holds for sources whose identity matches.
	identity(m model.StringMatch) (*rbacconfig.Principal, error)
	// address reports whether the connection's own addresses are the workload's,
	// so that a condition on the destination can be judged.
	address() bool
}

// byIdentity knows sources by the identity that the listener set.
type byIdentity struct{}

func (byIdentity) address() bool { return false } // the local address is the service's

func (byIdentity) identity(m model.StringMatch) (*rbacconfig.Principal, error) {
	if m.Kind == model.Present { // whose requests are captured is a member; without an identity there is no such state
		m = model.StringMatch{Kind: model.Regex, Value: ".+"}
	}
	s, err := stringMatcher(m)
	if err != nil {
		return nil, err
	}
	return &rbacconfig.Principal{Identifier: &rbacconfig.Principal_FilterState{FilterState: &matcher.FilterStateMatcher{
		Key:     IdentityKey,
		Matcher: &matcher.FilterStateMatcher_StringMatch{StringMatch: s},
	}}}, nil
}

// byAddress knows sources by the addresses that identities, and members of a mesh, are
// known to have.
type byAddress struct {
	known   []plan.KnownIdentity
	members []netip.Addr
}

func (byAddress) address() bool { return true }

func (b byAddress) identity(m model.StringMatch) (*rbacconfig.Principal, error) {
	var any []*rbacconfig.Principal
	add := func(of string, addrs []netip.Addr) error {
		for _, a := range addrs {
			if !a.IsValid() || a.Zone() != "" {
				return fmt.Errorf("%s has address %q", of, a)
			}
			a = a.Unmap()
			any = append(any, directIP(netip.PrefixFrom(a, a.BitLen())))
		}
		return nil
	}
	if m.Kind == model.Present {
		err := add("a member of the mesh", b.members)
		return orIDs(any), err
	}
	is, err := matches(m)
	if err != nil {
		return nil, err
	}
	for _, k := range b.known {
		if !is(k.Identity) {
			continue
		}
		if err := add("identity "+k.Identity, k.Addresses); err != nil {
			return nil, err
		}
	}
	return orIDs(any), nil
}

// filter is one RBAC filter of a policy and the name of the one in the chain.
type filter struct {
	name string
	rbac *rbac.RBAC
}

// policyFilters turns a policy into RBAC filters: one for all denials, one per
// group of allows, in the order of the chain.
func policyFilters(p *plan.Policy, src sources) ([]filter, error) {
	var fs []filter
	add := func(name string, r *rbac.RBAC) {
		if p.Shadow {
			r = &rbac.RBAC{ShadowRules: r.Rules, ShadowRulesStatPrefix: shadowPrefix(name)}
		}
		fs = append(fs, filter{name, r})
	}
	if len(p.Deny) > 0 {
		r, err := ruleSet(rbacconfig.RBAC_DENY, p.Deny, src)
		if err != nil {
			return nil, err
		}
		add(DenyFilter, r)
	}
	for i, group := range p.Allow {
		r, err := ruleSet(rbacconfig.RBAC_ALLOW, group, src)
		if err != nil {
			return nil, err
		}
		add(AllowFilter(i), r)
	}
	return fs, nil
}

// ShadowNamespaces are those of the metadata in which Envoy keeps what RBAC filters would have
// done: in a listener's chain, and in a cluster's.
func ShadowNamespaces() []string {
	return []string{"envoy.filters.http.rbac", "envoy.filters.http.upstream_rbac"}
}

// Ends of the metadata's keys, behind the prefix of a filter: what it would have done, and by which rule.
const (
	ShadowResult = "shadow_engine_result"
	ShadowRule   = "shadow_effective_policy_id"
	ShadowDenied = "denied" // value of ShadowResult
)

// AmbiguousPath is the name of the rule, in Envoy, that refuses paths which servers read
// differently.
const AmbiguousPath = "ambiguouspath"

// refuseAmbiguous refuses what a route has given an ambiguous path, where the policy asks for
// paths: at the destination it would be taken for another than what was judged.
func refuseAmbiguous(p *plan.Policy) (*rbac.RBAC, error) {
	path, err := headerRule(model.NamedMatch{Name: ":path", Match: model.StringMatch{Kind: model.Regex, Value: plan.AmbiguousPath}})
	if err != nil {
		return nil, err
	}
	set := &rbacconfig.RBAC{Action: rbacconfig.RBAC_DENY, Policies: map[string]*rbacconfig.Policy{
		AmbiguousPath: {Permissions: []*rbacconfig.Permission{path}, Principals: []*rbacconfig.Principal{andIDs(nil)}},
	}}
	if p.Shadow {
		return &rbac.RBAC{ShadowRules: set, ShadowRulesStatPrefix: shadowPrefix(PathFilter)}, nil
	}
	return &rbac.RBAC{Rules: set}, nil
}

// shadowPrefix keeps a filter's metadata apart from other filters'.
func shadowPrefix(filter string) string { return filter + "." }

func ruleSet(action rbacconfig.RBAC_Action, rules []model.AuthRule, src sources) (*rbac.RBAC, error) {
	// An ALLOW without policies allows nothing, as a group without rules should.
	set := &rbacconfig.RBAC{Action: action, Policies: map[string]*rbacconfig.Policy{}}
	for i := range rules {
		p, err := rulePolicy(&rules[i], src)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", RuleName(&rules[i]), err)
		}
		set.Policies[RuleName(&rules[i])] = p
	}
	return &rbac.RBAC{Rules: set}, nil
}

func rulePolicy(r *model.AuthRule, src sources) (*rbacconfig.Policy, error) {
	var from, ids []*rbacconfig.Principal
	var to, perms []*rbacconfig.Permission
	for i := range r.From {
		p, err := peer(&r.From[i], src)
		if err != nil {
			return nil, err
		}
		from = append(from, p)
	}
	for i := range r.To {
		p, err := operation(&r.To[i], src)
		if err != nil {
			return nil, err
		}
		to = append(to, p)
	}
	if len(from) > 0 {
		ids = append(ids, orIDs(from))
	}
	if len(to) > 0 {
		perms = append(perms, orRules(to))
	}
	for i := range r.When {
		id, perm, err := condition(&r.When[i], src)
		if err != nil {
			return nil, err
		}
		ids, perms = append(ids, id...), append(perms, perm...)
	}
	return &rbacconfig.Policy{
		Permissions: []*rbacconfig.Permission{andRules(perms)},
		Principals:  []*rbacconfig.Principal{andIDs(ids)},
	}, nil
}

func peer(p *model.Peer, src sources) (*rbacconfig.Principal, error) {
	ids, err := each(p.Identities, src.identity)
	if err != nil {
		return nil, err
	}
	notIDs, err := each(p.NotIdentities, src.identity)
	if err != nil {
		return nil, err
	}
	ips, err := each(p.IPs, sourceIP)
	if err != nil {
		return nil, err
	}
	notIPs, err := each(p.NotIPs, sourceIP)
	if err != nil {
		return nil, err
	}
	return andIDs(slices.Concat(anyNone(ids, notIDs, orIDs, notID), anyNone(ips, notIPs, orIDs, notID))), nil
}

func operation(o *model.Operation, src sources) (*rbacconfig.Permission, error) {
	var all []*rbacconfig.Permission
	add := func(yes, no []model.StringMatch, one func(model.StringMatch) (*rbacconfig.Permission, error)) error {
		y, err := each(yes, one)
		if err != nil {
			return err
		}
		n, err := each(no, one)
		if err != nil {
			return err
		}
		all = append(all, anyNone(y, n, orRules, notRule)...)
		return nil
	}
	ports, err := portRules(o.Ports, o.NotPorts, src)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		add(o.Hosts, o.NotHosts, func(m model.StringMatch) (*rbacconfig.Permission, error) {
			m.IgnoreCase = true
			return headerRule(model.NamedMatch{Name: ":authority", Match: m})
		}),
		add(o.Methods, o.NotMethods, func(m model.StringMatch) (*rbacconfig.Permission, error) {
			return headerRule(model.NamedMatch{Name: ":method", Match: m})
		}),
		add(o.Paths, o.NotPaths, pathRule),
	)
	if err != nil {
		return nil, err
	}
	headers, err := each(o.Headers, headerRule)
	if err != nil {
		return nil, err
	}
	return andRules(slices.Concat(all, ports, headers)), nil
}

// condition gives what must hold of the source and of the request.
func condition(c *model.Condition, src sources) (ids []*rbacconfig.Principal, perms []*rbacconfig.Permission, err error) {
	switch c.Kind {
	case model.OnIdentity:
		yes, err1 := each(c.Values, src.identity)
		no, err2 := each(c.NotValues, src.identity)
		return anyNone(yes, no, orIDs, notID), nil, errors.Join(err1, err2)
	case model.OnSourceIP:
		yes, err1 := each(c.Prefixes, sourceIP)
		no, err2 := each(c.NotPrefixes, sourceIP)
		return anyNone(yes, no, orIDs, notID), nil, errors.Join(err1, err2)
	case model.OnDestinationIP:
		if !src.address() {
			return nil, nil, errors.New("a condition on the destination's address cannot be judged at the source")
		}
		yes, err1 := each(c.Prefixes, destinationIP)
		no, err2 := each(c.NotPrefixes, destinationIP)
		return nil, anyNone(yes, no, orRules, notRule), errors.Join(err1, err2)
	case model.OnDestinationPort:
		perms, err = portRules(c.Ports, c.NotPorts, src)
		return nil, perms, err
	case model.OnHeader:
		one := func(m model.StringMatch) (*rbacconfig.Permission, error) {
			return headerRule(model.NamedMatch{Name: c.Name, Match: m})
		}
		yes, err1 := each(c.Values, one)
		no, err2 := each(c.NotValues, one)
		return nil, anyNone(yes, no, orRules, notRule), errors.Join(err1, err2)
	case model.OnSNI: // plain HTTP has none: it is empty
		yes, err1 := each(c.Values, sniRule)
		no, err2 := each(c.NotValues, sniRule)
		return nil, anyNone(yes, no, orRules, notRule), errors.Join(err1, err2)
	}
	return nil, nil, fmt.Errorf("condition of unknown kind %q", c.Kind)
}

func portRules(yes, no []uint16, src sources) ([]*rbacconfig.Permission, error) {
	if len(yes)+len(no) > 0 && !src.address() {
		return nil, errors.New("the workload's port cannot be judged at the source")
	}
	one := func(p uint16) (*rbacconfig.Permission, error) {
		return &rbacconfig.Permission{Rule: &rbacconfig.Permission_DestinationPort{DestinationPort: uint32(p)}}, nil
	}
	y, err1 := each(yes, one)
	n, err2 := each(no, one)
	return anyNone(y, n, orRules, notRule), errors.Join(err1, err2)
}

func pathRule(m model.StringMatch) (*rbacconfig.Permission, error) {
	if m.Kind == model.Template {
		if m.IgnoreCase {
			return nil, fmt.Errorf("path template %q: cannot ignore case", m.Value)
		}
		path, err := pathTemplate(m.Value)
		if err != nil {
			return nil, err
		}
		config, err := packChecked(&template.UriTemplateMatchConfig{PathTemplate: path})
		if err != nil {
			return nil, err
		}
		return &rbacconfig.Permission{Rule: &rbacconfig.Permission_UriTemplate{UriTemplate: &core.TypedExtensionConfig{
			Name:        "envoy.path.match.uri_template.uri_template_matcher",
			TypedConfig: config,
		}}}, nil
	}
	if m.Kind == model.Present { // every request has a path
		return anyRule(), nil
	}
	if m.Kind == model.Segments {
		return segmentsRule(m)
	}
	s, err := stringMatcher(m)
	if err != nil {
		return nil, err
	}
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_UrlPath{UrlPath: &matcher.PathMatcher{
		Rule: &matcher.PathMatcher_Path{Path: s},
	}}}, nil
}

// segmentsRule takes the path and what is below it.
func segmentsRule(m model.StringMatch) (*rbacconfig.Permission, error) {
	below := model.StringMatch{Kind: model.Prefix, Value: "/", IgnoreCase: m.IgnoreCase}
	if m.Value == "/" {
		return pathRule(below)
	}
	if err := checkSegments(m.Value); err != nil {
		return nil, err
	}
	m.Kind, below.Value = model.Exact, m.Value+"/"
	rules, err := each([]model.StringMatch{m, below}, pathRule)
	return orRules(rules), err
}

func headerRule(m model.NamedMatch) (*rbacconfig.Permission, error) {
	h, err := headerMatcher(m)
	if err != nil {
		return nil, err
	}
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_Header{Header: h}}, nil
}

func sniRule(m model.StringMatch) (*rbacconfig.Permission, error) {
	if m.Kind == model.Present {
		m = model.StringMatch{Kind: model.Regex, Value: ".+"}
	}
	s, err := stringMatcher(m)
	if err != nil {
		return nil, err
	}
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_RequestedServerName{RequestedServerName: s}}, nil
}

func sourceIP(p netip.Prefix) (*rbacconfig.Principal, error) {
	if err := checkPrefix(p); err != nil {
		return nil, err
	}
	return directIP(p), nil
}

func destinationIP(p netip.Prefix) (*rbacconfig.Permission, error) {
	if err := checkPrefix(p); err != nil {
		return nil, err
	}
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_DestinationIp{DestinationIp: cidr(p)}}, nil
}

func checkPrefix(p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Zone() != "" || p.Addr().Is4In6() {
		return fmt.Errorf("%q is no address range", p)
	}
	return nil
}

// directIP is the address of the connection itself; x-forwarded-for has no say.
func directIP(p netip.Prefix) *rbacconfig.Principal {
	return &rbacconfig.Principal{Identifier: &rbacconfig.Principal_DirectRemoteIp{DirectRemoteIp: cidr(p)}}
}

// packChecked validates what users had a part in, and wraps it.
func packChecked(m interface {
	proto.Message
	ValidateAll() error
}) (*anypb.Any, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, err
	}
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, err
	}
	return a, nil
}
