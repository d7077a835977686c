// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// grant is what one object lets in.
type grant struct {
	client client
	src    []model.Source
}

// rule is the grant for requests or connections to a port.
func (g grant) rule(to ...model.Operation) model.AuthRule {
	return model.AuthRule{From: g.client.peers(), To: to, Src: g.src}
}

// serverGrants are what is let in at a Server whatever the route: by authorizations for
// it, by policies for it or its namespace, and by its own access policy.
func (t *Translator) serverGrants(r translators.Reader, s server) []grant {
	var out []grant
	for _, o := range r.List(serverAuthorizationKind, s.o.Namespace) {
		v, ok := o.Value.(*api.ServerAuthorization)
		if !ok || o.Invalid || !authorizes(v, s.o) {
			continue
		}
		if c := t.serverClient(v, o.Namespace); !c.nobody() {
			out = append(out, grant{c, []model.Source{o.Source(Plane, "spec.client")}})
		}
	}
	out = append(out, t.policyGrants(r, s.o.Namespace, serverKind, s.o.Name, func(ref api.LocalRef) bool { return ref.Name == s.o.Name })...)
	out = append(out, t.policyGrants(r, s.o.Namespace, objects.NamespaceKind, "", isNamespace)...)
	if c, ok := t.client(s.access); ok {
		out = append(out, grant{c, []model.Source{s.o.Source(Plane, "spec.accessPolicy")}})
	}
	return out
}

// policyGrants are what AuthorizationPolicies of a namespace let in that are for a kind
// and name, and whose target is wanted.
func (t *Translator) policyGrants(r translators.Reader, namespace string, k objects.Kind, name string, wanted func(api.LocalRef) bool) []grant {
	var out []grant
	for _, o := range r.Select(authorizationPolicyKind, byTarget, targetKey(namespace, k.Group, k.Kind, name)) {
		v, ok := o.Value.(*api.AuthorizationPolicy)
		if !ok || o.Invalid || !wanted(v.Spec.TargetRef) {
			continue
		}
		if g, ok := t.policyGrant(r, o, v, &report{}); ok {
			out = append(out, g)
		}
	}
	return out
}

// targetIndex lists what a policy is for.
func targetIndex(o *objects.Object) []string {
	v, ok := o.Value.(*api.AuthorizationPolicy)
	if !ok {
		return nil
	}
	ref := v.Spec.TargetRef
	if isNamespace(ref) {
		return []string{targetKey(o.Namespace, "", ref.Kind, "")}
	}
	return []string{targetKey(o.Namespace, ref.Group, ref.Kind, ref.Name)}
}

// targetKey is of what a policy of a namespace is for; case does not matter.
func targetKey(namespace, group, kind, name string) string {
	return strings.ToLower(namespace + "/" + group + "/" + kind + "/" + name)
}

// authorizes reports whether an authorization is for a Server.
func authorizes(v *api.ServerAuthorization, s *objects.Object) bool {
	if name := v.Spec.Server.Name; name != "" {
		return name == s.Name
	}
	if v.Spec.Server.Selector == nil {
		return false
	}
	sel, err := metav1.LabelSelectorAsSelector(v.Spec.Server.Selector)
	return err == nil && sel.Matches(labels.Set(s.Labels))
}

