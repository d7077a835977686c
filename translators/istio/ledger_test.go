// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// TestLedger sets every field of every kind, in company that makes it matter, and demands
// that the plan of a node changes or that a diagnostic names the field. With -update it
// writes the tables of README.md, and docs/reference/istio.md.
func TestLedger(t *testing.T) {
	var all translatortest.Fields
	for _, k := range ledgerKinds {
		var rows translatortest.Fields
		for _, l := range leaves(k.spec.ProtoReflect().Descriptor(), nil) {
			rows = append(rows, k.judge(t, l))
		}
		translatortest.Section(t, "README.md", "fields of "+k.kind, table(rows))
		all = append(all, rows...)
	}
	mesh := meshFields(t)
	translatortest.Section(t, "README.md", "fields of MeshConfig", table(mesh))
	all = append(all, mesh...)
	all = append(all, wholeKinds(t)...)
	all.Reference(t, "../../docs/reference/istio.md", "Istio", "go test ./translators/istio -run TestLedger -update", ledgerScope)
}

// wholeKinds are those of which every object is refused.
func wholeKinds(t *testing.T) translatortest.Fields {
	var out translatortest.Fields
	for _, k := range []objects.Kind{gatewayKind, workloadGroupKind, envoyFilterKind, proxyConfigKind, requestAuthenticationKind, telemetryKind, wasmPluginKind, trafficExtensionKind} {
		versions := apiVersions(k)
		o := ledgerKind{kind: k.Kind, api: k.Group + "/" + versions[0]}
		at := slices.IndexFunc(o.plan(t, map[string]any{}).Diagnostics(), func(d model.Diagnostic) bool { return d.Source.Name == "it" && d.Outcome != model.Translated })
		if at < 0 {
			t.Errorf("nothing is said of a %s", k)
			continue
		}
		d := o.plan(t, map[string]any{}).Diagnostics()[at]
		out = append(out, translatortest.Field{Kind: k.Kind, Name: translatortest.WholeKind,
			Fates: []translatortest.Fate{{Outcome: d.Outcome, Message: d.Message, Advice: d.Advice}}})
	}
	return out
}

func apiVersions(k objects.Kind) []string {
	var out []string
	for _, typ := range newTranslator().Types() {
		if typ.Kind == k {
			out = append(out, typ.Version)
		}
	}
	return out
}

// field is a leaf and the way to it.
type field []protoreflect.FieldDescriptor

func (f field) path() string {
	names := make([]string, len(f))
	for i, fd := range f {
		names[i] = fd.JSONName()
	}
	return strings.Join(names, ".")
}

// leaves lists the fields without fields of their own.
func leaves(md protoreflect.MessageDescriptor, way field) []field {
	var out []field
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f := append(slices.Clone(way), fd)
		inner := fd.Message()
		if fd.IsMap() {
			inner = fd.MapValue().Message()
		}
		if inner == nil || strings.HasPrefix(string(inner.FullName()), "google.protobuf.") {
			out = append(out, f)
			continue
		}
		out = append(out, leaves(inner, f)...)
	}
	return out
}

func (k *ledgerKind) judge(t *testing.T, f field) translatortest.Field {
	path := f.path()
	row := translatortest.Field{Kind: k.kind, Name: path}
	if why, ok := k.silent[path]; ok {
		row.Fates = []translatortest.Fate{{Outcome: translatortest.NoEffect, Message: why}}
		return row
	}
	base := ""
	for p := range k.bases {
		if (path == p || strings.HasPrefix(path, p+".") || p == "") && len(p) >= len(base) {
			base = p
		}
	}
	before := k.plan(t, k.tree(t, k.bases[base]))
	for _, v := range k.of(f) {
		same, isSame := v.(translatortest.Same)
		if isSame {
			v = same.Value
		}
		with := k.tree(t, k.bases[base])
		put(with, f, v)
		after := k.plan(t, with)
		fate, said := k.fate(t, path, before, after)
		switch changed := before.Plan() != after.Plan(); {
		case isSame && (changed || said):
			t.Errorf("%s %s: %v is not the same as without it: %s", k.kind, path, v, fate.Message)
		case !isSame && !changed && !said:
			t.Errorf("%s %s: set to %v, and nothing changed and nothing was said", k.kind, path, v)
		}
		if !isSame {
			row.Fates = translatortest.AddFate(row.Fates, fate, v)
		}
	}
	return row
}

// fate is what diagnostics say of a field, and whether they say something.
func (k *ledgerKind) fate(t *testing.T, path string, before, after translatortest.Output) (translatortest.Fate, bool) {
	fate, said := translatortest.Fate{Outcome: model.Translated}, false
	for _, d := range after.Diagnostics() {
		if d.Code == "invalid-value" || d.Code == "invalid-object" || d.Source.Plane == "" {
			t.Errorf("%s %s: the test's value is invalid: %s", k.kind, path, d.Message)
		}
		if d.Source.Kind == k.kind && d.Source.Name == "it" && names(d.Source.Field, path) && !slices.Contains(before.Diagnostics(), d) {
			fate, said = translatortest.Fate{Outcome: d.Outcome, Message: d.Message, Advice: d.Advice}, true
		}
	}
	return fate, said
}

