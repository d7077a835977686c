// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// byTarget is the index of the authorizations that can select a workload. A namespace
// may have one for each of its pods: those are found by the pod alone.
const byTarget = "target"

// indexTargets lists the plane's authorizations by what they are for.
func indexTargets(s *incr.Store, plane string) {
	s.Index(authzTable(plane), byTarget, func(_ string, v any) []string {
		t := v.(*model.Authorization).Target
		if t.Namespace != "" && t.Workload != "" {
			return []string{t.Namespace + "/" + t.Workload}
		}
		return []string{t.Namespace}
	})
}

// authorizations are those of the plane that select the workload.
func authorizations(r *incr.Reader, plane string, w *model.Workload) []*model.Authorization {
	var out []*model.Authorization
	for _, at := range []string{w.Key(), w.Namespace, ""} {
		for _, row := range r.Select(authzTable(plane), byTarget, at) {
			if a := row.Value.(*model.Authorization); selects(a.Target, w) {
				out = append(out, a)
			}
		}
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
