// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"regexp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"fairlead.io/fairlead/translators/objects"
)

// workload is an object that asks for pods.
type workload struct {
	object   *objects.Object
	template corev1.PodTemplateSpec
	selector *metav1.LabelSelector // nil for a pod by itself
	replicas int
	name     func(i int) string // nil: numbered, other numbers for another template
	adjust   func(i int, pod *corev1.Pod)
}

func (b *builder) workloads() []*workload {
	var out []*workload
	for _, o := range b.objects {
		var w *workload
		switch v := o.Value.(type) {
		case *corev1.Pod:
			w = &workload{template: corev1.PodTemplateSpec{ObjectMeta: v.ObjectMeta, Spec: v.Spec}, replicas: 1,
				name: func(int) string { return o.Name }, adjust: func(int, *corev1.Pod) {}}
		case *appsv1.Deployment:
			w = deployment(o, v)
		case *appsv1.ReplicaSet:
			w = replicaSet(o.Name, *v.Spec.Template.DeepCopy(), v.Spec.Replicas, v.Spec.Selector)
		case *appsv1.StatefulSet:
			w = statefulSet(o, v)
		case *appsv1.DaemonSet:
			w = b.daemonSet(o, v)
		default:
			continue
		}
		w.object = o
		if w.replicas > maxReplicas {
			b.lose(o, "%d pods in place of %d: the nodes have no room for more", maxReplicas, w.replicas)
			w.replicas = maxReplicas
		}
		if w.selector != nil {
			s, err := metav1.LabelSelectorAsSelector(w.selector)
			if err != nil || s.Empty() || !s.Matches(labels.Set(w.template.Labels)) {
				b.lose(o, "no pods: spec.selector does not select the labels of its own template")
				continue
			}
		}
		out = append(out, w)
	}
	return out
}

// maxReplicas of a workload: as many pods as all nodes have addresses for.
const maxReplicas = MaxNodes * (lastSlot - firstSlot + 1)

func count(n *int32) int {
	if n == nil {
		return 1
	}
	return max(0, int(*n))
}

func deployment(o *objects.Object, v *appsv1.Deployment) *workload {
	t := *v.Spec.Template.DeepCopy()
	hash := templateHash(t)
	t.Labels = withLabel(t.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	return replicaSet(o.Name+"-"+hash, t, v.Spec.Replicas, v.Spec.Selector)
}

func replicaSet(name string, t corev1.PodTemplateSpec, replicas *int32, sel *metav1.LabelSelector) *workload {
	return &workload{template: t, selector: sel, replicas: count(replicas),
		adjust: func(_ int, p *corev1.Pod) { own(p, "ReplicaSet", name) }}
}

func templateHash(t corev1.PodTemplateSpec) string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("marshal pod template: %v", err)) // it came from JSON
	}
	return short(8, string(b))
}

// numbered names the pods of a workload: NAME-1, NAME-2, ... Pods of a changed
// template take numbers that the old ones do not have.
func (b *builder) numbered(w *workload) []string {
	o := w.object
	key, hash := o.Kind.Kind+" "+o.Key(), templateHash(w.template)
	old := b.state.Numbers[key]
	var have []int
	if old.Template == hash {
		have = old.Pods[:min(len(old.Pods), w.replicas)]
	}
	have = slices.Clone(have)
	taken := func(n int) bool {
		_, placed := b.state.Pods[fmt.Sprintf("%s/%s-%d", o.Namespace, o.Name, n)]
		return placed || slices.Contains(have, n)
	}
	for n := 1; len(have) < w.replicas; n++ {
		if !taken(n) {
			have = append(have, n)
		}
	}
	b.state.Numbers[key] = Numbers{hash, have}
	out := make([]string, len(have))
	for i, n := range have {
		out[i] = fmt.Sprintf("%s-%d", o.Name, n)
	}
	return out
}

