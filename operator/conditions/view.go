// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"slices"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// View is what a pipeline has computed, by object. It is valid until the pipeline
// computes again.
type View struct {
	pipe  *pipeline.Pipeline
	told  map[objects.Ref][]model.Diagnostic
	rest  []model.Diagnostic
	parts map[objects.Ref][]Part
}

// Part is an object's part in a frontend: a plane has read it for the frontend's routes.
type Part struct {
	Frontend string // key of the frontend, for example "shop/web:80"
	Plane    string // that has read the object
	Owner    *merge.Owner
}

// Served reports whether the plane's routes for the frontend are those that are served;
// otherwise it stands by.
func (p Part) Served() bool { return p.Owner.Plane == p.Plane }

// NewView looks at what a pipeline has computed.
func NewView(p *pipeline.Pipeline) *View {
	v := &View{pipe: p, told: map[objects.Ref][]model.Diagnostic{}, parts: map[objects.Ref][]Part{}}
	for _, d := range p.Diagnostics() {
		ref := objects.RefOf(d.Source)
		if v.Object(ref) == nil {
			v.rest = append(v.rest, d)
			continue
		}
		v.told[ref] = append(v.told[ref], d)
	}
	for _, plane := range pipeline.PlaneNames() {
		for _, r := range p.Rows(translators.Routes(plane)) {
			owner, _ := p.Get(merge.Owners, r.Key).(*merge.Owner)
			if owner == nil {
				continue
			}
			part := Part{Frontend: r.Key, Plane: plane, Owner: owner}
			for _, ref := range readBy(r.Value.(*model.Frontend)) {
				v.parts[ref] = append(v.parts[ref], part)
			}
		}
	}
	return v
}

// readBy lists the objects that a frontend was made of, each once.
func readBy(f *model.Frontend) []objects.Ref {
	var out []objects.Ref
	add := func(src []model.Source) {
		for _, s := range src {
			if ref := objects.RefOf(s); !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	add(f.Src)
	for i := range f.Routes {
		add(f.Routes[i].Src)
	}
	for i := range f.Connections {
		add(f.Connections[i].Src)
	}
	return out
}

// Object is the one in use, nil if there is none.
func (v *View) Object(ref objects.Ref) *objects.Object {
	key := objects.Object{Namespace: ref.Namespace, Name: ref.Name}
	o, _ := v.pipe.Get(translators.Objects(ref.Kind), key.Key()).(*objects.Object)
	return o
}

// Objects are those of a kind, in the order of their keys.
func (v *View) Objects(k objects.Kind) []*objects.Object {
	rows := v.pipe.Rows(translators.Objects(k))
	out := make([]*objects.Object, len(rows))
	for i, r := range rows {
		out[i] = r.Value.(*objects.Object)
	}
	return out
}

// Kinds are those that are read.
func (v *View) Kinds() []objects.Kind { return v.pipe.Registry().Kinds() }

// Diagnostics are those about an object, of every stage and plane, sorted.
func (v *View) Diagnostics(ref objects.Ref) []model.Diagnostic { return v.told[ref] }

// Rest are the diagnostics about no object that is in use.
func (v *View) Rest() []model.Diagnostic { return v.rest }

// Parts are an object's parts in frontends, by plane and frontend.
func (v *View) Parts(ref objects.Ref) []Part { return v.parts[ref] }

// Get and Rows read the pipeline's tables: those of package translators, merge and plan.
func (v *View) Get(t incr.Table, key string) any { return v.pipe.Get(t, key) }

// Rows returns a table in the order of its keys.
func (v *View) Rows(t incr.Table) []incr.Row { return v.pipe.Rows(t) }
