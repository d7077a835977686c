// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// company is what an object needs around it for its fields to matter. Its route
// groups have the matches that the samples name.
const company = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: other, namespace: shop}
spec: {matches: [{name: a, pathRegex: /a}, {name: b, pathRegex: /b}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: user, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: user, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: object}]
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: l4, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: l4, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: TCPRoute, name: object}, {kind: UDPRoute, name: object}]
`

// bodies are valid objects, one per kind; the tests change one field of them.
var bodies = map[objects.Kind]string{
	trafficTarget: `{"destination": {"kind": "ServiceAccount", "name": "api", "namespace": "shop"},
		"sources": [{"kind": "ServiceAccount", "name": "client", "namespace": "shop"}],
		"rules": [{"kind": "HTTPRouteGroup", "name": "other", "matches": ["a"]}]}`,
	httpRouteGroup: `{"matches": [{"name": "m", "pathRegex": "/x", "methods": ["GET"]}]}`,
	tcpRoute:       `{"matches": {"name": "m", "ports": [1]}}`,
	udpRoute:       `{"matches": {"name": "m", "ports": [1]}}`,
	trafficSplit:   `{"service": "web", "backends": [{"service": "v1", "weight": 1}, {"service": "v2", "weight": 1}]}`,
}

// unusedFields change nothing by design: a name that nothing refers to.
var unusedFields = []string{
	"TCPRoute spec.matches.name", "UDPRoute spec.matches.name", // rules mean the only match, see tcp_matches_named
	"HTTPRouteGroup matches[0].name", "HTTPRouteGroup spec.matches[0].name", // see rules_matches_some
}

// Every field of every version, set alone to another value, changes the rows or is
// named by a diagnostic.
func TestEveryField(t *testing.T) {
	table := fieldTable{}
	for _, typ := range New(Options{}).Types() {
		body, ok := bodies[typ.Kind]
		if !ok {
			continue // refused as a whole, see unsupported_kinds
		}
		t.Run(typ.Kind.Kind+" "+typ.Version, func(t *testing.T) {
			base := object(t, typ, body)
			want := output(t, base)
			fields := 0
			for _, path := range leaves(reflect.TypeOf(typ.New()), nil) {
				name := strings.TrimPrefix(strings.ReplaceAll(strings.Join(path, "."), ".[", "["), ".")
				if slices.Contains(unusedFields, typ.Kind.Kind+" "+name) {
					continue
				}
				fields++
				changed := object(t, typ, body)
				set(changed, path, sample(name, typ.Version))
				got := output(t, changed)
				said := naming(got, name)
				if got.Model() == want.Model() && said == nil {
					t.Errorf("%s: neither the rows change nor does a diagnostic name it\n%s", name, got.DiagnosticLines())
				}
				table.add(typ, name, got.Model() != want.Model(), said)
			}
			if fields == 0 && typ.Version != "v1alpha1" && typ.Kind != tcpRoute {
				t.Error("no fields found")
			}
		})
	}
	translatortest.Section(t, "README.md", "fields", table.String())
}

// naming returns the diagnostic that names a field, nil if there is none.
func naming(o translatortest.Output, field string) *model.Diagnostic {
	for _, d := range o.Diagnostics() {
		if d.Source.Name == "object" && (d.Source.Field == field || strings.HasPrefix(field, d.Source.Field+"[")) {
			return &d
		}
	}
	return nil
}

// fieldTable says what becomes of fields: kind, field -> versions and outcome.
type fieldTable struct {
	order []string
	rows  map[string][]string // "kind | field" -> versions
	what  map[string]string
}

func (f *fieldTable) add(typ objects.Type, name string, changes bool, said *model.Diagnostic) {
	key := "| " + typ.Kind.Kind + " | " + strings.ReplaceAll(name, "[0]", "[]") + " | "
	if f.rows == nil {
		f.rows, f.what = map[string][]string{}, map[string]string{}
	}
	if f.rows[key] == nil {
		f.order = append(f.order, key)
	}
	f.rows[key] = append(f.rows[key], strings.TrimPrefix(typ.Version, "v1alpha"))
	switch {
	case said != nil && !changes:
		f.what[key] = string(said.Outcome) + ": " + said.Message
	case f.what[key] == "":
		f.what[key] = "translated"
	}
}

func (f *fieldTable) String() string {
	var b strings.Builder
	b.WriteString("| Kind | Field | v1alpha | Becomes |\n|---|---|---|---|\n")
	for _, key := range f.order {
		fmt.Fprintf(&b, "%s%s | %s |\n", key, strings.Join(f.rows[key], ", "), f.what[key])
	}
	return b.String()
}

// object puts a body where the version has it.
func object(t *testing.T, typ objects.Type, body string) map[string]any {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal([]byte(body), &b); err != nil {
		t.Fatal(err)
	}
	top := reflect.TypeOf(typ.New()).Elem()
	out := map[string]any{}
	if _, ok := top.FieldByName("Spec"); ok {
		out["spec"] = b
	} else {
		out = b
	}
	if typ.Kind == trafficTarget && typ.Version == "v1alpha1" {
		out["specs"] = out["rules"]
		delete(out, "rules")
	}
	if (typ.Kind == tcpRoute || typ.Kind == udpRoute) && typ.Version != "v1alpha4" {
		out = map[string]any{}
	}
	out["apiVersion"], out["kind"] = typ.Kind.Group+"/"+typ.Version, typ.Kind.Kind
	out["metadata"] = map[string]any{"name": "object", "namespace": "shop"}
	return out
}

func output(t *testing.T, o map[string]any) translatortest.Output {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return translatortest.Translate(newTranslator, objects.Input{Name: "company.yaml", Data: []byte(company)}, objects.Input{Name: "in.yaml", Data: b})
}

// leaves lists the paths of a type's fields that hold plain values; lists are
// entered by their first element.
func leaves(t reflect.Type, path []string) [][]string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if u := reflect.PointerTo(t); u.Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return [][]string{slices.Clone(path)}
	}
	var out [][]string
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[metav1.ObjectMeta]() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			out = append(out, leaves(f.Type, append(slices.Clone(path), name))...)
		}
		return out
	case reflect.Slice:
		return leaves(t.Elem(), append(slices.Clone(path), "[0]"))
	}
	return [][]string{slices.Clone(path)}
}

// sample is a value for a field that differs from those of the bodies.
func sample(name, version string) any {
	switch {
	case strings.HasSuffix(name, "ort"), strings.HasSuffix(name, "orts[0]"):
		return 7
	case strings.HasSuffix(name, "weight"):
		return 7
	case strings.HasSuffix(name, "methods[0]"):
		return "PUT"
	case strings.HasSuffix(name, "rules[0].matches[0]"), strings.HasSuffix(name, "specs[0].matches[0]"):
		return "b"
	case strings.HasSuffix(name, "headers"):
		return map[string]any{"x": "y"}
	}
	return "v9"
}

// set writes a value at a path, making what is missing on the way.
func set(o map[string]any, path []string, v any) {
	var at any = o
	for i, p := range path {
		last := i == len(path)-1
		var next any
		if !last {
			next = map[string]any{}
			if strings.HasPrefix(path[i+1], "[") {
				next = []any{map[string]any{}}
			}
		} else {
			next = v
		}
		switch a := at.(type) {
		case map[string]any:
			if have, ok := a[p]; ok && !last {
				next = have
			}
			a[p] = next
		case []any:
			if !last {
				next = a[0]
			}
			a[0] = next
		default:
			panic(fmt.Sprintf("no way to %v", path))
		}
		at = next
	}
}

// FuzzTranslate: whatever the objects, no panic, and what an invalid object asks
// for is never allowed.
func FuzzTranslate(f *testing.F) {
	f.Add(company)
	f.Add("apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: s}\nspec: {service: web, backends: [{service: a, weight: 1e30}, {service: a, weight: -1n}]}\n")
	f.Add("apiVersion: access.smi-spec.io/v1alpha2\nkind: TrafficTarget\nmetadata: {name: s}\nspec: {destination: {kind: ServiceAccount, name: a, port: 70000}, sources: [{kind: ServiceAccount, name: b}], rules: [{kind: TCPRoute, name: r}]}\n---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: r}\nspec: {matches: {ports: [1]}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Translate(newTranslator, objects.Input{Name: "in.yaml", Data: []byte(text)})
		out.Model()
		out.DiagnosticLines()
		for _, r := range out.Store.Rows("object/" + "TrafficTarget.access.smi-spec.io") {
			o := r.Value.(*objects.Object)
			a := out.Authorization(o.Key())
			if o.Invalid && a != nil && len(a.Rules) > 0 {
				t.Errorf("the invalid %s allows %+v", o.Key(), a.Rules)
			}
		}
	})
}
