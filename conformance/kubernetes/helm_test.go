// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// helm runs a stock Helm, which must succeed.
func (c cluster) helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tryHelm(t.Context(), args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryHelm runs a stock Helm.
func (c cluster) tryHelm(ctx context.Context, args ...string) (string, error) {
	path, err := exec.CommandContext(ctx, "../../hack/helm.sh").Output()
	if err != nil {
		return "", fmt.Errorf("hack/helm.sh: %w", err)
	}
	cmd := exec.CommandContext(ctx, strings.TrimSpace(string(path)), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.folder(), "kubeconfig"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Helm finds in the cluster what it finds in any.
func TestHelm(t *testing.T) {
	c := main
	c.up(t)
	c.helm(t, "install", "note", "testdata/chart", "--create-namespace", "--namespace", "helm", "--wait")
	read := func() string {
		return c.kubectl(t, "get", "-n", "helm", "configmap", "note", "-o", "jsonpath={.data.text}")
	}
	if got := read(); got != "from the chart" {
		t.Errorf("installed %q", got)
	}
	c.helm(t, "upgrade", "note", "testdata/chart", "--namespace", "helm", "--set", "text=changed")
	if got := read(); got != "changed" {
		t.Errorf("upgraded to %q", got)
	}
	c.helm(t, "uninstall", "note", "--namespace", "helm", "--wait")
	if out, err := c.try(t.Context(), "", "get", "-n", "helm", "configmap", "note"); err == nil {
		t.Errorf("still there after uninstall: %s", out)
	}
	c.kubectl(t, "delete", "namespace", "helm", "--wait=false")
}
