// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Drop is what an API server takes away from objects of some versions: fields that a
// definition does not name, and does not say to keep.
type Drop struct {
	Versions []string `json:"versions"`
	Fields   []string `json:"fields"` // sorted; items of lists are "[]"
}

// drops compares another's definition with our own of the kind, whose fields are those of
// all versions: objects are stored in the shape that they were written in, and read as any.
func drops(own, there *unstructured.Unstructured) []Drop {
	if keep, _, _ := unstructured.NestedBool(there.Object, "spec", "preserveUnknownFields"); keep {
		return nil
	}
	ours, theirs := schemas(own), schemas(there)
	var out []Drop
	for _, v := range versions(there) {
		schema, known := ours[v]
		if !known || theirs[v] == nil {
			continue
		}
		fields := lost(schema, theirs[v], "")
		if len(fields) == 0 {
			continue
		}
		if i := slices.IndexFunc(out, func(d Drop) bool { return slices.Equal(d.Fields, fields) }); i >= 0 {
			out[i].Versions = append(out[i].Versions, v)
			continue
		}
		out = append(out, Drop{[]string{v}, fields})
	}
	return out
}

// schemas are those of a definition's versions.
func schemas(u *unstructured.Unstructured) map[string]map[string]any {
	out := map[string]map[string]any{}
	list, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
	for _, v := range list {
		m, _ := v.(map[string]any)
		name, _ := m["name"].(string)
		out[name], _, _ = unstructured.NestedMap(m, "schema", "openAPIV3Schema")
	}
	return out
}

// lost are the fields that one schema names and another drops; of one that is dropped whole
// not those within.
func lost(ours, theirs map[string]any, path string) []string {
	if items, ok := ours["items"].(map[string]any); ok {
		of, ok := theirs["items"].(map[string]any)
		if !ok {
			return nil // it is of another type: that is refused, not dropped
		}
		return lost(items, of, path+"[]")
	}
	keeps, _ := theirs["x-kubernetes-preserve-unknown-fields"].(bool)
	others, ok := theirs["additionalProperties"]
	keeps = keeps || ok && others != false
	names, _ := theirs["properties"].(map[string]any)
	properties, _ := ours["properties"].(map[string]any)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		within, _ := properties[name].(map[string]any)
		of, named := names[name].(map[string]any)
		at := strings.TrimPrefix(path+"."+name, ".")
		switch {
		case refused(ours, name) || saysNothing[at]: // no version has it, or means anything by it
		case named:
			out = append(out, lost(within, of, at)...)
		case !keeps:
			out = append(out, at)
		}
	}
	return out
}

// saysNothing are fields that make no difference.
var saysNothing = map[string]bool{"spec.matches.name": true, "spec.matches[].apiGroup": true}

// refused reports whether a schema names a field only to refuse it.
func refused(schema map[string]any, name string) bool {
	rules, _ := schema["x-kubernetes-validations"].([]any)
	return slices.ContainsFunc(rules, func(r any) bool {
		m, _ := r.(map[string]any)
		return m["rule"] == "!has(self."+name+")"
	})
}

// loss is what it costs that fields of a kind are dropped, before Fairlead sees them.
func loss(definition string) string {
	if strings.HasSuffix(definition, ".split.smi-spec.io") {
		return "requests are then divided otherwise than was written"
	}
	return "what these fields restrict is then not restricted: more may be allowed than was written"
}
