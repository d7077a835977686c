// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// Validate implements translators.Translator: what Linkerd's schemas and its webhook do
// not let in.
func (t *Translator) Validate(o *objects.Object) []model.Diagnostic {
	rep := &report{}
	switch v := o.Value.(type) {
	case *api.Server, *api.ServerBeta1, *api.ServerBeta2:
		validateServer(o, rep)
	case *api.ServerAuthorization:
		validateServerAuthorization(o, v, rep)
	case *api.AuthorizationPolicy:
		validateAuthorizationPolicy(o, v, rep)
	case *api.MeshTLSAuthentication:
		validateMeshTLS(o, v, rep)
	case *api.NetworkAuthentication:
		if len(v.Spec.Networks) == 0 {
			rep.invalid(o, "spec.networks", model.Narrows, "at least one network is needed")
		}
		validateNetworks(o, "spec.networks", v.Spec.Networks, rep)
	case *api.HTTPLocalRateLimitPolicy:
		validateRateLimit(o, rep)
	case *api.ServiceProfile:
		validateProfile(o, v, rep)
	case *api.HTTPRoute, *api.HTTPRouteBeta1, *api.HTTPRouteBeta2:
		validateRoute(o, rep)
	}
	return rep.sorted()
}

func validateServerAuthorization(o *objects.Object, v *api.ServerAuthorization, rep *report) {
	const effect = model.Narrows
	s, c := v.Spec.Server, v.Spec.Client
	selector(o, "spec.server.selector", s.Selector, effect, rep)
	if (s.Name == "") == (s.Selector == nil) {
		rep.invalid(o, "spec.server", effect, "either a name or a selector says which Servers are meant")
	}
	validateNetworks(o, "spec.client.networks", c.Networks, rep)
	m := c.MeshTLS
	switch {
	case c.Unauthenticated:
	case m == nil:
		rep.invalid(o, "spec.client", effect, "no client is authorized: meshTLS or unauthenticated is needed")
	case !m.UnauthenticatedTLS && len(m.Identities)+len(m.ServiceAccounts) == 0:
		rep.invalid(o, "spec.client.meshTLS", effect, "no client is authorized: identities, serviceAccounts or unauthenticatedTLS are needed")
	}
}

func validateAuthorizationPolicy(o *objects.Object, v *api.AuthorizationPolicy, rep *report) {
	const effect = model.Narrows
	ref := v.Spec.TargetRef
	switch {
	case !slices.ContainsFunc(targets, func(k objects.Kind) bool { return isKind(ref.Group, ref.Kind, k) }):
		rep.invalid(o, "spec.targetRef.kind", effect, "%s is not a kind that a policy is for: use Server, Namespace, HTTPRoute or GRPCRoute, with their groups", kindText(ref.Group, ref.Kind))
	case isNamespace(ref) && ref.Name != o.Namespace:
		rep.invalid(o, "spec.targetRef.name", effect, "a policy is for its own namespace, %s, and no other", o.Namespace)
	}
	if v.Spec.RequiredAuthenticationRefs == nil {
		rep.invalid(o, "spec.requiredAuthenticationRefs", effect, "the list is required; an empty one asks for nothing and lets in everybody")
	}
	identities, networks := 0, 0
	for i, ref := range v.Spec.RequiredAuthenticationRefs {
		field := at("spec.requiredAuthenticationRefs", i)
		switch {
		case isKind(ref.Group, ref.Kind, meshTLSKind), isKind(ref.Group, ref.Kind, objects.ServiceAccountKind):
			identities++
		case isKind(ref.Group, ref.Kind, networkAuthenticationKind):
			networks++
		default:
			rep.invalid(o, field+".kind", effect, "%s is not an authentication: use MeshTLSAuthentication, NetworkAuthentication or ServiceAccount, with their groups", kindText(ref.Group, ref.Kind))
		}
	}
	if identities > 1 {
		rep.invalid(o, "spec.requiredAuthenticationRefs", effect, "only one MeshTLSAuthentication or ServiceAccount: each would have to be met")
	}
	if networks > 1 {
		rep.invalid(o, "spec.requiredAuthenticationRefs", effect, "only one NetworkAuthentication: each would have to be met")
	}
}

func kindText(group, kind string) string {
	if group == "" {
		return fmt.Sprintf("%q", kind)
	}
	return fmt.Sprintf("%q of %s", kind, group)
}

func validateMeshTLS(o *objects.Object, v *api.MeshTLSAuthentication, rep *report) {
	const effect = model.Narrows
	s := v.Spec
	if (len(s.Identities) == 0) == (len(s.IdentityRefs) == 0) {
		rep.invalid(o, "spec", effect, "either identities or identityRefs are needed")
	}
	for i, id := range s.Identities {
		if id == "" {
			rep.invalid(o, at("spec.identities", i), effect, "an identity is empty")
		}
	}
	for i, ref := range s.IdentityRefs {
		if !isKind(ref.Group, ref.Kind, objects.ServiceAccountKind) && !isKind(ref.Group, ref.Kind, objects.NamespaceKind) {
			rep.invalid(o, at("spec.identityRefs", i)+".kind", effect, "%s has no identity: use ServiceAccount or Namespace", kindText(ref.Group, ref.Kind))
		}
	}
}

