// SPDX-License-Identifier: Apache-2.0

// Package gateway says what routes of the Gateway API have in their status: of each parent
// that is a Service whether it is accepted, and whether what it refers to was found.
//
// It judges nothing by itself: it puts what the pipeline has said about a route, and which
// frontends have it, into the API's words. Parents of other kinds are other controllers'.
package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gateway"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/linkerd"
	"fairlead.io/fairlead/translators/objects"
)

// Judge of the Gateway API's groups.
type Judge struct{}

// Covers implements conditions.Judge. Kinds that are not read are other controllers',
// and nothing is said about them to their users.
func (Judge) Covers(k objects.Kind) bool {
	return k.Group == gatewayapi.Group || k.Group == gatewayapi.ExperimentalGroup
}

// Judge implements conditions.Judge.
func (Judge) Judge(v *conditions.View, o *objects.Object) *conditions.Status {
	if o.Kind != gatewayapi.HTTPRouteKind && o.Kind != gatewayapi.GRPCRouteKind {
		return nil
	}
	r, ok := gatewayapi.Of(o)
	if !ok {
		return nil
	}
	out := &conditions.Status{}
	for i, p := range r.Parents {
		if meantForMesh(p) {
			a := &attachment{v: v, route: r, parent: p}
			out.Parents = append(out.Parents, conditions.Parent{Ref: reference(o, i), Conditions: a.conditions()})
		}
	}
	return out
}

// meantForMesh tells parents that are Services, or that were meant to be: such a Service
// of the API's own group is no other controller's either.
func meantForMesh(p gatewayapi.Parent) bool {
	return p.IsService() || p.Kind == "Service" && (p.Group == gatewayapi.Group || p.Group == "core")
}

// reference is a parentRef as it is written.
func reference(o *objects.Object, i int) map[string]any {
	var refs []gatewayv1.ParentReference
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		refs = v.Spec.ParentRefs
	case *gatewayv1.GRPCRoute:
		refs = v.Spec.ParentRefs
	}
	text, err := json.Marshal(refs[i])
	if err != nil {
		panic("gateway: " + err.Error()) // of strings and numbers
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		panic("gateway: " + err.Error())
	}
	if p := refs[i].Port; p != nil {
		out["port"] = int64(*p)
	}
	return out
}

// attachment is a route at one of its parents.
type attachment struct {
	v      *conditions.View
	route  gatewayapi.Route
	parent gatewayapi.Parent
}

// Reasons that the API has no word for.
const (
	reasonStandby     = "Standby"             // another plane's routes are served there
	reasonConflicted  = "Conflicted"          // GEP-1294
	reasonProtocol    = "UnsupportedProtocol" // a parent's port has no requests
	reasonUnsupported = "UnsupportedParent"
)

func (a *attachment) conditions() []conditions.Condition {
	said := conditions.Worth(a.said())
	refs := a.refs(said)
	accepted, partially := a.accepted(said)
	out := []conditions.Condition{accepted, refs}
	if partially != nil {
		out = append(out, *partially)
	}
	return out
}

// parts are those of the parent's frontends that the route is in.
func (a *attachment) parts() []conditions.Part {
	service, _ := a.v.Get(translators.Services, a.parent.Namespace+"/"+a.parent.Name).(*model.Service)
	if service == nil || !a.parent.IsService() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(a.v.Parts(a.route.Object.Ref())), func(part conditions.Part) bool {
		for _, p := range service.Ports {
			f := model.Frontend{Namespace: service.Namespace, Service: service.Name, Port: p.Port}
			if f.Key() == part.Frontend {
				section := part.Plane != linkerd.Plane && a.parent.Section != "" // which Linkerd does not read
				return a.parent.Port != 0 && a.parent.Port != int32(p.Port) || section && a.parent.Section != p.Name
			}
		}
		return true
	})
}

// reader is the plane that has read the route for the parent, "" if none has.
func (a *attachment) reader() string {
	reader := ""
	for _, p := range a.parts() {
		if p.Served() {
			return p.Plane
		}
		reader = p.Plane
	}
	return reader
}

