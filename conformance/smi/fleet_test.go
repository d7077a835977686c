// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// fleet is Fairlead on the nodes of a cluster, as plain processes that read the API
// server: on each node an agent, and a proxy with its Envoy.
type fleet struct{ c testcluster.Cluster }

// start builds Fairlead, runs it on all nodes of a cluster that is up, and takes it away
// with the test.
func start(t testing.TB, c testcluster.Cluster) *fleet {
	t.Helper()
	f := &fleet{c}
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-trimpath", "-o", f.binary(), "./cmd/fairlead")
	build.Dir = c.Root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	find := exec.CommandContext(t.Context(), filepath.Join(c.Root, "hack/envoy.sh"))
	envoy, err := find.Output()
	if err != nil {
		t.Fatalf("find Envoy: %v", err)
	}
	f.writeKubeconfig(t)
	for _, node := range nodes {
		t.Cleanup(func() { f.uninstall(t, node) })
		c.Kubectl(t, "annotate", "node", node, "--overwrite", "fairlead.io/agent=true")
		f.launch(t, node, "proxy", "--node", node, "--envoy", strings.TrimSpace(string(envoy)), "--concurrency", "1", "--drain-time", "1s")
		f.launch(t, node, "agent", "--node", node, "--kubeconfig", f.kubeconfig(), "--uplink", "eth0")
	}
	for _, node := range nodes {
		f.settled(t, node)
	}
	return f
}

func (f *fleet) binary() string { return filepath.Join(f.c.Folder(), "build/fairlead") }

// kubeconfig is the administrator's, with the address that the API server has on nodes.
func (f *fleet) kubeconfig() string { return filepath.Join(f.c.Folder(), "node.kubeconfig") }

func (f *fleet) writeKubeconfig(t testing.TB) {
	t.Helper()
	admin, err := os.ReadFile(filepath.Join(f.c.Folder(), "pki/admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	onNodes := bytes.ReplaceAll(admin, []byte("https://127.0.0.1:6443"), []byte("https://10.240.0.254:6443"))
	if err := os.WriteFile(f.kubeconfig(), onNodes, 0o600); err != nil {
		t.Fatal(err)
	}
}

// launch leaves the process' number, on the node, in a file.
func (f *fleet) launch(t testing.TB, node, what string, args ...string) {
	t.Helper()
	command := fmt.Sprintf(`setsid sh -c 'echo $$ >/run/fairlead-%s.pid; exec %s %s %s' >>%s 2>&1 </dev/null &`,
		what, f.binary(), what, strings.Join(args, " "), f.log(what, node))
	on(t, node, "sh", "-c", command)
}

func (f *fleet) log(what, node string) string {
	return filepath.Join(f.c.Folder(), "logs", "fairlead-"+what+"-"+node+".log")
}

// uninstall ends what runs on a node and takes away what is left of it.
func (f *fleet) uninstall(t testing.TB, node string) {
	const end = `for f in /run/fairlead-agent.pid /run/fairlead-proxy.pid; do
		[ -f $f ] || continue
		p=$(cat $f); kill $p 2>/dev/null; while kill -0 $p 2>/dev/null; do sleep 0.1; done; rm $f
	done
	exec "$0" agent uninstall`
	if out, err := entering(context.Background(), node, "sh", "-c", end, f.binary()).CombinedOutput(); err != nil {
		t.Errorf("uninstall from %s: %v\n%s", node, err, out)
	}
	if _, err := f.c.Try(context.Background(), "", "annotate", "node", node, "fairlead.io/agent-"); err != nil {
		t.Error(err)
	}
}

// settled waits until an agent has taken up what the API server has.
func (f *fleet) settled(t testing.TB, node string) {
	t.Helper()
	testcluster.Eventually(t, 60*time.Second, "agent of "+node, func() error {
		var out, errs bytes.Buffer
		cmd := entering(context.Background(), node, f.binary(), "status", "-o", "json")
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s; its log is %s", err, errs.String(), f.log("agent", node))
		}
		var all []struct{ Revision, Applied, Problem string }
		if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 1 {
			return fmt.Errorf("%w: %s", err, out.String())
		}
		if s := all[0]; s.Revision == "" || s.Applied != s.Revision || s.Problem != "" {
			return fmt.Errorf("it has applied %q of %q: %s", s.Applied, s.Revision, s.Problem)
		}
		return nil
	})
}

// nodes are those of every cluster.
var nodes = []string{"node-1", "node-2"}

// entering is a command on a node, or in the network beside the nodes.
func entering(ctx context.Context, place string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack/cluster/enter.sh"), append([]string{place}, args...)...)
	cmd.Env = append(os.Environ(), "CLUSTER="+cluster.Name)
	return cmd
}

// on runs a command on a node, which must succeed.
func on(t testing.TB, node string, args ...string) {
	t.Helper()
	if out, err := entering(t.Context(), node, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %v\n%s", node, args, err, out)
	}
}

// apply applies a manifest.
func apply(t testing.TB, manifest string) {
	t.Helper()
	if _, err := cluster.Try(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}
