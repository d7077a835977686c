// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// reading is a fleet that reads the API server, as on a cluster of anybody's.
func reading(t *testing.T, c cluster) *fleet {
	t.Helper()
	c.up(t)
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-o", filepath.Join(c.folder(), "build")+"/", "./cmd/fairlead", "./cmd/fairlead-cni", "./hack/attached")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	f := &fleet{c: c, source: filepath.Join(c.folder(), "build/agent.kubeconfig")}
	f.cgroup = strings.TrimSpace(f.on(t, "node-1", "sh", "-c", `grep -m1 ' /sys/.* cgroup2 ' /proc/mounts | cut -d' ' -f2`))
	admin, err := os.ReadFile(filepath.Join(c.folder(), "pki/admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.source, bytes.ReplaceAll(admin, []byte("https://127.0.0.1:"), []byte("https://10.240.0.254:")), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// pluginFlags have an agent put the plugin where the node's runtime calls it.
var pluginFlags = []string{"--cni-conf-dir", "/etc/cni/net.d", "--cni-bin-dir", "/opt/cni/bin"}

const conflist = "/etc/cni/net.d/10-fairlead-test.conflist"

func (f *fleet) runProxy(t *testing.T, node string) {
	t.Helper()
	envoy, err := exec.Command("../../hack/envoy.sh").Output()
	if err != nil {
		t.Fatalf("find Envoy: %v", err)
	}
	f.launch(t, node, "proxy", "--node", node, "--envoy", strings.TrimSpace(string(envoy)), "--concurrency", "1", "--drain-time", "1s")
	t.Cleanup(func() { f.end(t, node, "proxy") })
}

func (f *fleet) runAgent(t *testing.T, node string, more ...string) {
	t.Helper()
	f.launch(t, node, "agent", append([]string{"--node", node, "--kubeconfig", f.source, "--uplink", "eth0"}, more...)...)
	t.Cleanup(func() { f.end(t, node, "agent") })
	f.settled(t, node)
	if slices.Contains(more, "--cni-conf-dir") {
		eventually(t, 30*time.Second, "the plugin on "+node, func() error {
			if text := f.on(t, node, "cat", conflist); !strings.Contains(text, "fairlead-cni") {
				return fmt.Errorf("it is not in %s", text)
			}
			return nil
		})
	}
}

// plainPod is a server that has no probes: it is there as soon as it runs.
func plainPod(namespace, name, node string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: plain}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  enableServiceLinks: false
  automountServiceAccountToken: false
  containers:
  - {name: server, image: "fairlead.local/lab:1", imagePullPolicy: Never, args: [-port, 8080=http]}
`, name, namespace, node)
}

// rooms are a namespace that lets nobody in, and one that lets everybody.
func (f *fleet) rooms(t *testing.T, shut, open string) {
	t.Helper()
	f.c.kubectl(t, "create", "namespace", open)
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q, "annotations": {"fairlead.io/default-deny": "istio"}}}`, shut)
	if _, err := f.c.try(t.Context(), text, "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := f.c.try(context.Background(), "", "delete", "namespace", shut, open); err != nil {
			t.Error(err)
		}
	})
}

// knocker is a pod that tries to connect to addresses, whoever has them; see
// hack/cluster/lab.
type knocker struct {
	in  io.WriteCloser
	out *json.Decoder
	cmd *exec.Cmd
}

// knocks is what it says.
type knocks struct {
	Address      string
	Tried, LetIn int
	First, Last  time.Time
}

