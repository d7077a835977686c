// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

const root = "../.."

// update writes down what comes of this run.
var update = flag.Bool("update", false, "write report.md and report.json anew")

var cluster = testcluster.Cluster{Name: cmp.Or(os.Getenv("CLUSTER"), "fairlead-smi"), Root: root}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "a cluster needs root: hack/smi.sh")
		os.Exit(1)
	}
	code := m.Run()
	if os.Getenv("KEEP") == "" {
		if err := cluster.Down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// TestSMI puts the cluster up, with SMI's definitions and Fairlead as it is installed.
func TestSMI(t *testing.T) {
	cluster.Up(t)
	cluster.Load(t, image(t))
	define(t)
	install(t)
	t.Run("suite", func(t *testing.T) { suite(t) })
	t.Run("table", func(t *testing.T) { table(t) })
	t.Run("weights under load", func(t *testing.T) { weightsUnderLoad(t) })
}

// define gives the cluster SMI's definitions.
func define(t *testing.T) {
	t.Helper()
	cluster.Kubectl(t, "apply", "-f", filepath.Join(root, "deploy/crds"))
	cluster.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
}

// image is an archive of the suite's application.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run := func(in string, args ...string) {
		cmd := exec.CommandContext(t.Context(), "nice", args...)
		cmd.Dir, cmd.Env = in, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	run(".", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/app", "./app")
	run(root, "go", "run", "./hack/image", "-o", dir+"/app.tar", "-name", appImage, "-entrypoint", "/bin/app", dir+"/app=/bin/app")
	return dir + "/app.tar"
}

const appImage = "fairlead.local/smi-app:1"

// namespace makes one for as long as the test runs, and waits until it has gone with all
// that was in it: what is left of one case must not be judged in the next.
func namespace(t *testing.T, name string, annotations ...string) {
	t.Helper()
	lines := ""
	for _, a := range annotations {
		lines += "\n    " + a
	}
	apply(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels: {fairlead.io/capture: enabled}\n  annotations:\n    fairlead.io/note: conformance%s\n", name, lines))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if _, err := cluster.Try(ctx, "", "delete", "namespace", name, "--wait"); err != nil {
			t.Error(err)
		}
	})
}

// ready waits for all pods of a namespace.
func ready(t *testing.T, namespace string) {
	t.Helper()
	cluster.Kubectl(t, "wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=120s")
}

// lines are a text's, without empty ones.
func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}
