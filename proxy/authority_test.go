// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
	"fairlead.io/fairlead/xds/serve"
)

// A pod of a headless service, and an address that is nobody's; clients' connections
// to them are redirected, and the proxy's are not.
const (
	peer, outside = "10.244.4.11:8080", "192.0.2.1:80"
	anyPort       = 15105
)

var authorityNetwork = sync.OnceValue(func() error {
	out, err := exec.Command("sh", "-ec", fmt.Sprintf(`
ip addr add 10.244.4.11/32 dev lo
ip addr add 192.0.2.1/32 dev lo
nft -f - <<'EOF'
table inet authority {
	chain out {
		type route hook output priority mangle
		ip daddr {10.244.4.11, 192.0.2.1} meta skuid 0 meta mark set 0x200
	}
	chain in {
		type filter hook prerouting priority mangle
		meta mark 0x200 meta l4proto tcp ip daddr 10.244.4.11 tproxy ip to 127.0.0.1:%d accept
		meta mark 0x200 meta l4proto tcp ip daddr 192.0.2.1 tproxy ip to 127.0.0.1:%d accept
	}
}
EOF`, alphaPort, anyPort)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// namedIn is the n-th service by its names, in both families or IPv4 alone.
func namedIn(ns, name string, n int, v6 bool, unknown model.Unknown, routes ...plan.Route) []any {
	hosts := []string{name + "." + ns + ".svc.cluster.local", name + "." + ns, name, strings.TrimSuffix(vip(n), ":80")}
	if v6 {
		hosts = append(hosts, strings.TrimSuffix(vip6(n), ":80"))
	}
	table := fmt.Sprintf("%s/%s:80", ns, name)
	elsewhere := &plan.Elsewhere{Port: 80, Unknown: unknown}
	out := []any{
		&plan.RouteTable{Name: table, Hosts: hosts, Elsewhere: elsewhere, Routes: routes},
		&plan.Scope{Key: vip(n), RouteTable: table},
	}
	if v6 {
		var routes6 []plan.Route
		for _, r := range routes {
			r.Clusters = []plan.WeightedCluster{{Name: r.Clusters[0].Name + "@6", Weight: 1}}
			routes6 = append(routes6, r)
		}
		out = append(out, &plan.RouteTable{Name: table + "@6", Hosts: hosts, Elsewhere: elsewhere, Routes: routes6},
			&plan.Scope{Key: vip6(n), RouteTable: table + "@6"})
	}
	return out
}

// The n-th services of authorityRig.
const (
	shopWeb, bankWeb, strict, byDestination, shopAPI = 1, 2, 3, 4, 5
)

// authorityRig has services by authority of two namespaces, of which shop/web and
// bank/web go to a and b; strict refuses what is unknown.
func authorityRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	if err := authorityNetwork(); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{serverA, serverB, serverA6, peer, outside} {
		server(t, a, nil)
	}
	pass, err := render.PassResources()
	if err != nil {
		t.Fatal(err)
	}
	anywhere, err := render.Listener(&plan.Listener{Name: "out/any/alpha", Mode: plan.Any, Identity: alphaID}, anyPort)
	if err != nil {
		t.Fatal(err)
	}
	peers := &plan.RouteTable{Name: "shop/peers:80", Hosts: []string{"peers.shop.svc.cluster.local", "peers.shop", "peers", "*.peers.shop", "*.peers"},
		Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownRefuse}, Routes: []plan.Route{to("b")}}
	r.push(rows(
		clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "b"}, serverB), clusterOf(plan.Cluster{Name: "a@6"}, serverA6),
		namedIn("shop", "web", shopWeb, true, model.UnknownPass, to("a")),
		namedIn("bank", "web", bankWeb, false, model.UnknownPass, to("b")),
		namedIn("shop", "strict", strict, true, model.UnknownRefuse, to("a")),
		[]any{&plan.RouteTable{Name: "smi", Routes: []plan.Route{to("a")}}, &plan.Scope{Key: vip(byDestination), RouteTable: "smi"}},
		[]any{peers, &plan.Scope{Key: peer, RouteTable: peers.Name}, &plan.Scope{Key: plan.HostScopeKey(peers.Hosts[0], 80, false), RouteTable: peers.Name}},
		[]any{&plan.RouteTable{Name: "host/example", Routes: []plan.Route{to("b")}}, &plan.Scope{Key: plan.HostScopeKey("*.example.com", 80, false), RouteTable: "host/example"}},
		[]any{&plan.RouteTable{Name: "any:80", Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}}, &plan.Scope{Key: plan.AnyKey(80), RouteTable: "any:80"}},
		[]any{pass[0], pass[1]},
		listeners(), []any{anywhere})...)
	return r
}

