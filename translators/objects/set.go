// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
)

// Set holds the objects in use and keeps the last valid version of each. It is not
// safe for concurrent use.
type Set struct {
	validate func(*Object) []model.Diagnostic
	current  map[Ref]*Object
	batch    *identity // that it is made of; nil if last valid versions stand for some of it
}

// Change is an object's new version, nil if it is gone.
type Change struct {
	Ref Ref
	New *Object
}

// NewSet returns an empty set. validate judges an object alone; an error among its
// diagnostics makes the object invalid.
func NewSet(validate func(*Object) []model.Diagnostic) *Set {
	return &Set{validate: validate, current: map[Ref]*Object{}}
}

// Replace makes the batch the whole content and returns what changed in use,
// sorted, and the batch's diagnostics together with those of versions that are
// not used.
//
// An invalid version of an object that has a valid one does not replace it. One
// that has none is used with Invalid set. Objects missing from a broken input that
// had them stay.
func (s *Set) Replace(b *Batch) ([]Change, []model.Diagnostic) {
	if changes, ok := s.edit(b); ok {
		return changes, slices.Clone(b.Diagnostics)
	}
	diags := slices.Clone(b.Diagnostics)
	next := make(map[Ref]*Object, len(b.Objects))
	for _, o := range b.Objects {
		old := s.current[o.Ref()]
		if old == o { // in use as it is, so it was judged before
			next[o.Ref()] = o
			continue
		}
		o, found := s.judge(o)
		if o.Invalid && old != nil && !old.Invalid {
			diags = append(diags, found...)
			diags = append(diags, kept(o, old, "this version is invalid; the last valid one stays in use"))
			o = old
		}
		next[o.Ref()] = o
	}
	for ref, old := range s.current {
		if next[ref] == nil && b.broken(old.origin) {
			diags = append(diags, kept(old, old, "its file can no longer be read whole; the last version stays in use"))
			next[ref] = old
		}
	}
	var changes []Change
	for ref, o := range next {
		if old := s.current[ref]; old == nil || !same(old, o) {
			changes = append(changes, Change{ref, o})
		}
	}
	for ref := range s.current {
		if next[ref] == nil {
			changes = append(changes, Change{ref, nil})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return CompareRefs(a.Ref, b.Ref) })
	slices.SortStableFunc(diags, model.CompareDiagnostics)
	s.current, s.batch = next, b.self
	if len(diags) > len(b.Diagnostics) {
		s.batch = nil
	}
	return changes, diags
}

// edit is Replace by a batch that edits the one in use, if all its versions can be used.
func (s *Set) edit(b *Batch) (changes []Change, ok bool) {
	if b.base == nil || b.base != s.batch {
		return nil, false
	}
	next := make([]*Object, len(b.edited))
	for i, o := range b.edited {
		old := s.current[o.Ref()]
		if o, _ = s.judge(o); o.Invalid && !old.Invalid {
			return nil, false
		}
		if next[i] = o; !same(old, o) {
			changes = append(changes, Change{o.Ref(), o})
		}
	}
	for _, o := range next {
		s.current[o.Ref()] = o
	}
	slices.SortFunc(changes, func(a, b Change) int { return CompareRefs(a.Ref, b.Ref) })
	s.batch = b.self
	return changes, true
}

// judge gives the object, marked if it is not valid, and what was found.
func (s *Set) judge(o *Object) (*Object, []model.Diagnostic) {
	found := s.validate(o)
	if !o.Invalid && slices.ContainsFunc(found, model.Diagnostic.IsError) {
		o = o.invalid()
	}
	return o, found
}

// All returns the objects in use, sorted by kind, namespace and name.
func (s *Set) All() []*Object {
	refs := slices.SortedFunc(maps.Keys(s.current), CompareRefs)
	out := make([]*Object, len(refs))
	for i, r := range refs {
		out[i] = s.current[r]
	}
	return out
}

// CompareRefs orders by kind, namespace and name.
func CompareRefs(a, b Ref) int {
	if c := strings.Compare(a.Kind.String(), b.Kind.String()); c != 0 {
		return c
	}
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// LastGoodKept is the code of the diagnostic that says that the last valid version of an
// object stands for its newest.
const LastGoodKept = "last-good-kept"

func kept(o, old *Object, msg string) model.Diagnostic {
	if old.Place.File != "" && old != o {
		msg += fmt.Sprintf(" (it stood at %s:%d)", old.Place.File, old.Place.First)
	}
	return model.Diagnostic{Source: o.Source("", ""), Code: LastGoodKept, Effect: model.Degrades,
		Outcome: model.Approximated, Message: msg}
}

// invalid returns a copy that is marked.
func (o *Object) invalid() *Object {
	c := *o
	c.Invalid = true
	return &c
}

// same reports whether two versions agree in content and place.
func same(a, b *Object) bool {
	return a == b || a.Version == b.Version && a.Order == b.Order && a.Invalid == b.Invalid && a.origin == b.origin &&
		a.content != nil && bytes.Equal(a.content, b.content) && a.Place.File == b.Place.File &&
		a.Place.First == b.Place.First && maps.Equal(a.Place.Lines, b.Place.Lines)
}
