// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// PlaneNames lists the control planes in the documented order.
func PlaneNames() []string {
	planes, err := Planes(Options{})
	if err != nil {
		panic("pipeline: the default options: " + err.Error()) // they are ours
	}
	out := make([]string, len(planes))
	for i, p := range planes {
		out[i] = p.Plane()
	}
	return out
}

// Alone is what a batch would be if one control plane were the only one: without the
// objects that only others read, every namespace its own. Kubernetes' own objects are
// everybody's.
func Alone(b *objects.Batch, plane string) (*objects.Batch, error) {
	planes, err := Planes(Options{})
	if err != nil {
		return nil, err
	}
	mine, others := map[objects.Kind]bool{}, map[objects.Kind]bool{}
	found := false
	for _, p := range planes {
		into := others
		if p.Plane() == plane {
			into, found = mine, true
		}
		for _, t := range p.Types() {
			into[t.Kind] = true
		}
	}
	for _, t := range kubernetes.New(kubernetes.Options{}).Types() {
		mine[t.Kind] = true
	}
	if !found {
		return nil, fmt.Errorf("there is no control plane %q; there are %s", plane, strings.Join(PlaneNames(), ", "))
	}
	out := *b
	out.Objects = nil
	for _, o := range b.Objects {
		if mine[o.Kind] || !others[o.Kind] {
			out.Objects = append(out.Objects, o)
		}
	}
	return edited(&out, func(o *objects.Object) {
		o.Annotations[kubernetes.OwnerKey] = plane
		if list, ok := o.Annotations[kubernetes.DefaultDenyKey]; ok {
			words := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
			words = slices.DeleteFunc(words, func(w string) bool { return w != plane && slices.Contains(PlaneNames(), w) })
			o.Annotations[kubernetes.DefaultDenyKey] = strings.Join(words, ",")
		}
	}), nil
}

// Given is a batch with namespaces given to a control plane; "" takes the choice back.
func Given(b *objects.Batch, plane string, namespaces ...string) *objects.Batch {
	return edited(b, func(o *objects.Object) {
		switch {
		case !slices.Contains(namespaces, o.Name):
		case plane == "":
			delete(o.Annotations, kubernetes.OwnerKey)
		default:
			o.Annotations[kubernetes.OwnerKey] = plane
		}
	})
}

// edited is a batch with other annotations of its namespaces.
func edited(b *objects.Batch, edit func(*objects.Object)) *objects.Batch {
	out := *b
	out.Objects = slices.Clone(b.Objects)
	for i, o := range out.Objects {
		if o.Kind != objects.NamespaceKind {
			continue
		}
		c := *o
		c.Annotations = maps.Clone(o.Annotations)
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		edit(&c)
		out.Objects[i] = &c
	}
	return &out
}
