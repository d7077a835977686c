// SPDX-License-Identifier: Apache-2.0

// Package linkerd says what HTTPRoutes of Linkerd's own group have in their status. Its
// other kinds have none, or one that Linkerd's controller writes whole: of them Events tell.
package linkerd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/linkerd"
	"fairlead.io/fairlead/translators/objects"
)

// Judge of policy.linkerd.io.
type Judge struct{}

var route = objects.Kind{Group: "policy.linkerd.io", Kind: "HTTPRoute"}

// Covers implements conditions.Judge.
func (Judge) Covers(k objects.Kind) bool { return k == route }

// Judge implements conditions.Judge.
func (Judge) Judge(v *conditions.View, o *objects.Object) *conditions.Status {
	s := &conditions.Status{}
	for i, ref := range parentRefs(o) {
		if !slices.Contains([]any{"Service", "Server", "EgressNetwork"}, ref["kind"]) {
			continue // another controller's
		}
		said := conditions.Worth(v.Diagnostics(o.Ref()))
		s.Parents = append(s.Parents, conditions.Parent{Ref: ref,
			Conditions: []conditions.Condition{accepted(v, o, ref, i, said), resolved(o, said)}})
	}
	return s
}

// parentRefs are those that are written, in any version of the kind.
func parentRefs(o *objects.Object) []map[string]any {
	text, err := json.Marshal(o.Value)
	if err != nil {
		panic("linkerd: " + err.Error()) // it was decoded from JSON
	}
	var written struct {
		Spec struct{ ParentRefs []map[string]any }
	}
	if err := json.Unmarshal(text, &written); err != nil {
		panic("linkerd: " + err.Error())
	}
	for _, ref := range written.Spec.ParentRefs {
		if port, ok := ref["port"].(float64); ok {
			ref["port"] = int64(port)
		}
	}
	return written.Spec.ParentRefs
}

func accepted(v *conditions.View, o *objects.Object, ref map[string]any, i int, said []model.Diagnostic) conditions.Condition {
	no := func(reason, message string) conditions.Condition {
		return conditions.Condition{Type: "Accepted", Status: conditions.False, Reason: reason, Message: message}
	}
	about := only(said, func(d model.Diagnostic) bool { return within(d.Source.Field, fmt.Sprintf("spec.parentRefs[%d]", i)) })
	rest := only(said, func(d model.Diagnostic) bool {
		return !within(d.Source.Field, "spec.parentRefs") && !reference(d) && d.Code != objects.LastGoodKept
	})
	lost := only(rest, model.Diagnostic.IsError)
	if o.Invalid {
		return no("UnsupportedValue", "it is invalid and not used: "+conditions.Text(lost, conditions.MessageLimit-40))
	}
	if conditions.Kept(said) {
		return no("UnsupportedValue", "this version is invalid, the last valid one stays in use: "+conditions.Text(lost, conditions.MessageLimit-70))
	}
	if len(only(about, model.Diagnostic.IsError)) > 0 {
		return no("NoMatchingParent", conditions.Text(about, conditions.MessageLimit))
	}
	if ref["kind"] == "Service" {
		ns, _ := ref["namespace"].(string)
		if ns == "" {
			ns = o.Namespace
		}
		parts := slices.DeleteFunc(slices.Clone(v.Parts(o.Ref())), func(p conditions.Part) bool {
			return !strings.HasPrefix(p.Frontend, fmt.Sprintf("%s/%s:", ns, ref["name"]))
		})
		served := slices.ContainsFunc(parts, conditions.Part.Served)
		namespace, _ := v.Get(translators.Namespaces, ns).(*model.Namespace)
		switch {
		case served:
		case len(parts) > 0:
			return no("Standby", fmt.Sprintf("%s is routed by the plane %s: see the annotation fairlead.io/control-plane of its namespace", parts[0].Frontend, parts[0].Owner.Plane))
		case namespace != nil && namespace.Owner != "" && namespace.Owner != linkerd.Plane:
			return no("Standby", fmt.Sprintf("services of namespace %s are routed by the plane %s, as its annotation fairlead.io/control-plane says", ns, namespace.Owner))
		case len(about) > 0:
			return no("NoMatchingParent", conditions.Text(about, conditions.MessageLimit))
		default:
			return no("NoMatchingParent", "nothing is routed there")
		}
	}
	if len(lost) > 0 {
		return no("UnsupportedValue", conditions.Text(lost, conditions.MessageLimit))
	}
	c := conditions.Condition{Type: "Accepted", Status: conditions.True, Reason: "Accepted", Message: "taken as it is written"}
	if rest = append(about, rest...); len(rest) > 0 {
		c.Message = "taken, with a difference: " + conditions.Text(rest, conditions.MessageLimit-40)
	}
	return c
}

func resolved(o *objects.Object, said []model.Diagnostic) conditions.Condition {
	c := conditions.Condition{Type: "ResolvedRefs", Status: conditions.True, Reason: "ResolvedRefs", Message: "all references were found"}
	switch lost := only(said, reference); {
	case len(lost) > 0:
		c.Status, c.Reason, c.Message = conditions.False, references[lost[0].Code], conditions.Text(lost, conditions.MessageLimit)
	case o.Invalid:
		c.Status, c.Reason, c.Message = conditions.Unknown, "Pending", "they are looked up once the route is accepted"
	}
	return c
}

// references are the reasons for codes about what a rule refers to.
var references = map[string]string{"unknown-backend": "BackendNotFound", "unknown-port": "BackendNotFound", "no-port": "BackendNotFound",
	"unsupported-kind": "InvalidKind"}

func reference(d model.Diagnostic) bool {
	_, ok := references[d.Code]
	return ok && within(d.Source.Field, "spec.rules")
}

func within(field, of string) bool {
	rest, ok := strings.CutPrefix(field, of)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func only(in []model.Diagnostic, which func(model.Diagnostic) bool) []model.Diagnostic {
	return slices.DeleteFunc(slices.Clone(in), func(d model.Diagnostic) bool { return !which(d) })
}
