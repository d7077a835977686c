// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// api answers with what is under a path, in YAML; "no VERB" under a review refuses it.
func api(t *testing.T, answers map[string]string) *rest.Config {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "selfsubjectaccessreviews") {
			var review struct {
				Spec struct {
					ResourceAttributes struct{ Verb, Resource string }
				}
			}
			_ = json.NewDecoder(r.Body).Decode(&review)
			a := review.Spec.ResourceAttributes
			_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
				"status": map[string]any{"allowed": !strings.Contains(answers["refused"], a.Verb+" "+a.Resource)}})
			return
		}
		text, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			text = "{apiVersion: v1, kind: Status, status: Failure, reason: NotFound, code: 404}"
		}
		b, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL}
}

// refusedBy are Events of a DaemonSet: one of long ago, and one of now with an answer to its pods.
func refusedBy(answer string) string {
	return `{apiVersion: v1, kind: EventList, items: [
  {metadata: {name: a}, reason: FailedCreate, involvedObject: {kind: DaemonSet, name: fairlead-agent}, lastTimestamp: "2026-01-02T00:00:00Z", message: 'Error creating: ` + answer + `'},
  {metadata: {name: b}, reason: FailedCreate, involvedObject: {kind: DaemonSet, name: fairlead-agent}, lastTimestamp: "2026-01-01T00:00:00Z", message: former},
  {metadata: {name: c}, reason: Killing, involvedObject: {kind: Pod, name: fairlead-agent}, lastTimestamp: "2026-01-03T00:00:00Z", message: other}]}`
}

