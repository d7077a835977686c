// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/resource"
)

// walker goes through a document beside the Go type that it is for. It notes the
// line of every field, reports what the type cannot take, and leaves that out of
// the value that it returns: encoding/json then decodes the rest without fail.
type walker struct {
	doc      *document
	lines    map[string]int
	problems []problem
	budget   int // nodes that may still be visited: aliases can repeat without end
}

// problem is one thing that the type cannot take.
type problem struct {
	path string
	line int
	code string
	msg  string
}

// maxNodes bounds a document, aliases expanded.
const maxNodes = 500_000

func newWalker(d *document) *walker {
	return &walker{doc: d, lines: map[string]int{}, budget: maxNodes}
}

func (w *walker) report(n *yaml.Node, path, code, format string, args ...any) {
	w.problems = append(w.problems, problem{path, w.doc.at(n.Line), code, fmt.Sprintf(format, args...)})
}

// enter follows aliases and notes where the path stands; nil if the document is
// too large.
func (w *walker) enter(n *yaml.Node, path string) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if w.budget--; w.budget < 0 {
		if w.budget == -1 {
			w.report(n, path, "too-large", "more than %d values", maxNodes)
		}
		return nil
	}
	return n
}

// entry is a key and value of a mapping.
type entry struct {
	key  string
	at   *yaml.Node
	node *yaml.Node
}

// entries lists a mapping's keys in order, merge keys resolved, and reports
// repeated ones.
func (w *walker) entries(n *yaml.Node, path string, join func(path, key string) string) []entry {
	var out, merged []entry
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		for k.Kind == yaml.AliasNode && k.Alias != nil {
			k = k.Alias
		}
		switch {
		case k.Kind != yaml.ScalarNode:
			w.report(k, path, "wrong-type", "a key must be a string")
		case k.Tag == "!!merge":
			merged = append(merged, w.merge(v, path, join)...)
		case seen[k.Value]:
			w.report(k, join(path, k.Value), "duplicate-key", "%q is given twice", k.Value)
		default:
			seen[k.Value] = true
			out = append(out, entry{k.Value, k, v})
		}
	}
	for _, e := range merged {
		if !seen[e.key] {
			seen[e.key] = true
			out = append(out, e)
		}
	}
	for _, e := range out {
		p := join(path, e.key)
		if _, ok := w.lines[p]; !ok {
			w.lines[p] = w.doc.at(e.at.Line)
		}
	}
	return out
}

func (w *walker) merge(v *yaml.Node, path string, join func(path, key string) string) []entry {
	v = w.enter(v, path)
	switch {
	case v == nil:
		return nil
	case v.Kind == yaml.MappingNode:
		return w.entries(v, path, join)
	case v.Kind == yaml.SequenceNode:
		var out []entry
		for _, m := range v.Content {
			out = append(out, w.merge(m, path, join)...)
		}
		return out
	}
	w.report(v, path, "wrong-type", "<< needs a mapping")
	return nil
}

func (w *walker) items(n *yaml.Node, path string) []string {
	paths := make([]string, len(n.Content))
	for i, c := range n.Content {
		paths[i] = path + "[" + strconv.Itoa(i) + "]"
		if _, ok := w.lines[paths[i]]; !ok {
			w.lines[paths[i]] = w.doc.at(c.Line)
		}
	}
	return paths
}

// fieldPath joins a struct's field, mapPath a map's key.
func fieldPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func mapPath(path, key string) string {
	if plainKey.MatchString(key) {
		return fieldPath(path, key)
	}
	return path + `["` + key + `"]`
}

// untyped converts a node to what encoding/json would give.
func (w *walker) untyped(n *yaml.Node, path string) any {
	n = w.enter(n, path)
	if n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for _, e := range w.entries(n, path, mapPath) {
			out[e.key] = w.untyped(e.node, mapPath(path, e.key))
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, p := range w.items(n, path) {
			out[i] = w.untyped(n.Content[i], p)
		}
		return out
	}
	return w.scalar(n, path)
}