func TestAuthority(t *testing.T) {
	r := authorityRig(t)
	long := strings.Repeat("a.", 20000)
	want := authority.Counters{}
	for _, c := range []struct {
		from, dst, request string // without the end
		want               string // the server's address or a status
		counter            *uint64
	}{
		// Own names cost no question.
		{alpha, vip(shopWeb), "GET / HTTP/1.1\r\nhost: web.shop", serverA, nil},
		{alpha, vip(bankWeb), "GET / HTTP/1.1\r\nhost: WEB:8080", serverB, nil},
		{alpha, vip(shopWeb), "GET / HTTP/1.0", serverA, nil},
		{alpha, vip(byDestination), "GET / HTTP/1.1\r\nhost: web.bank", serverA, nil},

		// Other names are looked up, however they are written.
		{alpha, vip(shopWeb), "GET / HTTP/1.1\r\nhost: web.bank", serverB, &want.Resolved},
		{alpha, vip(shopWeb), "GET / HTTP/1.1\r\nhost: WEB.Bank:9999", serverB, &want.Resolved},
		{alpha, vip(shopWeb), "GET / HTTP/1.1\r\nhost: web.bank.", serverB, &want.Resolved},
		{alpha, vip(shopWeb), "GET / HTTP/1.1\r\nhost: web.bank.:80", serverB, &want.Resolved},
		{alpha, vip(shopWeb), "GET http://web.bank/ HTTP/1.1\r\nhost: web.shop", serverB, &want.Resolved},
		{alpha, vip(shopWeb), "GET / HTTP/1.0\r\nhost: web.bank", serverB, &want.Resolved},
		{alpha, vip(shopWeb), "GET / HTTP/1.1\r\nhost: 10.96.0.2:80", serverB, &want.Resolved},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: [fd96::1]", serverA, &want.Resolved},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: [FD96::1]:80", serverA, &want.Resolved},
		{alpha6, vip6(strict), "GET / HTTP/1.1\r\nhost: web.shop", serverA6, &want.Resolved},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: peers.shop", serverB, &want.Resolved},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: pod-0.peers.shop", serverB, &want.Resolved},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: x.y.example.com", serverB, &want.Resolved},

		// A name alone is of the client's namespace.
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: web", serverA, &want.Resolved},
		{beta, vip(strict), "GET / HTTP/1.1\r\nhost: web", serverB, &want.Resolved},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: pod-0.peers", serverB, &want.Resolved},
		{beta, vip(strict), "GET / HTTP/1.1\r\nhost: pod-0.peers", "502", &want.Refused},

		// To a pod by its address, and to an address that is nobody's.
		{alpha, peer, "GET / HTTP/1.1\r\nhost: peers.shop", serverB, nil},
		{alpha, peer, "GET / HTTP/1.1\r\nhost: " + peer, peer, &want.Passed},
		{alpha, peer, "GET / HTTP/1.1\r\nhost: web.shop", serverA, &want.Resolved},
		{alpha, outside, "GET / HTTP/1.1\r\nhost: www.example.com", serverB, &want.Resolved},
		{alpha, outside, "GET / HTTP/1.1\r\nhost: web.shop", serverA, &want.Resolved},
		{alpha, outside, "GET / HTTP/1.1\r\nhost: nowhere.test", outside, &want.Passed},
		{alpha, outside, "GET / HTTP/1.1\r\nhost: pass", outside, &want.Passed},
		{alpha, outside, "GET / HTTP/1.0", outside, &want.Passed},

		// Unknown, or not of the family. What is no host at all Envoy refuses itself.
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: nowhere.test", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: pass", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: 10.96.0.4", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: in|" + podC, "400", nil},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: any|80", "400", nil},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: host|*.example.com:80", "400", nil},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: *.example.com", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: web.bank..", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: [fd96:0::1]", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: web.shop\r\nhost: web.bank", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: ", "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: " + long, "502", &want.Refused},
		{alpha, vip(strict), "GET / HTTP/1.1\r\nhost: nowhere.test\r\nx-fl-dst: " + vip(shopWeb), "502", &want.Refused},
		{alpha6, vip6(strict), "GET / HTTP/1.1\r\nhost: web.bank", "502", &want.Refused},
		{alpha6, vip6(shopWeb), "GET / HTTP/1.1\r\nhost: web.bank", "502", &want.Refused},
	} {
		got, err := rawRequest(t.Context(), c.from, c.dst, c.request+"\r\nconnection: close\r\n\r\n")
		if err != nil {
			t.Errorf("%.80q to %s: %v", c.request, c.dst, err)
			continue
		}
		answer := got.Server
		if answer == "" {
			answer = fmt.Sprint(got.Status)
		}
		if answer != c.want {
			t.Errorf("%.80q from %s to %s: %s, want %s", c.request, c.from, c.dst, answer, c.want)
		}
		if c.counter != nil {
			*c.counter++
			want.Checks++
		}
	}
	if got := r.status().Authority; got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

