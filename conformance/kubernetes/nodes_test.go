// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"os"
	"strings"
	"testing"
)

// Nodes share a machine and do not see each other: what an agent of each finds, and
// changes, is that node's. So it is on machines of their own.
func TestNodesAreApart(t *testing.T) {
	c := main
	c.up(t)
	const ns = "agents"
	c.apply(t, ns, "agent.yaml")
	c.kubectl(t, "rollout", "status", "-n", ns, "daemonset/agent", "--timeout=90s")
	on := func(node string, command string) string {
		pod := c.kubectl(t, "get", "pod", "-n", ns, "-l", "app=agent", "--field-selector", "spec.nodeName="+node, "-o", "name")
		return c.kubectl(t, "exec", "-n", ns, pod, "--", "sh", "-c", command)
	}
	for what, look := range map[string]string{
		"name":              "cat /proc/sys/kernel/hostname",
		"root of cgroup2":   "ls -di $(grep -m1 ' cgroup2 ' /proc/mounts | cut -d' ' -f2)",
		"network":           "ip addr show dev eth0 | grep inet",
		"network namespace": "ls -l /host/proc/1/ns/net",
		"processes":         "cat /host/proc/1/cmdline",
	} {
		one, two := on("node-1", look), on("node-2", look)
		if one == two || one == "" {
			t.Errorf("%s: both nodes have %q", what, one)
		}
	}
	// The node's first process is in the root of its cgroups, and pods are below that.
	if got := on("node-1", "grep ^0:: /host/proc/1/cgroup"); got != "0::/" && got != "0::/system" {
		t.Errorf("the node's first process is in %s", got)
	}
	if got := on("node-1", "ls -d $(grep -m1 ' cgroup2 ' /proc/mounts | cut -d' ' -f2)/kubepods"); !strings.HasSuffix(got, "/kubepods") {
		t.Errorf("pods are not below the root of cgroup2: %s", got)
	}
	for _, file := range []string{"/etc/cni/net.d/of-node-1", "/opt/of-node-1", "/run/of-node-1", "/sys/fs/bpf/of-node-1", "/var/lib/of-node-1"} {
		on("node-1", "busybox mkdir -p /host"+file)
		if got := on("node-2", "ls /host"+file+" 2>&1; true"); !strings.Contains(got, "No such file") {
			t.Errorf("node-2 sees what node-1 made: %s", got)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s of node-1 is on the machine", file)
		}
	}
}
