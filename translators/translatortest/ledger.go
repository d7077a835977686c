// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Ledger accounts for the fields of Go types: each, set in a valid object to values that
// matter, must change the node's plan or be named by a diagnostic.
type Ledger struct {
	Make  func() translators.Translator
	Types []objects.Type
	// Company is what an object needs around it for its fields to matter, as YAML; it
	// stands beside Stage.
	Company string
	// Name is what an object of a kind is called, "object" if there is no such function; it
	// is of the namespace shop.
	Name func(objects.Kind) string
	// Bodies are valid objects of a type without their head, as JSON. A field is set in
	// the one that has most of the way to it, the first among equals. Of a type without
	// bodies every object is refused, and a diagnostic must say so.
	Bodies func(objects.Type) []string
	// Values are what a field is set to, one after the other. One that is Same is what the
	// object means without it.
	Values func(typ objects.Type, field string) []any
	// Beside adds what a field needs in its object, and takes away what it excludes; nil
	// for nothing. The field is set already.
	Beside func(o map[string]any, path []string)
	// Unused says why a field means nothing by design, "" if it means something.
	Unused func(typ objects.Type, field string) string
	// Faults are codes of diagnostics that say of a value, not of its field, what is wrong
	// with it in the plane's own terms: the plane would not take it either.
	Faults []string
}

// Same is a value of a field that neither changes the plan nor is worth a word.
type Same struct{ Value any }

// Sample holds values of the fields whose name ends so.
type Sample struct {
	End    string
	Values []any
}

// Of makes a sample.
func Of(end string, values ...any) Sample { return Sample{end, values} }

// Values are those of the first sample that fits a field, else the text "x".
func Values(samples []Sample, field string) []any {
	for _, s := range samples {
		if strings.HasSuffix(field, s.End) {
			return s.Values
		}
	}
	return []any{"x"}
}

// Run tries every field and returns what becomes of them.
func (l Ledger) Run(t *testing.T) Fields {
	t.Helper()
	var out Fields
	for _, typ := range l.Types {
		t.Run(typ.Kind.Kind+" "+typ.Version, func(t *testing.T) {
			bodies := l.Bodies(typ)
			if len(bodies) == 0 {
				out.add(l.kind(typ.Kind), typ.Version, WholeKind, []Fate{l.whole(t, typ)})
				return
			}
			before := make([]Output, len(bodies))
			for i := range bodies {
				before[i] = l.output(t, l.object(t, typ, bodies[i]))
				l.checkValid(t, typ, bodies[i], before[i])
			}
			for _, path := range leaves(reflect.TypeOf(typ.New()), nil, nil) {
				name := fieldName(path)
				if why := l.Unused(typ, name); why != "" {
					out.add(l.kind(typ.Kind), typ.Version, name, []Fate{{Outcome: NoEffect, Message: why}})
					continue
				}
				at := nearest(bodies, path)
				out.add(l.kind(typ.Kind), typ.Version, name, l.fates(t, typ, path, bodies[at], before[at]))
			}
		})
	}
	return out
}

// kind is how tables name a kind: with its group where another has the same name.
func (l Ledger) kind(k objects.Kind) string {
	if slices.ContainsFunc(l.Types, func(t objects.Type) bool { return t.Kind.Kind == k.Kind && t.Kind.Group != k.Group }) {
		return k.String()
	}
	return k.Kind
}

// checkValid checks that a diagnostic finds no fault with a body.
func (l Ledger) checkValid(t *testing.T, typ objects.Type, body string, o Output) {
	t.Helper()
	for _, d := range o.Diagnostics() {
		if d.Source.Name == l.name(typ.Kind) && d.Source.Kind == typ.Kind.Kind && slices.Contains(l.Faults, d.Code) {
			t.Errorf("the body %s is not valid: %s: %s", body, d.Source, d.Message)
		}
	}
}

// whole is what becomes of every object of a kind.
func (l Ledger) whole(t *testing.T, typ objects.Type) Fate {
	for _, d := range l.output(t, l.object(t, typ, `{"spec": {}}`)).Diagnostics() {
		if d.Source.Name == l.name(typ.Kind) && d.Source.Kind == typ.Kind.Kind && d.Outcome == model.Refused {
			return Fate{Outcome: d.Outcome, Message: d.Message, Advice: d.Advice}
		}
	}
	t.Error("no body, and no diagnostic refuses the kind")
	return Fate{}
}

// fates are those of a field, by its values.
func (l Ledger) fates(t *testing.T, typ objects.Type, path []string, body string, before Output) []Fate {
	t.Helper()
	var out []Fate
	name := fieldName(path)
	for _, v := range l.Values(typ, name) {
		same, isSame := v.(Same)
		if isSame {
			v = same.Value
		}
		changed := l.object(t, typ, body)
		Set(changed, path, v)
		if l.Beside != nil {
			l.Beside(changed, path)
		}
		got := l.output(t, changed)
		said, differs := l.naming(typ.Kind, got, name), got.Plan() != before.Plan()
		switch {
		case isSame && (differs || said != nil && l.naming(typ.Kind, before, name) == nil):
			t.Errorf("%s: %v is not the same as without it", name, v)
		case !isSame && !differs && said == nil:
			t.Errorf("%s: %v neither changes the plan nor does a diagnostic name it\n%s", name, v, got.DiagnosticLines())
		}
		if !isSame {
			out = AddFate(out, l.fate(said), v)
		}
	}
	return out
}

// fate is what a diagnostic says of a field, that it is translated if there is none.
func (l Ledger) fate(said *model.Diagnostic) Fate {
	if said == nil || slices.Contains(l.Faults, said.Code) {
		return Fate{Outcome: model.Translated}
	}
	return Fate{Outcome: said.Outcome, Message: said.Message, Advice: said.Advice}
}

func (l Ledger) name(k objects.Kind) string {
	if l.Name == nil {
		return "object"
	}
	return l.Name(k)
}

func (l Ledger) object(t *testing.T, typ objects.Type, body string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	out["apiVersion"], out["kind"] = typ.Kind.Group+"/"+typ.Version, typ.Kind.Kind
	out["metadata"] = map[string]any{"name": l.name(typ.Kind), "namespace": "shop"}
	return out
}

func (l Ledger) output(t *testing.T, o map[string]any) Output {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return Planned(l.Make, objects.Input{Name: "company.yaml", Data: []byte(l.Company)}, objects.Input{Name: "in.yaml", Data: b})
}

// naming returns the diagnostic that names a field, or the nearest thing that it is part
// of; nil if there is none. What is said of an object as a whole names no field.
func (l Ledger) naming(k objects.Kind, o Output, field string) *model.Diagnostic {
	var best *model.Diagnostic
	for _, d := range o.Diagnostics() {
		of := d.Source.Field
		if d.Source.Kind != k.Kind || d.Source.Name != l.name(k) || of == "" || of == "spec" {
			continue
		}
		if of == field || strings.HasPrefix(field, of+"[") || strings.HasPrefix(field, of+".") {
			if best == nil || len(of) > len(best.Source.Field) {
				best = &d
			}
		}
	}
	return best
}

// AddFate adds what becomes of a value to what becomes of others.
func AddFate(fates []Fate, f Fate, value any) []Fate {
	text := fmt.Sprint(value)
	if b, err := json.Marshal(value); err == nil {
		text = strings.Trim(string(b), `"`)
	}
	for i := range fates {
		if fates[i].Outcome == f.Outcome && fates[i].Message == f.Message {
			fates[i].Values = append(fates[i].Values, text)
			return fates
		}
	}
	f.Values = []string{text}
	return append(fates, f)
}
