// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// release is where the tests install Fairlead, and how.
const (
	release   = "fairlead"
	namespace = "fairlead-system"
	chart     = "../../deploy/chart"
)

// newInstalled puts the cluster up, and gives it the images and Istio's definitions. SMI's
// are the operator's to install. Nothing is installed yet.
func newInstalled(t *testing.T, c cluster) *fleet {
	t.Helper()
	c.up(t)
	f := &fleet{c: c}
	f.cgroup = strings.TrimSpace(f.on(t, "node-1", "sh", "-c", `grep -m1 ' /sys/.* cgroup2 ' /proc/mounts | cut -d' ' -f2`))
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w",
		"-o", filepath.Join(c.folder(), "build")+"/", "./cmd/fairlead", "./hack/attached")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0") // as images.sh does
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	images := exec.CommandContext(t.Context(), "../../hack/images.sh", "--load", "--out", filepath.Join(c.folder(), "build/images"))
	images.Env = append(append(os.Environ(), "CLUSTER="+c.name), c.settings...)
	if out, err := images.CombinedOutput(); err != nil {
		t.Fatalf("hack/images.sh: %v\n%s", err, out)
	}
	c.kubectl(t, "apply", "-f", "testdata/istio-crds.yaml")
	t.Cleanup(func() {
		if _, err := c.try(context.Background(), "", "delete", "--ignore-not-found", "-f", "testdata/istio-crds.yaml", "-f", "../../deploy/crds", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	c.kubectl(t, "wait", "--for=condition=Established", "-f", "testdata/istio-crds.yaml", "--timeout=30s")
	return f
}

// helmInstall installs the chart and waits until everything is Ready, and takes it away with
// the test if that has not.
func (f *fleet) helmInstall(t *testing.T, values ...string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			f.report()
		}
		_, _ = f.c.tryHelm(context.Background(), "uninstall", release, "--namespace", namespace, "--ignore-not-found", "--wait", "--timeout", "3m")
		_, _ = f.c.try(context.Background(), "", "delete", "namespace", namespace, "--ignore-not-found")
	})
	begun := time.Now()
	f.c.helm(t, append([]string{"install", release, chart, "--namespace", namespace, "--create-namespace", "--wait", "--timeout", "5m",
		"--set", "image.pullPolicy=Never", "--set", "proxy.drainTime=2s"}, values...)...)
	t.Logf("installed and Ready after %s", time.Since(begun).Round(100*time.Millisecond))
}

// report prints what a failed test is looked into with.
func (f *fleet) report() {
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"describe", "pods", "-n", namespace},
		{"logs", "-n", namespace, "-l", "app.kubernetes.io/name=fairlead", "--prefix", "--tail=40"},
		{"logs", "-n", namespace, "-l", "app.kubernetes.io/name=fairlead", "--prefix", "--tail=40", "--previous"},
	} {
		out, err := f.c.try(context.Background(), "", args...)
		fmt.Fprintln(os.Stderr, out, err)
	}
}

// uninstall takes the release away and waits until its pods are gone.
func (f *fleet) helmUninstall(t *testing.T) {
	t.Helper()
	f.c.helm(t, "uninstall", release, "--namespace", namespace, "--wait", "--timeout", "3m")
	eventually(t, 2*time.Minute, "the pods are gone", func() error {
		left, err := f.c.try(t.Context(), "", "get", "pods", "-n", namespace, "-o", "name")
		if err == nil && left != "" {
			err = fmt.Errorf("there are %s", left)
		}
		return err
	})
}

// tally sums what load generators count.
type tally struct {
	mu       sync.Mutex
	requests map[string]int
	failures map[string]map[string]int // by load, then class
}

// summary is the last line of the lab's load.
type summary struct {
	Final                        bool
	Requests, Failed, Violations int
	Failures                     map[string]int
}

