// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// Backend resolves a reference. One that is not valid is Missing, with the status of
// its share, and ok is false.
func (c *Conversion) Backend(field string, ref gatewayv1.BackendObjectReference) (out model.Backend, ok bool) {
	return c.resolve(field, ref, "its share fails")
}

// resolve is Backend; loss is what becomes of a reference that is not valid.
func (c *Conversion) resolve(field string, ref gatewayv1.BackendObjectReference, loss string) (out model.Backend, ok bool) {
	object := c.Route.Object
	out = model.Backend{Namespace: given(ref.Namespace, object.Namespace), Service: string(ref.Name), Missing: true, Status: c.Failure()}
	if group, kind := given(ref.Group, ""), given(ref.Kind, "Service"); group != "" || kind != "Service" {
		at := field + ".kind"
		if ref.Kind == nil {
			at = field + ".group"
		}
		c.Report.Refuse(at, InvalidKind, fmt.Sprintf("%s is no kind of backend that is known: %s", kinded(group, kind), loss), "name a Service")
		return out, false
	}
	port := number(ref.Port, 0)
	if port < 1 || port > 65535 {
		c.Report.Refuse(field+".port", BackendNotFound, "a service needs a port: "+loss, "give the port")
		return out, false
	}
	out.Port = uint16(port)
	if c.Grants && out.Namespace != object.Namespace && !c.granted(out) {
		c.Report.Say(field+".namespace", RefNotPermitted, model.Narrows, model.Refused,
			fmt.Sprintf("no ReferenceGrant of namespace %s lets %ss of namespace %s name service %s: %s", out.Namespace, object.Kind.Kind, object.Namespace, out.Service, loss),
			"add a ReferenceGrant there")
		return out, false
	}
	service := c.Reader.Service(out.Namespace, out.Service)
	switch {
	case service == nil:
		c.Report.Refuse(field+".name", BackendNotFound, fmt.Sprintf("there is no service %s/%s: %s", out.Namespace, out.Service, loss), "")
		return out, false
	case service.Port(out.Port) == nil:
		c.Report.Refuse(field+".port", BackendNotFound, fmt.Sprintf("service %s has no TCP port %d: %s", service.Key(), out.Port, loss), "")
		return out, false
	}
	out.Missing, out.Status = false, 0
	return out, true
}

func kinded(group, kind string) string {
	if group == "" {
		return kind
	}
	return kind + "." + group
}

// granted reports whether the backend's namespace allows the reference.
func (c *Conversion) granted(b model.Backend) bool {
	from := c.Route.Object
	for _, o := range c.Reader.List(ReferenceGrantKind, b.Namespace) {
		grant, ok := o.Value.(*gatewayv1.ReferenceGrant)
		if !ok || o.Invalid {
			continue
		}
		if grantsFrom(grant, from.Kind.Group, from.Kind.Kind, from.Namespace) && grantsTo(grant, b.Service) {
			return true
		}
	}
	return false
}

func grantsFrom(g *gatewayv1.ReferenceGrant, group, kind, namespace string) bool {
	for _, f := range g.Spec.From {
		if string(f.Group) == group && string(f.Kind) == kind && string(f.Namespace) == namespace {
			return true
		}
	}
	return false
}

func grantsTo(g *gatewayv1.ReferenceGrant, service string) bool {
	for _, t := range g.Spec.To {
		if t.Group == "" && t.Kind == "Service" && (t.Name == nil || *t.Name == "" || string(*t.Name) == service) {
			return true
		}
	}
	return false
}

// backends are those of a rule as they are written, with the filters of each but those
// of the only one, which Convert has taken for the rule's.
func (c *Conversion) backends(rule Rule, only int) []model.Backend {
	var out []model.Backend
	for i, in := range rule.Backends {
		b, ok := c.Backend(in.Field, in.BackendObjectReference)
		b.Weight = uint32(max(0, in.Weight))
		if b.Weight > 0 && i != only && ok {
			b = c.edited(in, b)
		}
		if b.Missing { // what it was meant to be makes no difference
			b = model.Backend{Missing: true, Status: b.Status, Weight: b.Weight, Namespace: b.Namespace, Service: b.Service, Port: b.Port}
		}
		out = append(out, b)
	}
	return out
}

// edited gives one of several backends its filters. Of those only header edits, and the
// host, can be a backend's own.
func (c *Conversion) edited(in BackendRef, b model.Backend) model.Backend {
	for i, f := range in.Filters {
		if f.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier || f.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier ||
			f.Type == gatewayv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil && f.URLRewrite.Path == nil {
			continue
		}
		c.Report.Refuse(fmt.Sprintf("%s.filters[%d].type", in.Field, i), UnsupportedFilter,
			fmt.Sprintf("%s is not done for one of several backends: its share fails", f.Type), "put the filter on the rule, or split the rule")
		b.Missing, b.Status = true, c.Failure()
		return b
	}
	filters, ok := c.Filters(in.Field+".filters", in.Filters)
	if !ok {
		b.Missing, b.Status = true, c.Failure()
		return b
	}
	b.RequestHeaders, b.ResponseHeaders = filters.Request, filters.Response
	if filters.Rewrite != nil {
		b.RequestHeaders = b.RequestHeaders.Then(model.HeaderEdit{Set: []model.Header{{Name: authority, Value: filters.Rewrite.Authority}}})
	}
	return b
}
