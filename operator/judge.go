// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"slices"

	"fairlead.io/fairlead/kube/status"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/operator/gateway"
	"fairlead.io/fairlead/operator/istio"
	"fairlead.io/fairlead/operator/linkerd"
	"fairlead.io/fairlead/translators/objects"
)

// Judges is the explicit list of those who say what objects have in their status, a judge
// for each API group. Of two that cover a kind the first counts.
func Judges() []conditions.Judge {
	return []conditions.Judge{istio.Judge{}, gateway.Judge{}, linkerd.Judge{}}
}

// covered are the kinds that have a judge.
func covered(r *objects.Registry, judges []conditions.Judge) []objects.Kind {
	var out []objects.Kind
	for _, k := range r.Kinds() {
		if !r.Unread(k) && judgeOf(judges, k) != nil {
			out = append(out, k)
		}
	}
	return out
}

func judgeOf(judges []conditions.Judge, k objects.Kind) conditions.Judge {
	for _, j := range judges {
		if j.Covers(k) {
			return j
		}
	}
	return nil
}

// Statuses says what every object has in its status that a judge covers and that has one.
func Statuses(v *conditions.View, judges []conditions.Judge, has func(objects.Ref) bool) map[objects.Ref]*conditions.Status {
	out := map[objects.Ref]*conditions.Status{}
	for _, k := range v.Kinds() {
		j := judgeOf(judges, k)
		if j == nil {
			continue
		}
		for _, o := range v.Objects(k) {
			if has(o.Ref()) {
				out[o.Ref()] = j.Judge(v, o)
			}
		}
	}
	return out
}

// Events tells what is wrong with the objects that have no status, an Event for each
// object and code; and which objects there are, by UID.
func Events(v *conditions.View, has func(objects.Ref) bool) (events []status.Event, alive map[string]bool) {
	alive = map[string]bool{}
	for _, k := range v.Kinds() {
		for _, o := range v.Objects(k) {
			alive[o.UID()] = true
			if !has(o.Ref()) {
				events = append(events, about(o, v.Diagnostics(o.Ref()))...)
				events = append(events, standby(v, o)...)
			}
		}
	}
	return events, alive
}

// noteLimit is how much an Event holds.
const noteLimit = 1024

// about are the Events of diagnostics about an object.
func about(o *objects.Object, ds []model.Diagnostic) []status.Event {
	ds = conditions.Worth(ds)
	byCode := map[string][]model.Diagnostic{}
	var codes []string
	for _, d := range ds {
		if byCode[d.Code] == nil {
			codes = append(codes, d.Code)
		}
		byCode[d.Code] = append(byCode[d.Code], d)
	}
	slices.Sort(codes)
	var out []status.Event
	for _, code := range codes {
		out = append(out, event(o, cmp.Or(conditions.Reason(code), "Problem"), conditions.Text(byCode[code], noteLimit)))
	}
	return out
}

func event(o *objects.Object, reason, note string) status.Event {
	api := o.Version
	if o.Kind.Group != "" {
		api = o.Kind.Group + "/" + o.Version
	}
	return status.Event{About: o.Ref(), APIVersion: api, UID: o.UID(), Reason: reason, Note: note}
}

// standby tells of an object of a plane that stands by. Kubernetes' own objects are no
// plane's.
func standby(v *conditions.View, o *objects.Object) []status.Event {
	c, routes := conditions.Serving(v, o)
	if !routes || c.Status == conditions.True || o.Kind.Group == "" || c.Reason == conditions.ReasonInvalid {
		return nil
	}
	e := event(o, c.Reason, c.Message)
	e.Normal = true
	return []status.Event{e}
}