// validateNetworks judges ranges: a hole must be inside its range, and not all of it.
func validateNetworks(o *objects.Object, field string, in []api.Network, rep *report) {
	const effect = model.Narrows
	for i, n := range in {
		p, err := readPrefix(n.CIDR)
		if err != nil {
			rep.invalid(o, at(field, i)+".cidr", effect, "%s", err)
		}
		for j, e := range n.Except {
			name := at(at(field, i)+".except", j)
			x, errX := readPrefix(e)
			switch {
			case errX != nil:
				rep.invalid(o, name, effect, "%s", errX)
			case err != nil:
			case x.Bits() <= p.Bits() && x.Contains(p.Addr()):
				rep.invalid(o, name, effect, "%s leaves nothing of %s", x, p)
			case !inside(x, p):
				rep.invalid(o, name, effect, "%s is not inside %s", x, p)
			}
		}
	}
}

func inside(x, p netip.Prefix) bool { return x.Bits() >= p.Bits() && p.Contains(x.Addr()) }

func validateProfile(o *objects.Object, v *api.ServiceProfile, rep *report) {
	const effect = model.Degrades
	for i, r := range v.Spec.Routes {
		field := at("spec.routes", i)
		validateCondition(o, field+".condition", r.Condition, rep)
		if _, err := conditions(r.Condition); errors.Is(err, errTooManyMatches) {
			rep.invalid(o, field+".condition", effect, "%s: more than %d", err, maxMatches)
		}
		for j, c := range r.ResponseClasses {
			validateAnswer(o, at(field+".responseClasses", j)+".condition", c.Condition, rep)
		}
		if r.Timeout != "" {
			if d, err := time.ParseDuration(r.Timeout); err != nil || d < 0 {
				rep.invalid(o, field+".timeout", effect, "%q is not a duration such as 500ms", r.Timeout)
			}
		}
	}
	if b := v.Spec.RetryBudget; b != nil {
		if _, err := time.ParseDuration(b.TTL); err != nil {
			rep.invalid(o, "spec.retryBudget.ttl", effect, "%q is not a duration such as 10s", b.TTL)
		}
		if !(b.RetryRatio >= 0) {
			rep.invalid(o, "spec.retryBudget.retryRatio", effect, "%g is not a ratio", b.RetryRatio)
		}
	}
	for i, d := range v.Spec.DstOverrides {
		if d.Authority == "" {
			rep.invalid(o, at("spec.dstOverrides", i)+".authority", effect, "a backend needs an authority")
		}
		if d.Weight.Sign() < 0 {
			rep.invalid(o, at("spec.dstOverrides", i)+".weight", effect, "%s is not a weight", d.Weight.String())
		}
	}
	for i, p := range v.Spec.OpaquePorts {
		if _, err := readPorts(p); err != nil {
			rep.invalid(o, at("spec.opaquePorts", i), effect, "%s", err)
		}
	}
}

// validateCondition judges a condition on requests: it says something, and its
// expressions can be read.
func validateCondition(o *objects.Object, field string, m *api.RequestMatch, rep *report) {
	const effect = model.Degrades
	if m == nil || m.PathRegex == "" && m.Method == "" && len(m.All)+len(m.Any)+len(m.Not) == 0 {
		rep.invalid(o, field, effect, "the condition says nothing")
		return
	}
	if m.PathRegex != "" {
		if _, err := pathExpression(m.PathRegex); err != nil {
			rep.invalid(o, field+".pathRegex", effect, "%s", err)
		}
	}
	for name, list := range map[string][]api.RequestMatch{"all": m.All, "any": m.Any, "not": m.Not} {
		for i := range list {
			validateCondition(o, at(field+"."+name, i), &list[i], rep)
		}
	}
}

func validateAnswer(o *objects.Object, field string, m *api.ResponseMatch, rep *report) {
	const effect = model.Degrades
	if m == nil || m.Status == nil && m.Not == nil && len(m.All)+len(m.Any) == 0 {
		rep.invalid(o, field, effect, "the condition says nothing")
		return
	}
	if s := m.Status; s != nil {
		if s.Min != 0 && s.Max != 0 && s.Min > s.Max || s.Max > 599 || s.Min > 599 || s.Min != 0 && s.Min < 100 || s.Max != 0 && s.Max < 100 || s.Min == 0 && s.Max == 0 {
			rep.invalid(o, field+".status", effect, "%d to %d is not a range of statuses", s.Min, s.Max)
		}
	}
	for i := range m.All {
		validateAnswer(o, at(field+".all", i), &m.All[i], rep)
	}
	for i := range m.Any {
		validateAnswer(o, at(field+".any", i), &m.Any[i], rep)
	}
	if m.Not != nil {
		validateAnswer(o, field+".not", m.Not, rep)
	}
}

// validateRoute judges Linkerd's own HTTPRoute as one of the Gateway API. A backend
// without a port is none of its schema's: Linkerd answers its share.
func validateRoute(o *objects.Object, rep *report) {
	rt, ok := routeOf(o)
	if !ok {
		return
	}
	for _, d := range gatewayapi.Validate(Plane, rt.Object) {
		if !withoutPort(o, d.Source.Field) {
			rep.out = append(rep.out, d)
		}
	}
}

// withoutPort reports whether a field is the port of a backend, and is not written.
func withoutPort(o *objects.Object, field string) bool {
	_, written := o.Place.Lines[field]
	return strings.Contains(field, ".backendRefs[") && strings.HasSuffix(field, "].port") && !written && o.Place.Lines != nil
}
