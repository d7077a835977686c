// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"fairlead.io/fairlead/kube/kubetest"
)

// What is applied is what the chart renders, with what the flags say.
func TestInstallPrint(t *testing.T) {
	r := fairlead(t, "", strings.Fields("install --print --namespace mesh --image-registry registry.example/a --image-tag v7 --image-pull-policy Never "+
		"--trust-domain example.org --gateway-require-grants=true --linkerd-cluster-networks 10.0.0.0/8,fd00::/8 --agent-arg=--uplink=eth1")...)
	if r.code != 0 {
		t.Fatalf("ended with %d: %s", r.code, r.err)
	}
	for want, times := range map[string]int{
		"image: registry.example/a/fairlead:v7": 2, "image: registry.example/a/proxy:v7": 1, "imagePullPolicy: Never": 3,
		"- --trust-domain=example.org": 2, "- --gateway-require-grants=true": 2, "- --linkerd-cluster-networks=10.0.0.0/8,fd00::/8": 2,
		"- --uplink=eth1": 1, "namespace: mesh": -1, "fairlead-system": 0, "managed-by: kubectl": 0,
	} {
		n := strings.Count(r.out, want)
		if times >= 0 && n != times || times < 0 && n == 0 {
			t.Errorf("%q is there %d times, want %d", want, n, times)
		}
	}
	for args, want := range map[string]string{
		"install --print --trust-domain Not_A/domain":             "trust domain",
		"install --print --gateway-require-grants=perhaps":        "--gateway-require-grants perhaps",
		"install --print --image-pull-policy Sometimes":           "want Always, IfNotPresent or Never",
		"install --kubeconfig /nowhere/config":                    "read kubeconfig /nowhere/config",
		"uninstall --kubeconfig /nowhere/config":                  "read kubeconfig /nowhere/config",
		"install --print --namespace kube-system":                 "Kubernetes' own",
		"install --namespace kube-node-lease":                     "Kubernetes' own",
		"install --print --namespace Mesh_1":                      "want the name of a namespace",
		"uninstall --namespace a.b":                               "want the name of a namespace",
		"preflight --namespace -a":                                "want the name of a namespace",
		"operator --in-cluster --namespace a/b":                   "want the name of a namespace",
		"install --print --linkerd-default-inbound-policy=nobody": "nobody",
	} {
		if r := fairlead(t, "", strings.Fields(args)...); r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("fairlead %s: ended with %d: %q, want %q", args, r.code, r.err, want)
		}
	}
}

// What an uninstall says is what it did.
func TestUninstallOfNothing(t *testing.T) {
	s := kubetest.New(t)
	for _, r := range []kubetest.Resource{
		{Kind: "ServiceAccount", Plural: "serviceaccounts"}, {Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims"},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Plural: "clusterroles", Cluster: true},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding", Plural: "clusterrolebindings", Cluster: true},
		{Group: "rbac.authorization.k8s.io", Kind: "Role", Plural: "roles"},
		{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding", Plural: "rolebindings"},
		{Group: "apps", Kind: "DaemonSet", Plural: "daemonsets"}, {Group: "apps", Kind: "Deployment", Plural: "deployments"},
		{Group: "policy", Kind: "PodDisruptionBudget", Plural: "poddisruptionbudgets"},
	} {
		r.Versions = []string{"v1"}
		s.Add(&r)
	}
	r := fairlead(t, "", "uninstall", "--namespace", "mesh", "--kubeconfig", kubeconfig(t, s.TCP()))
	if r.code != 0 || r.out != "there was no installation in namespace mesh\n" {
		t.Errorf("ended with %d: %s%s", r.code, r.out, r.err)
	}
}

// Whom to ask next is said where nobody answers.
func TestNoServerAnswers(t *testing.T) {
	gone := kubeconfig(t, "http://127.0.0.1:1")
	for _, args := range []string{"install", "uninstall", "preflight", "status", "explain a/b --live", "swap shop --to istio", "operator cleanup"} {
		r := fairlead(t, "", append(strings.Fields(args), "--kubeconfig", gone)...)
		if r.code != exitFailed || !strings.Contains(r.err, "no API server that answers at http://127.0.0.1:1") {
			t.Errorf("fairlead %s: ended with %d: %s", args, r.code, r.err)
		}
	}
	t.Setenv("KUBECONFIG", "/nowhere/kubeconfig")
	if r := fairlead(t, "", "operator", "cleanup"); r.code != exitFailed || !strings.Contains(r.err, "no cluster is named") {
		t.Errorf("operator cleanup: %d, %s", r.code, r.err)
	}
	for _, args := range []string{"status", "observe", "explain a/b"} { // of a machine that is no node
		if r := fairlead(t, "", strings.Fields(args)...); r.code != exitFailed || !strings.Contains(r.err, "no kubeconfig names a cluster") {
			t.Errorf("fairlead %s: ended with %d: %s", args, r.code, r.err)
		}
	}
}
