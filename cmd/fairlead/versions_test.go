// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/installed"
	"fairlead.io/fairlead/kube/lease"
	"fairlead.io/fairlead/proxy"
)

// Status tells of every part its version, and that they differ if they do.
func TestVersions(t *testing.T) {
	status := func(own, proxys, operators string, peers ...string) string {
		s := &nodeStatus{Status: &agent.Status{Node: "a", Version: own, Proxy: &proxy.Status{Version: proxys}, Lease: &lease.Status{}},
			Operator: &installed.Operator{Holder: "op", Version: operators, Renewed: time.Now()}}
		for i, v := range peers {
			s.Peers = append(s.Peers, kube.Peer{Node: string(rune('b' + i)), Version: v})
		}
		var out bytes.Buffer
		if err := printStatus(&out, s); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out.String()), " ")
	}
	same := status("v1", "v1", "v1", "v1", "v1")
	for _, want := range []string{"agent version v1, up", "proxy version v1", "operator version v1, op leads"} {
		if !strings.Contains(same, want) {
			t.Errorf("%q is not in %s", want, same)
		}
	}
	if strings.Contains(same, "DIFFERENT") {
		t.Errorf("all are the same: %s", same)
	}
	for want, got := range map[string]string{
		"v1 (this agent), v2 (node b)":                        status("v1", "v1", "v1", "v2"),
		"v1 (this agent, node b), v2 (this proxy)":            status("v1", "v2", "v1", "v1"),
		"v1 (this agent, node b), v2 (the operator)":          status("v1", "v1", "v2", "v1"),
		"unknown (node b, node c, 2 others), v1 (this agent)": status("v1", "v1", "v1", "", "", "", ""),
	} {
		if !strings.Contains(got, "DIFFERENT ones run side by side: "+want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if r := fairlead(t, "", "version", "-o", "json"); r.code != 0 || !strings.Contains(r.out, `"version": "`) {
		t.Errorf("fairlead version: %+v", r)
	}
}

// Times are told by the clock that they are of, and one that is wrong is told.
func TestStatusWithAnotherClock(t *testing.T) {
	for skew, want := range map[time.Duration][2]string{
		0:          {"", "op leads, and said so 5s ago"},
		time.Hour:  {"clock is 1h0m0s ahead of this machine's: set the one that is wrong", "op leads; its node's clock is 59m55s ahead of this machine's: set the one that is wrong"},
		-time.Hour: {"clock is 1h0m0s behind this machine's: set the one that is wrong", "op leads, and said so 1h0m5s ago: its node's clock is behind this machine's, or no operator runs; kubectl get pods -n fairlead-system tells"},
	} {
		synctest.Test(t, func(t *testing.T) {
			theirs := time.Now().Add(skew)
			said := theirs.Add(-5 * time.Second)
			s := &nodeStatus{Status: &agent.Status{Node: "a", Time: theirs, Lease: &lease.Status{Name: "fairlead-system/a", Renewed: said, Duration: 15 * time.Second}},
				Operator: &installed.Operator{Namespace: "fairlead-system", Holder: "op", Renewed: said}}
			s.Peers = []kube.Peer{{Node: "b", Since: said, Heard: said}}
			s.APIServer = &kube.Health{Problems: []kube.Problem{{Since: said}}}
			var out bytes.Buffer
			if err := printStatus(&out, s); err != nil {
				t.Fatal(err)
			}
			text := strings.Join(strings.Fields(out.String()), " ")
			for _, w := range append(want[:], "up to date; renewed 5s ago", "counts, for 5s", "heard of 5s ago", "API server for 5s") {
				if !strings.Contains(text, w) {
					t.Errorf("%s: %q is not in %s", skew, w, text)
				}
			}
			if skew == 0 && strings.Contains(text, "clock") {
				t.Errorf("clocks agree: %s", text)
			}
		})
	}
}
