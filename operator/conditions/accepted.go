// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Types of conditions for kinds whose API has none that says the same.
const (
	// Accepted: everything that the object says is taken, as said or approximated. Whether
	// it serves, or stands by, Serving says.
	AcceptedType = Prefix + "Accepted"
	// Serving: the routes that were made of the object are those that are served. Objects
	// that route nothing do not have it.
	ServingType = Prefix + "Serving"
	// Enforced, where it is False: the namespace is observed. Objects of others do not
	// have it.
	EnforcedType = Prefix + "Enforced"
)

// Reasons of these.
const (
	ReasonAccepted      = "Accepted"
	ReasonApproximated  = "Approximated"
	ReasonRefusedInPart = "RefusedInPart"
	ReasonLastValid     = "LastValidVersionInUse"
	ReasonInvalid       = "Invalid"
	ReasonUnsupported   = "Unsupported"
	ReasonServing       = "Serving"
	ReasonStandby       = "Standby"
	ReasonPartly        = "PartlyStandby"
	ReasonObserved      = "Observed"
)

// unsupported is the code of diagnostics of kinds of which nothing is used.
const unsupported = "unsupported-kind"

// Accepted is the condition of that type.
func Accepted(v *View, o *objects.Object) Condition {
	all := slices.DeleteFunc(slices.Clone(v.Diagnostics(o.Ref())), func(d model.Diagnostic) bool { return d.Code == merge.TwoOwners })
	ds := Worth(all)
	errors := slices.DeleteFunc(slices.Clone(ds), func(d model.Diagnostic) bool { return !d.IsError() })
	c := Condition{Type: AcceptedType, Status: True, Reason: ReasonAccepted, Message: "taken as it is written"}
	switch {
	case Kept(ds):
		c.Status, c.Reason, c.Message = False, ReasonLastValid, "this version is invalid, the last valid one stays in use: "
	case o.Invalid:
		c.Status, c.Reason, c.Message = False, ReasonInvalid, "it is invalid and not used; what it may guard stays closed: "
	case slices.ContainsFunc(errors, func(d model.Diagnostic) bool { return d.Code == unsupported }):
		c.Status, c.Reason, c.Message = False, ReasonUnsupported, ""
	case len(errors) > 0:
		c.Status, c.Reason, c.Message = False, ReasonRefusedInPart, "some of it is refused, the rest is taken: "
	case len(ds) > 0:
		c.Reason, c.Message = ReasonApproximated, "taken, with a difference: "
	default:
		// What makes no difference may still be what nobody meant: a host that nobody has.
		if ds = all; len(ds) == 0 {
			return c
		}
		c.Message += "; "
	}
	if len(errors) > 0 {
		ds = errors
	}
	ds = slices.DeleteFunc(slices.Clone(ds), func(d model.Diagnostic) bool { return d.Code == objects.LastGoodKept })
	c.Message += Text(ds, MessageLimit-len(c.Message))
	return c
}

// Serving is the condition of that type; not ok if the object routes nothing.
func Serving(v *View, o *objects.Object) (c Condition, ok bool) {
	parts := v.Parts(o.Ref())
	if len(parts) == 0 {
		return Condition{}, false
	}
	// What one plane reads and stands by with may be served by another that reads it, too.
	served := map[string]bool{}
	var all []string
	for _, p := range parts {
		if !slices.Contains(all, p.Frontend) {
			all = append(all, p.Frontend)
		}
		served[p.Frontend] = served[p.Frontend] || p.Served()
	}
	slices.Sort(all)
	var yes []string
	var no []string
	for _, f := range all {
		if served[f] {
			yes = append(yes, f)
			continue
		}
		i := slices.IndexFunc(parts, func(p Part) bool { return p.Frontend == f })
		no = append(no, fmt.Sprintf("%s is served by %s (%s)", f, parts[i].Owner.Plane, why(parts[i].Owner, f)))
	}
	c = Condition{Type: ServingType, Status: True, Reason: ReasonServing}
	switch {
	case o.Invalid:
		c.Status, c.Reason, c.Message = False, ReasonInvalid, "it is invalid: where it would serve, nothing is, in "+some(all)
	case len(no) == 0:
		c.Message = "serves " + some(yes)
	case len(yes) == 0:
		c.Status, c.Reason, c.Message = False, ReasonStandby, "stands by: "+some(no)
	default:
		c.Status, c.Reason, c.Message = False, ReasonPartly, "stands by: "+some(no)+"; serves "+some(yes)
	}
	return c, true
}

// Enforced is the condition of that type; not ok if the object's namespace is not observed.
func Enforced(v *View, o *objects.Object) (c Condition, ok bool) {
	n, _ := v.Get(translators.Namespaces, o.Namespace).(*model.Namespace)
	if n == nil || !n.Observed {
		return Condition{}, false
	}
	return Condition{Type: EnforcedType, Status: False, Reason: ReasonObserved,
		Message: "namespace " + n.Name + " is observed: what this comes to for its pods is told in flows, and not done; set fairlead.io/mode: enforce on it"}, true
}

// why is the reason for an owner.
func why(o *merge.Owner, frontend string) string {
	ns, _, _ := strings.Cut(frontend, "/")
	switch o.Reason {
	case merge.ByNamespace:
		return "namespace " + ns + " says fairlead.io/control-plane: " + o.Plane
	case merge.ByMark:
		return "namespace " + ns + " carries its mark; set fairlead.io/control-plane to choose"
	}
	return "it comes first; set fairlead.io/control-plane on namespace " + ns + " to choose"
}

// some lists the first of many.
func some(all []string) string {
	const most = 8
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}
