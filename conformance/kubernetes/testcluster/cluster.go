// SPDX-License-Identifier: Apache-2.0

// Package testcluster drives a cluster of hack/cluster, and installs Fairlead on it, for
// tests of other modules. It has no dependencies, so that it adds none to theirs.
package testcluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Cluster is one of hack/cluster. Settings of up.sh are taken from the environment.
type Cluster struct {
	Name string
	Root string // of the repository
}

// Folder is where everything of a cluster that is up is.
func (c Cluster) Folder() string { return "/run/" + c.Name }

// Kubeconfig is that of the cluster's administrator, for this machine.
func (c Cluster) Kubeconfig() string { return filepath.Join(c.Folder(), "kubeconfig") }

// Up puts the cluster up, or what is missing of it.
func (c Cluster) Up(t testing.TB) {
	t.Helper()
	c.run(t, "up.sh")
}

// Down takes it away; it fails if anything is left.
func (c Cluster) Down() error {
	if out, err := c.script(context.Background(), "down.sh").CombinedOutput(); err != nil {
		return fmt.Errorf("down.sh: %w\n%s", err, out)
	}
	return nil
}

// Load gives images to the nodes.
func (c Cluster) Load(t testing.TB, files ...string) {
	t.Helper()
	c.run(t, "load.sh", files...)
}

// Kubectl runs kubectl, which must succeed.
func (c Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.Try(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try runs kubectl.
func (c Cluster) Try(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Folder(), "bin/kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// script is a command that runs a script of hack/cluster for this cluster.
func (c Cluster) script(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Root, "hack/cluster", name), args...)
	cmd.Env = append(os.Environ(), "CLUSTER="+c.Name)
	return cmd
}

func (c Cluster) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := c.script(t.Context(), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// Eventually asks until it is answered without an error.
func Eventually(t testing.TB, within time.Duration, what string, ask func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, within, err)
}