func TestLook(t *testing.T) {
	fine := map[string]string{
		"/api/v1/nodes": `{apiVersion: v1, kind: NodeList, items: [
  {metadata: {name: a}, spec: {podCIDRs: [10.0.0.0/24, "fd00::/64"]}, status: {nodeInfo: {operatingSystem: linux, architecture: amd64, kernelVersion: 6.12.9-cloud}}}]}`,
		"/apis/apps/v1/daemonsets": "{apiVersion: apps/v1, kind: DaemonSetList, items: [{metadata: {name: kindnet, namespace: kube-system}}]}",
		"/api/v1/pods":             "{apiVersion: v1, kind: PodList, items: []}",
	}
	for name, c := range map[string]struct {
		path, answer string
		want         map[string]string // words of findings by name
		worst        Level
	}{
		"fine": {want: map[string]string{"nodes": "1, pods have IPv4 and IPv6", "kindnet": "is there", "permissions": "you may install"}, worst: Fine},
		"old kernel and Windows": {"/api/v1/nodes", `{apiVersion: v1, kind: NodeList, items: [
  {metadata: {name: a}, status: {nodeInfo: {operatingSystem: linux, architecture: amd64, kernelVersion: 5.15.0}}},
  {metadata: {name: b}, status: {nodeInfo: {operatingSystem: linux, architecture: amd64, kernelVersion: 6.6.1}}},
  {metadata: {name: w}, status: {nodeInfo: {operatingSystem: windows, architecture: amd64, kernelVersion: "10.0"}}}]}`,
			map[string]string{"kernels": "older than Linux 6.6: a (5.15.0)", "nodes": "of another kind: w (windows)"}, Problem},
		"containerd": {"/api/v1/nodes", nodesWith("containerd://1.7.24", "v1.34.4"), map[string]string{"container runtime": "containerd on a"}, Fine},
		"CRI-O":      {"/api/v1/nodes", nodesWith("cri-o://1.31.2", "v1.31.2"), map[string]string{"container runtime": "CRI-O on a"}, Warning},
		"K3s":        {"/api/v1/nodes", nodesWith("containerd://2.0.5-k3s1", "v1.33.1+k3s1"), map[string]string{"container runtime": "K3s on a"}, Warning},
		"RKE2":       {"/api/v1/nodes", nodesWith("containerd://2.0.5-k3s1", "v1.33.1+rke2r1"), map[string]string{"container runtime": "containerd on a"}, Fine},
		"Docker":     {"/api/v1/nodes", nodesWith("docker://27.3.1", "v1.31.2"), map[string]string{"container runtime": "docker on a"}, Warning},
		"Cilium and Istio": {"/apis/apps/v1/daemonsets", `{apiVersion: apps/v1, kind: DaemonSetList, items: [
  {metadata: {name: cilium, namespace: kube-system}}, {metadata: {name: ztunnel, namespace: istio-system}}]}`,
			map[string]string{"Cilium": "kube-system/cilium", "Istio's ambient mode": "istio-system/ztunnel"}, Warning},
		"another installation": {"/apis/apps/v1/daemonsets", "{apiVersion: apps/v1, kind: DaemonSetList, items: [{metadata: {name: fairlead-agent, namespace: other, labels: {app.kubernetes.io/name: fairlead}}}]}",
			map[string]string{"another installation": "other/fairlead-agent"}, Problem},
		"this installation": {"/apis/apps/v1/daemonsets", "{apiVersion: apps/v1, kind: DaemonSetList, items: [{metadata: {name: fairlead-agent, namespace: fairlead-system, labels: {app.kubernetes.io/name: fairlead}}}]}",
			map[string]string{"permissions": "you may install"}, Fine},
		"pods refused by Pod Security": {"/api/v1/namespaces/fairlead-system/events", refusedBy(`pods "fairlead-agent-x" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)`),
			map[string]string{"pods of fairlead-agent": `are there on 0 of 3 nodes: Error creating: pods "fairlead-agent-x" is forbidden: violates PodSecurity "restricted`}, Problem},
		"pods refused by a webhook": {"/api/v1/namespaces/fairlead-system/events", refusedBy(`admission webhook "policy.example.org" denied the request`),
			map[string]string{"pods of fairlead-agent": `webhook "policy.example.org" denied`}, Problem},
		"pods not made yet": {"/api/v1/namespaces/fairlead-system/events", "{apiVersion: v1, kind: EventList, items: []}",
			map[string]string{"permissions": "you may install"}, Fine},
		"sidecars": {"/api/v1/pods", `{apiVersion: v1, kind: PodList, items: [{metadata: {name: x, namespace: shop}, spec: {containers: [{name: main}, {name: istio-proxy}]}},
  {metadata: {name: z, namespace: bank, annotations: {ambient.istio.io/redirection: enabled}}}]}`,
			map[string]string{"sidecars": "bank (1), shop (1)"}, Warning},
		"source ports": {"/api/v1/pods", `{apiVersion: v1, kind: PodList, items: [
  {metadata: {name: wide, namespace: shop}, spec: {securityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: "1024 65535"}]}}},
  {metadata: {name: hosts, namespace: shop}, spec: {hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: "1024 65535"}]}}},
  {metadata: {name: narrow, namespace: shop}, spec: {securityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: "1024 60999"}]}}}]}`,
			map[string]string{"source ports": "61000-65535: shop/wide"}, Warning},
		"ipvs":                    {"/api/v1/namespaces/kube-system/configmaps/kube-proxy", "{apiVersion: v1, kind: ConfigMap, data: {config.conf: \"kind: X\\nmode: ipvs\\n\"}}", map[string]string{"kube-proxy": "ipvs"}, Warning},
		"pod security":            {"/api/v1/namespaces/fairlead-system", "{apiVersion: v1, kind: Namespace, metadata: {name: fairlead-system, labels: {pod-security.kubernetes.io/enforce: restricted}}}", map[string]string{"pod security": `enforces "restricted"`}, Problem},
		"pod security by default": {"/api/v1/namespaces/fairlead-system", "{apiVersion: v1, kind: Namespace, metadata: {name: fairlead-system}}", map[string]string{"pod security": "without the label"}, Warning},
		"a node's own": {"/apis/coordination.k8s.io/v1/namespaces/fairlead-system/leases", `{apiVersion: coordination.k8s.io/v1, kind: LeaseList, items: [{metadata: {name: a}}, {metadata: {name: b, annotations: {fairlead.io/preflight:
  '[{"name": "socket load balancing", "level": "warning", "detail": "others'' programs stand at /sys/fs/cgroup", "advice": "turn that off"}]'}}}]}`,
			map[string]string{"node b: socket load balancing": "others' programs"}, Warning},
		"may not": {"refused", "create clusterroles", map[string]string{"permissions": "you may not create clusterroles"}, Problem},
	} {
		t.Run(name, func(t *testing.T) {
			answers := map[string]string{c.path: c.answer}
			if strings.HasSuffix(c.path, "/events") {
				answers["/apis/apps/v1/daemonsets"] = `{apiVersion: apps/v1, kind: DaemonSetList, items: [{metadata: {name: fairlead-agent, namespace: fairlead-system, labels: {app.kubernetes.io/name: fairlead}},
  status: {desiredNumberScheduled: 3, currentNumberScheduled: 0}}]}`
			}
			for k, v := range fine {
				if _, ok := answers[k]; !ok {
					answers[k] = v
				}
			}
			got, err := Look(t.Context(), api(t, answers), "fairlead-system")
			if err != nil {
				t.Fatal(err)
			}
			for name, words := range c.want {
				found := false
				for _, f := range got {
					found = found || f.Name == name && strings.Contains(f.Detail, words) && (f.Level == Fine || f.Advice != "")
				}
				if !found {
					t.Errorf("%s: want %q with advice in %+v", name, words, got)
				}
			}
			if w := Worst(got); w != c.worst {
				t.Errorf("the worst is %s, want %s: %+v", w, c.worst, got)
			}
		})
	}
}

// A cluster that may not be read in part is still told of.
func TestLookWithoutPermission(t *testing.T) {
	got, err := Look(t.Context(), api(t, map[string]string{"/api/v1/nodes": "{apiVersion: v1, kind: NodeList}"}), "x")
	if err != nil || Worst(got) != Warning {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Look(t.Context(), &rest.Config{Host: "http://127.0.0.1:1"}, "x"); err == nil {
		t.Error("no server, and no error")
	}
}

// nodesWith is a list of one node with a container runtime.
func nodesWith(runtime, kubelet string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: NodeList, items: [{metadata: {name: a}, spec: {podCIDRs: [10.0.0.0/24, "fd00::/64"]},
  status: {nodeInfo: {operatingSystem: linux, architecture: amd64, kernelVersion: 6.12.9, containerRuntimeVersion: %q, kubeletVersion: %q}}}]}`, runtime, kubelet)
}
