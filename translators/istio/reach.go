// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// judgeReach notes where a policy reaches further than in Istio, where it is the
// sidecar that enforces it, on what the sidecar sees.
func (t *Translator) judgeReach(r translators.Reader, n *notes, a *model.Authorization) {
	t.judgeRoot(r, n, a)
	if a.Deny {
		return
	}
	// Not the others: a policy that rested on every service would be read for each that comes.
	for _, o := range r.Select(objects.ServiceKind, withUDP, a.Target.Namespace) {
		svc := r.Service(o.Namespace, o.Name)
		if svc == nil || !slices.ContainsFunc(svc.Ports, func(p model.ServicePort) bool { return p.Protocol == model.UDP }) {
			continue
		}
		if spec, ok := o.Value.(*corev1.Service); ok && canShare(spec.Spec.Selector, a.Target.Labels) {
			n.approximated("spec", "reaches-udp", model.Narrows,
				fmt.Sprintf("UDP is governed too, which Istio lets pass: at service %s only rules about peers alone allow it", svc.Key()), "")
		}
	}
}

// withUDP is the index of the services that have ports of UDP: by namespace, and all.
const withUDP = "withUDP"

func udpIndex(o *objects.Object) []string {
	spec, ok := o.Value.(*corev1.Service)
	if !ok || spec == nil || !slices.ContainsFunc(spec.Spec.Ports, func(p corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolUDP }) {
		return nil
	}
	return []string{o.Namespace, ""}
}

// judgeRoot notes a policy of the root namespace that is for pods without a sidecar too.
func (t *Translator) judgeRoot(r translators.Reader, n *notes, a *model.Authorization) {
	if a.Target.Namespace == "" && !t.allCaptured(r) {
		n.approximated("metadata.namespace", "reaches-all-pods", model.Narrows,
			"a policy of the root namespace is for every pod of the cluster, also for those that no mesh captures, such as the cluster's own",
			"allow what those need, or put policies into the namespaces of the mesh")
	}
}

// allCaptured reports whether namespaces are known, and all but the root are the mesh's.
func (t *Translator) allCaptured(r translators.Reader) bool {
	known := false
	for _, o := range r.List(objects.NamespaceKind, "") {
		if o.Name == t.mesh(r).root {
			continue
		}
		if ns := r.Namespace(o.Name); ns == nil || !ns.Capture {
			return false
		}
		known = true
	}
	return known
}

// judgeCapture notes pods that a policy is for and that no mesh captures, once for the
// object: in Istio they have no proxy that would know of it. Where the policy is for all
// namespaces and not all are captured, judgeRoot has said so without looking at pods.
func (t *Translator) judgeCapture(r translators.Reader, n *notes, a *model.Authorization) {
	if a == nil {
		return
	}
	namespaces := []string{a.Target.Namespace}
	if a.Target.Namespace == "" {
		if namespaces = nil; t.allCaptured(r) {
			namespaces = t.capturedNamespaces(r)
		}
	}
	count := 0
	var in []string
	for _, name := range namespaces {
		if r.Namespace(name) == nil {
			continue // nobody knows what is captured
		}
		have := count
		for _, w := range r.Uncaptured(name, a.Target.Labels) {
			if !excepted(a.Target, w) && !hasProxy(r, w) {
				count++
			}
		}
		if count > have {
			in = append(in, name)
		}
	}
	if count > 0 {
		n.approximated("spec", "reaches-uncaptured", model.Narrows,
			fmt.Sprintf("it is for %s of %s that no mesh captures: Istio has no proxy there that would know of it, and here it holds for every pod", plural(count, "pod"), namesOfNamespaces(in)),
			"capture them, as with the label istio-injection=enabled, or select others")
	}
}

// capturedNamespaces are those of the mesh, but for the root.
func (t *Translator) capturedNamespaces(r translators.Reader) []string {
	var out []string
	for _, o := range r.List(objects.NamespaceKind, "") {
		if ns := r.Namespace(o.Name); o.Name != t.mesh(r).root && ns != nil && ns.Capture {
			out = append(out, o.Name)
		}
	}
	slices.Sort(out)
	return out
}

// excepted reports whether a workload that a target selects is not meant by it.
func excepted(target model.Target, w *model.Workload) bool {
	return slices.ContainsFunc(target.Except, func(e model.Target) bool {
		return (e.Namespace == "" || e.Namespace == w.Namespace) && carries(w.Labels, e.Labels)
	})
}

// hasProxy reports whether a pod that is not captured is still one of Istio's.
func hasProxy(r translators.Reader, w *model.Workload) bool {
	o := r.Get(objects.PodKind, w.Namespace, w.Name)
	if o == nil {
		return false
	}
	pod, ok := o.Value.(*corev1.Pod)
	if !ok || pod == nil {
		return false
	}
	isProxy := func(c corev1.Container) bool { return c.Name == "istio-proxy" }
	return o.Annotations["ambient.istio.io/redirection"] == "enabled" ||
		slices.ContainsFunc(pod.Spec.Containers, isProxy) || slices.ContainsFunc(pod.Spec.InitContainers, isProxy)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// namesOfNamespaces names the first of them.
func namesOfNamespaces(in []string) string {
	if len(in) == 1 {
		return "namespace " + in[0]
	}
	if len(in) > 3 {
		in = append(slices.Clone(in[:3]), fmt.Sprintf("%d others", len(in)-3))
	}
	return "namespaces " + strings.Join(in, ", ")
}

// canShare reports whether a workload may carry both sets of labels.
func canShare(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; ok && w != v {
			return false
		}
	}
	return true
}
