// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"

	"fairlead.io/fairlead/translators/gatewayapi"
)

func validateAuthorizationPolicy(n *notes, p *security.AuthorizationPolicy) {
	if p == nil {
		return
	}
	targets := 0
	for _, set := range []bool{p.GetSelector() != nil, p.GetTargetRef() != nil, len(p.GetTargetRefs()) > 0} {
		if set {
			targets++
		}
	}
	if targets > 1 {
		n.invalid("spec", "selector, targetRef and targetRefs exclude each other")
	}
	for _, ref := range targetRefs(p) {
		validateTargetRef(n, ref)
	}
	labels := p.GetSelector().GetMatchLabels()
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if k == "" || strings.Contains(k+labels[k], "*") {
			n.invalid(entry("spec.selector.matchLabels", k), "labels are compared as they stand: no wildcards, no empty name")
		}
	}
	if (p.GetAction() == security.AuthorizationPolicy_CUSTOM) != (p.GetProvider() != nil) {
		n.invalid("spec.provider", "CUSTOM needs a provider, and no other action has one")
	}
	for i, r := range p.GetRules() {
		validateRule(n, at("spec.rules", i), r)
	}
}

// validateTargetRef checks what Istio checks: it knows no other kinds.
func validateTargetRef(n *notes, ref targetRef) {
	if ref.GetName() == "" {
		n.invalid(ref.field+".name", "it has to name something")
	}
	if ref.GetNamespace() != "" {
		n.invalid(ref.field+".namespace", "what is in other namespaces cannot be named; leave it out")
	}
	if !ref.is("", "Service") && !ref.is(networkingGroup, "ServiceEntry") && !ref.is(gatewayapi.Group, "Gateway") && !ref.is(gatewayapi.Group, "GatewayClass") {
		n.invalid(ref.field+".kind", "%s of group %q is not Service, ServiceEntry, Gateway or GatewayClass", ref.GetKind(), ref.GetGroup())
	}
}

func validateRule(n *notes, field string, r *security.Rule) {
	for i, f := range r.GetFrom() {
		validateSource(n, at(field+".from", i)+".source", f.GetSource())
	}
	for i, to := range r.GetTo() {
		validateOperation(n, at(field+".to", i)+".operation", to.GetOperation())
	}
	for i, w := range r.GetWhen() {
		validateCondition(n, at(field+".when", i), w)
	}
}

// valueList is one field that lists values.
type valueList struct {
	name   string
	values []string
	check  func(string) string // says what is wrong, "" if nothing
}

// validateLists checks the values and that there are any.
func validateLists(n *notes, field, what string, lists []valueList) {
	total := 0
	for _, l := range lists {
		total += len(l.values)
		for i, v := range l.values {
			switch wrong := l.check(v); {
			case v == "":
				n.invalid(at(field+"."+l.name, i), "an empty value")
			case wrong != "":
				n.invalid(at(field+"."+l.name, i), "%q %s", v, wrong)
			}
		}
	}
	if total == 0 {
		n.invalid(field, "%s without any restriction; leave it out to mean all", what)
	}
}

func validateSource(n *notes, field string, s *security.Source) {
	validateLists(n, field, "a source", []valueList{
		{"principals", s.GetPrincipals(), wildcardWrong}, {"notPrincipals", s.GetNotPrincipals(), wildcardWrong},
		{"requestPrincipals", s.GetRequestPrincipals(), wildcardWrong}, {"notRequestPrincipals", s.GetNotRequestPrincipals(), wildcardWrong},
		{"namespaces", s.GetNamespaces(), nothingWrong}, {"notNamespaces", s.GetNotNamespaces(), nothingWrong},
		{"serviceAccounts", s.GetServiceAccounts(), serviceAccountWrong}, {"notServiceAccounts", s.GetNotServiceAccounts(), serviceAccountWrong},
		{"ipBlocks", s.GetIpBlocks(), prefixWrong}, {"notIpBlocks", s.GetNotIpBlocks(), prefixWrong},
		{"remoteIpBlocks", s.GetRemoteIpBlocks(), prefixWrong}, {"notRemoteIpBlocks", s.GetNotRemoteIpBlocks(), prefixWrong},
		{"trustDomains", s.GetTrustDomains(), nothingWrong}, {"notTrustDomains", s.GetNotTrustDomains(), nothingWrong},
	})
	accounts := len(s.GetServiceAccounts()) + len(s.GetNotServiceAccounts())
	others := len(s.GetPrincipals()) + len(s.GetNotPrincipals()) + len(s.GetNamespaces()) + len(s.GetNotNamespaces())
	if accounts > 0 && others > 0 {
		n.invalid(field, "service accounts cannot stand with principals or namespaces")
	}
}

func validateOperation(n *notes, field string, o *security.Operation) {
	validateLists(n, field, "an operation", []valueList{
		{"hosts", o.GetHosts(), wildcardWrong}, {"notHosts", o.GetNotHosts(), wildcardWrong},
		{"ports", o.GetPorts(), portWrong}, {"notPorts", o.GetNotPorts(), portWrong},
		{"methods", o.GetMethods(), wildcardWrong}, {"notMethods", o.GetNotMethods(), wildcardWrong},
		{"paths", o.GetPaths(), pathWrong}, {"notPaths", o.GetNotPaths(), pathWrong},
	})
}