// scalar reads a scalar as kubectl does: YAML 1.1 words are booleans, dates are
// strings.
func (w *walker) scalar(n *yaml.Node, path string) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!str":
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
			switch n.Value {
			case "yes", "Yes", "YES", "on", "On", "ON":
				return true
			case "no", "No", "NO", "off", "Off", "OFF":
				return false
			}
		}
		return n.Value
	case "!!timestamp":
		return n.Value
	case "!!bool", "!!int", "!!float":
		var v any
		if err := n.Decode(&v); err != nil {
			w.report(n, path, "wrong-type", "%v", err)
			return nil
		}
		b, err := json.Marshal(v)
		if err != nil { // .inf and .nan
			w.report(n, path, "wrong-type", "%s cannot be used as a number", n.Value)
			return nil
		}
		if b[0] == 't' || b[0] == 'f' {
			return v
		}
		return json.Number(b)
	}
	w.report(n, path, "wrong-type", "values with the tag %s are not supported", n.Tag)
	return nil
}

// hugeExponent is in quantities that take minutes to parse: their digits are
// written out on the way.
var hugeExponent = regexp.MustCompile(`[eE][+-]?[0-9]{3,}`)

var (
	quantity    = reflect.TypeFor[resource.Quantity]()
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	message     = reflect.TypeFor[proto.Message]()
)

// typed converts a node for a Go type; ok is false if it was left out.
func (w *walker) typed(n *yaml.Node, t reflect.Type, path string) (v any, ok bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	n = w.enter(n, path)
	switch {
	case n == nil:
		return nil, false
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, true
	case reflect.PointerTo(t).Implements(message):
		m := reflect.New(t).Interface().(proto.Message)
		return w.message(n, m.ProtoReflect().Descriptor(), path)
	case reflect.PointerTo(t).Implements(unmarshaler):
		return w.tried(n, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return w.structure(n, t, path)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			return w.mismatch(n, path, "a mapping")
		}
		out := map[string]any{}
		for _, e := range w.entries(n, path, mapPath) {
			if v, ok := w.typed(e.node, t.Elem(), mapPath(path, e.key)); ok {
				out[e.key] = v
			}
		}
		return out, true
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return w.tried(n, t, path)
		}
		if n.Kind != yaml.SequenceNode {
			return w.mismatch(n, path, "a list")
		}
		out := make([]any, 0, len(n.Content))
		for i, p := range w.items(n, path) {
			v, ok := w.typed(n.Content[i], t.Elem(), p)
			if !ok {
				v = nil // keeps the places of the others
			}
			out = append(out, v)
		}
		return out, true
	case reflect.Interface:
		return w.untyped(n, path), true
	}
	return w.tried(n, t, path)
}

func (w *walker) mismatch(n *yaml.Node, path, want string) (any, bool) {
	w.report(n, path, "wrong-type", "must be %s, not %s", want, describe(n))
	return nil, false
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

// tried converts a value that decodes itself, or a plain one, and tries whether
// the type takes it.
func (w *walker) tried(n *yaml.Node, t reflect.Type, path string) (any, bool) {
	v := w.untyped(n, path)
	switch x := v.(type) {
	case string:
		if t == quantity && hugeExponent.MatchString(x) {
			return w.mismatch(n, path, "a quantity of reasonable size")
		}
		if t.Kind() == reflect.String && !reflect.PointerTo(t).Implements(unmarshaler) {
			return v, true
		}
	case bool:
		if t.Kind() == reflect.Bool {
			return x, true
		}
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, reflect.New(t).Interface())
	}
	if err == nil {
		return v, true
	}
	switch t.Kind() {
	case reflect.String:
		return w.mismatch(n, path, "a string (quote it)")
	case reflect.Bool:
		return w.mismatch(n, path, "true or false")
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return w.mismatch(n, path, "a whole number")
	}
	w.report(n, path, "wrong-type", "%v", strings.TrimPrefix(err.Error(), "json: "))
	return nil, false
}

func (w *walker) structure(n *yaml.Node, t reflect.Type, path string) (any, bool) {
	if n.Kind != yaml.MappingNode {
		return w.mismatch(n, path, "a mapping")
	}
	out := map[string]any{}
	fields := fieldsOf(t)
	for _, e := range w.entries(n, path, fieldPath) {
		p := fieldPath(path, e.key)
		ft, ok := fields[e.key]
		if !ok {
			w.report(e.at, p, "unknown-field", "there is no field %q here", e.key)
			continue
		}
		if v, ok := w.typed(e.node, ft, p); ok {
			out[e.key] = v
		}
	}
	return out, true
}

// fieldsOf lists a struct's fields by the names that JSON has for them.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			ft := f.Type
			for ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			for k, v := range fieldsOf(ft) {
				if _, ok := out[k]; !ok {
					out[k] = v
				}
			}
		case !f.IsExported():
		case name == "":
			out[f.Name] = f.Type
		default:
			out[name] = f.Type
		}
	}
	return out
}
