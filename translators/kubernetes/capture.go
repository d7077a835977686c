// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Mark is a label or annotation that decides whether a pod is captured.
type Mark struct {
	Object *objects.Object // the pod or its namespace; nil = nothing decides, and the pod is not captured
	Field  string
	On     bool
}

// CaptureMark is what decides whether a pod of a namespace is captured. Either may be nil:
// with no pod it is what decides for pods without marks of their own.
//
// Fairlead's own mark of the pod comes first, then a mesh that takes the pod by the pod's
// own mark, then Fairlead's own of the namespace, which leaves alone who opted out, then a
// mesh that takes it by the namespace's. A mesh takes what its injection would.
func CaptureMark(pod, ns *objects.Object) Mark {
	if m := own(pod); m.Object != nil {
		return m
	}
	var says []Mark
	for _, m := range meshes {
		if v := m.takes(pod, ns); v.Object != nil {
			says = append(says, v)
		}
	}
	first := func(is func(Mark) bool) (Mark, bool) {
		i := slices.IndexFunc(says, is)
		if i < 0 {
			return Mark{}, false
		}
		return says[i], true
	}
	if m, ok := first(func(m Mark) bool { return m.On && m.Object == pod }); ok {
		return m
	}
	if m := own(ns); m.Object != nil {
		if out, ok := first(func(m Mark) bool { return m.Object == pod }); ok && m.On {
			return out
		}
		return m
	}
	if m, ok := first(func(m Mark) bool { return m.On }); ok {
		return m
	}
	m, _ := first(func(Mark) bool { return true })
	return m
}

// own is Fairlead's mark of an object.
func own(o *objects.Object) Mark {
	for _, m := range []Mark{label(o, CaptureKey), annotation(o, CaptureKey)} {
		if m.Object == nil {
			continue
		}
		switch value(m, CaptureKey) {
		case "enabled":
			m.On = true
			return m
		case "disabled":
			return m
		}
	}
	return Mark{}
}

// label is an object's label as a mark that is not on; none if it, or the object, is not there.
func label(o *objects.Object, key string) Mark {
	if o == nil {
		return Mark{}
	}
	if _, ok := o.Labels[key]; !ok {
		return Mark{}
	}
	return Mark{Object: o, Field: `metadata.labels["` + key + `"]`}
}

// annotation is an object's annotation as label has it.
func annotation(o *objects.Object, key string) Mark {
	if o == nil {
		return Mark{}
	}
	if _, ok := o.Annotations[key]; !ok {
		return Mark{}
	}
	return Mark{Object: o, Field: `metadata.annotations["` + key + `"]`}
}

// value is what a mark of a key says.
func value(m Mark, key string) string {
	switch {
	case m.Object == nil:
		return ""
	case strings.HasPrefix(m.Field, "metadata.labels"):
		return m.Object.Labels[key]
	}
	return m.Object.Annotations[key]
}

// as is a mark with what it comes to.
func (m Mark) as(on bool) Mark {
	m.On = on
	return m
}

// meshOf is the plane whose mark takes a namespace, "" if none does: the first that does
// has it.
func meshOf(ns *objects.Object) string {
	for _, m := range meshes {
		if m.owns(ns) {
			return m.plane
		}
	}
	return ""
}

// heard are the marks and where each is read.
var heard = []struct {
	key              string
	who              string // reads it
	namespaces, pods []string
	values           []string // that it may have; nil = any
	recorded         bool     // as an annotation, the mesh's own record of what it did
}{
	{CaptureKey, "Fairlead", []string{"label", "annotation"}, []string{"label", "annotation"}, []string{"enabled", "disabled"}, false},
	{istioInject, "Istio", nil, []string{"label", "annotation"}, []string{"true", "false"}, false},
	{istioInjection, "Istio", []string{"label"}, nil, []string{"enabled", "disabled"}, false},
	{istioMode, "Istio", []string{"label"}, []string{"label"}, []string{"ambient", "none"}, false},
	{istioRevision, "Istio", []string{"label"}, []string{"label"}, nil, true},
	{linkerdInject, "Linkerd", []string{"annotation"}, []string{"annotation"}, []string{"enabled", "ingress", "disabled"}, false},
	{osmInjection, "Open Service Mesh", []string{"annotation"}, []string{"annotation"}, append(slices.Clone(osmOn), osmOff...), false},
	{osmMonitored, "Open Service Mesh", []string{"label"}, nil, nil, false},
}

// reportMarks says which marks of a namespace or pod have a value that is none, and which
// nobody reads where they are.
func reportMarks(o *objects.Object, rep *report) {
	for _, h := range heard {
		read, of := h.pods, "pods"
		if o.Kind == objects.NamespaceKind {
			read, of = h.namespaces, "namespaces"
		}
		for where, m := range map[string]Mark{"label": label(o, h.key), "annotation": annotation(o, h.key)} {
			switch v := value(m, h.key); {
			case m.Object == nil || h.recorded && where == "annotation":
			case !slices.Contains(read, where):
				rep.say(m.Field, "mark-not-heard", model.Cosmetic, model.Translated,
					fmt.Sprintf("%s does not read %s as %s of %s: it captures nothing here either", h.who, h.key, article(where), of), "")
			case h.values != nil && !slices.Contains(h.values, strings.ToLower(v)):
				rep.say(m.Field, "unknown-value", model.Degrades, model.Refused,
					fmt.Sprintf("%q is not a value of %s", v, h.key), "use "+strings.Join(h.values, " or "))
			}
		}
	}
}

func article(noun string) string {
	if noun == "annotation" {
		return "an annotation"
	}
	return "a " + noun
}

// reportUntaken says which of a pod's marks would have a mesh take it where its namespace
// keeps the mesh from being asked.
func reportUntaken(pod, ns *objects.Object, rep *report) {
	for _, m := range meshes {
		if m.takes(pod, ns).On {
			continue
		}
		for _, asks := range m.asks(pod) {
			rep.say(asks.Field, "mark-not-heard", model.Cosmetic, model.Translated, m.why, m.advice)
		}
	}
}
