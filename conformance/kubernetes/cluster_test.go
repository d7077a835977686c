// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cluster is one of hack/cluster.
type cluster struct {
	name     string
	settings []string // environment of up.sh, beyond the name
}

// scripts is where those of hack/cluster are.
const scripts = "../../hack/cluster"

// main is the cluster that the tests share, and put up once.
var main = cluster{name: cmp.Or(os.Getenv("CLUSTER"), "fairlead-conformance")}

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "a cluster needs root: hack/kubernetes.sh")
		os.Exit(1)
	}
	code := m.Run()
	if os.Getenv("KEEP") == "" {
		if out, err := main.script(context.Background(), "down.sh").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "down.sh: %v\n%s", err, out)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// script is a command that runs one of hack/cluster for this cluster.
func (c cluster) script(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(scripts, name), args...)
	cmd.Env = append(append(os.Environ(), "CLUSTER="+c.name), c.settings...)
	return cmd
}

// run runs a script, which must succeed, and returns what it prints and how long it took.
func (c cluster) run(t *testing.T, name string, args ...string) (string, time.Duration) {
	t.Helper()
	begun := time.Now()
	cmd := c.script(t.Context(), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), time.Since(begun)
}

// up puts the cluster up, if it is not.
func (c cluster) up(t *testing.T) time.Duration {
	t.Helper()
	_, took := c.run(t, "up.sh")
	return took
}

func (c cluster) folder() string { return "/run/" + c.name }

// try runs kubectl.
func (c cluster) try(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.folder(), "bin/kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.folder(), "kubeconfig"))
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// kubectl runs kubectl, which must succeed.
func (c cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply applies a manifest of testdata in a namespace, which goes with the test.
func (c cluster) apply(t *testing.T, namespace, file string) {
	t.Helper()
	c.kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() {
		if _, err := c.try(context.Background(), "", "delete", "namespace", namespace, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	c.kubectl(t, "apply", "-n", namespace, "-f", filepath.Join("testdata", file))
}

// eventually asks until it is answered without an error.
func eventually(t *testing.T, within time.Duration, what string, ask func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, within, err)
}