var index = regexp.MustCompile(`\[[^\]]*\]`)

// names reports whether a diagnostic's field is the path, above it or below it.
func names(diagnosed, path string) bool {
	got := strings.TrimPrefix(index.ReplaceAllString(diagnosed, ""), "spec.")
	return got != "spec" && (got == path || strings.HasPrefix(path, got+".") || strings.HasPrefix(got, path+"."))
}

func (k *ledgerKind) tree(t *testing.T, base string) map[string]any {
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(base), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (k *ledgerKind) plan(t *testing.T, spec map[string]any) translatortest.Output {
	b, err := json.Marshal(map[string]any{"apiVersion": k.api, "kind": k.kind, "spec": spec,
		"metadata": map[string]any{"name": "it", "namespace": "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	return translatortest.Planned(newTranslator, objects.Input{Name: "world.yaml", Data: []byte(k.world)}, objects.Input{Name: "it.yaml", Data: b})
}

// of is what the field is set to, one after the other: what is listed, else a value of
// the type; of an enumeration each but the first, which is none.
func (k *ledgerKind) of(f field) []any {
	last := f[len(f)-1]
	path := f.path()
	best := ""
	for p := range k.values {
		if (path == p || strings.HasSuffix(path, "."+p)) && len(p) > len(best) {
			best = p
		}
	}
	switch {
	case best != "":
		return parseValues(k.values[best])
	case last.IsMap():
		return []any{map[string]any{"a": scalar(last.MapValue())}}
	case last.IsList():
		return []any{[]any{scalar(last)}}
	case last.Kind() == protoreflect.EnumKind:
		var out []any
		for i := 1; i < last.Enum().Values().Len(); i++ {
			out = append(out, string(last.Enum().Values().Get(i).Name()))
		}
		return out
	}
	return []any{scalar(last)}
}

// parseValues reads JSON values between " | "; one behind "=" is the same as none.
func parseValues(text string) []any {
	var out []any
	for part := range strings.SplitSeq(text, " | ") {
		part, same := strings.CutPrefix(part, "=")
		var v any
		if err := json.Unmarshal([]byte(part), &v); err != nil {
			panic(part + ": " + err.Error())
		}
		if same {
			v = translatortest.Same{Value: v}
		}
		out = append(out, v)
	}
	return out
}

func scalar(fd protoreflect.FieldDescriptor) any {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return true
	case protoreflect.StringKind:
		return "x"
	case protoreflect.BytesKind:
		return "eA=="
	case protoreflect.EnumKind:
		v := fd.Enum().Values()
		return string(v.Get(v.Len() - 1).Name())
	case protoreflect.MessageKind:
		switch fd.Message().Name() {
		case "Duration":
			return "7s"
		case "BoolValue":
			return true
		}
	}
	return 7
}

// put sets a field in the first element of every list and the entry "x-a", or 8080, of
// every map on the way.
func put(tree map[string]any, f field, v any) {
	for _, fd := range f[:len(f)-1] {
		name := fd.JSONName()
		switch {
		case fd.IsList():
			list, _ := tree[name].([]any)
			if len(list) == 0 {
				list = []any{map[string]any{}}
			}
			tree[name] = list
			tree = list[0].(map[string]any)
		case fd.IsMap():
			key := "x-a"
			if fd.MapKey().Kind() == protoreflect.Uint32Kind {
				key = "8080"
			}
			tree = child(child(tree, name), key)
		default:
			tree = child(tree, name)
		}
	}
	last := f[len(f)-1]
	if od := last.ContainingOneof(); od != nil {
		for i := range od.Fields().Len() {
			delete(tree, od.Fields().Get(i).JSONName())
		}
	}
	tree[last.JSONName()] = v
}

func child(tree map[string]any, name string) map[string]any {
	c, ok := tree[name].(map[string]any)
	if !ok {
		c = map[string]any{}
		tree[name] = c
	}
	return c
}

// table joins fields of one parent that fare the same.
func table(rows translatortest.Fields) string {
	var b strings.Builder
	b.WriteString("| Field | Becomes | What that means |\n|---|---|---|\n")
	for i := 0; i < len(rows); {
		prefix, n := rows[i].Name, 1
		for parts := strings.Split(rows[i].Name, "."); len(parts) > 1; {
			parts = parts[:len(parts)-1]
			p := strings.Join(parts, ".") + "."
			all := 0
			same := true
			for j := range rows {
				if strings.HasPrefix(rows[j].Name, p) {
					all++
					same = same && j >= i && rows[j].Becomes() == rows[i].Becomes()
				}
			}
			if !same {
				break
			}
			if all > 1 {
				prefix, n = p+"*", all
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", prefix, rows[i].Outcome(), rows[i].Meaning())
		i += n
	}
	return b.String()
}
