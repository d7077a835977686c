// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"fairlead.io/fairlead/kube/kubetest"
)

const manifest = `
apiVersion: v1
kind: Namespace
metadata: {name: mesh, labels: {app.kubernetes.io/name: fairlead, pod-security.kubernetes.io/enforce: privileged}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: fairlead-agent, namespace: mesh, labels: {app.kubernetes.io/name: fairlead}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: fairlead-agent, labels: {app.kubernetes.io/name: fairlead}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fairlead-agent, labels: {app.kubernetes.io/name: fairlead}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: fairlead-agent}
subjects:
- {kind: ServiceAccount, name: fairlead-agent, namespace: mesh}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: fairlead-agent, namespace: mesh, labels: {app.kubernetes.io/name: fairlead}}
`

// rig is a server, and what was said.
type rig struct {
	*kubetest.Server
	t    *testing.T
	said strings.Builder
}

func newRig(t *testing.T) *rig {
	s := kubetest.New(t)
	for _, r := range []kubetest.Resource{
		{Kind: "ServiceAccount", Plural: "serviceaccounts"}, {Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims"},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Plural: "clusterroles", Cluster: true},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding", Plural: "clusterrolebindings", Cluster: true},
		{Group: "apps", Kind: "DaemonSet", Plural: "daemonsets"}, {Group: "apps", Kind: "Deployment", Plural: "deployments"},
		{Group: "apps", Kind: "StatefulSet", Plural: "statefulsets"},
		{Group: "batch", Kind: "Job", Plural: "jobs"}, {Group: "batch", Kind: "CronJob", Plural: "cronjobs"},
	} {
		r.Versions = []string{"v1"}
		s.Add(&r)
	}
	return &rig{Server: s, t: t}
}

// installer is one for a namespace, and what it installs there.
func (r *rig) installer(namespace string) (*Installer, []*unstructured.Unstructured) {
	r.t.Helper()
	cfg := r.Config()
	cfg.ContentType = runtime.ContentTypeJSON // what the server reads
	i, err := New(cfg, namespace, func(format string, a ...any) { fmt.Fprintf(&r.said, format+"\n", a...) })
	if err != nil {
		r.t.Fatal(err)
	}
	objects, err := Parse([]byte(strings.ReplaceAll(manifest, "mesh", namespace)))
	if err != nil {
		r.t.Fatal(err)
	}
	return i, objects
}

func (r *rig) install(namespace string) {
	r.t.Helper()
	i, objects := r.installer(namespace)
	if err := i.Apply(r.t.Context(), objects); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(namespace string) error {
	i, objects := r.installer(namespace)
	return i.Remove(r.t.Context(), objects, func(context.Context) error { return nil })
}

// there reports what is there of an installation.
func (r *rig) there() string {
	return fmt.Sprint(r.Keys("apps", "daemonsets"), r.Keys("rbac.authorization.k8s.io", "clusterroles"),
		r.Keys("rbac.authorization.k8s.io", "clusterrolebindings"), r.Keys("", "namespaces"))
}

// All goes, and the namespace with it.
func TestRemove(t *testing.T) {
	r := newRig(t)
	r.install("mesh")
	r.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-root-ca.crt, namespace: mesh}\n")
	if err := r.remove("mesh"); err != nil {
		t.Fatal(err)
	}
	if got := r.there(); got != "[] [] [] []" {
		t.Errorf("left: %s", got)
	}
	if err := r.remove("mesh"); err != nil {
		t.Errorf("again: %v", err)
	}
}

// Who names another namespace than that of the installation takes nothing of it away: its
// roles belong to no namespace.
func TestRemoveElsewhere(t *testing.T) {
	r := newRig(t)
	r.install("mesh")
	before := r.there()
	if err := r.remove("other"); err == nil || !strings.Contains(err.Error(), "in namespace mesh, not in other") {
		t.Errorf("error %v", err)
	}
	if got := r.there(); got != before {
		t.Errorf("left: %s, want %s", got, before)
	}
	// What is left of one that was removed in part is in nobody's way.
	r.Remove("apps", "daemonsets", "mesh/fairlead-agent")
	if err := r.remove("other"); err != nil {
		t.Error(err)
	}
}