func statefulSet(o *objects.Object, v *appsv1.StatefulSet) *workload {
	name := func(i int) string { return fmt.Sprintf("%s-%d", o.Name, i) }
	return &workload{template: v.Spec.Template, selector: v.Spec.Selector, replicas: count(v.Spec.Replicas), name: name,
		adjust: func(i int, p *corev1.Pod) {
			own(p, "StatefulSet", o.Name)
			p.Spec.Hostname, p.Spec.Subdomain = name(i), v.Spec.ServiceName
			p.Labels = withLabel(p.Labels, "statefulset.kubernetes.io/pod-name", name(i))
			p.Labels = withLabel(p.Labels, "apps.kubernetes.io/pod-index", fmt.Sprint(i))
		}}
}

func (b *builder) daemonSet(o *objects.Object, v *appsv1.DaemonSet) *workload {
	return &workload{template: v.Spec.Template, selector: v.Spec.Selector, replicas: len(b.options.Nodes),
		name: func(i int) string { return o.Name + "-" + short(5, o.Name, b.options.Nodes[i]) },
		adjust: func(i int, p *corev1.Pod) {
			own(p, "DaemonSet", o.Name)
			p.Spec.NodeName = b.options.Nodes[i]
		}}
}

func own(p *corev1.Pod, kind, name string) {
	yes := true
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, Controller: &yes}}
}

func withLabel(have map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for name, value := range have {
		if name != k {
			out[name] = value
		}
	}
	return out
}

// short is a hash of n letters, in the alphabet of Kubernetes' generated names.
func short(n int, parts ...string) string {
	h := fnv.New64a()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	sum, out := h.Sum64(), make([]byte, n)
	for i := range out {
		out[i] = letters[sum%uint64(len(letters))]
		sum /= uint64(len(letters))
	}
	return string(out)
}

// Names become names of files, and of folders of the kernel's.
var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

const maxNames = 200 // of namespace and name together

// expand makes the workload's pods, without places.
func (b *builder) expand(w *workload) {
	owner := ""
	if w.object.Kind != objects.PodKind {
		owner = w.object.Name
	}
	if w.name == nil {
		names := b.numbered(w)
		w.name = func(i int) string { return names[i] }
	}
	for i := range w.replicas {
		obj := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
		obj.Namespace, obj.Name = w.object.Namespace, w.name(i)
		obj.Labels, obj.Annotations = maps.Clone(w.template.Labels), maps.Clone(w.template.Annotations)
		obj.Spec = *w.template.Spec.DeepCopy()
		w.adjust(i, obj)
		obj.Spec.ServiceAccountName = cmp.Or(obj.Spec.ServiceAccountName, obj.Spec.DeprecatedServiceAccount, "default")
		obj.Spec.DeprecatedServiceAccount = ""
		p := &Pod{Namespace: obj.Namespace, Name: obj.Name, HostNetwork: obj.Spec.HostNetwork, Workload: owner,
			ServiceAccount: obj.Spec.ServiceAccountName, Labels: obj.Labels, Object: obj,
			File: w.object.Place.File, Line: w.object.Place.First}
		if !validName.MatchString(p.Name) || !validName.MatchString(p.Namespace) || len(p.Key()) > maxNames {
			b.lose(w.object, "no pod: %q is not a name that a pod can have", p.Key())
			continue
		}
		if b.asked[p.Key()] {
			b.lose(w.object, "no pod %s: another object has one of that name", p.Key())
			continue
		}
		p.Programs = b.programs(w.object, p)
		b.ignored(w.object, obj)
		b.asked[p.Key()] = true
		b.pods = append(b.pods, p)
	}
}

// ignored says what of a pod's spec has no effect here.
func (b *builder) ignored(o *objects.Object, p *corev1.Pod) {
	for _, c := range p.Spec.InitContainers {
		b.note(o, "init container %s is not run", c.Name)
	}
	if p.Spec.Affinity != nil {
		b.note(o, "affinity is not considered: pods are spread over the nodes")
	}
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.HostPort != 0 && !p.Spec.HostNetwork {
				b.note(o, "host port %d is not opened", port.HostPort)
			}
		}
	}
}
