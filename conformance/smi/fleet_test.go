// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// binary is Fairlead's, for asking agents on their nodes.
func binary() string { return filepath.Join(cluster.Folder(), "build/fairlead") }

// buildBinary builds it.
func buildBinary(t testing.TB) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-trimpath", "-o", binary(), "./cmd/fairlead")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
}

// install has Fairlead on the cluster for as long as the test runs, and waits until the
// agents have taken up what the API server has.
func install(t testing.TB) {
	t.Helper()
	buildBinary(t)
	t.Cleanup(func() { uninstall(t) })
	cluster.Install(t)
	for _, node := range nodes {
		testcluster.Eventually(t, time.Minute, "agent of "+node, func() error {
			_, err := revision(node)
			return err
		})
	}
}

// uninstall leaves the definitions: other tests bring their own.
func uninstall(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, binary(), "uninstall", "--kubeconfig", cluster.Kubeconfig()).CombinedOutput(); err != nil {
		t.Errorf("fairlead uninstall: %v\n%s", err, out)
	}
}

// nodes are those of every cluster.
var nodes = []string{"node-1", "node-2"}

// entering is a command on a node, or in the network beside the nodes.
func entering(ctx context.Context, place string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack/cluster/enter.sh"), append([]string{place}, args...)...)
	cmd.Env = append(os.Environ(), "CLUSTER="+cluster.Name)
	return cmd
}

// apply applies a manifest.
func apply(t testing.TB, manifest string) {
	t.Helper()
	if _, err := cluster.Try(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}