// Where the namespace stays, so does no Lease by which another installation would take a
// node for one with an agent.
func TestLeasesGo(t *testing.T) {
	r := newRig(t)
	r.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: mesh}\n")
	r.install("mesh")
	for _, labels := range []string{"app.kubernetes.io/name: fairlead, app.kubernetes.io/component: agent", "app.kubernetes.io/name: other"} {
		r.Apply("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: node-" + fmt.Sprint(len(labels)) + ", namespace: mesh, labels: {" + labels + "}}\n")
	}
	if err := r.remove("mesh"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Keys("coordination.k8s.io", "leases")); got != "[mesh/node-29]" {
		t.Errorf("left: %s", got)
	}
}

// A namespace that was there before gets the label by which it lets agents in, which is
// told, and has its own again afterwards.
func TestNamespaceLabels(t *testing.T) {
	r := newRig(t)
	r.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: mesh, labels: {team: a}}\n")
	r.install("mesh")
	labels := func() string {
		return fmt.Sprint(r.Get("", "namespaces", "mesh")["metadata"].(map[string]any)["labels"])
	}
	if got, want := labels(), "map[app.kubernetes.io/name:fairlead pod-security.kubernetes.io/enforce:privileged team:a]"; got != want {
		t.Errorf("installed: %s, want %s", got, want)
	}
	if want := "labelled pod-security.kubernetes.io/enforce=privileged"; !strings.Contains(r.said.String(), want) {
		t.Errorf("said %q, want %q", r.said.String(), want)
	}
	if err := r.remove("mesh"); err != nil {
		t.Fatal(err)
	}
	if got, want := labels(), "map[team:a]"; got != want {
		t.Errorf("removed: %s, want %s", got, want)
	}
}

// Who waits in vain is told what for, and where to look if there is not even a pod.
func TestWaitTellsWhy(t *testing.T) {
	r := newRig(t)
	r.install("mesh")
	r.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: operator-x, namespace: mesh, labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: operator}}\n")
	i, _ := r.installer("mesh")
	wait := func() string {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return fmt.Sprint(i.Wait(ctx))
	}
	const none = "no pod was made for the agents: fairlead preflight --namespace mesh says what is in the way"
	if got := wait(); !strings.Contains(got, none) || !strings.Contains(got, "pod operator-x on no node: not scheduled yet") {
		t.Error(got)
	}
	r.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: agent-x, namespace: mesh, labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: agent}}\nspec: {nodeName: n1}\n")
	if got := wait(); strings.Contains(got, none) || !strings.Contains(got, "pod agent-x on n1: not scheduled yet") {
		t.Error(got)
	}
}

// A namespace that was there before stays, and so does one with something of others.
func TestNamespaceStays(t *testing.T) {
	for what, text := range map[string]string{
		"it was there before":                         "apiVersion: v1\nkind: Namespace\nmetadata: {name: mesh}\n",
		"something of others, as Secret mesh/token":   "apiVersion: v1\nkind: Secret\nmetadata: {name: token, namespace: mesh}\n",
		"something of others, as StatefulSet mesh/db": "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: mesh}\n",
	} {
		r := newRig(t)
		before := strings.Contains(text, "Namespace")
		if before {
			r.Apply(text)
		}
		r.install("mesh")
		r.install("mesh") // an upgrade makes it no other one's
		if !before {
			r.Apply(text)
		}
		if err := r.remove("mesh"); err != nil {
			t.Fatal(err)
		}
		if got := r.there(); got != "[] [] [] [mesh]" {
			t.Errorf("%s: left: %s", what, got)
		}
		if !strings.Contains(r.said.String(), what) {
			t.Errorf("said %q, want %q", r.said.String(), what)
		}
	}
}
