// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// randomResource is a table or scope out of few, so that they collide.
func randomResource(t testing.TB, r *rand.Rand) xds.Resource {
	table := fmt.Sprintf("t%d", r.IntN(6))
	if r.IntN(2) == 0 {
		keys := []string{
			fmt.Sprintf("10.0.0.%d:80", r.IntN(5)), fmt.Sprintf("[fd00::%d]:80", r.IntN(5)),
			plan.HostScopeKey(fmt.Sprintf("h%d.x", r.IntN(3)), 80, r.IntN(2) == 0), plan.HostScopeKey("*.x", 80, false),
			"any|80", "in|10.0.0.1:80", "tcp|10.0.0.1:80",
		}
		return rendered(t, &plan.Scope{Key: keys[r.IntN(len(keys))], RouteTable: table})[0]
	}
	rt := &plan.RouteTable{Name: table}
	if r.IntN(5) > 0 {
		rt.Elsewhere = &plan.Elsewhere{Port: uint16(80 + r.IntN(2)), Unknown: model.UnknownPass}
		for range r.IntN(4) {
			rt.Hosts = append(rt.Hosts, []string{"h0.x", "h1.x", "h2.x", "*.x", "*.y.x", "h0", "10.0.0.1", "[fd00::1]"}[r.IntN(8)])
		}
	}
	return rendered(t, rt)[0]
}

// However an index came about, it is what one is that was made at once of what is
// there, and nothing is left of what is gone. Changes take effect when Envoy has them,
// in whatever order it answers.
func TestIncrementalIsFromScratch(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		x := NewIndex()
		there := map[resource]xds.Resource{}
		var open []func(serve.Outcome)
		answer := func() {
			i := r.IntN(len(open))
			open[i](serve.Outcome{})
			open = slices.Delete(open, i, i+1)
		}
		for range 300 {
			var changes []serve.Change
			touched := map[resource]bool{}
			for range 1 + r.IntN(3) {
				res := randomResource(t, r)
				k := resource{res.Type, res.Name}
				if touched[k] {
					continue
				}
				touched[k] = true
				if r.IntN(3) == 0 {
					changes = append(changes, serve.Change{Type: res.Type, Name: res.Name})
					delete(there, k)
				} else {
					changes = append(changes, serve.Set(res))
					there[k] = res
				}
			}
			done, err := x.Take(changes)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, done)
			for len(open) > r.IntN(6) {
				answer()
			}
		}
		for len(open) > 0 {
			answer()
		}
		fresh := indexOf(t, slices.Collect(maps.Values(there))...)
		if got, want := x.dump(), fresh.dump(); got != want {
			t.Fatalf("seed %d: by changes:\n%s\nfrom scratch:\n%s", seed, got, want)
		}
		for k := range there {
			x.Delete(k.typ, k.name)
		}
		if left := x.dump(); left != "" {
			t.Fatalf("seed %d: left:\n%s", seed, left)
		}
	}
}

func resolved(x *Index, host string) string {
	key, _ := x.Resolve(Query{Host: host, Port: 80, Unknown: model.UnknownPass, Destination: netip.MustParseAddrPort("192.0.2.1:80")})
	return key
}

