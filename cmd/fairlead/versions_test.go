// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

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
			Operator: &installed.Operator{Holder: "op", Version: operators}}
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
