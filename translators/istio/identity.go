// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"regexp"
	"strings"

	"fairlead.io/fairlead/model"
)

const spiffeScheme = "spiffe://"

// anyIdentity is every identity, of members of the mesh alone.
var anyIdentity = model.StringMatch{Kind: model.Present}

// principal reads "trust-domain/ns/NS/sa/SA". What every workload of the mesh's own domain
// has is any identity.
func (c *ruleTranslation) principal(s string) model.StringMatch {
	m := wildcard(s)
	if m.Kind == model.Exact || m.Kind == model.Prefix {
		m.Value = spiffeScheme + m.Value
	}
	if m.Kind == model.Prefix && strings.HasPrefix(spiffeScheme+c.domains.own()+"/ns/", m.Value) {
		return anyIdentity
	}
	return m
}

// namespace reads the namespace of an identity of any trust domain.
func namespace(s string) model.StringMatch {
	if s == "*" {
		return anyIdentity
	}
	return model.StringMatch{Kind: model.Regex, Value: spiffeScheme + "[^/]+/ns/" + segment(s) + "/.+"}
}

// segment is an expression for a part of an identity; "*" is any text without a slash.
func segment(s string) string {
	parts := strings.Split(s, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return strings.Join(parts, "[^/]*")
}

// serviceAccount reads "NS/SA", or "SA" of the policy's namespace.
func (c *ruleTranslation) serviceAccount(s string) model.StringMatch {
	ns, sa, ok := strings.Cut(s, "/")
	if !ok {
		ns, sa = c.n.o.Namespace, s
	}
	return model.StringMatch{Kind: model.Suffix, Value: "/ns/" + ns + "/sa/" + sa}
}

// trustDomain reads a trust domain; "*" is any text without a slash. The mesh's own is
// every identity's.
func (c *ruleTranslation) trustDomain(s string) model.StringMatch {
	all := regexp.MustCompile("^" + segment(s) + "$").MatchString(c.domains.own())
	switch {
	case all:
		return anyIdentity
	case !strings.Contains(s, "*"):
		return model.StringMatch{Kind: model.Prefix, Value: spiffeScheme + s + "/"}
	}
	return model.StringMatch{Kind: model.Regex, Value: spiffeScheme + segment(s) + "/.+"}
}
