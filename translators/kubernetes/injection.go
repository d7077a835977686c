// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/translators/objects"
)

// Planes whose marks are known. Open Service Mesh reads SMI's objects.
const (
	istio   = "istio"
	linkerd = "linkerd"
	smi     = "smi"
)

// Labels and annotations by which meshes take pods.
const (
	istioInject    = "sidecar.istio.io/inject"
	istioInjection = "istio-injection"
	istioMode      = "istio.io/dataplane-mode"
	istioRevision  = "istio.io/rev"
	linkerdInject  = "linkerd.io/inject"
	osmInjection   = "openservicemesh.io/sidecar-injection"
	osmMonitored   = "openservicemesh.io/monitored-by"
)

// mesh is one that takes pods.
type mesh struct {
	plane string
	// takes is the mark by which it takes a pod or leaves it, none if there is none. Either
	// may be nil.
	takes func(pod, ns *objects.Object) Mark
	// owns tells whether it has a namespace.
	owns func(ns *objects.Object) bool
	// asks are a pod's own marks that would have it taken, and why and advice are what to
	// say where it is not.
	asks        func(pod *objects.Object) []Mark
	why, advice string
}

// meshes in the order in which they have namespaces.
var meshes = []mesh{
	{istio, istioTakes, takesUnmarked(istioTakes), istioAsks,
		"Istio does not inject this pod, and it is not captured: its webhook is asked only in namespaces with istio-injection=enabled or istio.io/rev, or in those with neither for pods with the label sidecar.istio.io/inject=true or istio.io/rev",
		"mark the namespace, or the pod by that label"},
	{istio, ambientTakes, takesUnmarked(ambientTakes), none, "", ""},
	{linkerd, linkerdTakes, takesUnmarked(linkerdTakes), linkerdAsks,
		"Linkerd does not inject this pod, and it is not captured: it leaves alone its own control plane, namespaces that its webhook is kept out of or that have an unknown value of this annotation, and pods without the token of their service account",
		"see to the one that applies"},
	{smi, osmTakes, takesUnmarked(osmTakes), osmAsks,
		"Open Service Mesh does not inject this pod, and it is not captured: its namespace lacks the label openservicemesh.io/monitored-by, or is the cluster's own",
		"add the namespace to the mesh"},
}

func none(*objects.Object) []Mark { return nil }

// takesUnmarked is whether pods of a namespace are taken that have no marks of their own.
func takesUnmarked(takes func(pod, ns *objects.Object) Mark) func(*objects.Object) bool {
	return func(ns *objects.Object) bool { return takes(nil, ns).On }
}

// nameOf is the name of the namespace of a pod.
func nameOf(pod, ns *objects.Object) string {
	switch {
	case ns != nil:
		return ns.Name
	case pod != nil:
		return pod.Namespace
	}
	return ""
}

// istioIgnored are namespaces that Istio never injects.
var istioIgnored = []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}

// istioTakes is Istio's injection: which pods its webhooks are asked about, of whatever
// revision, and what the injector says to those. See the selectors of Istio's
// MutatingWebhookConfiguration and injectRequired in its pkg/kube/inject.
func istioTakes(pod, ns *objects.Object) Mark {
	on, note := label(pod, istioInject), annotation(pod, istioInject)
	says := on
	if on.Object == nil {
		says = note
	}
	injection, revision, own := label(ns, istioInjection), label(ns, istioRevision), label(pod, istioRevision)
	var asked Mark
	switch {
	case value(says, istioInject) == "false":
		return says // in whatever namespace, also where nobody asks
	case slices.Contains(istioIgnored, nameOf(pod, ns)):
		return Mark{}
	case injection.Object != nil && value(injection, istioInjection) != "enabled":
		return injection
	case injection.Object != nil:
		asked = injection
	case revision.Object != nil && value(revision, istioRevision) == "":
		return revision
	case revision.Object != nil:
		asked = revision
	case own.Object != nil && value(own, istioRevision) == "":
		return own
	case own.Object != nil:
		asked = own
	case value(on, istioInject) == "true":
		asked = on
	default:
		return Mark{}
	}
	if value(says, istioInject) == "true" {
		return says.as(true)
	}
	return asked.as(true)
}