// under keeps load on while change runs, and returns how many requests each kind of load has
// sent. Nothing may fail, and nothing that is forbidden be answered.
func (f *fleet) under(t *testing.T, what string, change func()) {
	t.Helper()
	sum := &tally{requests: map[string]int{}, failures: map[string]map[string]int{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for name, l := range map[string]struct {
		pod  string
		args []string
	}{
		"routed by node-1":     {"mesh/client-1", []string{"-url", "http://web/v1", "-url", "http://web/v2", "-url", "http://web/"}},
		"routed by node-2":     {"mesh/client-2", []string{"-url", "http://web/v1", "-url", "http://web/v2", "-url", "http://web/"}},
		"let in":               {"mesh/client-1", []string{"-url", "http://guarded/open"}},
		"balanced":             {"plain/outsider-2", []string{"-url", "http://outsider/"}},
		"denied":               {"mesh/other-2", []string{"-forbid", "-url", "http://guarded/open"}},
		"denied, not captured": {"plain/outsider-1", []string{"-forbid", "-url", "http://guarded.mesh/open"}},
	} {
		wg.Go(func() {
			for first := true; ; first = false {
				select {
				case <-stop:
					if !first {
						return
					}
				default:
				}
				f.load(t, sum, name, l.pod, l.args)
			}
		})
	}
	func() {
		defer wg.Wait() // also if it ends the test
		defer close(stop)
		change()
	}()
	for name, n := range sum.requests {
		if n == 0 {
			t.Errorf("%s: no request %s", what, name)
		}
	}
	for name, by := range sum.failures {
		t.Errorf("%s: of %d requests %s: %v", what, sum.requests[name], name, by)
	}
	t.Logf("%s: requests %v", what, sum.requests)
}

// load sends requests for some seconds.
func (f *fleet) load(t *testing.T, sum *tally, name, pod string, args []string) {
	ns, pod, _ := strings.Cut(pod, "/")
	args = append([]string{"exec", "-n", ns, pod, "--", "load", "-rate", "40", "-connections", "4", "-fresh", "0.3", "-duration", "8s"}, args...)
	out, err := f.c.try(context.Background(), "", args...)
	var last summary
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		_ = json.Unmarshal(lines.Bytes(), &last) // another than the last is of no use
	}
	sum.mu.Lock()
	defer sum.mu.Unlock()
	if !last.Final {
		t.Errorf("load %s: no account of it: %v: %s", name, err, out)
		return
	}
	sum.requests[name] += last.Requests
	if last.Failed == 0 && last.Violations == 0 {
		return
	}
	if sum.failures[name] == nil {
		sum.failures[name] = map[string]int{}
	}
	for class, n := range last.Failures {
		sum.failures[name][class] += n
	}
	if last.Violations > 0 {
		sum.failures[name]["let through"] += last.Violations
	}
}

// rollout replaces the pods of something, and waits until that is done.
func (f *fleet) rollout(t *testing.T, what string) {
	t.Helper()
	f.c.kubectl(t, "rollout", "restart", "-n", namespace, what)
	f.c.kubectl(t, "rollout", "status", "-n", namespace, what, "--timeout=4m")
}

// Fairlead is installed by a stock Helm, does what it is for, is changed and replaced under
// load without a failed or a forbidden request, and gives the nodes back.
func TestInstalled(t *testing.T) {
	f := newInstalled(t, main)
	f.deployPods(t)
	nodes := []string{"node-1", "node-2"}
	before := map[string]map[string][]string{}
	for _, n := range nodes {
		before[n] = f.state(t, n)
	}
	f.helmInstall(t)
	eventually(t, time.Minute, "objects of SMI and Istio", func() error { return f.write("policy.yaml", nodePolicy(t)) })
	for _, n := range nodes {
		f.settled(t, n)
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fleet)
	}{
		{"services", services},
		{"routes", routes},
		{"policies", policies},
		{"not captured", notCaptured},
		{"probes", probes},
		{"node ports", nodePorts},
		{"objects that mean nothing", meaningless},
		{"objects made again", madeAgain},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
	t.Run("upgrade", func(t *testing.T) {
		f.under(t, "upgrade with changed values", func() {
			f.c.helm(t, "upgrade", release, chart, "--namespace", namespace, "--reuse-values", "--wait", "--timeout", "5m",
				"--set", "mesh.istioVersion=1.28", "--set", "agent.podLabels.changed=yes")
		})
		if got := f.c.kubectl(t, "get", "pods", "-n", namespace, "-l", "changed=yes", "-o", "name"); strings.Count(got, "pod/") != 2 {
			t.Errorf("new agents are %q, want two", got)
		}
	})
	t.Run("agent", func(t *testing.T) {
		f.under(t, "rollout of the agents", func() { f.rollout(t, "daemonset/fairlead-agent") })
	})
	t.Run("proxy", func(t *testing.T) {
		f.under(t, "rollout of the proxies", func() { f.rollout(t, "daemonset/fairlead-proxy") })
	})
	t.Run("operator", func(t *testing.T) {
		f.under(t, "rollout of the operator", func() { f.rollout(t, "deployment/fairlead-operator") })
	})
	for _, n := range nodes {
		f.settled(t, n)
	}
	routes(t, f)
	policies(t, f)
	f.helmUninstall(t)
	for _, n := range nodes {
		sameState(t, n, before[n], f.state(t, n))
	}
	f.expect(t, "mesh/client-1", []string{"web-1", "web-2"}, "-repeat", "40", "http://web/v1")
	f.expect(t, "mesh/other-1", []string{"guarded-1", "guarded-2"}, "-repeat", "40", "http://guarded/shut")
}

// There is one Fairlead in a cluster. A second one is refused, says of what, and costs the
// first one nothing.
func TestInstalledTwice(t *testing.T) {
	f := newInstalled(t, main)
	f.helmInstall(t)
	pods := func() string {
		return f.c.kubectl(t, "get", "pods", "-n", namespace, "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} {end}`)
	}
	first := pods()
	out, err := f.c.tryHelm(t.Context(), "install", "other", chart, "--namespace", "fairlead-other", "--create-namespace")
	if err == nil || !strings.Contains(out, "ClusterRole") || !strings.Contains(out, "cannot be imported into the current release") {
		t.Errorf("second installation: %v: %s", err, out)
	}
	f.c.kubectl(t, "delete", "namespace", "fairlead-other", "--ignore-not-found", "--wait=false")
	if now := pods(); now != first {
		t.Errorf("pods were %s, are %s", first, now)
	}
	f.helmUninstall(t)
}

// The manifests for kubectl are what the chart renders.
func TestManifests(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "../../hack/manifests.sh").Output()
	if err != nil {
		t.Fatalf("hack/manifests.sh: %v", err)
	}
	have, err := os.ReadFile("../../deploy/fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(out) {
		t.Error("deploy/fairlead.yaml is not what the chart renders: hack/manifests.sh >deploy/fairlead.yaml")
	}
}
