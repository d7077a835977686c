// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/model"
)

// Input is a named text: a file, standard input, a part of a test.
type Input struct {
	Name string
	Data []byte
	Err  error // why it could not be read
}

// Batch is what a set of inputs came to.
type Batch struct {
	// Objects in the order of the stream, each at most once: the last one of a
	// name stands, as with kubectl apply. Objects that did not decode whole are
	// among them with Invalid set and what could be decoded in Value.
	Objects     []*Object
	Diagnostics []model.Diagnostic
	// Broken names inputs, and folders, with a part that gave no object at all. What
	// is missing from them may be in that part.
	Broken map[string]bool

	// self tells batches apart. This one is as base was but for edited, which are new
	// versions of some of its objects; nil if that is not known.
	self, base *identity
	edited     []*Object
}

// identity is an address: no two are equal.
type identity struct{ _ byte }

// broken reports whether the input, or a folder above it, is broken.
func (b *Batch) broken(input string) bool {
	for {
		if b.Broken[input] {
			return true
		}
		parent := filepath.Dir(input)
		if parent == input {
			return false
		}
		input = parent
	}
}

// Decode reads objects from inputs.
func Decode(r *Registry, inputs ...Input) *Batch { return NewDecoder(r).Decode(inputs...) }

const unreadableAdvice = "let it be read, or take it out of the folder"

// Codes of diagnostics of parts that gave no object.
const (
	codeUnreadable = "unreadable-file"
	codeBroken     = "broken-yaml"
	codeNoObject   = "not-an-object"
	codeNoName     = "no-name"
)

// Unread reports whether a diagnostic is about a part of an input that gave no object, so
// that nobody knows what it would have been.
func Unread(d model.Diagnostic) bool {
	switch d.Code {
	case codeUnreadable, codeBroken, codeNoObject, codeNoName:
		return d.Outcome == model.Refused
	}
	return false
}

func decodeInput(r *Registry, in Input) *Batch {
	d := &decoder{registry: r, batch: &Batch{Broken: map[string]bool{}}}
	if in.Err != nil {
		d.broken(model.Source{File: in.Name}, in.Name, codeUnreadable, in.Err.Error(), unreadableAdvice)
		return d.batch
	}
	for _, doc := range split(in.Name, in.Data) {
		d.document(doc)
	}
	return d.batch
}

// decoder decodes one input.
type decoder struct {
	registry *Registry
	batch    *Batch
	order    int
}

func (d *decoder) say(src model.Source, code string, effect model.Effect, outcome model.Outcome, msg, advice string) {
	d.batch.say(src, code, effect, outcome, msg, advice)
}

func (b *Batch) say(src model.Source, code string, effect model.Effect, outcome model.Outcome, msg, advice string) {
	b.Diagnostics = append(b.Diagnostics, model.Diagnostic{Source: src, Code: code, Effect: effect,
		Outcome: outcome, Message: msg, Advice: advice})
}

// broken reports a part of an input that gave no object. It may have been what denies
// something.
func (d *decoder) broken(src model.Source, origin, code, msg, advice string) {
	d.batch.Broken[origin] = true
	d.say(src, code, model.Widens, model.Refused, msg, advice)
}

func (d *decoder) document(doc *document) {
	if d.parsed(doc) && doc.node != nil {
		d.object(doc, doc.node, 0)
	}
}

// parsed parses a document and reports broken YAML.
func (d *decoder) parsed(doc *document) bool {
	err := doc.parse()
	if err == nil {
		return true
	}
	line := 1
	if se, ok := err.(*syntaxError); ok {
		line = se.line
	}
	d.broken(model.Source{File: doc.file, Line: doc.at(line)}, doc.origin, codeBroken, err.Error(), "")
	return false
}

// head is what every object starts with.
type head struct {
	APIVersion string
	Kind       string
	Name       string
	Namespace  string
	items      *yaml.Node
}

func readHead(n *yaml.Node) head {
	var h head
	for key, v := range pairs(n) {
		switch key {
		case "apiVersion":
			h.APIVersion = v.Value
		case "kind":
			h.Kind = v.Value
		case "items":
			h.items = v
		case "metadata":
			for key, v := range pairs(v) {
				switch key {
				case "name":
					h.Name = v.Value
				case "namespace":
					h.Namespace = v.Value
				}
			}
		}
	}
	return h
}

// pairs gives a mapping's first value of each key.
func pairs(n *yaml.Node) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	if n == nil || n.Kind != yaml.MappingNode {
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if _, ok := out[n.Content[i].Value]; !ok {
			v := n.Content[i+1]
			if v.Kind == yaml.AliasNode && v.Alias != nil {
				v = v.Alias
			}
			out[n.Content[i].Value] = v
		}
	}
	return out
}

// maxDepth of lists within lists.
const maxDepth = 4

