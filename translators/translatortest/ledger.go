// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Ledger accounts for the fields of Go types: each, set by itself in a valid object to
// another value, must change the rows of the model or be named by a diagnostic.
type Ledger struct {
	Make  func() translators.Translator
	Types []objects.Type
	// Company is what an object needs around it for its fields to matter, as YAML.
	Company string
	// Bodies are valid objects of a type without their head, as JSON; the object is called
	// shop/object. A field is set in the one that has most of the way to it, the first
	// among equals. A type without bodies is left out.
	Bodies func(objects.Type) []string
	// Sample is a value for a field that differs from those of the bodies.
	Sample func(typ objects.Type, field string) any
	// Unused names fields that mean nothing by design.
	Unused func(typ objects.Type, field string) bool
	// Refusals are codes of diagnostics that refuse a field whatever its value is, though
	// something else changes by it.
	Refusals []string
}

// Run tries every field and returns the table of what becomes of them.
func (l Ledger) Run(t *testing.T) string {
	t.Helper()
	table := &fieldTable{rows: map[string]map[string][]string{}, fates: map[string][]string{}}
	for _, typ := range l.Types {
		bodies := l.Bodies(typ)
		if len(bodies) == 0 {
			continue
		}
		t.Run(typ.Kind.Kind+" "+typ.Version, func(t *testing.T) {
			before := make([]Output, len(bodies))
			for i := range bodies {
				before[i] = l.output(t, typ, l.object(t, typ, bodies[i]))
				for _, d := range before[i].Diagnostics() {
					if d.Source.Name == objectName && d.IsError() && !slices.Contains(l.Refusals, d.Code) {
						t.Errorf("the body %s is not valid: %s: %s", bodies[i], d.Source, d.Message)
					}
				}
			}
			for _, path := range leaves(reflect.TypeOf(typ.New()), nil) {
				name := fieldName(path)
				if l.Unused(typ, name) {
					continue
				}
				at := l.nearest(t, typ, bodies, path)
				changed := l.object(t, typ, bodies[at])
				set(changed, path, l.Sample(typ, name))
				got := l.output(t, typ, changed)
				said, differs := naming(got, name), got.Model() != before[at].Model()
				if !differs && said == nil {
					t.Errorf("%s: neither the rows change nor does a diagnostic name it\n%s", name, got.DiagnosticLines())
				}
				table.add(typ, name, l.fate(differs, said))
			}
		})
	}
	return table.String()
}

// fate is what the table says of a field.
func (l Ledger) fate(differs bool, said *model.Diagnostic) string {
	if said == nil || differs && said.Outcome != model.Approximated && !slices.Contains(l.Refusals, said.Code) {
		return string(model.Translated)
	}
	return string(said.Outcome) + ": " + said.Message
}

const objectName = "object"

func fieldName(path []string) string { return strings.ReplaceAll(strings.Join(path, "."), ".[", "[") }

func (l Ledger) object(t *testing.T, typ objects.Type, body string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	out["apiVersion"], out["kind"] = typ.Kind.Group+"/"+typ.Version, typ.Kind.Kind
	out["metadata"] = map[string]any{"name": objectName, "namespace": "shop"}
	return out
}

func (l Ledger) output(t *testing.T, typ objects.Type, o map[string]any) Output {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return Translate(l.Make, objects.Input{Name: "company.yaml", Data: []byte(l.Company)}, objects.Input{Name: "in.yaml", Data: b})
}

// nearest is the body that has most of the way to a field.
func (l Ledger) nearest(t *testing.T, typ objects.Type, bodies []string, path []string) int {
	best, most := 0, -1
	for i, b := range bodies {
		var at any = l.object(t, typ, b)
		n := 0
		for _, p := range path {
			switch a := at.(type) {
			case map[string]any:
				at = a[p]
			case []any:
				at = nil
				if len(a) > 0 {
					at = a[0]
				}
			default:
				at = nil
			}
			if at == nil {
				break
			}
			n++
		}
		if n > most {
			best, most = i, n
		}
	}
	return best
}

// naming returns the diagnostic that names a field or what it is part of, nil if there
// is none.
func naming(o Output, field string) *model.Diagnostic {
	for _, d := range o.Diagnostics() {
		of := d.Source.Field
		if d.Source.Name == objectName && (of == field || of != "" && (strings.HasPrefix(field, of+"[") || strings.HasPrefix(field, of+"."))) {
			return &d
		}
	}
	return nil
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
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[metav1.ObjectMeta]() || len(path) == 0 && name == "status" {
				continue
			}
			to := slices.Clone(path)
			if name != "" { // else inline
				to = append(to, name)
			}
			out = append(out, leaves(f.Type, to)...)
		}
		return out
	case reflect.Slice:
		return leaves(t.Elem(), append(slices.Clone(path), "[0]"))
	}
	return [][]string{slices.Clone(path)}
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

// fieldTable says what becomes of fields. A field that fares differently in some versions
// has a row for each of its fates.
type fieldTable struct {
	order []string
	rows  map[string]map[string][]string // "kind | field" -> fate -> versions
	fates map[string][]string            // "kind | field" -> fates, in order
}

func (f *fieldTable) add(typ objects.Type, name, fate string) {
	key := "| " + typ.Kind.Kind + " | " + strings.ReplaceAll(name, "[0]", "[]") + " | "
	if f.rows[key] == nil {
		f.order = append(f.order, key)
		f.rows[key] = map[string][]string{}
	}
	if f.rows[key][fate] == nil {
		f.fates[key] = append(f.fates[key], fate)
	}
	f.rows[key][fate] = append(f.rows[key][fate], typ.Version)
}

func (f *fieldTable) String() string {
	var b strings.Builder
	b.WriteString("| Kind | Field | Versions | Becomes |\n|---|---|---|---|\n")
	for _, key := range f.order {
		for _, fate := range f.fates[key] {
			fmt.Fprintf(&b, "%s%s | %s |\n", key, strings.Join(f.rows[key][fate], ", "), fate)
		}
	}
	return b.String()
}