func nothingWrong(string) string { return "" }

// wildcardWrong allows "*" at one end: elsewhere Istio takes it for the character.
func wildcardWrong(s string) string {
	if len(s) > 1 && strings.HasPrefix(s, "*") && strings.HasSuffix(s, "*") {
		return "has * at both ends: it would be taken for a character"
	}
	return ""
}

func serviceAccountWrong(s string) string {
	if strings.Contains(s, "*") {
		return "has a wildcard, which service accounts cannot have"
	}
	if ns, sa, ok := strings.Cut(s, "/"); ok && (ns == "" || sa == "" || strings.Contains(sa, "/")) {
		return "is not NAMESPACE/ACCOUNT"
	}
	return ""
}

func prefixWrong(s string) string {
	if _, err := parsePrefix(s); err != nil {
		return "is neither an address nor a CIDR"
	}
	return ""
}

func portWrong(s string) string {
	if p, err := strconv.ParseUint(s, 10, 64); err != nil || p == 0 || p > math.MaxUint16 {
		return "is not a port"
	}
	return ""
}

// maxTemplate is how many bytes of a template Envoy takes, without the braces.
const maxTemplate = 256

// templateText is what may stand between the slashes of a template.
var templateText = regexp.MustCompile("^[A-Za-z0-9._~%!$&'()+,;:@=-]+$")

// pathWrong checks templates: each wildcard is a whole segment, no wildcard follows a
// {**}, and no segment but the last is empty. Envoy 1.40 does not reject a template
// that breaks these rules: it aborts.
func pathWrong(s string) string {
	if !isTemplate(s) {
		return wildcardWrong(s)
	}
	if len(s) > maxTemplate {
		return "is longer than 256 bytes"
	}
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return "does not begin with a slash"
	}
	open := false
	segments := strings.Split(rest, "/")
	for i, seg := range segments {
		switch {
		case seg == "{*}" || seg == "{**}":
			if open {
				return "has a wildcard after {**}"
			}
			open = seg == "{**}"
		case strings.ContainsAny(seg, "{}*"):
			return "has braces or * in a segment that is not {*} or {**} alone"
		case seg == "" && i < len(segments)-1:
			return "has an empty segment"
		case seg != "" && !templateText.MatchString(seg):
			return "has a character that a path cannot have as it stands"
		}
	}
	return ""
}

func validateCondition(n *notes, field string, c *security.Condition) {
	if len(c.GetValues())+len(c.GetNotValues()) == 0 {
		n.invalid(field, "a condition needs values or notValues")
	}
	check := nothingWrong
	switch key := c.GetKey(); {
	case key == attrSourceIP || key == attrRemoteIP || key == attrDestinationIP:
		check = prefixWrong
	case key == attrDestinationPort:
		check = portWrong
	case key == attrSourceServiceAccount:
		check = serviceAccountWrong
	case slices.Contains([]string{attrSourceNamespace, attrSourceTrustDomain}, key):
	case slices.Contains([]string{attrSourcePrincipal, attrSNI, attrRequestPrincipal, attrRequestAudiences, attrRequestPresenter}, key):
		check = wildcardWrong
	case strings.HasPrefix(key, prefixHeader):
		check = wildcardWrong
		if name := bracketed(key, prefixHeader); !headerPattern.MatchString(name) {
			n.invalid(field+".key", "%q is not request.headers[NAME]", key)
		}
	case strings.HasPrefix(key, prefixClaims+"["), strings.HasPrefix(key, prefixExperimental):
	default:
		n.invalid(field+".key", "%q is not an attribute that Istio knows", key)
	}
	for name, values := range map[string][]string{"values": c.GetValues(), "notValues": c.GetNotValues()} {
		for i, v := range values {
			if wrong := check(v); wrong != "" {
				n.invalid(at(field+"."+name, i), "%q %s", v, wrong)
			}
		}
	}
}

// validateRequestAuthentication checks the names of places where tokens are looked
// for: what is denied there must be something that a request can have.
func validateRequestAuthentication(n *notes, s *security.RequestAuthentication) {
	for _, ref := range targetRefs(s) {
		validateTargetRef(n, ref)
	}
	header := func(field, name string) {
		if !headerPattern.MatchString(name) || strings.HasPrefix(name, ":") {
			n.invalid(field, "%q is not the name of a header", name)
		}
	}
	short := func(field, name string) {
		if name == "" || len(name) > maxParameter {
			n.invalid(field, "a name has between 1 and %d bytes", maxParameter)
		}
	}
	for i, r := range s.GetJwtRules() {
		field := at("spec.jwtRules", i)
		for j, h := range r.GetFromHeaders() {
			header(at(field+".fromHeaders", j)+".name", h.GetName())
		}
		for j, p := range r.GetFromParams() {
			short(at(field+".fromParams", j), p)
		}
		for j, c := range r.GetFromCookies() {
			short(at(field+".fromCookies", j), c)
		}
		if h := r.GetOutputPayloadToHeader(); h != "" {
			header(field+".outputPayloadToHeader", h)
		}
		for j, c := range r.GetOutputClaimToHeaders() {
			header(at(field+".outputClaimToHeaders", j)+".header", c.GetHeader())
		}
	}
}
