// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// fleet is Fairlead on nodes of a cluster, as plain processes: an agent, and a proxy with
// its Envoy. It reads what the API server has from a folder that is kept up with it, and
// manifests of kinds that the API server does not know beside it.
type fleet struct {
	c      cluster
	source string // "": the API server
	cgroup string // the nodes' root of cgroup2, as they see it
	// kubeconfig is by which agents read the API server, in place of the folder; "": they do not.
	kubeconfig string
}

// newFleet puts the cluster up and builds what runs on it. Nothing runs yet.
func newFleet(t *testing.T, c cluster) *fleet {
	t.Helper()
	c.up(t)
	f := &fleet{c: c, source: filepath.Join(c.folder(), "source")}
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-o", filepath.Join(c.folder(), "build")+"/", "./cmd/fairlead", "./hack/attached")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	if err := os.MkdirAll(f.source, 0o755); err != nil {
		t.Fatal(err)
	}
	f.cgroup = strings.TrimSpace(f.on(t, "node-1", "sh", "-c", `grep -m1 ' /sys/.* cgroup2 ' /proc/mounts | cut -d' ' -f2`))
	if err := f.copy(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = f.copy(ctx) // an API server that is away: what was read stays
			time.Sleep(200 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return f
}

// copy brings the folder up to the API server.
func (f *fleet) copy(ctx context.Context) error {
	now, err := f.c.try(ctx, "", "get", "nodes,namespaces,serviceaccounts,pods,services,endpointslices", "-A", "-o", "yaml")
	if err != nil {
		return err
	}
	return f.write("cluster.yaml", now)
}

// write replaces a file of the folder, unless it is the same. Without a folder, the API
// server is given the objects.
func (f *fleet) write(name, content string) error {
	if f.source == "" {
		_, err := f.c.try(context.Background(), content, "apply", "-f", "-")
		return err
	}
	to, tmp := filepath.Join(f.source, name), filepath.Join(f.source, "."+name)
	if had, err := os.ReadFile(to); err == nil && string(had) == content {
		return nil
	}
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// on runs a command on a node, or in the network beside them, which must succeed.
func (f *fleet) on(t *testing.T, place string, args ...string) string {
	t.Helper()
	out, _ := f.c.run(t, "enter.sh", append([]string{place}, args...)...)
	return out
}

func (f *fleet) binary() string { return filepath.Join(f.c.folder(), "build/fairlead") }

// start runs agent and proxy on a node and waits until the agent has taken everything up.
func (f *fleet) start(t *testing.T, node string) {
	t.Helper()
	envoy, err := exec.Command("../../hack/envoy.sh").Output()
	if err != nil {
		t.Fatalf("find Envoy: %v", err)
	}
	f.launch(t, node, "proxy", "--node", node, "--envoy", strings.TrimSpace(string(envoy)), "--concurrency", "1", "--drain-time", "1s")
	from := []string{"--source", f.source}
	if f.kubeconfig != "" {
		from = []string{"--kubeconfig", f.kubeconfig}
	}
	f.launch(t, node, "agent", append(from, "--node", node, "--uplink", "eth0")...)
	t.Cleanup(func() { f.stop(t, node) })
	f.settled(t, node)
}

// launch leaves its number, on the node, in a file.
func (f *fleet) launch(t *testing.T, node, what string, args ...string) {
	t.Helper()
	log := filepath.Join(f.c.folder(), "logs", "fairlead-"+what+"-"+node+".log")
	command := fmt.Sprintf(`setsid sh -c 'echo $$ >/run/fairlead-%s.pid; exec %s %s %s' >>%s 2>&1 </dev/null &`, what, f.binary(), what, strings.Join(args, " "), log)
	f.on(t, node, "sh", "-c", command)
}

// stop ends both, if they run.
func (f *fleet) stop(t *testing.T, node string) {
	for _, what := range []string{"agent", "proxy"} {
		f.end(t, node, what)
	}
}

// end ends one of them in order.
func (f *fleet) end(t *testing.T, node, what string) {
	command := fmt.Sprintf(`f=/run/fairlead-%s.pid; [ ! -f $f ] || { p=$(cat $f); kill $p 2>/dev/null; while kill -0 $p 2>/dev/null; do sleep 0.1; done; rm $f; }`, what)
	if out, err := f.c.script(context.Background(), "enter.sh", node, "sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("end %s of %s: %v\n%s", what, node, err, out)
	}
}

// nodeStatus is what is asked of an agent.
type nodeStatus struct {
	Revision, Applied string
	Problem           string
	Pods              map[string]string
	Kernel            struct{ Counters map[string]int }
	Lease             struct{ Silent, Behind string }
	APIServer         struct{ Problems []struct{ What string } }
	Peers             []struct{ Node, Instance, Behind string }
}

func (f *fleet) status(node string) (nodeStatus, error) {
	cmd := f.c.script(context.Background(), "enter.sh", node, f.binary(), "status", "-o", "json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nodeStatus{}, fmt.Errorf("status of %s: %w: %s", node, err, errs.String())
	}
	var all []nodeStatus
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 1 {
		return nodeStatus{}, fmt.Errorf("status of %s: %w: %s", node, err, out.String())
	}
	return all[0], nil
}

// settled waits until an agent has taken up the folder, and all pods that its node has.
func (f *fleet) settled(t *testing.T, node string) nodeStatus {
	t.Helper()
	var s nodeStatus
	eventually(t, 60*time.Second, "agent of "+node, func() (err error) {
		if s, err = f.status(node); err != nil {
			return err
		}
		if s.Applied != s.Revision || s.Problem != "" {
			return fmt.Errorf("it has applied %s of %s: %s", s.Applied, s.Revision, s.Problem)
		}
		names, err := f.c.try(context.Background(), "", "get", "pods", "-A", "--field-selector", "status.phase=Running,spec.nodeName="+node,
			"-o", `jsonpath={range .items[?(@.spec.hostNetwork!=true)]}{.metadata.namespace}/{.metadata.name} {end}`)
		if err != nil {
			return err
		}
		for pod := range strings.FieldsSeq(names) {
			if s.Pods[pod] != "ready" {
				return fmt.Errorf("pod %s: %q", pod, s.Pods[pod])
			}
		}
		return nil
	})
	return s
}

// manage says on the Node whether Fairlead runs there.
func (f *fleet) manage(t *testing.T, node string, yes bool) {
	t.Helper()
	f.c.kubectl(t, "annotate", "node", node, "--overwrite", fmt.Sprintf("fairlead.io/agent=%t", yes))
	t.Cleanup(func() {
		_, _ = f.c.try(context.Background(), "", "annotate", "node", node, "fairlead.io/agent-")
	})
}

// uninstall ends what runs on a node and takes away what is left of it.
func (f *fleet) uninstall(t *testing.T, node string) {
	t.Helper()
	f.stop(t, node)
	f.on(t, node, f.binary(), "agent", "uninstall")
}

// changing are parts of a node's state that nobody of the test changes on purpose.
var changing = regexp.MustCompile(`nf_conntrack_count|/neigh/|/conf/veth|counter packets [0-9]+ bytes [0-9]+|# handle [0-9]+`)

// state is what a node has that Fairlead could have changed, when others have done what
// they were about to do: kube-proxy writes a second or more after pods are ready.
func (f *fleet) state(t *testing.T, node string) map[string][]string {
	t.Helper()
	last := f.look(t, node)
	for range 10 {
		time.Sleep(3 * time.Second)
		now := f.look(t, node)
		if reflect.DeepEqual(last, now) {
			return now
		}
		last = now
	}
	return last // what differs is told where it is compared
}

func (f *fleet) look(t *testing.T, node string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for what, command := range map[string]string{
		"programs":   filepath.Join(f.c.folder(), "build/attached") + " " + f.cgroup,
		"pins":       "find /sys/fs/bpf",
		"interfaces": "ip -o link",
		"rules":      "ip rule; ip -6 rule",
		"routes":     "ip route show table all; ip -6 route show table all",
		"nftables":   "nft -s list ruleset",
		"sysctls":    "find /proc/sys/net -type f | sort | xargs grep -H . 2>/dev/null || true",
		"cgroups":    "find " + f.cgroup + " -maxdepth 1 -type d",
		"processes":  "ps -e -o comm= | grep -E 'fairlead|envoy' || true",
	} {
		for line := range strings.Lines(f.on(t, node, "sh", "-c", command)) {
			if line = strings.TrimSpace(line); !changing.MatchString(line) {
				out[what] = append(out[what], line)
			}
		}
		slices.Sort(out[what])
	}
	return out
}

// sameState compares the states of a node before and after.
func sameState(t *testing.T, node string, before, after map[string][]string) {
	t.Helper()
	for what := range before {
		for _, line := range after[what] {
			if !slices.Contains(before[what], line) {
				t.Errorf("%s: %s have %q, which was not there before", node, what, line)
			}
		}
		for _, line := range before[what] {
			if !slices.Contains(after[what], line) {
				t.Errorf("%s: %s lack %q, which was there before", node, what, line)
			}
		}
	}
}
