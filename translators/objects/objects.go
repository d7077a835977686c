// SPDX-License-Identifier: Apache-2.0

// Package objects holds Kubernetes-style objects as translators see them: decoded
// into their Go types, with the file and line of every field. Where they come
// from (files, an API server) makes no difference to it.
package objects

import (
	"cmp"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
)

// Kind is an API group and kind, without the version.
type Kind struct{ Group, Kind string }

// String is "Kind.group", or "Kind" for the core group.
func (k Kind) String() string {
	if k.Group == "" {
		return k.Kind
	}
	return k.Kind + "." + k.Group
}

// Kinds that every plane may read.
var (
	NamespaceKind      = Kind{"", "Namespace"}
	NodeKind           = Kind{"", "Node"}
	PodKind            = Kind{"", "Pod"}
	ServiceKind        = Kind{"", "Service"}
	ServiceAccountKind = Kind{"", "ServiceAccount"}
	DeploymentKind     = Kind{"apps", "Deployment"}
	EndpointSliceKind  = Kind{"discovery.k8s.io", "EndpointSlice"}
	LeaseKind          = Kind{"coordination.k8s.io", "Lease"}
)

// Type ties one version of a kind to the Go type that it is decoded into.
type Type struct {
	Kind    Kind
	Version string
	New     func() any // pointer to a new value
	// Namespaced objects without a namespace are put into "default".
	Namespaced bool
	// Lenient kinds lose a field that New's type does not have and stay valid.
	// Others become invalid by it, because what is not understood may have been a
	// restriction.
	Lenient bool
	// Unread kinds are known, so that files may have them, but nothing of them is read:
	// no API server is asked for them.
	Unread bool
	// Only are those that an API server is asked for; zero: all.
	Only Only
	// Others are the kind's other versions where an object is judged by how it is written:
	// one that does not fit the version that it names is of the first of these that it fits
	// whole. An API server that does not convert hands out what was written in one version
	// under the name of another.
	Others []Type
}

// Only names an object of a kind that is known already, or, without a name, those of a
// namespace that a selector selects by their labels.
type Only struct{ Namespace, Name, Labels string }

// Object is one decoded object. It is immutable.
type Object struct {
	Kind        Kind
	Version     string
	Namespace   string
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	// Created is metadata.creationTimestamp; where a file gives none, objects are
	// ordered by the name of their input and by Order, their place in it.
	Created time.Time
	Order   int
	Value   any  // as Type.New made it
	Invalid bool // failed to decode or to validate; see translators.Translator.Validate
	Place   Place

	content []byte // cleaned JSON; what makes two versions equal
	origin  string // the input that it was read from, whatever Place says
	uid     string // that an API server gave it; "" in files
}

// Ref names an object, whatever its version.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

// Ref of the object.
func (o *Object) Ref() Ref { return Ref{o.Kind, o.Namespace, o.Name} }

// RefOf names the object that a source is about.
func RefOf(s model.Source) Ref {
	return Ref{Kind{s.Group, s.Kind}, s.Namespace, s.Name}
}

// Key is "namespace/name", or the name of an object without namespace.
func (o *Object) Key() string {
	if o.Namespace == "" {
		return o.Name
	}
	return o.Namespace + "/" + o.Name
}

// Source names a field of the object, with its line if that is known. The field is
// a path such as spec.http[0].match[1].uri; a field that is not written takes the
// line of the nearest parent that is.
func (o *Object) Source(plane, field string) model.Source {
	file, line := o.Place.Line(field)
	return model.Source{Plane: plane, Group: o.Kind.Group, Kind: o.Kind.Kind, Namespace: o.Namespace, Name: o.Name, Field: field, File: file, Line: line}
}

// Place knows where an object's fields stand.
type Place struct {
	File  string
	First int            // line of the object's first key
	Lines map[string]int // field path -> line; nil if not known
}

// Line finds the line of a field or of its nearest written parent.
func (p Place) Line(field string) (string, int) {
	for f := field; f != ""; {
		if n, ok := p.Lines[f]; ok {
			return p.File, n
		}
		i := strings.LastIndexAny(f, ".[")
		if i < 0 {
			break
		}
		f = f[:i]
	}
	return p.File, p.First
}

// CompareCreated orders by creation, then name, then namespace: "oldest first" as the mesh
// APIs mean it. Objects that do not say when they were created come first, by their input
// and place in it. Inputs count by their names and not by their number, so that one more
// changes nothing for the others.
func CompareCreated(a, b *Object) int {
	if c := a.Created.Compare(b.Created); c != 0 {
		return c
	}
	name := cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
	if !a.Created.IsZero() {
		return name
	}
	return cmp.Or(strings.Compare(a.origin, b.origin), cmp.Compare(a.Order, b.Order), name)
}
