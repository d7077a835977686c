// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// says runs a command and looks whether what it prints has all of these.
func (f *fleet) says(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	out, said, got := f.fairlead(t, args...)
	if got != code {
		t.Errorf("fairlead %s: ended with %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, said)
	}
	for _, w := range want {
		if !strings.Contains(out+said, w) {
			t.Errorf("fairlead %s says nothing of %q:\n%s%s", strings.Join(args, " "), w, out, said)
		}
	}
	for _, ugly := range []string{"\n-:", "level=", "%!", "goroutine "} {
		if strings.Contains("\n"+out+said, ugly) {
			t.Errorf("fairlead %s says %q:\n%s%s", strings.Join(args, " "), ugly, out, said)
		}
	}
}

// With nothing but a kubeconfig: what a cluster's objects would come to, an installation
// from nothing, every question to what is installed, and the nodes given back.
func TestCommands(t *testing.T) {
	f := newInstalled(t, main)
	f.deployShop(t)
	f.plane(t, "istio", "apply")
	before := map[string]map[string][]string{}
	for _, n := range nodes {
		before[n] = f.state(t, n)
	}
	t.Cleanup(func() { f.fairleadAtEnd("uninstall") })

	f.says(t, 0, []string{"FINE  nodes", "pods have IPv4 and IPv6", "you may install"}, "preflight")
	f.says(t, 0, []string{"shop", "shop/reviews:80", "NARROWED shop/reviews-v1-1", "AuthorizationPolicy shop/reviews"}, "check")
	f.says(t, 1, []string{"the cluster has no agents", "fairlead install puts them there"}, "status")
	f.says(t, 0, []string{"agent ready on 2 of 2 nodes", "Fairlead is installed"}, "install", "--image-pull-policy", "Never", "--proxy-arg=--drain-time=2s")
	f.plane(t, "smi", "apply")
	for _, n := range nodes {
		f.settled(t, n)
	}
	f.owned(t, "istio", "smi")

	f.expect(t, "shop/frontend-1", []string{"reviews-v1-1", "reviews-v1-2", "reviews-v2-1", "reviews-v2-2"}, "-repeat", "80", "http://reviews/api/1")
	f.expect(t, "shop/batch-2", []string{"403"}, "-repeat", "3", "http://reviews/api/1")
	f.says(t, 0, []string{"node          node-1", "node          node-2", "pod           shop/reviews-v1-1 on ", "pod           shop/batch-2 on ",
		"API server    answers", "CNI plugin    in ", "istio serves, smi would do the same"}, "status")
	eventually(t, 30*time.Second, "what Envoy has answered is told", func() error { // in its own time
		out, said, _ := f.fairlead(t, "observe", "--pod", "shop/batch-2", "--verdict", "denied")
		if out == "" {
			return fmt.Errorf("nothing is: %s", said)
		}
		return nil
	})
	f.says(t, 0, []string{"shop/batch-2", "shop/reviews:80", "denied", "AuthorizationPolicy shop/reviews"}, "observe", "--pod", "shop/batch-2", "--verdict", "denied")
	f.says(t, 0, []string{"node/node-1", "kube-system/coredns-"}, "observe", "--last", "200", "--node", "node-1")
	for _, from := range [][]string{{"--live"}, {}} {
		f.says(t, 0, []string{"shop/reviews:80", "owner: istio", "standby: smi", "75 % shop/reviews-v1:80", "VirtualService shop/reviews spec.http[0]", " shop/reviews-v2-2"},
			append([]string{"explain", "shop/reviews"}, from...)...)
		f.says(t, 0, []string{"pod shop/reviews-v1-2 on node-2", "captured: yes"}, append([]string{"explain", "shop/reviews-v1-2"}, from...)...)
		f.says(t, 0, []string{"from: shop/batch-1", "DENIED with 403", "TrafficTarget shop/reviews"},
			append([]string{"explain", "--from", "shop/batch-1", "--url", "http://reviews/api/1"}, from...)...)
	}
	f.says(t, 0, []string{"Nothing would change", "--dry-run"}, "swap", "shop", "--to", "smi", "--dry-run")
	f.says(t, 1, []string{"shop/reviews:80", "VirtualService shop/reviews"}, "diff", "testdata/shop-half.yaml")
	f.says(t, 2, []string{"there is no agent on node node-3; there are some on node-1, node-2"}, "status", "--node", "node-3")

	t.Run("an agent that hangs", func(t *testing.T) {
		const agent = `kill -%s $(ps -e -o pid=,args= | awk '/fairlead agent --node/ && !/awk/ {print $1}')`
		f.on(t, "node-1", "sh", "-c", fmt.Sprintf(agent, "STOP"))
		begun := time.Now()
		f.says(t, 1, []string{"node          node-2", "it has not answered for 20s"}, "status")
		f.says(t, 0, []string{"shop/reviews:80", "owner: istio"}, "explain", "--live", "shop/reviews")
		f.says(t, 1, []string{"nothing was written", "mend that, or swap unwatched"}, "swap", "shop", "--to", "smi")
		t.Logf("three commands took %s", time.Since(begun).Round(time.Second))
		f.on(t, "node-1", "sh", "-c", fmt.Sprintf(agent, "CONT")+" || true") // unless kubelet has ended it meanwhile
		eventually(t, 3*time.Minute, "the agent is back", func() error {
			if out, said, code := f.fairlead(t, "status", "--node", "node-1"); code != 0 {
				return fmt.Errorf("%s%s", out, said)
			}
			return nil
		})
	})

	f.says(t, 0, []string{"from istio (by default) to smi", "swap shop --back --kubeconfig "}, "swap", "shop", "--to", "smi", "--watch", "5s", "-o", "table")
	f.owned(t, "smi", "istio")
	f.says(t, 0, []string{"back from smi"}, "swap", "shop", "--back", "--watch", "0")
	if out, err := f.c.tryHelm(t.Context(), "install", release, chart, "--namespace", "fairlead-second", "--create-namespace"); err == nil || !strings.Contains(out, "cannot be imported into the current release") {
		t.Errorf("a second installation, by Helm: %v: %s", err, out)
	}
	f.c.kubectl(t, "delete", "namespace", "fairlead-second", "--ignore-not-found", "--wait=false")
	f.says(t, 1, []string{"another installation", "DaemonSet fairlead-system/fairlead-agent", "nothing was installed"}, "install", "--namespace", "fairlead-third")
	f.says(t, 0, []string{"waiting for fairlead-agent to end", "Fairlead is gone"}, "uninstall")
	for _, n := range nodes {
		sameState(t, n, before[n], f.state(t, n))
	}
	f.says(t, 0, []string{"there was no installation in namespace fairlead-system"}, "uninstall") // again, where there is nothing
}
