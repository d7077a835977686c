// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// webhooks are the selectors of Istio's MutatingWebhookConfiguration, of the default
// revision and of one named stable.
var webhooks = []struct{ namespace, pod string }{
	{"istio.io/rev in (default,stable),!istio-injection", "sidecar.istio.io/inject notin (false)"},
	{"!istio.io/rev,!istio-injection", "sidecar.istio.io/inject notin (false),istio.io/rev in (default,stable)"},
	{"istio-injection=enabled", "sidecar.istio.io/inject notin (false)"},
	{"!istio-injection,!istio.io/rev", "sidecar.istio.io/inject=true,!istio.io/rev"},
}

// injected is what Istio does with a pod: whether a webhook is called, and what its
// injector then reads.
func injected(t *testing.T, namespace, pod, annotations map[string]string) bool {
	selects := func(s string, set map[string]string) bool {
		sel, err := labels.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return sel.Matches(labels.Set(set))
	}
	if !slices.ContainsFunc(webhooks, func(w struct{ namespace, pod string }) bool {
		return selects(w.namespace, namespace) && selects(w.pod, pod)
	}) {
		return false
	}
	says := annotations["sidecar.istio.io/inject"]
	if v, ok := pod["sidecar.istio.io/inject"]; ok {
		says = v
	}
	return says != "false"
}

// Capture follows Istio's injection, whatever the marks of pod and namespace.
func TestCaptureAsIstioInjects(t *testing.T) {
	none := "-"
	set := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i+1] != none {
				out[pairs[i]] = pairs[i+1]
			}
		}
		return out
	}
	n := 0
	for _, injection := range []string{none, "enabled", "disabled", "enable", ""} {
		for _, revision := range []string{none, "stable", "default", ""} {
			for _, inject := range []string{none, "true", "false", "yes", ""} {
				for _, own := range []string{none, "stable", ""} {
					for _, note := range []string{none, "true", "false", "yes"} {
						ns := &objects.Object{Kind: objects.NamespaceKind, Name: "shop",
							Labels: set("istio-injection", injection, "istio.io/rev", revision)}
						pod := &objects.Object{Kind: objects.PodKind, Namespace: "shop", Name: "web", Value: new(corev1.Pod),
							Labels:      set("sidecar.istio.io/inject", inject, "istio.io/rev", own),
							Annotations: set("sidecar.istio.io/inject", note)}
						want := injected(t, ns.Labels, pod.Labels, pod.Annotations)
						if got := kubernetes.CaptureMark(pod, ns).On; got != want {
							t.Errorf("namespace %v, pod %v with annotations %v: captured %v, injected %v", ns.Labels, pod.Labels, pod.Annotations, got, want)
						}
						n++
					}
				}
			}
		}
	}
	if n < 1000 {
		t.Fatal("only", n)
	}
}

