// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.io/fairlead/agent/diff"
)

func TestWrongUsageOnANode(t *testing.T) {
	for args, want := range map[string]string{
		"status --node a":      "needs --lab",
		"observe --node a":     "needs --lab",
		"observe --last -1":    "want 0 or more",
		"observe --verdict no": "--verdict no: want one of forwarded, redirected, dropped, denied, audited",
		"observe --protocol x": "--protocol x: want one of TCP, UDP",
		"observe --status 9":   "want codes (404), classes (5xx) or ranges (400-417)",
		"lab up --image a":     "want NAME=COMMAND",
		"lab up":               "needs manifests",
		"lab exec pod":         "needs a pod and a command",
		"agent --node a --source . --uplink lo --trust-domain a/b": "want lower-case letters",
	} {
		r := fairlead(t, "", strings.Fields(args)...)
		if r.code != exitUsage || !strings.Contains(r.err, want) || r.out != "" {
			t.Errorf("%s: exit %d, out %q, says %q; want 2 and %q", args, r.code, r.out, r.err, want)
		}
	}
}

func TestCgroupRoot(t *testing.T) {
	for mounts, want := range map[string]string{
		"cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n": "/sys/fs/cgroup",
		"cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /mnt/other cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n": "/sys/fs/cgroup/unified",
		"": "/sys/fs/cgroup",
	} {
		file := filepath.Join(t.TempDir(), "mounts")
		if err := os.WriteFile(file, []byte(mounts), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := cgroupRoot(file); got != want {
			t.Errorf("%q: %s, want %s", mounts, got, want)
		}
	}
	if got := cgroupRoot("/nowhere"); got != "/sys/fs/cgroup" {
		t.Errorf("without mounts: %s", got)
	}
}

func TestStandbyLine(t *testing.T) {
	b := diff.Standby{Frontend: "shop/web:80", Owner: "istio", Plane: "smi"}
	if got := standbyLine(b); got != "shop/web:80: istio serves, smi would do the same" {
		t.Error(got)
	}
	b.Changes = []diff.RouteChange{{Changes: []diff.Change{{What: "timeout"}, {What: "retries"}}}, {Changes: []diff.Change{{What: "timeout"}}}}
	if got := standbyLine(b); got != "shop/web:80: istio serves, smi would differ in timeout, retries; fairlead swap shop --to smi --dry-run tells how" {
		t.Error(got)
	}
}
