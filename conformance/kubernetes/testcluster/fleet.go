// SPDX-License-Identifier: Apache-2.0

package testcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Fleet is Fairlead on a cluster, as plain processes that read the API server: on each node
// an agent, and a proxy with its Envoy; beside the nodes an operator.
type Fleet struct{ c Cluster }

// Start builds Fairlead, runs it on all nodes of a cluster that is up, and takes it away
// with the test.
func Start(t testing.TB, c Cluster) *Fleet {
	t.Helper()
	f := &Fleet{c}
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
	for _, node := range Nodes {
		t.Cleanup(func() { f.uninstall(t, node) })
		c.Kubectl(t, "annotate", "node", node, "--overwrite", "fairlead.io/agent=true")
		f.launch(t, node, "proxy", "--node", node, "--envoy", strings.TrimSpace(string(envoy)), "--concurrency", "1", "--drain-time", "1s")
		f.launch(t, node, "agent", "--node", node, "--kubeconfig", f.kubeconfig(), "--uplink", "eth0")
	}
	for _, node := range Nodes {
		f.settled(t, node)
	}
	f.operate(t)
	return f
}

// operate runs the operator, which is no node's.
func (f *Fleet) operate(t testing.TB) {
	t.Helper()
	if _, err := f.c.Try(t.Context(), "", "create", "namespace", "fairlead-system"); err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
		t.Fatal(err)
	}
	log, err := os.OpenFile(f.log("operator", "control-plane"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := f.c.script(context.Background(), "enter.sh", "control-plane", f.binary(), "operator", "--kubeconfig", f.kubeconfig())
	cmd.Stdout, cmd.Stderr = log, log
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		t.Fatalf("run the operator: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
			t.Errorf("the operator: %v; its log is %s", err, f.log("operator", "control-plane"))
		}
	})
}

// Cleanup takes back what the operator has written into users' objects.
func (f *Fleet) Cleanup(t testing.TB) {
	t.Helper()
	f.c.On(t, "control-plane", f.binary(), "operator", "cleanup", "--kubeconfig", f.kubeconfig())
}

func (f *Fleet) binary() string { return filepath.Join(f.c.Folder(), "build/fairlead") }

// kubeconfig is the administrator's, with the address that the API server has on nodes.
func (f *Fleet) kubeconfig() string { return filepath.Join(f.c.Folder(), "node.kubeconfig") }

func (f *Fleet) writeKubeconfig(t testing.TB) {
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
func (f *Fleet) launch(t testing.TB, node, what string, args ...string) {
	t.Helper()
	command := fmt.Sprintf(`setsid sh -c 'echo $$ >/run/fairlead-%s.pid; exec %s %s %s' >>%s 2>&1 </dev/null &`,
		what, f.binary(), what, strings.Join(args, " "), f.log(what, node))
	f.c.On(t, node, "sh", "-c", command)
}

func (f *Fleet) log(what, node string) string {
	return filepath.Join(f.c.Folder(), "logs", "fairlead-"+what+"-"+node+".log")
}

// uninstall ends what runs on a node and takes away what is left of it.
func (f *Fleet) uninstall(t testing.TB, node string) {
	const end = `for f in /run/fairlead-agent.pid /run/fairlead-proxy.pid; do
		[ -f $f ] || continue
		p=$(cat $f); kill $p 2>/dev/null; while kill -0 $p 2>/dev/null; do sleep 0.1; done; rm $f
	done
	exec "$0" agent uninstall`
	if out, err := f.c.script(context.Background(), "enter.sh", node, "sh", "-c", end, f.binary()).CombinedOutput(); err != nil {
		t.Errorf("uninstall from %s: %v\n%s", node, err, out)
	}
	if _, err := f.c.Try(context.Background(), "", "annotate", "node", node, "fairlead.io/agent-"); err != nil {
		t.Error(err)
	}
}

// settled waits until an agent has taken up what the API server has.
func (f *Fleet) settled(t testing.TB, node string) {
	t.Helper()
	Eventually(t, 60*time.Second, "agent of "+node, func() error {
		var out, errs bytes.Buffer
		cmd := f.c.script(context.Background(), "enter.sh", node, f.binary(), "status", "-o", "json")
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