// No answer leads to what Envoy does not have.
func TestTake(t *testing.T) {
	web := rendered(t, service("shop", "web", 80, "10.96.0.1")...)
	more := rendered(t, &plan.RouteTable{Name: "shop/web:80", Hosts: []string{"web.shop", "api.shop"}, Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}})[0]
	take := func(x *Index, changes ...serve.Change) func(serve.Outcome) {
		t.Helper()
		done, err := x.Take(changes)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	check := func(x *Index, host, want string) {
		t.Helper()
		if got := resolved(x, host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	const vip, pass = "10.96.0.1:80", "pass"

	x := NewIndex()
	done := take(x, serve.Set(web[0]), serve.Set(web[1]))
	check(x, "web.shop", pass)
	done(serve.Outcome{})
	check(x, "web.shop", vip)

	// Superseded by a removal, and by another version whose answer comes first.
	first := take(x, serve.Set(more))
	gone := take(x, serve.Change{Type: xds.ScopeType, Name: vip})
	check(x, "web.shop", pass)
	gone(serve.Outcome{})
	again := take(x, serve.Set(web[0]), serve.Set(web[1]))
	again(serve.Outcome{})
	first(serve.Outcome{})
	check(x, "web.shop", vip)
	check(x, "api.shop", pass)

	// Rejected: Envoy goes on with the one before, or has a stand-in.
	bad := serve.Outcome{Rejected: []serve.Rejection{{Type: more.Type, Name: more.Name, Version: more.Version}}}
	take(x, serve.Set(more))(bad)
	check(x, "api.shop", pass)
	check(x, "web.shop", vip)
	take(x, serve.Change{Type: more.Type, Name: more.Name})(serve.Outcome{})
	take(x, serve.Set(more))(bad)
	check(x, "api.shop", vip)

	// What cannot be read is as if it had not come.
	for _, r := range []xds.Resource{
		{Type: xds.RouteType, Name: "shop/web:80", Version: "v", Body: []byte{0x12, 0x7f}},
		{Type: xds.ScopeType, Name: vip, Version: "v", Body: []byte("x")},
		{Type: xds.ScopeType, Name: vip, Version: "v"},
	} {
		done, err := x.Take([]serve.Change{serve.Set(r)})
		if err == nil || !strings.Contains(err.Error(), r.Name) {
			t.Errorf("%+v: %v", r, err)
		}
		done(serve.Outcome{})
		if err := x.Set(r); err == nil {
			t.Errorf("%+v is taken", r)
		}
	}
	check(x, "api.shop", vip)
	if err := x.Set(xds.Resource{Type: xds.ClusterType, Name: "c", Body: []byte("x")}); err != nil {
		t.Error(err)
	}
}

func FuzzSet(f *testing.F) {
	for _, r := range rendered(f, world()...) {
		f.Add(r.Type == xds.RouteType, r.Name, r.Body)
	}
	f.Fuzz(func(t *testing.T, table bool, name string, body []byte) {
		r := xds.Resource{Type: xds.ScopeType, Name: name, Body: body}
		if table {
			r.Type = xds.RouteType
		}
		x := NewIndex()
		if x.Set(r) != nil && x.dump() != "" {
			t.Fatal("an error left something")
		}
		x.Delete(r.Type, r.Name)
		if left := x.dump(); left != "" {
			t.Fatalf("left: %s", left)
		}
	})
}

// many are n services with both families.
func many(t testing.TB, n int) []xds.Resource {
	var all []any
	for i := range n {
		all = append(all, service(fmt.Sprintf("team-%d", i%100), fmt.Sprintf("service-%d", i), 80,
			fmt.Sprintf("10.96.%d.%d", i/250, i%250), fmt.Sprintf("fd96::%x", i+1))...)
	}
	return rendered(t, all...)
}

func BenchmarkIndex(b *testing.B) {
	const n = 10_000
	rs := many(b, n)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b.Run("all", func(b *testing.B) {
		before := heap()
		var x *Index
		for b.Loop() {
			x = indexOf(b, rs...)
		}
		b.ReportMetric(float64(heap()-before)/n, "B/service")
		runtime.KeepAlive(x)
	})
	// Of one service among 10 and among 10,000: a table that changes its routes, one
	// that changes its names, and a service that goes and comes.
	for _, n := range []int{10, n} {
		x := indexOf(b, rs[:4*n]...)
		i := 4 * (n / 2)
		renamed := rendered(b, &plan.RouteTable{Name: rs[i].Name, Hosts: []string{"other.shop"}, Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}})[0]
		set := func(b *testing.B, r xds.Resource) {
			if err := x.Set(r); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("routes/%d", n), func(b *testing.B) {
			for b.Loop() {
				set(b, rs[i])
			}
		})
		b.Run(fmt.Sprintf("names/%d", n), func(b *testing.B) {
			for b.Loop() {
				set(b, renamed)
				set(b, rs[i])
			}
		})
		b.Run(fmt.Sprintf("service/%d", n), func(b *testing.B) {
			for b.Loop() {
				for _, r := range rs[i : i+4] {
					x.Delete(r.Type, r.Name)
				}
				for _, r := range rs[i : i+4] {
					set(b, r)
				}
			}
		})
	}
}