// said is what the plane that reads the route for the parent says about it.
func (a *attachment) said() []model.Diagnostic {
	reader := a.reader()
	return slices.DeleteFunc(slices.Clone(a.v.Diagnostics(a.route.Object.Ref())), func(d model.Diagnostic) bool {
		planes := d.Source.Plane == gateway.Plane || d.Source.Plane == linkerd.Plane
		return planes && reader != "" && d.Source.Plane != reader
	})
}

// aboutParent tells what is about this parent.
func (a *attachment) aboutParent(d model.Diagnostic) bool {
	return within(d.Source.Field, a.parent.Field)
}

func within(field, of string) bool {
	rest, ok := strings.CutPrefix(field, of)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// accepted is the condition of that name, and PartiallyInvalid where it holds.
func (a *attachment) accepted(said []model.Diagnostic) (accepted conditions.Condition, partially *conditions.Condition) {
	no := func(reason, message string) (conditions.Condition, *conditions.Condition) {
		return condition(gatewayv1.RouteConditionAccepted, conditions.False, reason, message), nil
	}
	parts := a.parts()
	served := slices.DeleteFunc(slices.Clone(parts), func(p conditions.Part) bool { return !p.Served() })
	about := only(said, a.aboutParent)
	switch {
	case len(served) == 0 && len(parts) > 0:
		return no(reasonStandby, fmt.Sprintf("%s is routed by the plane %s: see the annotation fairlead.io/control-plane of its namespace", parts[0].Frontend, parts[0].Owner.Plane))
	case a.route.Object.Invalid && (len(served) > 0 || len(about) > 0):
		errors := only(said, func(d model.Diagnostic) bool { return d.IsError() && (!aboutParents(d) || a.aboutParent(d)) })
		return no(string(gatewayv1.RouteReasonUnsupportedValue), conditions.Text(errors, conditions.MessageLimit))
	case len(served) == 0 && len(about) > 0:
		return no(parentReason(about[0].Code), conditions.Text(about, conditions.MessageLimit))
	case len(served) == 0:
		return no(a.unread())
	}
	failing := a.failing(said)
	if whole := slices.Collect(maps.Values(failing)); len(failing) == len(a.route.Rules) && !slices.Contains(whole, false) {
		return no(string(gatewayv1.RouteReasonUnsupportedValue), conditions.Text(only(said, a.fails), conditions.MessageLimit))
	}
	message := "it routes " + frontends(served)
	rest := only(said, func(d model.Diagnostic) bool {
		return !a.fails(d) && !aboutRefs(d) && (!aboutParents(d) || a.aboutParent(d))
	})
	switch kept := conditions.Kept(said); {
	case kept:
		c := condition(gatewayv1.RouteConditionPartiallyInvalid, conditions.True, string(gatewayv1.RouteReasonUnsupportedValue),
			"Fall Back to the last valid version: "+conditions.Text(rest, conditions.MessageLimit-50))
		partially = &c
	case len(failing) > 0:
		c := condition(gatewayv1.RouteConditionPartiallyInvalid, conditions.True, string(gatewayv1.RouteReasonUnsupportedValue),
			"Dropped Rule: "+conditions.Text(only(said, a.fails), conditions.MessageLimit-50))
		partially = &c
		fallthrough
	default:
		if len(rest) > 0 {
			message += "; with a difference: " + conditions.Text(rest, conditions.MessageLimit-len(message)-50)
		}
	}
	return condition(gatewayv1.RouteConditionAccepted, conditions.True, string(gatewayv1.RouteReasonAccepted), message), partially
}

// unread is the reason where nobody says anything about a parent.
func (a *attachment) unread() (reason, message string) {
	ns, _ := a.v.Get(translators.Namespaces, a.parent.Namespace).(*model.Namespace)
	if ns != nil && ns.Owner != "" {
		return reasonStandby, fmt.Sprintf("services of namespace %s are routed by the plane %s, as its annotation fairlead.io/control-plane says", ns.Name, ns.Owner)
	}
	return string(gatewayv1.RouteReasonNoMatchingParent), "nothing is routed there"
}

// parentReason is the reason for a diagnostic about a parent.
func parentReason(code string) string {
	switch code {
	case "conflicted":
		return reasonConflicted
	case "unsupported-protocol":
		return reasonProtocol
	case "unsupported-parent":
		return reasonUnsupported
	}
	return string(gatewayv1.RouteReasonNoMatchingParent)
}

// fails tells what makes a rule fail, or one of its shares, but for what is about
// references.
func (a *attachment) fails(d model.Diagnostic) bool {
	return within(d.Source.Field, "spec.rules") && !aboutRefs(d) &&
		(d.Code == gatewayapi.UnsupportedFilter || d.Code == gatewayapi.UnsupportedValue)
}

// failing are the rules that fail, with whether they do as a whole.
func (a *attachment) failing(said []model.Diagnostic) map[int]bool {
	out := map[int]bool{}
	for _, d := range only(said, a.fails) {
		for i, rule := range a.route.Rules {
			switch {
			case !within(d.Source.Field, rule.Field):
				continue
			case d.Source.Plane == linkerd.Plane && !strings.Contains(d.Source.Field, ".backendRefs["):
				// Linkerd takes no part of such a route.
				for j := range a.route.Rules {
					out[j] = true
				}
				return out
			}
			share := len(rule.Backends) > 1 && within(d.Source.Field, rule.Field+".backendRefs")
			out[i] = out[i] || !share
		}
	}
	return out
}

// refReasons are the reasons of ResolvedRefs for codes of the planes that read routes.
var refReasons = map[string]gatewayv1.RouteConditionReason{
	gatewayapi.BackendNotFound:   gatewayv1.RouteReasonBackendNotFound,
	gatewayapi.InvalidKind:       gatewayv1.RouteReasonInvalidKind,
	gatewayapi.RefNotPermitted:   gatewayv1.RouteReasonRefNotPermitted,
	gatewayapi.UnsupportedFilter: gatewayv1.RouteReasonInvalidKind, // of an extension, see aboutRefs
	// Linkerd's.
	"unknown-backend":  gatewayv1.RouteReasonBackendNotFound,
	"unknown-port":     gatewayv1.RouteReasonBackendNotFound,
	"no-port":          gatewayv1.RouteReasonBackendNotFound,
	"unsupported-kind": gatewayv1.RouteReasonInvalidKind,
}

// aboutRefs tells what is about a reference of a rule that was not found.
func aboutRefs(d model.Diagnostic) bool {
	_, ok := refReasons[d.Code]
	return ok && within(d.Source.Field, "spec.rules") &&
		(d.Code != gatewayapi.UnsupportedFilter || strings.HasSuffix(d.Source.Field, ".extensionRef"))
}

func aboutParents(d model.Diagnostic) bool { return within(d.Source.Field, "spec.parentRefs") }

// refs is the condition ResolvedRefs.
func (a *attachment) refs(said []model.Diagnostic) conditions.Condition {
	lost := only(said, aboutRefs)
	switch {
	case len(lost) > 0:
		return condition(gatewayv1.RouteConditionResolvedRefs, conditions.False, string(refReasons[lost[0].Code]), conditions.Text(lost, conditions.MessageLimit))
	case a.route.Object.Invalid || !slices.ContainsFunc(a.v.Parts(a.route.Object.Ref()), conditions.Part.Served):
		return condition(gatewayv1.RouteConditionResolvedRefs, conditions.Unknown, string(gatewayv1.RouteReasonPending),
			"they are looked up once the route is accepted")
	}
	return condition(gatewayv1.RouteConditionResolvedRefs, conditions.True, string(gatewayv1.RouteReasonResolvedRefs), "all references were found")
}

func condition(typ gatewayv1.RouteConditionType, status conditions.Truth, reason, message string) conditions.Condition {
	return conditions.Condition{Type: string(typ), Status: status, Reason: reason, Message: message}
}

func only(in []model.Diagnostic, which func(model.Diagnostic) bool) []model.Diagnostic {
	return slices.DeleteFunc(slices.Clone(in), func(d model.Diagnostic) bool { return !which(d) })
}

// frontends names those that a route is in.
func frontends(parts []conditions.Part) string {
	var out []string
	for _, p := range parts {
		if !slices.Contains(out, p.Frontend) {
			out = append(out, p.Frontend)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