// A name is there when its push is, and gone as soon; the routes of those that keep
// theirs are not touched. Nobody's request gets an answer in between.
func TestAuthorityFollowsChanges(t *testing.T) {
	r := authorityRig(t)
	ask := func(host string) int {
		t.Helper()
		return r.get(alpha, vip(strict), "/", "host: "+host).Status
	}
	for i := range 20 {
		if got := ask("api.shop"); got != 502 {
			t.Fatalf("round %d: without the service: %d", i, got)
		}
		rs := namedIn("shop", "api", shopAPI, true, model.UnknownPass, to("a"))
		r.push(rs...)
		if got := ask("api.shop"); got != 200 {
			t.Fatalf("round %d: with the service: %d", i, got)
		}
		rs[0].(*plan.RouteTable).Hosts = []string{"other.shop"}
		r.push(rs[0])
		if got := ask("other.shop"); got != 200 {
			t.Fatalf("round %d: by another name: %d", i, got)
		}
		if got := ask("api.shop"); got != 502 {
			t.Fatalf("round %d: by the name that it had: %d", i, got)
		}
		var gone []xds.Resource
		gone = append(gone, resources(t, rs...)...)
		r.remove(gone...)
		if got := ask("other.shop"); got != 502 {
			t.Fatalf("round %d: after the service has gone: %d", i, got)
		}
	}
	// A version that Envoy rejects changes no names.
	bad := badRoutes(t, "shop/web:80")
	if got := ask("web.shop"); got != 200 {
		t.Fatalf("before: %d", got)
	}
	if o := r.pushOutcome(bad); len(o.Rejected) != 1 {
		t.Fatalf("outcome %+v", o)
	}
	if got := ask("web.shop"); got != 200 {
		t.Errorf("after a version that was rejected: %d", got)
	}
}

// Requests wait while the proxy is away, many at once, and go on when it is back;
// those by own names do not notice.
func TestAuthorityOutlivesTheProxy(t *testing.T) {
	r := authorityRig(t)
	envoy := need.Envoy(t)
	r.waitFor("saved state", func() bool {
		saved, err := loadState(PathsIn(r.dir).State)
		return err == nil && len(saved.resources) == len(r.agent.Resources())
	})
	r.stop()
	helper := r.startHelper(envoy)
	r.wantStatus(shopWeb, 200)
	if got := r.get(alpha, vip(strict), "/", "host: web.bank"); got.Server != serverB {
		t.Fatalf("before: %+v", got)
	}
	helper.Process.Kill()
	helper.Wait()
	r.feed.Stop() // what the proxy has saved is enough
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			host, want := "web.bank", serverB
			if i%2 == 0 {
				host, want = "peers.shop", serverB
			}
			got, err := rawRequest(t.Context(), alpha, vip(strict), "GET / HTTP/1.1\r\nhost: "+host+"\r\nconnection: close\r\n\r\n")
			if err != nil || got.Server != want {
				t.Errorf("while the proxy was away: %d %s, %v", got.Status, got.Body, err)
			}
		})
	}
	for range 10 {
		began := time.Now()
		if got := r.get(alpha, vip(strict), "/", "host: strict.shop"); got.Server != serverA || time.Since(began) > time.Second {
			t.Errorf("own name: %d after %v", got.Status, time.Since(began))
		}
		time.Sleep(50 * time.Millisecond)
	}
	began := time.Now()
	r.startProxy(envoy)
	all.Wait()
	t.Logf("went on within %v of the start", time.Since(began))
}

// A proxy that has lost its state knows nobody's names until the agent has said
// everything: hosts are not unknown before.
func TestAuthorityWaitsForTheConfiguration(t *testing.T) {
	r := authorityRig(t)
	envoy := need.Envoy(t)
	everything := r.agent.Resources()
	r.stop()
	helper := r.startHelper(envoy)
	if got := r.get(alpha, vip(strict), "/", "host: web.bank"); got.Server != serverB {
		t.Fatalf("before: %+v", got)
	}
	helper.Process.Kill()
	helper.Wait()
	r.feed.Stop()
	if err := os.Remove(PathsIn(r.dir).State); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for {
				got, err := rawRequest(t.Context(), alpha, vip(strict), "GET / HTTP/1.1\r\nhost: web.bank\r\nconnection: close\r\n\r\n")
				if err == nil && got.Status == http.StatusServiceUnavailable {
					continue // nobody said so for too long
				}
				if err != nil || got.Server != serverB {
					t.Errorf("before the configuration is there: %d %s, %v", got.Status, got.Body, err)
				}
				return
			}
		})
	}
	all.Go(func() {
		time.Sleep(500 * time.Millisecond)
		r.startAgent(everything...)
	})
	r.startProxy(envoy)
	all.Wait()
}

// remove takes resources away.
func (r *rig) remove(all ...xds.Resource) {
	r.t.Helper()
	var changes []serve.Change
	for _, res := range all {
		changes = append(changes, serve.Change{Type: res.Type, Name: res.Name})
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := r.agent.Push(ctx, changes); err != nil {
		r.t.Fatal(err)
	}
}
