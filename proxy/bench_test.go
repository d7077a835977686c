// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// BenchmarkChangedRoute changes one route, which is in use, among 5,000 services: the
// time from the push until every worker of Envoy may serve it, through agent, proxy and
// Envoy's acknowledgement, and what Envoy was sent.
func BenchmarkChangedRoute(b *testing.B) {
	var all []any
	for i := range 5000 {
		name := fmt.Sprintf("shop/svc-%d:80", i)
		c := clusterOf(plan.Cluster{Name: name, App: model.AppHTTP, Checked: true}, serverA, serverB)
		all = append(all, c...)
		r := to(name)
		r.ID = "v0"
		all = append(all, &plan.RouteTable{Name: name, Routes: []plan.Route{r}},
			&plan.Scope{Key: plan.DestinationKey(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)), RouteTable: name})
	}
	r := newRig(b, resources(b, append(all, listeners()...)...)...)
	r.wantStatus(7, 503) // nobody is at the endpoints
	if n := r.status().InUse; n != 1 {
		b.Fatalf("%d tables in use", n)
	}
	table := func(v int) xds.Resource {
		route := to("shop/svc-7:80")
		route.ID = fmt.Sprint("v", v)
		return resources(b, &plan.RouteTable{Name: "shop/svc-7:80", Routes: []plan.Route{route}})[0]
	}
	push := func(v int) {
		ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
		defer cancel()
		if o, err := r.agent.Push(ctx, []serve.Change{serve.Set(table(v))}); err != nil || len(o.Rejected) > 0 {
			b.Fatal(o, err)
		}
	}
	push(1)
	before := r.status().Served.Counters
	v := 1
	for b.Loop() {
		v++
		push(v)
	}
	after := r.status().Served.Counters
	n := float64(v - 1)
	b.ReportMetric(float64(after.Bytes-before.Bytes)/n, "bytes/change")
	b.ReportMetric(float64(after.Resources-before.Resources)/n, "resources/change")
}
