// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"regexp"
	"strings"

	"fairlead.io/fairlead/model"
)

// infix is between the namespace of a service account and that of the control plane in
// the name by which Linkerd knows the account:
//
//	SA.NAMESPACE.serviceaccount.identity.CONTROL-PLANE.TRUST-DOMAIN
const infix = ".serviceaccount.identity."

const spiffe = "spiffe://"

// account is the identity of a service account.
func (t *Translator) account(namespace, name string) model.StringMatch {
	return model.StringMatch{Kind: model.Exact, Value: model.SPIFFE(t.trustDomain, namespace, name)}
}

// accounts is every identity of a namespace.
func (t *Translator) accounts(namespace string) model.StringMatch {
	return model.StringMatch{Kind: model.Prefix, Value: model.SPIFFE(t.trustDomain, namespace, "")}
}

// anybody is every identity, of members of the mesh alone.
var anybody = model.StringMatch{Kind: model.Present}

// identity reads a name, or a pattern of names: "*" is every identity, "*.rest" each
// that ends with ".rest", "spiffe://…" an id as it is, and everything else a name. It
// is false if no workload can have such a name.
func (t *Translator) identity(s string) (model.StringMatch, bool) {
	switch {
	case s == "*":
		return anybody, true
	case strings.HasPrefix(s, spiffe):
		return model.StringMatch{Kind: model.Exact, Value: s}, true
	case strings.HasPrefix(s, "*."):
		return t.suffix(s[1:])
	}
	head, domain, ok := t.cut(s)
	i := strings.LastIndexByte(head, '.')
	if !ok || i <= 0 || i == len(head)-1 || strings.Contains(head, "*") {
		return model.StringMatch{}, false
	}
	return model.StringMatch{Kind: model.Exact, Value: model.SPIFFE(domain, head[i+1:], head[:i])}, true
}

// suffix reads the pattern of names that end with a suffix; it begins with a dot.
func (t *Translator) suffix(s string) (model.StringMatch, bool) {
	if strings.HasSuffix(infix+t.controlPlane+"."+t.trustDomain, s) {
		return anybody, true
	}
	head, domain, ok := t.cut(s)
	if !ok {
		return model.StringMatch{}, false
	}
	if head == "" {
		if domain == t.trustDomain {
			return anybody, true
		}
		return model.StringMatch{Kind: model.Prefix, Value: spiffe + domain + "/ns/"}, true
	}
	i := strings.LastIndexByte(head, '.')
	namespace, account := head[i+1:], head[:i]
	if namespace == "" || i < 0 {
		return model.StringMatch{}, false
	}
	if account == "" {
		return model.StringMatch{Kind: model.Prefix, Value: model.SPIFFE(domain, namespace, "")}, true
	}
	// Names of accounts may have dots.
	return model.StringMatch{Kind: model.Regex, Value: regexp.QuoteMeta(model.SPIFFE(domain, namespace, "")) + ".+" + regexp.QuoteMeta(account)}, true
}

// cut takes a name apart before and behind the part that all names have.
func (t *Translator) cut(s string) (head, domain string, ok bool) {
	head, rest, ok := strings.Cut(s, infix)
	if !ok {
		return "", "", false
	}
	domain, ok = strings.CutPrefix(rest, t.controlPlane+".")
	return head, domain, ok && domain != ""
}
