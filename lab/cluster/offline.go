// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// NotPlaced is the code of diagnostics about pods and addresses that manifests ask for and
// that are not there.
const NotPlaced = "not-placed"

// Offline is the cluster that a fresh lab would make of inputs, as an agent would
// read it, with every pod ready.
func Offline(inputs []objects.Input, nodes []string) []objects.Input {
	out, _ := offline(inputs, nodes)
	return out
}

// Decode reads manifests as they would be in a cluster: where they have no nodes of their
// own, with what Offline adds. What is not there all the same is a diagnostic.
func Decode(r *objects.Registry, inputs []objects.Input, nodes []string) *objects.Batch {
	written := objects.Decode(r, inputs...)
	if slices.ContainsFunc(written.Objects, func(o *objects.Object) bool { return o.Kind == objects.NodeKind && !o.Invalid }) {
		written.Diagnostics = append(written.Diagnostics, unplaced(written.Objects)...)
		slices.SortStableFunc(written.Diagnostics, model.CompareDiagnostics)
		return written
	}
	files, b := offline(inputs, nodes)
	out := objects.Decode(r, files...)
	out.Diagnostics = append(out.Diagnostics, b.ofPods...)
	for _, n := range b.notes {
		if n.lost == nil {
			continue
		}
		out.Diagnostics = append(out.Diagnostics, notPlaced(n.lost, n.Message, ""))
	}
	slices.SortStableFunc(out.Diagnostics, model.CompareDiagnostics)
	return out
}

func notPlaced(o *objects.Object, msg, advice string) model.Diagnostic {
	return model.Diagnostic{Source: o.Source(kubernetes.Plane, ""), Code: NotPlaced, Effect: model.Degrades,
		Outcome: model.Approximated, Message: msg, Advice: advice}
}

func offline(inputs []objects.Input, nodes []string) (out []objects.Input, b *builder) {
	var docs []Doc
	for _, in := range inputs {
		raws, rest, diags := objects.Cut(in)
		if len(diags) > 0 {
			out = append(out, rest) // so that reading it says what is wrong
		}
		for _, r := range raws {
			docs = append(docs, Doc{len(docs) + 1, r})
		}
	}
	// Addresses are given out in the order of names: objects in another order are the
	// same cluster. Seq says what is older, all the same.
	docs = Latest(docs)
	slices.SortStableFunc(docs, func(a, b Doc) int {
		x, y := a.Ref(), b.Ref()
		return cmp.Or(cmp.Compare(x.Kind.String(), y.Kind.String()), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	b = build(docs, Options{Nodes: nodes, Managed: true}, State{})
	for _, f := range b.out {
		out = append(out, objects.Input{Name: f.Name, Data: f.Data})
	}
	for _, d := range b.invalid {
		if d.Kind == objects.PodKind || d.Kind == objects.NodeKind { // those of other kinds are among the files
			out = append(out, objects.Input{Name: DocName(d), Data: d.Text})
		}
	}
	return out, b
}

// unplaced says which objects lack what a cluster would have given them. Manifests with
// nodes are taken for what is in a cluster: nothing is added to them.
func unplaced(all []*objects.Object) []model.Diagnostic {
	const advice = "add what the cluster has given, or leave the Node objects out to have it made up"
	pods := map[string][]labels.Set{}
	for _, o := range all {
		if o.Kind == objects.PodKind {
			pods[o.Namespace] = append(pods[o.Namespace], o.Labels)
		}
	}
	var out []model.Diagnostic
	for _, o := range all {
		if o.Invalid {
			continue
		}
		if v, ok := o.Value.(*corev1.Service); ok {
			if len(v.Spec.ClusterIPs) == 0 && v.Spec.ClusterIP == "" && v.Spec.Type != corev1.ServiceTypeExternalName {
				out = append(out, notPlaced(o, "it has no cluster address, and none is made up where there are Node objects", advice))
			}
			continue
		}
		if s := podsOf(o); s != nil && !slices.ContainsFunc(pods[o.Namespace], func(have labels.Set) bool { return s.Matches(have) }) {
			out = append(out, notPlaced(o, "none of its pods is there, and none is made up where there are Node objects", advice))
		}
	}
	return out
}

// podsOf selects the pods that an object asks for, nil if it asks for none.
func podsOf(o *objects.Object) labels.Selector {
	var s *metav1.LabelSelector
	replicas := 1
	switch v := o.Value.(type) {
	case *appsv1.Deployment:
		s, replicas = v.Spec.Selector, count(v.Spec.Replicas)
	case *appsv1.ReplicaSet:
		s, replicas = v.Spec.Selector, count(v.Spec.Replicas)
	case *appsv1.StatefulSet:
		s, replicas = v.Spec.Selector, count(v.Spec.Replicas)
	case *appsv1.DaemonSet:
		s = v.Spec.Selector
	}
	if s == nil || replicas == 0 {
		return nil
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	return out
}