func (f *fleet) knocker(t *testing.T, namespace, pod string, args ...string) *knocker {
	t.Helper()
	cmd := exec.Command(filepath.Join(f.c.folder(), "bin/kubectl"), append([]string{"exec", "-i", "-n", namespace, pod, "--", "knock"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(f.c.folder(), "kubeconfig"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return &knocker{in, json.NewDecoder(bufio.NewReader(out)), cmd}
}

func (k *knocker) say(t *testing.T, sign string, addrs []netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		if _, err := fmt.Fprintf(k.in, "%s%s\n", sign, netip.AddrPortFrom(a, 8080)); err != nil {
			t.Fatal(err)
		}
	}
}

// stop ends the knocking at addresses, and tells what came of it.
func (k *knocker) stop(t *testing.T, addrs []netip.Addr) map[netip.Addr]knocks {
	t.Helper()
	k.say(t, "-", addrs)
	out := map[netip.Addr]knocks{}
	for range addrs {
		var n knocks
		if err := k.out.Decode(&n); err != nil {
			t.Fatalf("hear what came of knocking: %v", err)
		}
		out[netip.MustParseAddrPort(n.Address).Addr()] = n
	}
	return out
}

// next are the addresses that a node's pods will have.
func (f *fleet) next(t *testing.T, node string, n int) []netip.Addr {
	t.Helper()
	last := netip.MustParseAddr(strings.TrimSpace(f.on(t, node, "cat", "/var/lib/cni/networks/fairlead-test/last_reserved_ip.0")))
	var out []netip.Addr
	for a := last.Next(); len(out) < n; a = a.Next() {
		switch b := a.As4()[3]; {
		case b == 255: // the last of the range is the broadcast's
			a = netip.AddrFrom4([4]byte{a.As4()[0], a.As4()[1], a.As4()[2], 0})
		case b > 1:
			out = append(out, a)
		}
	}
	return out
}

// address is a pod's of IPv4.
func (f *fleet) address(t *testing.T, namespace, pod string) netip.Addr {
	t.Helper()
	four, _ := f.c.addresses(t, namespace, "pod", pod, ".status.podIPs[*].ip")
	return netip.MustParseAddr(four)
}

// window makes pods one after another that somebody knocks at before they are there, and
// returns how many let somebody in, and how often.
func (f *fleet) window(t *testing.T, k *knocker, namespace string, count int) (pods, connections int) {
	t.Helper()
	for i := range count {
		name := "new-" + strconv.Itoa(i)
		at := f.next(t, "node-1", 2)
		k.say(t, "+", at)
		if _, err := f.c.try(t.Context(), plainPod(namespace, name, "node-1"), "create", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		f.c.kubectl(t, "wait", "-n", namespace, "pod/"+name, "--for=condition=Ready", "--timeout=60s")
		time.Sleep(time.Second)
		got := k.stop(t, at)
		came, ok := got[f.address(t, namespace, name)]
		if !ok {
			t.Fatalf("pod %s has another address than %v", name, at)
		}
		if came.LetIn > 0 {
			pods, connections = pods+1, connections+came.LetIn
		}
		f.c.kubectl(t, "delete", "-n", namespace, "pod", name, "--wait=false")
	}
	return pods, connections
}

// took are how long pods waited for their policy, as the agents log it since they began.
func (f *fleet) took(t *testing.T, nodes ...string) []time.Duration {
	t.Helper()
	var out []time.Duration
	for _, n := range nodes {
		text, err := os.ReadFile(filepath.Join(f.c.folder(), "logs/fairlead-agent-"+n+".log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`msg="pod may start" pod=\S+ took=(\S+)`).FindAllSubmatch(text, -1) {
			d, err := time.ParseDuration(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return out
}

func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d: shortest %s, median %s, 90th of 100 %s, longest %s", len(d), d[0], d[len(d)/2], d[len(d)*9/10], d[len(d)-1])
}

// windowPods is how many pods are made where none may let anybody in.
const windowPods = 30

// A pod lets nobody in from its first instruction on, if the plugin is there; without it
// many do.
func TestPodsStartGuarded(t *testing.T) {
	f := reading(t, main)
	f.rooms(t, "shut", "lobby")
	before := f.on(t, "node-1", "cat", conflist)
	if _, err := f.c.try(t.Context(), plainPod("lobby", "knocker", "node-1"), "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	f.c.kubectl(t, "wait", "-n", "lobby", "pod/knocker", "--for=condition=Ready", "--timeout=60s")
	k := f.knocker(t, "lobby", "knocker")
	f.runProxy(t, "node-1")
	f.runAgent(t, "node-1")
	pods, connections := f.window(t, k, "shut", 10)
	t.Logf("without the plugin, of 10 pods %d let somebody in, %d times", pods, connections)
	f.end(t, "node-1", "agent")
	f.runAgent(t, "node-1", pluginFlags...)
	pods, connections = f.window(t, k, "shut", windowPods)
	if pods > 0 {
		t.Errorf("with the plugin, of %d pods %d let somebody in, %d times", windowPods, pods, connections)
	}
	t.Logf("with the plugin, of %d pods %d let somebody in; they waited for their policy, %s", windowPods, pods, quantiles(f.took(t, "node-1")))
	// Who may come in does: it is not that nobody knocks.
	if pods, connections = f.window(t, k, "lobby", 1); pods != 1 {
		t.Error("a pod that lets everybody in let nobody in")
	}
	f.uninstall(t, "node-1")
	if after := f.on(t, "node-1", "cat", conflist); after != before {
		t.Errorf("the network configuration is %s, and was %s", after, before)
	}
	if got := f.on(t, "node-1", "sh", "-c", "ls -A /opt/cni/bin /etc/cni/net.d /run/fairlead/cni | grep -i -e fairlead-cni -e 'fairlead$' -e json || true"); got != "" {
		t.Errorf("there is still %s", got)
	}
}

// churned is how many pods are made and taken away, in waves of perWave; CHURN=200 makes
// it 200.
var churned = func() int {
	if n, err := strconv.Atoi(os.Getenv("CHURN")); err == nil && n >= perWave {
		return n
	}
	return 500
}()

const perWave = 50

// footprint is what a node has of pods; nothing of it may grow with those that are gone.
func (f *fleet) footprint(t *testing.T, node string) map[string]int {
	t.Helper()
	out := map[string]int{}
	for what, command := range map[string]string{
		"interfaces":         "ip -o link | wc -l",
		"network namespaces": "find /run/containerd -path '*netns/*' | wc -l",
		"pins":               "find /sys/fs/bpf/fairlead | wc -l",
		"records":            "ls /run/fairlead/cni | wc -l",
		"files of the agent": "ls /proc/$(cat /run/fairlead-agent.pid)/fd | wc -l",
		"files of the proxy": "ls /proc/$(cat /run/fairlead-proxy.pid)/fd | wc -l",
		"plugins":            "ps -e -o comm= | grep -c fairlead-cni || true",
		"MB of the agent":    "awk '/^RssAnon/ { print int($2/1024) }' /proc/$(cat /run/fairlead-agent.pid)/status",
	} {
		n, err := strconv.Atoi(strings.TrimSpace(f.on(t, node, "sh", "-c", command)))
		if err != nil {
			t.Fatalf("%s of %s: %v", what, node, err)
		}
		out[what] = n
	}
	var all []struct {
		Feed   struct{ Resources map[string]int }
		Ports  map[string]int
		Kernel struct {
			Maps []struct {
				Name    string
				Entries int
			}
		}
	}
	if err := json.Unmarshal([]byte(f.on(t, node, f.binary(), "status", "-o", "json")), &all); err != nil || len(all) != 1 {
		t.Fatalf("status of %s: %v", node, err)
	}
	for name, n := range all[0].Feed.Resources {
		out["Envoy's "+name] = n
	}
	out["proxy ports"] = len(all[0].Ports)
	for _, m := range all[0].Kernel.Maps {
		if !slices.Contains([]string{"fl_conntrack_v1", "fl_held_v1", "fl_reverse_v1", "fl_affinity_v1"}, m.Name) { // connections, which age
			out["entries of "+m.Name] = m.Entries
		}
	}
	return out
}

// mayGrow is by how much something may be more than before, with nothing left.
var mayGrow = map[string]int{"files of the agent": 10, "files of the proxy": 10, "MB of the agent": 60}

// Pods come and go in number while requests are served: nobody gets in where nobody may,
// no request is lost, and nothing is left.
func TestPodsChurn(t *testing.T) {
	f := reading(t, main)
	f.rooms(t, "vault", "lounge")
	nodes := []string{"node-1", "node-2"}
	var text string
	for _, n := range nodes {
		f.runProxy(t, n)
		f.runAgent(t, n, pluginFlags...)
		text += plainPod("lounge", "knocker-"+n, n) + plainPod("lounge", "server-"+n, n)
	}
	text += "---\n" + `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": "lounge"}, "spec": {"ipFamilyPolicy": "PreferDualStack", "selector": {"serves": "yes"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}` + "\n"
	if _, err := f.c.try(t.Context(), text, "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	f.c.kubectl(t, "label", "-n", "lounge", "pod", "server-node-1", "server-node-2", "serves=yes")
	f.c.kubectl(t, "wait", "-n", "lounge", "pod", "--all", "--for=condition=Ready", "--timeout=90s")
	knockers := map[string]*knocker{}
	before := map[string]map[string]int{}
	for _, n := range nodes {
		f.settled(t, n)
		knockers[n] = f.knocker(t, "lounge", "knocker-"+n, "-every", "200ms", "-timeout", "500ms")
		before[n] = f.footprint(t, n)
		f.uninstallAtEnd(t, n)
	}

	four, six := f.c.addresses(t, "lounge", "service", "server", ".spec.clusterIPs[*]")
	loads := map[string]*sending{}
	for _, n := range nodes {
		for what, at := range map[string][]string{
			"by address": {"-url", "http://" + four + "/", "-url", "http://[" + six + "]/"},
			"by name":    {"-url", "http://server/"},
		} {
			loads[what+" from "+n] = f.sendWithout(t, "lounge/knocker-"+n, append(at, "-rate", "20", "-connections", "4", "-fresh", "0.5", "-timeout", "20s")...)
		}
	}

	begun := time.Now()
	let, tried := 0, 0
	for wave := range churned / perWave {
		at := map[string][]netip.Addr{}
		var text string
		for _, n := range nodes {
			at[n] = f.next(t, n, perWave/2+5)
			knockers[n].say(t, "+", at[n])
			for i := range perWave / 2 {
				ns := "vault"
				if i%10 == 0 {
					ns = "lounge"
				}
				text += plainPod(ns, fmt.Sprintf("churn-%s-%d-%d", n, wave, i), n)
			}
		}
		if _, err := f.c.try(t.Context(), text, "create", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		for _, ns := range []string{"vault", "lounge"} {
			f.c.kubectl(t, "wait", "-n", ns, "pod", "-l", "app=plain", "--for=condition=Ready", "--timeout=300s")
		}
		inVault := map[string]string{}
		for line := range strings.Lines(f.c.kubectl(t, "get", "pods", "-n", "vault", "-o", `jsonpath={range .items[*]}{.status.podIP} {.metadata.name}{"\n"}{end}`)) {
			ip, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			inVault[ip] = name
		}
		open := 0
		for _, n := range nodes {
			for a, k := range knockers[n].stop(t, at[n]) {
				tried += k.Tried
				switch name, shut := inVault[a.String()]; {
				case shut && k.LetIn > 0:
					t.Errorf("%s let somebody in %d times, from %s to %s", name, k.LetIn, k.First, k.Last)
					let++
				case !shut && k.LetIn > 0:
					open++
				}
			}
		}
		if open == 0 {
			t.Error("nobody was let in where everybody may come in: nobody has knocked")
		}
		f.c.kubectl(t, "delete", "pod", "-n", "vault", "--all", "--wait=false")
		f.c.kubectl(t, "delete", "pod", "-n", "lounge", "-l", "app=plain,!serves", "--field-selector", "metadata.name!=knocker-node-1,metadata.name!=knocker-node-2", "--wait=false")
		eventually(t, 300*time.Second, "pods of a wave that go", func() error {
			if left := f.c.kubectl(t, "get", "pods", "-A", "-o", "name"); strings.Contains(left, "churn-") {
				return fmt.Errorf("%d are there", strings.Count(left, "churn-"))
			}
			return nil
		})
		t.Logf("wave %d after %s", wave+1, time.Since(begun).Round(time.Second))
	}
	calm(t, loads)
	t.Logf("%d pods in %s, %d connections tried, %d pods let somebody in; pods waited for their policy, %s",
		churned, time.Since(begun).Round(time.Second), tried, let, quantiles(f.took(t, nodes...)))
	for _, n := range nodes {
		var after map[string]int
		eventually(t, 60*time.Second, "what "+n+" had before", func() error {
			after = f.footprint(t, n)
			for what, now := range after {
				if now > before[n][what]+mayGrow[what] {
					return fmt.Errorf("%s are %d, and were %d", what, now, before[n][what])
				}
			}
			return nil
		})
		t.Logf("%s has %v, and had %v", n, after, before[n])
	}
}

func (f *fleet) uninstallAtEnd(t *testing.T, node string) {
	t.Cleanup(func() {
		f.stop(t, node)
		if out, err := f.c.script(context.Background(), "enter.sh", node, f.binary(), "agent", "uninstall").CombinedOutput(); err != nil {
			t.Errorf("uninstall on %s: %v\n%s", node, err, out)
		}
	})
}
