// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/proxy"
)

func TestStatusOfTheProxy(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name string
		in   agent.Status
		want []string
	}{
		{"no proxy", agent.Status{ProxyError: "ask the proxy: refused"}, []string{"envoy unknown: ask the proxy: refused"}},
		{"none runs", agent.Status{Proxy: &proxy.Status{Version: "v1", Envoy: proxy.EnvoyStatus{State: "stopped", Restarts: 3}, StateError: "no saved state"}}, []string{
			"proxy version v1", "envoy stopped", "envoy restarted after a crash: 3 times", "proxy configuration from the agent alone: no saved state",
			"routes 0 tables in use, 0 evicted"}},
		{"replaced", agent.Status{Proxy: &proxy.Status{
			Version: "v1",
			Envoy:   proxy.EnvoyStatus{PID: 12, State: "LIVE", Connected: true},
			Generations: []proxy.Generation{
				{Bank: 0, PID: 7, Role: proxy.Draining, Since: ago(3 * time.Second), Ready: true, State: "LIVE", Version: "1.40.0", Connections: 4},
				{Bank: 1, PID: 12, Role: proxy.Active, Since: ago(3 * time.Second), Ready: true, State: "LIVE", Version: "1.41.0"},
			},
			Replacement: &proxy.Replacement{State: proxy.ReplacementDone, Reason: "asked for", Began: ago(4 * time.Second), Ended: ago(3 * time.Second), Bank: 1, PID: 12},
			InUse:       50, Evicted: 7,
		}}, []string{
			"proxy version v1",
			"envoy draining for 3s, pid 7 in bank 0, LIVE, 1.40.0, 4 connections",
			"envoy active for 3s, pid 12 in bank 1, LIVE, 1.41.0",
			"replacement replaced in 1s (asked for): pid 12 in bank 1",
			"routes 50 tables in use, 7 evicted"}},
		{"in trouble", agent.Status{Proxy: &proxy.Status{
			Version: "v1",
			Envoy: proxy.EnvoyStatus{PID: 7, State: "silent", Connected: true, Restarts: 1,
				LastEnd: &proxy.EnvoyEnd{PID: 5, At: ago(time.Minute), Why: "out of memory: ended by the kernel at the limit of 256 MiB"}},
			Generations: []proxy.Generation{
				{Bank: 0, PID: 7, Role: proxy.Active, Since: ago(time.Minute), Ready: true, State: "silent", Trouble: "stopped by a signal for 1s"},
			},
			SaveError: "save state: no space left on device",
		}}, []string{
			"proxy version v1",
			"envoy active for 1m0s, pid 7 in bank 0, silent, trouble: stopped by a signal for 1s",
			"envoy restarted after a crash: 1 times",
			"envoy pid 5 was lost 1m0s ago: out of memory: ended by the kernel at the limit of 256 MiB",
			"proxy configuration is not saved, and is tried again; a proxy that is started now would begin with an older one: save state: no space left on device",
			"routes 0 tables in use, 0 evicted"}},
		{"being replaced", agent.Status{Proxy: &proxy.Status{
			Version: "v1",
			Envoy:   proxy.EnvoyStatus{PID: 7, State: "LIVE"},
			Generations: []proxy.Generation{
				{Bank: 0, PID: 7, Role: proxy.Active, Since: ago(time.Minute), Ready: true, State: "LIVE", Version: "1.40.0", Connections: 4},
				{Bank: 1, PID: 12, Role: proxy.Next, Since: ago(time.Second), State: "silent", Waits: "envoy is INITIALIZING"},
			},
			Replacement: &proxy.Replacement{State: proxy.ReplacementStarting, Reason: "asked for", Bank: 1, PID: 12},
		}}, []string{
			"proxy version v1",
			"envoy active for 1m0s, pid 7 in bank 0, LIVE, 1.40.0, 4 connections, not connected",
			"envoy next for 1s, pid 12 in bank 1, silent, not ready: envoy is INITIALIZING",
			"replacement being replaced (asked for): pid 12 in bank 1 gets ready",
			"routes 0 tables in use, 0 evicted"}},
	} {
		var got []string
		for _, r := range proxyRows(&c.in, now) {
			got = append(got, strings.Join(r, " "))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

func TestWrongUsageOfTheProxy(t *testing.T) {
	for args, want := range map[string]string{
		"proxy --node a --envoy /bin/true --drain-time 10ms": "want 1s or more",
		"proxy --envoy /bin/true":                            "needs --node",
		"proxy replace now":                                  "takes no arguments",
		"proxy ready now":                                    "takes no arguments",
	} {
		r := fairlead(t, "", strings.Fields(args)...)
		if r.code != exitUsage || !strings.Contains(r.err, want) || r.out != "" {
			t.Errorf("%s: exit %d, out %q, says %q; want 2 and %q", args, r.code, r.out, r.err, want)
		}
	}
	dir := t.TempDir()
	for _, probe := range []string{"ready", "alive"} {
		if r := fairlead(t, "", "proxy", probe, "--run", dir); r.code != 1 || !strings.Contains(r.err, "ask the proxy") || r.out != "" {
			t.Errorf("%s without a proxy: %+v", probe, r)
		}
	}
	if r := fairlead(t, "", "proxy", "replace", "--run", dir); r.code != 1 || !strings.Contains(r.err, "ask the proxy") {
		t.Errorf("without a proxy: %+v", r)
	}
}
