// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"maps"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// Merge puts what is wanted into a status as it is stored, in an object's generation, and
// returns the fields of status that change, whole, with nil for one that goes; none if
// all is as wanted. What others have written stays, in its place.
func Merge(stored map[string]any, generation int64, want *Status, now time.Time) map[string]any {
	if want == nil {
		want = &Status{}
	}
	m := merger{generation: generation, now: now.UTC().Format(time.RFC3339)}
	out := map[string]any{}
	set := func(field string, list []any) {
		old, had := stored[field]
		switch {
		case len(list) == 0 && (!had || !m.ours):
			return
		case len(list) == 0:
			out[field] = nil
		case !reflect.DeepEqual(old, any(list)):
			out[field] = list
		}
	}
	m.ours = false
	set("conditions", m.conditions(entries(stored, "conditions"), want.Conditions, true))
	m.ours = false
	set("parents", m.parents(entries(stored, "parents"), want.Parents))
	return out
}

// Ours reports whether a status holds anything of Fairlead's.
func Ours(stored map[string]any) bool { return len(Merge(stored, 0, nil, time.Time{})) > 0 }

type merger struct {
	generation int64
	now        string
	ours       bool // something of ours was there
}

func entries(status map[string]any, field string) []any {
	list, _ := status[field].([]any)
	return list
}

// conditions merges conditions. In a list that others write to, too, only types of our own
// are ours.
func (m *merger) conditions(stored []any, want []Condition, shared bool) []any {
	out := make([]any, 0, len(stored)+len(want))
	done := map[string]bool{}
	for _, e := range stored {
		c, _ := e.(map[string]any)
		typ, _ := c["type"].(string)
		if shared && !strings.HasPrefix(typ, Prefix) {
			out = append(out, e)
			continue
		}
		m.ours = true
		for _, w := range want {
			if w.Type == typ && !done[typ] {
				out = append(out, m.condition(c, w))
				done[typ] = true
			}
		}
	}
	for _, w := range want {
		if !done[w.Type] {
			out = append(out, m.condition(nil, w))
			done[w.Type] = true
		}
	}
	return out
}

// condition is the stored one if it says the same, or else what it becomes.
func (m *merger) condition(old map[string]any, want Condition) map[string]any {
	next := map[string]any{"type": want.Type, "status": string(want.Status), "reason": want.Reason, "message": cut(want.Message, MessageLimit)}
	if m.generation > 0 {
		next["observedGeneration"] = m.generation
	}
	next["lastTransitionTime"] = m.now
	if since, ok := old["lastTransitionTime"]; ok && old["status"] == next["status"] {
		next["lastTransitionTime"] = since
	}
	for k, v := range next {
		if old[k] != v {
			return next
		}
	}
	return old
}

// parents merges a route's parents: an entry is one of ours, or another controller's.
func (m *merger) parents(stored []any, want []Parent) []any {
	out := make([]any, 0, len(stored)+len(want))
	done := make([]bool, len(want))
	for _, e := range stored {
		p, _ := e.(map[string]any)
		if p["controllerName"] != Controller {
			out = append(out, e)
			continue
		}
		m.ours = true
		for i, w := range want {
			if !done[i] && reflect.DeepEqual(p["parentRef"], any(w.Ref)) {
				done[i] = true
				out = append(out, m.parent(p, w))
				break
			}
		}
	}
	for i, w := range want {
		if !done[i] {
			out = append(out, m.parent(nil, w))
		}
	}
	return out
}

func (m *merger) parent(old map[string]any, want Parent) map[string]any {
	ours := m.ours
	next := map[string]any{"parentRef": maps.Clone(want.Ref), "controllerName": Controller,
		"conditions": m.conditions(entries(old, "conditions"), want.Conditions, false)}
	m.ours = ours
	return next
}

// cut shortens a text to a number of bytes, at the end of a character.
func cut(s string, limit int) string {
	const more = "..."
	if len(s) <= limit {
		return s
	}
	s = s[:limit-len(more)]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + more
}