func istioAsks(pod *objects.Object) []Mark {
	var out []Mark
	for _, m := range []Mark{label(pod, istioInject), annotation(pod, istioInject)} {
		if value(m, istioInject) == "true" {
			out = append(out, m)
		}
	}
	if m := label(pod, istioRevision); m.Object != nil {
		out = append(out, m)
	}
	return out
}

// ambientTakes is what Istio's node agent redirects in ambient mode, by its default
// selectors; the labels of sidecar injection mean nothing to it.
func ambientTakes(pod, ns *objects.Object) Mark {
	p, n := label(pod, istioMode), label(ns, istioMode)
	switch {
	case nameOf(pod, ns) == "kube-system":
		return Mark{}
	case value(p, istioMode) == "ambient":
		return p.as(true)
	case value(p, istioMode) == "none":
		return p
	case value(n, istioMode) == "ambient":
		return n.as(true)
	case value(n, istioMode) == "none":
		return n
	}
	return Mark{}
}

// linkerdTakes is Linkerd's injection: the selectors of its webhook, and the table above
// disableByAnnotation in its pkg/inject.
func linkerdTakes(pod, ns *objects.Object) Mark {
	p, n := annotation(pod, linkerdInject), annotation(ns, linkerdInject)
	switch v := value(p, linkerdInject); {
	case v == "disabled":
		return p
	case !linkerdAsked(pod, ns):
		return Mark{}
	case !slices.Contains([]string{"", "enabled", "ingress", "disabled"}, value(n, linkerdInject)):
		return n
	case v == "enabled" || v == "ingress":
		return p.as(true)
	case v != "":
		return p
	}
	return n.as(slices.Contains([]string{"enabled", "ingress"}, value(n, linkerdInject)))
}

// linkerdAsked tells whether Linkerd's webhook is asked about a pod.
func linkerdAsked(pod, ns *objects.Object) bool {
	if ns != nil && ns.Labels["config.linkerd.io/admission-webhooks"] == "disabled" {
		return false
	}
	if slices.Contains([]string{"kube-system", "cert-manager"}, nameOf(pod, ns)) {
		return false
	}
	if pod == nil {
		return true
	}
	if spec := podSpec(pod); spec != nil && spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken {
		return false
	}
	return label(pod, "linkerd.io/control-plane-component").Object == nil && label(pod, "linkerd.io/cni-resource").Object == nil
}

func podSpec(o *objects.Object) *corev1.PodSpec {
	if pod, ok := o.Value.(*corev1.Pod); ok {
		return &pod.Spec
	}
	return nil
}

func linkerdAsks(pod *objects.Object) []Mark {
	m := annotation(pod, linkerdInject)
	if v := value(m, linkerdInject); v != "enabled" && v != "ingress" {
		return nil
	}
	return []Mark{m}
}

// What Open Service Mesh takes for yes and for no, in either case of letters.
var (
	osmOn  = []string{"enabled", "yes", "true"}
	osmOff = []string{"disabled", "no", "false"}
)

// osmTakes is Open Service Mesh's injection: mustInject in its pkg/injector, but that a
// namespace with its label and no word of injection is taken, too. There the mesh would only
// watch; here nothing is injected, and the label is what users of SMI mark namespaces with.
func osmTakes(pod, ns *objects.Object) Mark {
	p, n := annotation(pod, osmInjection), annotation(ns, osmInjection)
	says := func(m Mark) string { return strings.ToLower(value(m, osmInjection)) }
	switch {
	case slices.Contains(osmOff, says(p)):
		return p
	case label(ns, osmMonitored).Object == nil || slices.Contains([]string{"kube-system", "kube-public"}, nameOf(pod, ns)):
		return Mark{}
	case slices.Contains(osmOn, says(p)):
		return p.as(true)
	case says(p) != "":
		return p // refused by the webhook, as is a namespace's below
	}
	if n.Object == nil {
		return label(ns, osmMonitored).as(true)
	}
	return n.as(slices.Contains(osmOn, says(n)))
}

func osmAsks(pod *objects.Object) []Mark {
	m := annotation(pod, osmInjection)
	if !slices.Contains(osmOn, strings.ToLower(value(m, osmInjection))) {
		return nil
	}
	return []Mark{m}
}
