// SPDX-License-Identifier: Apache-2.0

// Package host runs translators as stages of an incr.Store: objects go in, the
// tables of the model come out, and after an edit only what read it is computed.
//
//	object/<kind> ──► kubernetes ──► namespace, node, service, endpoints, workload
//	            └───► each plane ──► route/<plane>, authz/<plane>, inbound/<plane>, defaults
//	                            ├──► service, endpoints, workload (of its own)
//	                            └──► diagnostic
//
// The planes are a parameter: there is no registration by side effect.
package host

import (
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Host feeds objects to translators. It is not safe for concurrent use.
type Host struct {
	store    *incr.Store
	base     *kubernetes.Translator
	planes   []translators.Translator
	registry *objects.Registry
	readers  map[objects.Kind][]translators.Translator // planes that read the kind
	tables   map[objects.Kind]incr.Table               // of the objects that are read
	set      *objects.Set
}

// inputs is the key of the diagnostics that Replace found.
const inputs = "input"

// plugged has a row for each plane: what a plane says without being asked by an
// object, its defaults, is computed for it.
const plugged incr.Table = "plane"

// New adds the stages of the kubernetes translator and of the planes to a store
// that has no rows yet. Later stages (merge, plan) are added after it.
func New(store *incr.Store, base *kubernetes.Translator, planes ...translators.Translator) *Host {
	h := &Host{store: store, base: base, planes: planes, readers: map[objects.Kind][]translators.Translator{}, tables: map[objects.Kind]incr.Table{}}
	types := base.Types()
	for _, p := range planes {
		types = append(types, p.Types()...)
		for _, t := range p.Types() {
			if !slices.Contains(h.readers[t.Kind], p) {
				h.readers[t.Kind] = append(h.readers[t.Kind], p)
			}
		}
	}
	h.registry = objects.NewRegistry(types...)
	h.set = objects.NewSet(h.Validate)
	for _, k := range h.registry.Kinds() {
		h.tables[k] = translators.Objects(k)
		store.Index(translators.Objects(k), byNamespace, func(_ string, v any) []string {
			return []string{v.(*objects.Object).Namespace}
		})
	}
	store.Index(translators.Workloads, uncaptured, uncapturedIndex)
	base.Register(store)
	for _, p := range planes {
		h.addPlane(p)
	}
	return h
}

// Registry knows the types that the translators read.
func (h *Host) Registry() *objects.Registry { return h.registry }

// Validate judges one object alone, as every plane that reads it does.
func (h *Host) Validate(o *objects.Object) []model.Diagnostic {
	var out []model.Diagnostic
	for _, p := range h.readers[o.Kind] {
		out = append(out, p.Validate(o)...)
	}
	return out
}

// Replace makes a batch the whole input; see objects.Set for what becomes of
// invalid and missing objects.
func (h *Host) Replace(b *objects.Batch) {
	changes, diags := h.set.Replace(b)
	h.change(changes)
	if len(diags) > 0 {
		h.store.Set(translators.Diagnostics, inputs, diags)
	} else {
		h.store.Delete(translators.Diagnostics, inputs)
	}
}

// Apply makes edits and looks at nothing else; see objects.Set. It is for objects of which
// all came by Apply.
func (h *Host) Apply(edits []objects.Edit) {
	changes, said := h.set.Apply(edits)
	h.change(changes)
	for ref, diags := range said {
		key := inputs + "/" + ref.String()
		if len(diags) > 0 {
			h.store.Set(translators.Diagnostics, key, diags)
		} else {
			h.store.Delete(translators.Diagnostics, key)
		}
	}
}

// change stores what the set has judged.
func (h *Host) change(changes []objects.Change) {
	for _, c := range changes {
		if c.New != nil {
			h.put(c.New)
		} else {
			h.Delete(c.Ref)
		}
	}
}

// Set adds or replaces one object; for callers that keep the last good versions
// themselves. An object that does not validate is taken as Invalid.
func (h *Host) Set(o *objects.Object) {
	if !o.Invalid && slices.ContainsFunc(h.Validate(o), model.Diagnostic.IsError) {
		c := *o
		c.Invalid = true
		o = &c
	}
	h.put(o)
}

func (h *Host) put(o *objects.Object) { h.store.Set(translators.Objects(o.Kind), o.Key(), o) }

// Delete removes one object.
func (h *Host) Delete(r objects.Ref) {
	o := objects.Object{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
	h.store.Delete(translators.Objects(r.Kind), o.Key())
}

// Diagnostics lists what the table of diagnostics holds, sorted and without
// repeats. Call it after incr.Store.Run.
func (h *Host) Diagnostics() []model.Diagnostic {
	var out []model.Diagnostic
	for _, r := range h.store.Rows(translators.Diagnostics) {
		out = append(out, r.Value.([]model.Diagnostic)...)
	}
	slices.SortStableFunc(out, model.CompareDiagnostics)
	return slices.Compact(out)
}

// addPlane adds a plane's indexes and stages.
func (h *Host) addPlane(p translators.Translator) {
	for _, ix := range p.Indexes() {
		h.store.Index(translators.Objects(ix.Kind), indexName(p, ix.Name), func(_ string, v any) []string {
			return unique(ix.Values(v.(*objects.Object)))
		})
	}
	kinds := map[objects.Kind]bool{objects.ServiceKind: true, objects.PodKind: true}
	judged := map[incr.Table]func(string, any) []string{}
	for _, t := range p.Types() {
		kinds[t.Kind] = true
		judged[translators.Objects(t.Kind)] = func(key string, _ any) []string { return []string{t.Kind.String() + "/" + key} }
	}
	keyed := map[incr.Table]func(string, any) []string{}
	for k := range maps.Keys(kinds) {
		keyed[translators.Objects(k)] = func(_ string, v any) []string {
			var out []string
			for _, key := range p.Keys(v.(*objects.Object)) {
				out = append(out, encodeKey(key))
			}
			return unique(out)
		}
	}
	h.store.Add(incr.Stage{Name: p.Plane() + "/defaults",
		Keys: map[incr.Table]func(string, any) []string{plugged: func(key string, _ any) []string {
			if key != p.Plane() {
				return nil
			}
			return []string{key}
		}},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			return []incr.Row{{Table: translators.Defaults, Key: key, Value: p.Defaults(&reader{r, p, h.tables})}}
		}})
	h.store.Set(plugged, p.Plane(), true)
	h.store.Add(incr.Stage{Name: p.Plane() + "/validate", Keys: judged, Compute: func(r *incr.Reader, key string) []incr.Row {
		kind, name, _ := strings.Cut(key, "/")
		o, _ := r.Get(incr.Table("object/"+kind), name).(*objects.Object)
		if o == nil {
			return nil
		}
		return diagnosticRow(p.Plane()+"/validate/"+key, p.Validate(o))
	}})
	h.store.Add(incr.Stage{Name: p.Plane() + "/translate", Keys: keyed, Compute: func(r *incr.Reader, key string) []incr.Row {
		return translate(p, &reader{r, p, h.tables}, key)
	}})
}

func translate(p translators.Translator, r *reader, key string) []incr.Row {
	res := p.Translate(r, decodeKey(key))
	var rows []incr.Row
	for _, f := range res.Frontends {
		rows = append(rows, incr.Row{Table: translators.Routes(p.Plane()), Key: f.Key(), Value: f})
	}
	for _, k := range slices.Sorted(maps.Keys(res.Authorizations)) {
		rows = append(rows, incr.Row{Table: translators.Authz(p.Plane()), Key: k, Value: res.Authorizations[k]})
	}
	for _, i := range res.Inbounds {
		rows = append(rows, incr.Row{Table: translators.Inbounds(p.Plane()), Key: i.Key(), Value: i})
	}
	for _, s := range res.Services {
		rows = append(rows, incr.Row{Table: translators.Services, Key: s.Key(), Value: s})
	}
	for _, e := range res.Endpoints {
		rows = append(rows, incr.Row{Table: translators.Endpoints, Key: e.Namespace + "/" + e.Service, Value: e})
	}
	for _, w := range res.Workloads {
		rows = append(rows, incr.Row{Table: translators.Workloads, Key: w.Key(), Value: w})
	}
	return append(rows, diagnosticRow(p.Plane()+"/"+key, res.Diagnostics)...)
}

func diagnosticRow(key string, ds []model.Diagnostic) []incr.Row {
	if len(ds) == 0 {
		return nil
	}
	ds = slices.Clone(ds)
	slices.SortStableFunc(ds, model.CompareDiagnostics)
	return []incr.Row{{Table: translators.Diagnostics, Key: key, Value: slices.Compact(ds)}}
}

// unique drops repeats and keeps the order.
func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// encodeKey writes a key as "kind/namespace/name"; only names may hold a slash.
func encodeKey(k translators.Key) string { return k.Kind + "/" + k.Namespace + "/" + k.Name }

func decodeKey(s string) translators.Key {
	kind, rest, _ := strings.Cut(s, "/")
	ns, name, _ := strings.Cut(rest, "/")
	return translators.Key{Kind: kind, Namespace: ns, Name: name}
}
