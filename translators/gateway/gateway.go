// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// Plane is the translator's name.
const Plane = "gateway"

// Options are the inputs that no object carries.
type Options struct {
	// RequireGrants: backends in other namespaces than their route's need a
	// ReferenceGrant. GAMMA does without, because such a route reaches nothing that its
	// clients could not reach by themselves.
	RequireGrants bool
}

// Translator is the control plane "gateway". It is immutable.
type Translator struct{ requireGrants bool }

var _ translators.Translator = (*Translator)(nil)

// New returns the translator.
func New(o Options) *Translator { return &Translator{o.RequireGrants} }

// Plane implements translators.Translator.
func (t *Translator) Plane() string { return Plane }

// Types implements translators.Translator.
func (t *Translator) Types() []objects.Type {
	return append(gatewayapi.RouteTypes(), gatewayapi.OtherTypes()...)
}

// Keys of the translator.
const (
	routesKey = "routes" // of a service
	objectKey = "object" // what is said about one route, whatever its parents; the name is KIND/NAME
)

// byParent finds routes by "namespace/name" of the services that they name as parents.
const byParent = "parent"

// routeKinds in the order in which one beats the other on a port.
var routeKinds = []objects.Kind{gatewayapi.GRPCRouteKind, gatewayapi.HTTPRouteKind}

// Indexes implements translators.Translator.
func (t *Translator) Indexes() []translators.Index {
	var out []translators.Index
	for _, k := range routeKinds {
		out = append(out, translators.Index{Kind: k, Name: byParent, Values: func(o *objects.Object) []string {
			var keys []string
			for _, p := range services(o) {
				keys = append(keys, p.Namespace+"/"+p.Name)
			}
			return keys
		}})
	}
	return out
}

// services are the parents of a route that are Services.
func services(o *objects.Object) []gatewayapi.Parent {
	var out []gatewayapi.Parent
	route, _ := gatewayapi.Of(o)
	for _, p := range route.Parents {
		if p.IsService() && p.Name != "" {
			out = append(out, p)
		}
	}
	return out
}

// Keys implements translators.Translator.
func (t *Translator) Keys(o *objects.Object) []translators.Key {
	if o.Kind != gatewayapi.HTTPRouteKind && o.Kind != gatewayapi.GRPCRouteKind {
		return nil
	}
	keys := []translators.Key{{Kind: objectKey, Namespace: o.Namespace, Name: o.Kind.Kind + "/" + o.Name}}
	for _, p := range services(o) {
		keys = append(keys, translators.Key{Kind: routesKey, Namespace: p.Namespace, Name: p.Name})
	}
	return keys
}

// Validate implements translators.Translator.
func (t *Translator) Validate(o *objects.Object) []model.Diagnostic {
	r := gatewayapi.Report{Plane: Plane, Object: o}
	if judge(o, &r) {
		return r.Diagnostics
	}
	return gatewayapi.Validate(Plane, o)
}

// Defaults implements translators.Translator. The Gateway API's routes are about the
// service that a client has dialled, whatever host its request names.
func (t *Translator) Defaults(translators.Reader) *model.Defaults {
	return &model.Defaults{Choice: model.Choice{Basis: model.ByDestination}}
}

// Translate implements translators.Translator.
func (t *Translator) Translate(r translators.Reader, k translators.Key) translators.Result {
	switch k.Kind {
	case routesKey:
		return t.routes(r, k.Namespace, k.Name)
	case objectKey:
		kind, name, _ := strings.Cut(k.Name, "/")
		if o := r.Get(objects.Kind{Group: gatewayapi.Group, Kind: kind}, k.Namespace, name); o != nil {
			return translators.Result{Diagnostics: t.object(r, o)}
		}
	}
	return translators.Result{}
}

// reads reports whether the plane may serve what is in a namespace: a namespace that
// names another plane, or is in Linkerd's mesh, has its routes read by that one, and
// what is said about them here would be about nothing.
func reads(r translators.Reader, namespace string) bool {
	n := r.Namespace(namespace)
	switch {
	case n == nil:
		return true
	case n.Owner != "":
		return n.Owner == Plane
	}
	return n.Mesh != linkerd
}

// linkerd is the other plane that reads routes of the Gateway API.
const linkerd = "linkerd"