// serverClient is who a ServerAuthorization lets in. Without networks those of the
// cluster are meant.
func (t *Translator) serverClient(v *api.ServerAuthorization, namespace string) client {
	in := v.Spec.Client
	c := client{networks: t.networks}
	if len(in.Networks) > 0 {
		c.networks = readNetworks(in.Networks)
	}
	switch {
	case in.Unauthenticated:
	case in.MeshTLS == nil:
		c.identities = []model.StringMatch{}
	case in.MeshTLS.UnauthenticatedTLS:
		c.identities = []model.StringMatch{anybody}
	default:
		c.identities = []model.StringMatch{}
		for _, id := range in.MeshTLS.Identities {
			if m, ok := t.identity(id); ok {
				c.identities = append(c.identities, m)
			}
		}
		for _, sa := range in.MeshTLS.ServiceAccounts {
			c.identities = append(c.identities, t.account(or(sa.Namespace, namespace), sa.Name))
		}
	}
	return c
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// policyGrant is what one AuthorizationPolicy lets in: whom each of its authentications
// does. One that is not there, or that is invalid, makes it let in nobody.
func (t *Translator) policyGrant(r translators.Reader, o *objects.Object, v *api.AuthorizationPolicy, rep *report) (grant, bool) {
	g := grant{src: []model.Source{o.Source(Plane, "spec")}}
	for i, ref := range v.Spec.RequiredAuthenticationRefs {
		field := at("spec.requiredAuthenticationRefs", i)
		ns := or(ref.Namespace, o.Namespace)
		switch {
		case isKind(ref.Group, ref.Kind, objects.ServiceAccountKind):
			g.client.identities = []model.StringMatch{t.account(ns, ref.Name)}
		case isKind(ref.Group, ref.Kind, meshTLSKind):
			a, ok := find[api.MeshTLSAuthentication](r, o, field, meshTLSKind, ns, ref.Name, rep)
			if !ok {
				return grant{}, false
			}
			g.client.identities = t.meshIdentities(a.value, ns)
			g.src = append(g.src, a.o.Source(Plane, "spec"))
		case isKind(ref.Group, ref.Kind, networkAuthenticationKind):
			a, ok := find[api.NetworkAuthentication](r, o, field, networkAuthenticationKind, ns, ref.Name, rep)
			if !ok {
				return grant{}, false
			}
			g.client.networks = readNetworks(a.value.Spec.Networks)
			g.src = append(g.src, a.o.Source(Plane, "spec.networks"))
		}
	}
	return g, !g.client.nobody()
}

// meshIdentities are those that a MeshTLSAuthentication is for.
func (t *Translator) meshIdentities(v *api.MeshTLSAuthentication, namespace string) []model.StringMatch {
	out := []model.StringMatch{}
	for _, id := range v.Spec.Identities {
		if m, ok := t.identity(id); ok {
			out = append(out, m)
		}
	}
	for _, ref := range v.Spec.IdentityRefs {
		switch {
		case isKind(ref.Group, ref.Kind, objects.ServiceAccountKind):
			out = append(out, t.account(or(ref.Namespace, namespace), ref.Name))
		case isKind(ref.Group, ref.Kind, objects.NamespaceKind):
			out = append(out, t.accounts(ref.Name))
		}
	}
	return out
}

// found is an object with its value.
type found[T any] struct {
	o     *objects.Object
	value *T
}

// find is the object that a field names.
func find[T any](r translators.Reader, o *objects.Object, field string, k objects.Kind, namespace, name string, rep *report) (found[T], bool) {
	a := r.Get(k, namespace, name)
	if a != nil && !a.Invalid {
		if v, ok := a.Value.(*T); ok {
			return found[T]{a, v}, true
		}
	}
	code, what := "unknown-authentication", fmt.Sprintf("there is no %s %s/%s", k.Kind, namespace, name)
	if a != nil {
		code, what = "invalid-authentication", fmt.Sprintf("%s %s/%s is invalid", k.Kind, namespace, name)
	}
	rep.refused(o, field+".name", code, model.Narrows, what+": this policy lets in nobody", "")
	return found[T]{}, false
}

// isKind reports whether a reference is to a kind; the group "core" is the empty one,
// and case does not matter.
func isKind(group, kind string, k objects.Kind) bool {
	if strings.EqualFold(group, "core") {
		group = ""
	}
	return strings.EqualFold(group, k.Group) && strings.EqualFold(kind, k.Kind)
}

func isNamespace(ref api.LocalRef) bool { return isKind(ref.Group, ref.Kind, objects.NamespaceKind) }

// targets are the kinds that a policy may be for.
var targets = []objects.Kind{serverKind, objects.NamespaceKind, httpRouteKind, gatewayapi.HTTPRouteKind, gatewayapi.GRPCRouteKind}
