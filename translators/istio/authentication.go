// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"regexp"
	"strings"

	security "istio.io/api/security/v1beta1"
	clientsecurity "istio.io/client-go/pkg/apis/security/v1"

	"fairlead.io/fairlead/model"
)

// requestAuthentication denies the requests that carry a token: Istio would verify
// it, and workloads rely on that. Requests without one pass, as they do in Istio.
func requestAuthentication(n *notes) closing {
	v, ok := n.o.Value.(*clientsecurity.RequestAuthentication)
	if !ok {
		return closing{}
	}
	if n.o.Invalid {
		return closing{&v.Spec, anything(), refusal{model.Narrows, "no valid version is known: everything that it may guard is denied", "repair it"}}
	}
	rules := tokenRules(v.Spec.GetJwtRules())
	if len(rules) == 0 {
		n.unsupportedKind(refusal{model.Cosmetic, "it has no rules and so no effect", ""})
	}
	return closing{&v.Spec, rules, refusal{model.Narrows, "tokens are not verified: requests that carry one where it says are denied, and connections to ports that are not HTTP",
		"verify tokens in the application and delete it"}}
}

// tokenRules match requests with a token in one of the places that the rules name,
// or with a header that only a verified token may set.
func tokenRules(in []*security.JWTRule) []model.AuthRule {
	var to []model.Operation
	on := func(name string, m model.StringMatch) {
		to = append(to, model.Operation{Headers: []model.NamedMatch{{Name: strings.ToLower(name), Match: m}}})
	}
	param := func(name string) {
		on(":path", model.StringMatch{Kind: model.Regex, Value: `[^?]*\?(.*&)?` + regexp.QuoteMeta(name) + "=.*"})
	}
	for _, r := range in {
		if len(r.GetFromHeaders())+len(r.GetFromParams())+len(r.GetFromCookies()) == 0 {
			on("authorization", model.StringMatch{Kind: model.Prefix, Value: "Bearer "})
			param("access_token")
		}
		for _, h := range r.GetFromHeaders() {
			m := model.StringMatch{Kind: model.Present}
			if h.GetPrefix() != "" {
				m = model.StringMatch{Kind: model.Prefix, Value: h.GetPrefix()}
			}
			on(h.GetName(), m)
		}
		for _, p := range r.GetFromParams() {
			param(p)
		}
		for _, c := range r.GetFromCookies() {
			on("cookie", model.StringMatch{Kind: model.Regex, Value: `(.*;\s*)?` + regexp.QuoteMeta(c) + "=.*"})
		}
		if h := r.GetOutputPayloadToHeader(); h != "" {
			on(h, model.StringMatch{Kind: model.Present})
		}
		for _, c := range r.GetOutputClaimToHeaders() {
			on(c.GetHeader(), model.StringMatch{Kind: model.Present})
		}
	}
	if len(to) == 0 {
		return nil
	}
	return []model.AuthRule{{To: to}}
}
