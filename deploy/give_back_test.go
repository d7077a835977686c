// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// What gives a node back has of the node what its agent had.
func TestGiveBack(t *testing.T) {
	text, err := os.ReadFile("give-back.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var p corev1.Pod
	if err := yaml.UnmarshalStrict(text, &p); err != nil {
		t.Fatal(err)
	}
	var ds appsv1.DaemonSet
	for text := range strings.SplitSeq(string(Manifests), "\n---\n") {
		var o appsv1.DaemonSet
		if err := yaml.Unmarshal([]byte(text), &o); err == nil && o.Kind == "DaemonSet" && o.Name == "fairlead-agent" {
			ds = o
		}
	}
	want, got := ds.Spec.Template.Spec, p.Spec
	if len(want.Containers) != 1 {
		t.Fatalf("the agent has %d containers", len(want.Containers))
	}
	for what, of := range map[string]func(s *corev1.PodSpec) any{
		"image":            func(s *corev1.PodSpec) any { return s.Containers[0].Image },
		"security context": func(s *corev1.PodSpec) any { return s.Containers[0].SecurityContext },
		"of the pod":       func(s *corev1.PodSpec) any { return s.SecurityContext },
		"mounts":           func(s *corev1.PodSpec) any { return s.Containers[0].VolumeMounts },
		"volumes":          func(s *corev1.PodSpec) any { return s.Volumes },
		"namespaces":       func(s *corev1.PodSpec) any { return []bool{s.HostNetwork, s.HostPID, s.HostIPC} },
	} {
		if diff := cmp.Diff(of(&want), of(&got)); diff != "" {
			t.Errorf("%s (-agent +this):\n%s", what, diff)
		}
	}
}
