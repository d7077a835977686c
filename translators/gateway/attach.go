// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// candidate is a route that names the service as a parent.
type candidate struct {
	gatewayapi.Route
	rep     *gatewayapi.Report
	parents []gatewayapi.Parent // those that are the service
}

// audience is the namespace whose clients the route is for: "" is all of them.
func (c *candidate) audience(service *model.Service) string {
	if c.Object.Namespace == service.Namespace {
		return ""
	}
	return c.Object.Namespace
}

// older orders routes by precedence: the oldest, and of those of one time the first by
// "namespace/name".
func older(a, b *objects.Object) int {
	if !a.Created.IsZero() && a.Created.Equal(b.Created) {
		return strings.Compare(a.Key(), b.Key())
	}
	return objects.CompareCreated(a, b)
}

// candidates are the routes that name a service, the older first.
func candidates(r translators.Reader, namespace, name string) []*candidate {
	var out []*candidate
	for _, kind := range routeKinds {
		for _, o := range r.Select(kind, byParent, namespace+"/"+name) {
			route, _ := gatewayapi.Of(o)
			c := &candidate{Route: route, rep: &gatewayapi.Report{Plane: Plane, Object: o}}
			for _, p := range route.Parents {
				if p.IsService() && p.Namespace == namespace && p.Name == name {
					c.parents = append(c.parents, p)
				}
			}
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b *candidate) int { return older(a.Object, b.Object) })
	return out
}

// noMatchingParent is the reason of a parent that is not there.
const noMatchingParent = "no-matching-parent"

// unattached says of every route that there is no such service to be attached to.
func unattached(all []*candidate, why, advice string) {
	for _, c := range all {
		for _, p := range c.parents {
			c.rep.Refuse(p.Field+".name", noMatchingParent, why, advice)
		}
	}
}

// selects reports whether a parent means a port.
func selects(p gatewayapi.Parent, port model.ServicePort) bool {
	return (p.Port == 0 || p.Port == int32(port.Port)) && (p.Section == "" || p.Section == port.Name)
}

// explicit reports whether a parent names ports.
func explicit(p gatewayapi.Parent) bool { return p.Port != 0 || p.Section != "" }

// port is what one port of a service is for the routes that are attached to it.
type port struct {
	model.ServicePort
	routes []*candidate
	named  bool // one of them names the port
}

// attach finds the routes of each port that can have some, and says of the parents why
// they have none.
func attach(service *model.Service, all []*candidate) []port {
	ports := make([]port, 0, len(service.Ports))
	for _, p := range service.Ports {
		ports = append(ports, port{ServicePort: p})
	}
	for _, c := range all {
		on := map[int]bool{}
		for _, parent := range c.parents {
			attached, deaf := false, ""
			for i := range ports {
				p := &ports[i]
				switch {
				case !selects(parent, p.ServicePort):
				case !routable(p.ServicePort):
					deaf = fmt.Sprintf("port %d of %s is not HTTP: what is sent to it is passed on", p.Port, service.Key())
				default:
					attached, on[i] = true, true
					p.named = p.named || explicit(parent)
				}
			}
			switch {
			case attached:
			case deaf != "":
				c.rep.Refuse(parent.Field, "unsupported-protocol", deaf, "set the port's appProtocol to http or grpc if it is")
			default:
				c.rep.Refuse(parentField(parent), noMatchingParent, fmt.Sprintf("%s has no such port: the route is not attached to it", service.Key()), "")
			}
		}
		for i := range ports {
			if on[i] {
				ports[i].routes = append(ports[i].routes, c)
			}
		}
	}
	return slices.DeleteFunc(ports, func(p port) bool { return len(p.routes) == 0 })
}

// parentField is the field by which a parent's port is named.
func parentField(p gatewayapi.Parent) string {
	switch {
	case p.Port != 0:
		return p.Field + ".port"
	case p.Section != "":
		return p.Field + ".sectionName"
	}
	return p.Field
}

// routable reports whether a port can have requests.
func routable(p model.ServicePort) bool {
	return p.Protocol == model.TCP && (p.App == model.AppUndeclared || p.App.HasRequests())
}

// audience is the routes that a client gets, of one kind.
type audience struct {
	namespace string // of the clients, "" if all
	routes    []*candidate
}

// audiences parts the routes of a port by whom they are for, those for some before
// those for all. On one port GRPCRoutes leave HTTPRoutes no room.
func audiences(service *model.Service, p port) []audience {
	var out []audience
	for _, c := range p.routes {
		ns := c.audience(service)
		i := slices.IndexFunc(out, func(a audience) bool { return a.namespace == ns })
		if i < 0 {
			i = len(out)
			out = append(out, audience{namespace: ns})
		}
		out[i].routes = append(out[i].routes, c)
	}
	for i := range out {
		out[i].routes = ofOneKind(service, p, out[i].routes)
	}
	slices.SortFunc(out, func(a, b audience) int {
		return cmp.Or(boolean(a.namespace == "", b.namespace == ""), strings.Compare(a.namespace, b.namespace))
	})
	return out
}

func boolean(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// ofOneKind leaves the routes of the kind that beats the others. What is invalid beats
// nothing that is not.
func ofOneKind(service *model.Service, p port, in []*candidate) []*candidate {
	valid := func(c *candidate) bool { return !c.Object.Invalid }
	first := slices.IndexFunc(in, func(c *candidate) bool { return isGRPC(c) && valid(c) })
	if first < 0 {
		first = slices.IndexFunc(in, func(c *candidate) bool { return !isGRPC(c) && valid(c) })
	}
	if first < 0 {
		first = slices.IndexFunc(in, isGRPC)
	}
	if first < 0 {
		return in
	}
	winner := in[first]
	var out []*candidate
	for _, c := range in {
		if isGRPC(c) == isGRPC(winner) {
			out = append(out, c)
			continue
		}
		for _, parent := range c.parents {
			if selects(parent, p.ServicePort) {
				c.rep.Refuse(parentField(parent), "conflicted",
					fmt.Sprintf("port %d of %s has the %s %s, beside which %s does not count", p.Port, service.Key(),
						winner.Object.Kind.Kind, winner.Object.Key(), beside(c)),
					"give them ports of their own")
			}
		}
	}
	return out
}

// beside names a route that does not count.
func beside(c *candidate) string {
	switch {
	case !isGRPC(c):
		return "an HTTPRoute"
	case c.Object.Invalid:
		return "an invalid GRPCRoute"
	}
	return "a GRPCRoute"
}

func isGRPC(c *candidate) bool { return c.Object.Kind == gatewayapi.GRPCRouteKind }
