// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/proxy"
)

// The status names the namespace whose Envoy it is that crashed, rejected or hangs.
func TestOwnRows(t *testing.T) {
	now := time.Unix(1000, 0)
	rows := ownRows([]agent.OwnStatus{{
		Namespace: "shop", UID: 15100, Memory: 512 << 20, Problem: "no Envoy is connected",
		Rejected: []agent.Rejected{{Type: "Cluster", Name: "shop/web:80", Detail: "bad", Serving: agent.LastGood}},
		Proxy: &proxy.Status{Envoy: proxy.EnvoyStatus{PID: 7, Restarts: 2}, Generations: []proxy.Generation{
			{Bank: 1, PID: 7, Role: proxy.Active, Since: now.Add(-time.Minute), Ready: true, State: "LIVE", Version: "1.40.0"}}},
	}}, now)
	var got []string
	for _, r := range rows {
		got = append(got, strings.Join(r, ": "))
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{
		"envoy of shop: not as wanted: no Envoy is connected",
		"envoy of shop: rejected Cluster shop/web:80: bad; serving last good",
		"envoy of shop: active for 1m0s, pid 7 in bank 1",
		"user 15100, 512 MiB",
		"envoy of shop: restarted after a crash: 2 times",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