func (d *decoder) object(doc *document, n *yaml.Node, depth int) {
	src := model.Source{File: doc.file, Line: doc.at(n.Line)}
	h := readHead(n)
	if n.Kind != yaml.MappingNode || h.APIVersion == "" || h.Kind == "" {
		d.broken(src, doc.origin, codeNoObject, "an object needs apiVersion and kind", "")
		return
	}
	group, version, found := strings.Cut(h.APIVersion, "/")
	if !found {
		group, version = "", h.APIVersion
	}
	kind := Kind{group, h.Kind}
	if strings.HasSuffix(h.Kind, "List") && !d.registry.Has(kind) && h.items != nil && depth < maxDepth {
		for _, item := range h.items.Content {
			if item.Kind == yaml.AliasNode && item.Alias != nil {
				item = item.Alias
			}
			d.object(doc, item, depth+1)
		}
		return
	}
	d.order++
	src.Kind, src.Namespace, src.Name = h.Kind, h.Namespace, h.Name
	versions := d.registry.versions(kind)
	if len(versions) == 0 {
		d.unread(src, kind)
		return
	}
	t, known := d.registry.types[kind][version]
	if !known {
		// As good as an invalid edit of the object: it must not open what the object guards.
		src.Field = "apiVersion"
		d.say(src, "unknown-version", model.Narrows, model.Refused, fmt.Sprintf("version %s of %s is not read", version, kind),
			"use "+strings.Join(versions, " or ")+"; until then the object is not used, and its last valid version stands")
		t = d.registry.types[kind][newest(versions)]
	}
	o := d.decode(doc, n, t, known)
	if o.Name == "" {
		d.broken(src, doc.origin, codeNoName, "metadata.name is missing", "")
		return
	}
	o.Order, o.origin = d.order, doc.origin
	d.batch.Objects = append(d.batch.Objects, o)
}

// unread reports a kind that nobody reads.
func (d *decoder) unread(src model.Source, kind Kind) {
	effect, harmless := unread(kind)
	if harmless {
		d.say(src, "ignored-kind", model.Cosmetic, model.Translated, fmt.Sprintf("%s says nothing about traffic", kind), "")
		return
	}
	src.Field = "kind"
	d.say(src, "unknown-kind", effect, model.Refused, fmt.Sprintf("nothing reads %s", kind), "")
}

// decode makes an object of a node. If the type is that of another version than the
// object's, the object is invalid whatever is in it.
func (d *decoder) decode(doc *document, n *yaml.Node, t Type, known bool) *Object {
	w := newWalker(doc)
	o := d.decodeWith(w, n, t, known)
	if !doc.flat {
		o.Place.Lines = w.lines
	}
	return o
}

// decodeWith is decode but for the lines, which the walker then knows.
func (d *decoder) decodeWith(w *walker, n *yaml.Node, t Type, known bool) *Object {
	o := w.object(n, t)
	if !known {
		o.Invalid = true
		return o
	}
	if len(w.problems) > 0 {
		for _, other := range t.Others {
			w2 := newWalker(w.doc)
			o2 := w2.object(n, other)
			if len(w2.problems) > 0 {
				continue
			}
			*w = *w2
			d.say(o2.Source("", "apiVersion"), "other-version", model.Cosmetic, model.Translated,
				fmt.Sprintf("%s is named, but the object is written as %s has it, and read so", t.Version, other.Version), "")
			return o2
		}
	}
	for _, p := range w.problems {
		src := o.Source("", p.path)
		src.Line = p.line
		effect := model.Narrows
		advice := "the object is not used until this is repaired; its last valid version stands"
		if p.code == "unknown-field" && t.Lenient {
			effect, advice = model.Degrades, "the field is left out"
		} else {
			o.Invalid = true
		}
		d.say(src, p.code, effect, model.Refused, p.msg, advice)
	}
	return o
}

// object makes an object of a node, and reports what its type does not take.
func (w *walker) object(n *yaml.Node, t Type) *Object {
	v, _ := w.typed(n, reflect.TypeOf(t.New()), "")
	o := &Object{Kind: t.Kind, Version: t.Version, Place: Place{File: w.doc.file, First: w.doc.at(n.Line)}}
	body, _ := v.(map[string]any)
	if err := o.fill(body, t); err != nil {
		w.report(n, "", "wrong-type", "%v", err)
	}
	return o
}

// fill decodes a cleaned body into the object.
func (o *Object) fill(body map[string]any, t Type) error {
	meta, _ := body["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	if t.Namespaced {
		if ns, _ := meta["namespace"].(string); ns == "" {
			meta["namespace"] = metav1.NamespaceDefault
		}
	} else {
		delete(meta, "namespace")
	}
	var m metav1.ObjectMeta
	b, err := json.Marshal(meta)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	o.Namespace, o.Name, o.Labels, o.Annotations, o.Created = m.Namespace, m.Name, m.Labels, m.Annotations, m.CreationTimestamp.Time
	o.Value = t.New()
	if err != nil {
		return err
	}
	if o.content, err = json.Marshal(body); err != nil {
		return err
	}
	if err := json.Unmarshal(o.content, o.Value); err != nil {
		o.Value = t.New() // nothing half-decoded
		return err
	}
	return nil
}

// last keeps the last of the objects that share a name.
func (b *Batch) last() {
	at := map[Ref]*Object{}
	for _, o := range b.Objects {
		if prev := at[o.Ref()]; prev != nil {
			b.say(o.Source("", ""), "duplicate-object", model.Degrades, model.Approximated,
				fmt.Sprintf("also at %s:%d; this one is used, being the later, as with kubectl apply", prev.Place.File, prev.Place.First),
				"delete one of the two")
		}
		at[o.Ref()] = o
	}
	b.Objects = slices.DeleteFunc(b.Objects, func(o *Object) bool { return at[o.Ref()] != o })
}
