// SPDX-License-Identifier: Apache-2.0

package testcluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const namespace = "fairlead-system"

// Install builds Fairlead's images and installs it as users do who have no Helm, by the
// manifests of deploy, on a cluster that is up; it waits until everything is ready.
func (c Cluster) Install(t testing.TB) {
	t.Helper()
	images := exec.CommandContext(t.Context(), filepath.Join(c.Root, "hack/images.sh"), "--load")
	images.Env = append(os.Environ(), "CLUSTER="+c.Name)
	if out, err := images.CombinedOutput(); err != nil {
		t.Fatalf("hack/images.sh: %v\n%s", err, out)
	}
	parts := []string{"daemonset/fairlead-proxy", "daemonset/fairlead-agent", "deployment/fairlead-operator"}
	_, err := c.Try(t.Context(), "", append([]string{"get", "-n", namespace}, parts...)...)
	c.Kubectl(t, "apply", "-f", filepath.Join(c.Root, "deploy/fairlead.yaml"))
	if err == nil { // of a run before: the images have the same names
		c.Kubectl(t, append([]string{"rollout", "restart", "-n", namespace}, parts...)...)
	}
	for _, what := range parts {
		if _, err := c.Try(t.Context(), "", "rollout", "status", what, "-n", namespace, "--timeout=300s"); err != nil {
			state, _ := c.Try(t.Context(), "", "describe", "pods", "-n", namespace)
			t.Fatalf("%v\n%s", err, state)
		}
	}
}

// Cleanup takes back what operators have written into users' objects, and they write
// nothing more.
func (c Cluster) Cleanup(t testing.TB) {
	t.Helper()
	c.Kubectl(t, "exec", "-n", namespace, "deployment/fairlead-operator", "--", "/bin/fairlead", "operator", "cleanup", "--in-cluster")
}
