// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// byTarget is the index of the authorizations that can select a workload: by the workload,
// else by their namespace and one of the labels that they ask for, else by their namespace.
// A namespace may have one for each of its pods, or apps: of those of others a pod's
// computation hears nothing. byNamespace is the index of those that ask for labels.
const (
	byTarget    = "target"
	byNamespace = "namespace"
)

// indexTargets lists the plane's authorizations by what they are for.
func indexTargets(s *incr.Store, plane string) {
	s.Index(authzTable(plane), byTarget, func(_ string, v any) []string {
		t := v.(*model.Authorization).Target
		switch label := firstLabel(t); {
		case t.Namespace != "" && t.Workload != "":
			return []string{t.Namespace + "/" + t.Workload}
		case label != "":
			return []string{labelled(t.Namespace, label, t.Labels[label])}
		}
		return []string{t.Namespace}
	})
	s.Index(authzTable(plane), byNamespace, func(_ string, v any) []string {
		if t := v.(*model.Authorization).Target; asksLabel(t) {
			return []string{t.Namespace}
		}
		return nil
	})
}

// firstLabel is the label that stands for all that a target asks for, "" if it asks for none.
func firstLabel(t model.Target) string {
	if len(t.Labels) == 0 {
		return ""
	}
	return slices.Min(slices.Collect(maps.Keys(t.Labels)))
}

func asksLabel(t model.Target) bool {
	return len(t.Labels) > 0 && (t.Namespace == "" || t.Workload == "")
}

func labelled(namespace, label, value string) string { return namespace + " " + label + "=" + value }

// asked is where the labels are, by plane and namespace, that authorizations are found by:
// a pod has many labels, and hardly any of them is one.
const asked incr.Table = "plan/asked"

// askedStage finds them.
func (b *builder) askedStage() incr.Stage {
	keys := map[incr.Table]func(string, any) []string{}
	for _, p := range b.planes {
		keys[authzTable(p)] = func(_ string, v any) []string {
			if t := v.(*model.Authorization).Target; asksLabel(t) {
				return []string{p + " " + t.Namespace}
			}
			return nil
		}
	}
	return incr.Stage{Name: "plan/asked", Keys: keys, Compute: func(r *incr.Reader, key string) []incr.Row {
		plane, namespace, _ := strings.Cut(key, " ")
		var labels []string
		for _, row := range r.Select(authzTable(plane), byNamespace, namespace) {
			if l := firstLabel(row.Value.(*model.Authorization).Target); !slices.Contains(labels, l) {
				labels = append(labels, l)
			}
		}
		slices.Sort(labels)
		return []incr.Row{{Table: asked, Key: key, Value: labels}}
	}}
}

// authorizations are those of the plane that select the workload.
func authorizations(r *incr.Reader, plane string, w *model.Workload) []*model.Authorization {
	var out []*model.Authorization
	add := func(rows []incr.Row) {
		for _, row := range rows {
			if a := row.Value.(*model.Authorization); selects(a.Target, w) {
				out = append(out, a)
			}
		}
	}
	add(r.Select(authzTable(plane), byTarget, w.Key()))
	for _, namespace := range []string{w.Namespace, ""} {
		rows := r.Select(authzTable(plane), byTarget, namespace)
		labels, _ := r.Get(asked, plane+" "+namespace).([]string)
		for _, l := range labels {
			if value, ok := w.Labels[l]; ok {
				rows = append(rows, r.Select(authzTable(plane), byTarget, labelled(namespace, l, value))...)
			}
		}
		slices.SortFunc(rows, func(a, b incr.Row) int { return strings.Compare(a.Key, b.Key) })
		add(rows)
	}
	return out
}

// selects reports whether a target means the workload.
func selects(t model.Target, w *model.Workload) bool {
	if t.Namespace != "" && t.Namespace != w.Namespace {
		return false
	}
	if t.Workload != "" && t.Workload != w.Name {
		return false
	}
	if t.ServiceAccount != "" && w.Identity != "" && identityAccount(w.Identity) != t.ServiceAccount {
		return false
	}
	return hasLabels(w.Labels, t.Labels) &&
		!slices.ContainsFunc(t.Except, func(e model.Target) bool { return selects(e, w) })
}
