// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"fairlead.io/fairlead/model"
)

// Edit is what became of one object: a new version, or that it is gone.
type Edit struct {
	Ref Ref
	New *Object // nil: it is gone
	// Diagnostics of decoding it. Where there is no object they are about the whole kind,
	// or say why there is none.
	Diagnostics []model.Diagnostic
}

// DecodeAPI makes an object of what an API server gives of a type that was asked for.
// It judges it as Decode judges a file's. What was not decoded whole has Invalid set and
// diagnostics that say why; they name the object and its field, there being no file.
func DecodeAPI(t Type, body map[string]any) Edit {
	d := &decoder{batch: &Batch{Broken: map[string]bool{}}}
	doc := &document{flat: true}
	w := newWalker(doc)
	o := d.decodeWith(w, nodeOf(body), t, true)
	if !t.Lenient {
		// There are no lines, but which fields are written counts.
		o.Place.Lines = w.lines
	}
	return Edit{Ref: o.Ref(), New: o, Diagnostics: d.batch.Diagnostics}
}

// SetUID notes which object of its name this one is: the last valid version of one that
// was deleted does not stand for another. It is for who has made the object.
func (o *Object) SetUID(uid string) { o.uid = uid }

// UID tells objects of one name apart, "" in files.
func (o *Object) UID() string { return o.uid }

// Digest names all that counts of an edit's new version; equal ones change nothing.
func (e Edit) Digest() [16]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00", e.Ref.Kind, e.Ref.Namespace, e.Ref.Name)
	if o := e.New; o != nil {
		fmt.Fprintf(h, "%s\x00%s\x00%t\x00%d\x00", o.Version, o.uid, o.Invalid, len(o.content))
		h.Write(o.content)
	}
	for _, d := range e.Diagnostics {
		fmt.Fprintf(h, "%+v\x00", d)
	}
	return [16]byte(h.Sum(nil)[:16])
}

// nodeOf is the YAML of a value as encoding/json, or Kubernetes' own decoder, gives it.
func nodeOf(v any) *yaml.Node {
	scalar := func(tag, value string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
	}
	switch v := v.(type) {
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: make([]*yaml.Node, 0, 2*len(v))}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, textNode(k), nodeOf(v[k]))
		}
		return n
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: make([]*yaml.Node, len(v))}
		for i, item := range v {
			n.Content[i] = nodeOf(item)
		}
		return n
	case nil:
		return scalar("!!null", "null")
	case string:
		return textNode(v)
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case int64:
		return scalar("!!int", strconv.FormatInt(v, 10))
	}
	b, err := json.Marshal(v)
	if err != nil {
		return scalar("!!null", "null") // JSON has no such value
	}
	return scalar("!!float", string(b))
}

// textNode is a string that is one whatever it says.
func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}

// BatchOf is the batch of objects that are all there are.
func BatchOf(edits []Edit) *Batch {
	b := &Batch{Broken: map[string]bool{}, self: new(identity)}
	for _, e := range edits {
		if e.New != nil {
			b.Objects = append(b.Objects, e.New)
		}
		b.Diagnostics = append(b.Diagnostics, e.Diagnostics...)
	}
	slices.SortFunc(b.Objects, func(x, y *Object) int { return CompareRefs(x.Ref(), y.Ref()) })
	slices.SortStableFunc(b.Diagnostics, model.CompareDiagnostics)
	return b
}

// Apply makes edits, each by itself, and returns what changed in use, sorted, and what is
// to be said of every edited object, nil where that is nothing. Of several edits of one
// object the last counts.
//
// An invalid version does not replace a valid one of the same object, as with Replace.
func (s *Set) Apply(edits []Edit) ([]Change, map[Ref][]model.Diagnostic) {
	said := make(map[Ref][]model.Diagnostic, len(edits))
	before := make(map[Ref]*Object, len(edits))
	for _, e := range edits {
		old := s.current[e.Ref]
		if _, again := before[e.Ref]; !again {
			before[e.Ref] = old
		}
		said[e.Ref] = slices.Clone(e.Diagnostics)
		if e.New == nil {
			delete(s.current, e.Ref)
			continue
		}
		o, found := s.judge(e.New)
		if o.Invalid && old != nil && !old.Invalid && o.uid == old.uid {
			said[e.Ref] = append(append(said[e.Ref], found...), kept(o, old, "this version is invalid; the last valid one stays in use"))
			o = old
		}
		s.current[e.Ref] = o
	}
	var changes []Change
	for ref, old := range before {
		slices.SortStableFunc(said[ref], model.CompareDiagnostics)
		now := s.current[ref]
		if old == now || old != nil && now != nil && same(old, now) {
			continue
		}
		changes = append(changes, Change{ref, now})
	}
	slices.SortFunc(changes, func(a, b Change) int { return CompareRefs(a.Ref, b.Ref) })
	s.batch = nil
	return changes, said
}

// String is "Kind.group namespace/name".
func (r Ref) String() string {
	o := Object{Namespace: r.Namespace, Name: r.Name}
	return strings.TrimSpace(r.Kind.String() + " " + o.Key())
}
