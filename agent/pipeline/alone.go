// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
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

// Bare is what a batch would be if there were no control plane: without the objects that
// only they read, and with nothing denied by default.
func Bare(b *objects.Batch) (*objects.Batch, error) {
	theirs, err := planesKinds()
	if err != nil {
		return nil, err
	}
	out := *b
	out.Objects = slices.DeleteFunc(slices.Clone(b.Objects), func(o *objects.Object) bool { return theirs[o.Kind] })
	return edited(&out, func(o *objects.Object) { delete(o.Annotations, kubernetes.DefaultDenyKey) }), nil
}

// planesKinds are those that control planes alone read.
func planesKinds() (map[objects.Kind]bool, error) {
	planes, err := Planes(Options{})
	if err != nil {
		return nil, err
	}
	theirs := map[objects.Kind]bool{}
	for _, p := range planes {
		for _, t := range p.Types() {
			theirs[t.Kind] = true
		}
	}
	for _, t := range kubernetes.New(kubernetes.Options{}).Types() {
		delete(theirs, t.Kind)
	}
	return theirs, nil
}

// Marks are labels and annotations of an object, by their keys.
type Marks struct{ Labels, Annotations []string }

// Applied is what a batch of a cluster would be with the objects of files applied to it:
// in place of those of the same names, as old as these, with what a cluster adds to them:
// a service's addresses, and labels and annotations of a namespace that others have put
// there. Those of a namespace that were applied before, by its name, go if the files lack
// them. Those that are new are the youngest. What the files have of nodes and pods does
// not count: those are the cluster's. With prune, objects of control planes that the files
// lack are gone.
func Applied(b, files *objects.Batch, before map[string]Marks, prune bool) (*objects.Batch, error) {
	theirs, err := planesKinds()
	if err != nil {
		return nil, err
	}
	out := *b
	out.Diagnostics = slices.Concat(b.Diagnostics, files.Diagnostics)
	slices.SortStableFunc(out.Diagnostics, model.CompareDiagnostics)
	fresh := map[objects.Ref]*objects.Object{}
	for _, o := range files.Objects {
		if !ofCluster[o.Kind] {
			fresh[o.Ref()] = o
		}
	}
	out.Objects = nil
	var last time.Time
	for _, o := range b.Objects {
		if o.Created.After(last) {
			last = o.Created
		}
		n := fresh[o.Ref()]
		delete(fresh, o.Ref())
		switch {
		case n != nil:
			out.Objects = append(out.Objects, over(o, n, before))
		case !prune || !theirs[o.Kind]:
			out.Objects = append(out.Objects, o)
		}
	}
	for _, o := range files.Objects {
		if fresh[o.Ref()] == o {
			c := *o
			c.Created = last.Add(time.Second)
			out.Objects = append(out.Objects, &c)
		}
	}
	return &out, nil
}

// over is an object of a file in place of a cluster's.
func over(old, file *objects.Object, before map[string]Marks) *objects.Object {
	c := *file
	c.Created, c.Order = old.Created, old.Order
	switch had := old.Value.(type) {
	case *corev1.Service:
		svc, ok := file.Value.(*corev1.Service)
		if ok && svc.Spec.ClusterIP == "" && len(svc.Spec.ClusterIPs) == 0 {
			svc = svc.DeepCopy()
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies = had.Spec.ClusterIP, had.Spec.ClusterIPs, had.Spec.IPFamilies
			c.Value = svc
		}
	case *corev1.Namespace:
		m := before[old.Name]
		c.Labels, c.Annotations = union(old.Labels, m.Labels, file.Labels), union(old.Annotations, m.Annotations, file.Annotations)
	}
	return &c
}

// union is both but for what of a was applied before; b's where they have the same key.
func union(a map[string]string, before []string, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	for _, key := range before {
		delete(out, key)
	}
	maps.Copy(out, b)
	return out
}

// ofCluster are kinds that a cluster makes of others.
var ofCluster = map[objects.Kind]bool{objects.NodeKind: true, {Kind: "Pod"}: true, {Group: "discovery.k8s.io", Kind: "EndpointSlice"}: true}

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