// Where others than Istio's sidecars decide. The values are those of the marks that both
// have: pods and namespaces are written as lists of labels and annotations.
func TestCapture(t *testing.T) {
	type marks struct{ labels, annotations string }
	const off = "config.linkerd.io/admission-webhooks=disabled"
	for _, c := range []struct {
		why       string
		namespace marks
		pod       marks
		want      bool
	}{
		{"ambient mode takes a namespace", marks{labels: "istio.io/dataplane-mode=ambient"}, marks{}, true},
		{"a pod opts out of ambient mode", marks{labels: "istio.io/dataplane-mode=ambient"}, marks{labels: "istio.io/dataplane-mode=none"}, false},
		{"a pod opts in to ambient mode", marks{}, marks{labels: "istio.io/dataplane-mode=ambient"}, true},
		{"sidecar injection knows nothing of ambient mode", marks{labels: "istio-injection=enabled"}, marks{labels: "istio.io/dataplane-mode=none"}, true},
		{"ambient mode knows nothing of sidecar injection", marks{labels: "istio.io/dataplane-mode=ambient,istio-injection=disabled"}, marks{labels: "sidecar.istio.io/inject=false"}, true},
		{"ambient mode is no annotation", marks{annotations: "istio.io/dataplane-mode=ambient"}, marks{annotations: "istio.io/dataplane-mode=ambient"}, false},
		{"injection is no annotation", marks{annotations: "istio-injection=enabled"}, marks{}, false},
		{"injection is no label of pods", marks{}, marks{labels: "istio-injection=enabled"}, false},

		{"Linkerd takes a namespace", marks{annotations: "linkerd.io/inject=enabled"}, marks{}, true},
		{"Linkerd's ingress mode does, too", marks{annotations: "linkerd.io/inject=ingress"}, marks{}, true},
		{"a pod opts out of Linkerd", marks{annotations: "linkerd.io/inject=enabled"}, marks{annotations: "linkerd.io/inject=disabled"}, false},
		{"a pod opts in where its namespace does not", marks{annotations: "linkerd.io/inject=disabled"}, marks{annotations: "linkerd.io/inject=enabled"}, true},
		{"a pod opts in by itself", marks{}, marks{annotations: "linkerd.io/inject=ingress"}, true},
		{"Linkerd reads no labels", marks{labels: "linkerd.io/inject=enabled"}, marks{labels: "linkerd.io/inject=enabled"}, false},
		{"an unknown value of a namespace keeps its pods out", marks{annotations: "linkerd.io/inject=true"}, marks{annotations: "linkerd.io/inject=enabled"}, false},
		{"an unknown value of a pod keeps it out", marks{annotations: "linkerd.io/inject=enabled"}, marks{annotations: "linkerd.io/inject=true"}, false},
		{"Linkerd's webhook is kept out of a namespace", marks{labels: off, annotations: "linkerd.io/inject=enabled"}, marks{annotations: "linkerd.io/inject=enabled"}, false},
		{"Linkerd leaves its own control plane alone", marks{annotations: "linkerd.io/inject=enabled"}, marks{labels: "linkerd.io/control-plane-component=destination"}, false},
		{"Istio's opting out is not Linkerd's", marks{annotations: "linkerd.io/inject=enabled"}, marks{labels: "sidecar.istio.io/inject=false"}, true},

		{"OSM takes a namespace", marks{"openservicemesh.io/monitored-by=osm", "openservicemesh.io/sidecar-injection=Enabled"}, marks{}, true},
		{"OSM watches a namespace", marks{labels: "openservicemesh.io/monitored-by=osm"}, marks{}, true},
		{"OSM watches a namespace, and is not to inject", marks{"openservicemesh.io/monitored-by=osm", "openservicemesh.io/sidecar-injection=no"}, marks{}, false},
		{"a pod opts in where OSM watches", marks{labels: "openservicemesh.io/monitored-by=osm"}, marks{annotations: "openservicemesh.io/sidecar-injection=yes"}, true},
		{"a pod opts out of OSM", marks{"openservicemesh.io/monitored-by=osm", "openservicemesh.io/sidecar-injection=enabled"}, marks{annotations: "openservicemesh.io/sidecar-injection=no"}, false},
		{"OSM takes nobody where it does not watch", marks{annotations: "openservicemesh.io/sidecar-injection=enabled"}, marks{annotations: "openservicemesh.io/sidecar-injection=enabled"}, false},

		{"Fairlead's own of a pod comes first", marks{labels: "istio-injection=enabled"}, marks{"sidecar.istio.io/inject=true", "fairlead.io/capture=disabled"}, false},
		{"Fairlead's own of a namespace before other marks of it", marks{labels: "istio-injection=enabled,fairlead.io/capture=disabled"}, marks{}, false},
		{"a pod's mark before Fairlead's own of a namespace", marks{labels: "fairlead.io/capture=disabled"}, marks{labels: "sidecar.istio.io/inject=true"}, true},
		{"Fairlead's own of a namespace leaves alone who opts out", marks{labels: "fairlead.io/capture=enabled"}, marks{annotations: "sidecar.istio.io/inject=false"}, false},
	} {
		object := func(kind objects.Kind, m marks) *objects.Object {
			l, err := labels.ConvertSelectorToLabelsMap(m.labels)
			if err != nil {
				t.Fatal(err)
			}
			a, err := labels.ConvertSelectorToLabelsMap(m.annotations)
			if err != nil {
				t.Fatal(err)
			}
			return &objects.Object{Kind: kind, Namespace: "shop", Name: "shop", Labels: l, Annotations: a, Value: new(corev1.Pod)}
		}
		if got := kubernetes.CaptureMark(object(objects.PodKind, c.pod), object(objects.NamespaceKind, c.namespace)); got.On != c.want {
			t.Errorf("%s: captured %v by %q", c.why, got.On, got.Field)
		}
	}
	pod := &objects.Object{Kind: objects.PodKind, Namespace: "shop", Annotations: map[string]string{"linkerd.io/inject": "enabled"},
		Value: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{}, Spec: corev1.PodSpec{AutomountServiceAccountToken: new(bool)}}}
	if kubernetes.CaptureMark(pod, nil).On {
		t.Error("Linkerd injects no pods without a token")
	}
	for _, name := range []string{"kube-system", "kube-public"} {
		ns := &objects.Object{Kind: objects.NamespaceKind, Name: name, Labels: map[string]string{"istio-injection": "enabled"}}
		if kubernetes.CaptureMark(nil, ns).On {
			t.Error(fmt.Sprintf("Istio injects nothing into %s", name))
		}
	}
}
