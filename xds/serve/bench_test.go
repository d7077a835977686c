// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"fmt"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// services are n frontends, each with a cluster, endpoints, a route table and a scope.
func services(t testing.TB, n int) []xds.Resource {
	var all []xds.Resource
	for i := range n {
		name := fmt.Sprint("svc", i)
		sc := scope(t, name, name)
		all = append(all, resource(cds, name, 1), resource(eds, name, 1), routes(t, name, 1, name), sc)
	}
	return all
}

// BenchmarkLazy: a lazy server with 10,000 services of which a client uses 50.
func BenchmarkLazy(b *testing.B) {
	const n, used = 10_000, 50
	all := services(b, n)
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn}, all)
	connect := start(b, s)
	c := connect()
	take := func(done func(*discovery.DeltaDiscoveryResponse) bool) {
		b.Helper()
		for {
			m, _ := c.next()
			c.ack(m)
			if done(m) {
				return
			}
		}
	}
	of := func(typ string) func(*discovery.DeltaDiscoveryResponse) bool {
		return func(m *discovery.DeltaDiscoveryResponse) bool { return m.TypeUrl == typ }
	}
	c.subscribe(cds)
	take(of(cds))
	c.subscribe(srd)
	take(of(srd))
	for i := range used {
		c.subscribe(rds, fmt.Sprint("svc", i))
		take(of(rds))
	}
	time.Sleep(300 * time.Millisecond)
	version := 1

	b.Run("change of the unused", func(b *testing.B) {
		for b.Loop() {
			version++
			settled := false
			s.Apply(set(routes(b, "svc9999", version, "svc9999")), func(serve.Outcome) { settled = true })
			if !settled {
				b.Fatal("not settled")
			}
		}
	})
	b.Run("change of the used", func(b *testing.B) {
		for b.Loop() {
			version++
			settled := make(chan bool)
			s.Apply(set(routes(b, "svc7", version, "svc7")), func(serve.Outcome) { close(settled) })
			take(of(rds))
			<-settled
		}
	})
	b.Run("first request and eviction", func(b *testing.B) {
		alias := 0
		for b.Loop() {
			name := "svc900"
			if alias > 0 {
				name = fmt.Sprintf("svc900~%d", alias)
			}
			c.subscribe(rds, name)
			take(of(rds))
			s.Evict("svc900")
			take(of(srd))
			c.unsubscribe(rds, name)
			take(func(m *discovery.DeltaDiscoveryResponse) bool { return len(m.RemovedResources) > 0 })
			alias++
		}
	})
	b.Run("new client", func(b *testing.B) {
		for b.Loop() {
			d := connect()
			d.subscribe(cds)
			m, _ := d.next()
			d.ack(m)
			d.subscribe(srd)
			if m, _ := d.next(); len(m.Resources) != n {
				b.Fatal(len(m.Resources))
			}
			d.close()
		}
	})
}
