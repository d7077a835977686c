// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// state is what a cluster could change of its machine, as lines.
func state(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, show := range []string{
		"ip -o link show | awk '{ print $2 }'", "ip route show table all", "ip -6 route show table all", "ip rule", "nft list ruleset",
		"awk '{ print $2, $3 }' /proc/self/mounts",
		"find /sys/fs/cgroup -maxdepth 2 -type d -name '*fairlead*'",
		"ls -d /var/lib/kubelet /var/lib/containerd /var/lib/cni /etc/cni /etc/kubernetes /opt/cni /var/log/pods /run/containerd /run/netns/* 2>/dev/null; true",
		"cd /proc/sys && grep . vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_max* net/ipv4/ip_forward net/ipv6/conf/all/forwarding net/netfilter/nf_conntrack_max net/ipv4/conf/all/route_localnet net/bridge/* 2>/dev/null; true",
		"hostname",
	} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", show).Output()
		if err != nil {
			t.Fatalf("%s: %v", show, err)
		}
		for line := range strings.Lines(string(out)) {
			// Others' labs come and go beside these tests.
			if !strings.Contains(line, "/run/fairlead/lab/") && !strings.Contains(line, "/fairlead-lab-") {
				all = append(all, show+": "+strings.TrimSpace(line))
			}
		}
	}
	return all
}

// same fails the test if the machine is not as it was.
func same(t *testing.T, before []string) {
	t.Helper()
	after := state(t)
	for _, l := range after {
		if !slices.Contains(before, l) {
			t.Errorf("left behind: %s", l)
		}
	}
	for _, l := range before {
		if !slices.Contains(after, l) {
			t.Errorf("taken away: %s", l)
		}
	}
}

// A cluster that was put up and used leaves nothing.
func TestNothingIsLeft(t *testing.T) {
	c := cluster{name: "fairlead-left"}
	before := state(t)
	c.up(t)
	t.Cleanup(func() { _, _ = c.script(context.Background(), "down.sh").Output() }) // if the test ends early
	c.kubectl(t, "apply", "-f", "testdata/smoke.yaml")
	c.kubectl(t, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	if out, err := c.script(t.Context(), "left.sh").Output(); err == nil {
		t.Fatal("left.sh finds nothing while the cluster is up")
	} else if n := strings.Count(string(out), "\n"); n < 10 {
		t.Errorf("left.sh finds %d things while the cluster is up: %s", n, out)
	}
	_, took := c.run(t, "down.sh")
	t.Logf("down after %s", took.Round(100*time.Millisecond))
	c.run(t, "left.sh")
	same(t, before)
	if out, _ := c.run(t, "down.sh"); out != "" {
		t.Errorf("down.sh where there is nothing: %s", out)
	}
}

// One that was killed while it came up, at whatever moment, is taken away whole; or comes
// up when it is asked to again.
func TestKilledHalfway(t *testing.T) {
	c := cluster{name: "fairlead-halfway"}
	c.run(t, "down.sh")
	// What is built is built before.
	c.run(t, "build.sh")
	t.Cleanup(func() { _, _ = c.script(context.Background(), "down.sh").Output() })
	before := state(t)
	for _, after := range []time.Duration{100, 300, 600, 1000, 2000, 3000, 4000, 6000, 8000, 10000} {
		after *= time.Millisecond
		t.Run(after.String(), func(t *testing.T) {
			killUp(t, c, after)
			if after%time.Second == 0 && after > time.Second {
				c.up(t)
				c.kubectl(t, "get", "nodes")
			}
			c.run(t, "down.sh")
			c.run(t, "left.sh")
			same(t, before)
		})
	}
}

// killUp kills up.sh after a while, if it has not ended.
func killUp(t *testing.T, c cluster, after time.Duration) {
	t.Helper()
	cmd := c.script(t.Context(), "up.sh")
	log, err := os.Create(filepath.Join(t.TempDir(), "up"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log // files: what it started does not hold us up
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	if err := cmd.Wait(); err == nil {
		t.Logf("was up before %s", after)
	} else if got := fmt.Sprint(err); got != "signal: killed" {
		b, _ := os.ReadFile(log.Name())
		t.Fatalf("up.sh: %s\n%s", got, b)
	}
}
