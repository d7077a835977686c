// SPDX-License-Identifier: Apache-2.0

package host

import (
	"maps"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// byNamespace is the index of every object table.
const byNamespace = "namespace"

// indexName keeps the planes' indexes apart.
func indexName(p translators.Translator, name string) string { return p.Plane() + "/" + name }

// reader is one computation's view of the store; incr.Reader does the recording.
type reader struct {
	r      *incr.Reader
	p      translators.Translator
	tables map[objects.Kind]incr.Table // to read names of tables, and not to make them
}

func (r *reader) table(k objects.Kind) incr.Table {
	if t, ok := r.tables[k]; ok {
		return t
	}
	return translators.Objects(k)
}

// Get implements translators.Reader.
func (r *reader) Get(kind objects.Kind, namespace, name string) *objects.Object {
	key := objects.Object{Namespace: namespace, Name: name}
	o, _ := r.r.Get(r.table(kind), key.Key()).(*objects.Object)
	return o
}

// List implements translators.Reader.
func (r *reader) List(kind objects.Kind, namespace string) []*objects.Object {
	if namespace == "" {
		return sorted(r.r.All(r.table(kind)))
	}
	return sorted(r.r.Select(r.table(kind), byNamespace, namespace))
}

// Select implements translators.Reader.
func (r *reader) Select(kind objects.Kind, index, value string) []*objects.Object {
	return sorted(r.r.Select(r.table(kind), indexName(r.p, index), value))
}

// Service implements translators.Reader.
func (r *reader) Service(namespace, name string) *model.Service {
	s, _ := r.r.Get(translators.Services, namespace+"/"+name).(*model.Service)
	return s
}

// Namespace implements translators.Reader.
func (r *reader) Namespace(name string) *model.Namespace {
	n, _ := r.r.Get(translators.Namespaces, name).(*model.Namespace)
	return n
}

// Workload implements translators.Reader.
func (r *reader) Workload(namespace, name string) *model.Workload {
	w, _ := r.r.Get(translators.Workloads, namespace+"/"+name).(*model.Workload)
	return w
}

// uncaptured is the index of the workloads that no mesh captures: by namespace, and by
// namespace and label.
const uncaptured = "uncaptured"

func uncapturedIndex(_ string, v any) []string {
	w := v.(*model.Workload)
	if w.Capture || w.HostNetwork || w.External {
		return nil
	}
	out := []string{w.Namespace}
	for k, value := range w.Labels {
		out = append(out, labelled(w.Namespace, k, value))
	}
	return out
}

func labelled(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

// Uncaptured implements translators.Reader. Of labels the first is looked up, so that what
// is read is not all of the namespace.
func (r *reader) Uncaptured(namespace string, labels map[string]string) []*model.Workload {
	value := namespace
	if len(labels) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(labels)))
		value = labelled(namespace, first, labels[first])
	}
	var out []*model.Workload
	for _, row := range r.r.Select(translators.Workloads, uncaptured, value) {
		w := row.Value.(*model.Workload)
		if carries(w.Labels, labels) {
			out = append(out, w)
		}
	}
	return out
}

func carries(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return true
}

func sorted(rows []incr.Row) []*objects.Object {
	out := make([]*objects.Object, len(rows))
	for i, r := range rows {
		out[i] = r.Value.(*objects.Object)
	}
	slices.SortStableFunc(out, objects.CompareCreated)
	return out
}
