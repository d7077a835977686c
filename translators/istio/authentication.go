// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	security "istio.io/api/security/v1beta1"
	clientsecurity "istio.io/client-go/pkg/apis/security/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
)

// requestAuthentication denies the requests that carry a token: Istio would verify
// it, and workloads rely on that. Requests without one pass, as they do in Istio.
func (t *Translator) requestAuthentication(n *notes) *model.Authorization {
	v, ok := n.o.Value.(*clientsecurity.RequestAuthentication)
	if !ok {
		return nil
	}
	s := &v.Spec
	if n.o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: everything that it may guard is denied", "repair it")
		return &model.Authorization{Deny: true, Target: t.target(n.o, s.GetSelector()), Rules: anything()}
	}
	if s.GetTargetRef() != nil || len(s.GetTargetRefs()) > 0 {
		n.unsupportedKind(refusal{model.Degrades, "those for gateways and waypoints are not enforced; no sidecar enforces them in Istio either", ""})
		return nil
	}
	rules := tokenRules(s.GetJwtRules())
	if len(rules) == 0 {
		n.unsupportedKind(refusal{model.Cosmetic, "it has no rules and so no effect", ""})
		return nil
	}
	n.unsupportedKind(refusal{model.Narrows, "tokens are not verified: requests that carry one where it says are denied, and connections to ports that are not HTTP",
		"verify tokens in the application and delete it"})
	return &model.Authorization{Deny: true, Target: t.target(n.o, s.GetSelector()), Rules: rules}
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

// peerAuthentication turns a demand for mutual TLS into one for a known identity.
func (t *Translator) peerAuthentication(r translators.Reader, n *notes) *model.Authorization {
	v, ok := n.o.Value.(*clientsecurity.PeerAuthentication)
	if !ok {
		return nil
	}
	s := &v.Spec
	if n.o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: peers without a known identity are denied", "repair it")
		return &model.Authorization{Deny: true, Target: t.target(n.o, s.GetSelector()), Rules: strangers(model.Operation{})}
	}
	selects := len(s.GetSelector().GetMatchLabels()) > 0
	if selects && n.o.Namespace == t.root {
		n.surprising("spec.selector", "no-effect", "Istio ignores selectors in the root namespace, and the policy with them; so is it here", "")
		return nil
	}
	mode := s.GetMtls().GetMode()
	strict := mode == security.PeerAuthentication_MutualTLS_STRICT
	except, only := t.portModes(n, s, selects, strict)
	if !strict && mode != security.PeerAuthentication_MutualTLS_UNSET || len(except) > 0 {
		t.overrides(r, n, selects)
	}
	op := model.Operation{Ports: only}
	switch {
	case strict:
		n.approximated("spec.mtls.mode", "identity-by-address", model.Degrades,
			"there is no mutual TLS yet: peers without a known identity are denied; peers are known by their addresses, and nothing is encrypted", "")
		op.Ports, op.NotPorts = nil, except
	case len(only) == 0:
		return nil
	}
	return &model.Authorization{Deny: true, Target: t.target(n.o, s.GetSelector()), Rules: strangers(op)}
}

// strangers matches peers that are no known workload, by TCP: mutual TLS is about
// nothing else.
func strangers(op model.Operation) []model.AuthRule {
	op.Protocol = model.TCP
	return []model.AuthRule{{From: []model.Peer{{NotIdentities: []model.StringMatch{{Kind: model.Present}}}}, To: []model.Operation{op}}}
}

// portModes lists the ports that differ from the mode of the whole: those that ask
// for less than STRICT, and those that ask for it.
func (t *Translator) portModes(n *notes, s *security.PeerAuthentication, selects, strict bool) (except, only []uint16) {
	for _, port := range slices.Sorted(maps.Keys(s.GetPortLevelMtls())) {
		field := entry("spec.portLevelMtls", fmt.Sprint(port))
		if !selects {
			n.surprising(field, "no-effect", "Istio heeds the modes of ports only where a policy selects workloads; so is it here", "add a selector")
			continue
		}
		if port == 0 || port > math.MaxUint16 {
			n.refused(field, "invalid-value", model.Narrows, "not a port: the entry has no effect", "")
			continue
		}
		switch mode := s.GetPortLevelMtls()[port].GetMode(); {
		case mode == security.PeerAuthentication_MutualTLS_UNSET:
		case mode != security.PeerAuthentication_MutualTLS_STRICT:
			except = append(except, uint16(port))
		case !strict:
			n.approximated(field, "identity-by-address", model.Degrades, "there is no mutual TLS yet: peers without a known identity are denied", "")
			only = append(only, uint16(port))
		}
	}
	return except, only
}

// overrides notes that a policy asks for less than a wider one: both stand here.
func (t *Translator) overrides(r translators.Reader, n *notes, selects bool) {
	namespaces := []string{t.root}
	if selects {
		namespaces = append(namespaces, n.o.Namespace)
	}
	for _, ns := range namespaces {
		for _, o := range r.List(peerAuthenticationKind, ns) {
			v, ok := o.Value.(*clientsecurity.PeerAuthentication)
			if !ok || o == n.o || len(v.Spec.GetSelector().GetMatchLabels()) > 0 {
				continue
			}
			if o.Invalid || v.Spec.GetMtls().GetMode() == security.PeerAuthentication_MutualTLS_STRICT {
				n.refused("spec", "not-overridden", model.Narrows,
					fmt.Sprintf("PeerAuthentication %s is STRICT for more and still holds: peers without a known identity are denied", o.Key()), "make the wider one PERMISSIVE")
			}
		}
	}
}
