// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"net/netip"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

// world has services of two namespaces, in both families or one, headless ones, hosts
// without service, and what no host leads to.
func world() []any {
	return rows(
		service("shop", "web", 80, "10.96.0.1", "fd96::1"),
		service("shop", "web", 8080, "10.96.0.1", "fd96::1"),
		service("bank", "web", 80, "10.96.0.2"),
		service("bank", "v6", 80, "fd96::3"),
		service("shop", "admin", 9090, "10.96.0.5", "fd96::5"),
		headless("shop", "peers", 80, 8080, "10.244.1.7", "10.244.1.8"),
		external("shop", "www.example.com", 80),
		external("shop", "*.example.com", 80),
		external("bank", "*.api.example.com", 80),
		external("shop", "single", 80),
		external("shop", "other.shop", 80),
		other())
}

func TestResolve(t *testing.T) {
	x := indexOf(t, rendered(t, world()...)...)
	const (
		web, web6, bank = "10.96.0.1:80", "[fd96::1]:80", "10.96.0.2:80"
		peers, peers6   = "host|peers.shop.svc.cluster.local:80", "host|peers.shop.svc.cluster.local:80@6"
		outside         = "192.0.2.1:80"
		pass, refused   = "pass", "refused"
		inShop, inBank  = "spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/bank/sa/b"
	)
	for _, c := range []struct {
		host, dst, client, want string
		port                    uint16 // 0: 80
	}{
		{host: "web.bank", dst: web, want: bank},
		{host: "web.bank.svc.cluster.local", dst: web, want: bank},
		{host: "WEB.Bank.svc:9999", dst: web, want: bank},
		{host: "web.bank.:80", dst: web, want: pass}, // Envoy takes the dot off; a second one is no name of its
		{host: "10.96.0.2", dst: web, want: bank},
		{host: "10.96.0.2:8080", dst: web, want: bank},
		{host: "web.shop", dst: web6, want: pass}, // its own, which Envoy does not know yet
		{host: "web.shop", dst: "[fd96::3]:80", want: web6},
		{host: "[fd96::1]", dst: "[fd96::3]:80", want: web6},
		{host: "[fd96::1]:80", dst: "[fd96::3]:80", want: web6},
		{host: "[FD96::1]:80", dst: "[fd96::3]:80", want: web6},
		{host: "[fd96:0::1]", dst: "[fd96::3]:80", want: pass}, // no domain that Envoy compares
		{host: "[fd96:0::3]", dst: "[fd96::3]:80", want: pass}, // its own
		{host: "[fd96::1]", dst: bank, want: web},              // a name like others
		{host: "web.shop", dst: "[::ffff:10.96.0.2]:80", want: web},

		// The frontend's port counts, not the request's.
		{host: "web.shop:80", dst: "10.96.0.5:9090", port: 9090, want: pass},
		{host: "admin.shop:9090", dst: web, want: pass},
		{host: "admin.shop", dst: "10.96.0.1:8080", port: 9090, want: "10.96.0.5:9090"},

		// A name alone is the client's namespace's.
		{host: "web", dst: "10.96.0.5:80", client: inShop, want: web},
		{host: "WEB:80", dst: "10.96.0.5:80", client: inBank, want: bank},
		{host: "web", dst: "10.96.0.5:80", want: pass},
		{host: "web", dst: "10.96.0.5:80", client: "-", want: pass},
		{host: "web", dst: "10.96.0.5:80", client: "spiffe://cluster.local/ns/elsewhere/sa/a", want: pass},
		{host: "peers", dst: web, client: inShop, want: peers},
		{host: "single", dst: web, client: inShop, want: "host|single:80"},
		{host: "single", dst: web, want: "host|single:80"},
		{host: "v6", dst: web, client: inBank, want: refused},
		{host: "pod-0.peers", dst: web, client: inShop, want: peers},
		{host: "a.b.peers", dst: web6, client: inShop, want: peers6},
		{host: "pod-0.peers", dst: web, client: inBank, want: pass},
		{host: "pod-0.peers", dst: web, want: pass},
		{host: "pod-0.peers.svc", dst: web, client: inShop, want: pass},
		{host: "www.example", dst: web, client: "spiffe://cluster.local/ns/com/sa/a", want: pass},
		{host: "a.example", dst: web, client: "spiffe://cluster.local/ns/com/sa/a", want: pass},
		{host: "other", dst: web, client: inShop, want: pass}, // other.shop is no service

		// Not of the client's family.
		{host: "web.bank", dst: web6, want: refused},
		{host: "v6.bank", dst: web, want: refused},
		{host: "v6.bank", dst: outside, want: refused},

		// Headless.
		{host: "peers.shop", dst: web, want: peers},
		{host: "peers.shop", dst: web6, want: peers6},
		{host: "pod-0.peers.shop.svc.cluster.local", dst: web, want: peers},
		{host: "a.b.peers.shop", dst: web, want: peers},
		{host: "peers.shop", dst: web, port: 8080, want: pass},
		{host: "xpeers.shop", dst: web, want: pass},
		{host: "10.244.1.7:8080", dst: "10.244.1.7:8080", want: pass}, // its own
		{host: "10.244.1.8:8080", dst: "10.244.1.7:8080", want: pass},
		{host: "web.shop", dst: "10.244.1.7:8080", want: web},

		// Without service.
		{host: "www.example.com", dst: outside, want: "host|www.example.com:80"},
		{host: "www.example.com", dst: "[2001:db8::1]:80", want: "host|www.example.com:80@6"},
		{host: "x.example.com", dst: outside, want: "host|*.example.com:80"},
		{host: "x.y.example.com", dst: outside, want: "host|*.example.com:80"},
		{host: "x.api.example.com", dst: web, want: "host|*.api.example.com:80"},
		{host: "example.com", dst: outside, want: pass},
		{host: "www.example.com", dst: outside, port: 443, want: pass},
		{host: "web.shop", dst: outside, want: web},

		// Unknown.
		{host: "nowhere.test", dst: web, want: pass},
		{host: "192.0.2.1", dst: outside, want: pass},
		{host: "10.96.0.9:80", dst: web, want: pass},
		{host: "", dst: web, want: pass},
		{host: render.NoHost, dst: web, want: pass},
		{host: render.NoHost, dst: outside, want: pass},
		{host: "web.shop,web.bank", dst: web, want: pass},
		{host: "*.example.com", dst: web, want: pass},
		{host: "*", dst: web, want: pass},
		{host: "..", dst: web, want: pass},
		{host: strings.Repeat("a.", 5000) + "example.com", dst: web, want: pass},

		// Keys are no names.
		{host: "pass", dst: web, want: pass},
		{host: "any|80", dst: web, want: pass},
		{host: "in|10.244.1.2:80", dst: web, want: pass},
		{host: "tcp|10.96.0.3:80", dst: web, want: pass},
		{host: "host|www.example.com:80", dst: web, want: pass},
		{host: "10.244.1.2:80", dst: web, want: pass},
		{host: "10.96.0.3:80", dst: web, want: pass},
		{host: "10.96.0.4:80", dst: web, want: pass}, // of a frontend by destination
	} {
		if c.port == 0 {
			c.port = 80
		}
		for _, unknown := range []model.Unknown{model.UnknownPass, model.UnknownRefuse, ""} {
			q := Query{Host: c.host, Port: c.port, Unknown: unknown, Destination: netip.MustParseAddrPort(c.dst), Client: c.client}
			key, o := x.Resolve(q)
			want := c.want
			h, _ := parseHost(c.host)
			own := h.addr.IsValid() && h.addr == q.Destination.Addr() && c.dst != outside
			if want == pass && unknown != model.UnknownPass && !own {
				want = refused
			}
			got := key
			if o == Refused || o == Unreachable {
				got += refused
			}
			if got != want || (o == Passed) != (want == pass) || (o == Unreachable) != (c.want == refused) {
				t.Errorf("%.60q to %s at %d by %q, unknown %q: %q (%d), want %q", c.host, c.dst, c.port, c.client, unknown, got, o, want)
			}
		}
	}
}

// Two that have the same host: the first by the name of its table that clients of the
// family can reach, whichever came first.
func TestSameHost(t *testing.T) {
	at := func(table, key string, hosts ...string) []any {
		return []any{
			&plan.RouteTable{Name: table, Hosts: hosts, Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}},
			&plan.Scope{Key: key, RouteTable: table},
		}
	}
	all := rows(
		at("b/x:80", "10.96.0.2:80", "api.example.com", "*.a.example.com"),
		at("a/x:80", "10.96.0.3:80", "api.example.com", "*.example.com", "*.b.example.com"),
		at("c/x:80@6", "[fd96::1]:80", "api.example.com"),
		at("d/x:80", "10.96.0.4:80", "other"))
	rs := rendered(t, all...)
	for _, reverse := range []bool{false, true} {
		x := NewIndex()
		for i := range rs {
			if reverse {
				i = len(rs) - 1 - i
			}
			if err := x.Set(rs[i]); err != nil {
				t.Fatal(err)
			}
		}
		check := func(host, dst, want string) {
			t.Helper()
			key, _ := x.Resolve(Query{Host: host, Port: 80, Unknown: model.UnknownPass, Destination: netip.MustParseAddrPort(dst)})
			if key != want {
				t.Errorf("%s to %s: %q, want %q", host, dst, key, want)
			}
		}
		check("api.example.com", "10.96.0.4:80", "10.96.0.3:80")
		check("api.example.com", "[fd96::9]:80", "[fd96::1]:80")
		check("www.a.example.com", "10.96.0.4:80", "10.96.0.2:80") // the longer suffix
		check("a.example.com", "10.96.0.4:80", "10.96.0.3:80")
		// The first one is unreachable while no scope leads to it.
		x.Delete(xds.ScopeType, "10.96.0.3:80")
		check("api.example.com", "10.96.0.4:80", "10.96.0.2:80")
		check("a.example.com", "10.96.0.4:80", "pass")
		x.Delete(xds.RouteType, "a/x:80")
		x.Delete(xds.RouteType, "b/x:80") // its stand-in answers for the address only
		check("api.example.com", "10.96.0.4:80", "")
	}
}

// Whatever is asked, the answer is a scope that Envoy has and whose routes take the
// host, or no scope of a frontend's.
func FuzzResolve(f *testing.F) {
	rs := rendered(f, world()...)
	x := indexOf(f, rs...)
	all := map[resource]xds.Resource{}
	for _, r := range rs {
		all[resource{r.Type, r.Name}] = r
	}
	e := envoyWith(f, all)
	for _, h := range []string{"web.bank", "WEB.shop:80", "[FD96::1]", "x.example.com", "peers", "pod.peers.shop.", "10.96.0.2:1", "in|10.244.1.2:80", "pass"} {
		for _, dst := range []string{"10.96.0.1:80", "[fd96::3]:80", "192.0.2.1:80", "10.244.1.7:8080"} {
			f.Add(h, dst, uint16(80), "spiffe://cluster.local/ns/shop/sa/a")
		}
	}
	f.Fuzz(func(t *testing.T, host, dst string, port uint16, client string) {
		d, err := netip.ParseAddrPort(dst)
		if err != nil {
			return
		}
		key, o := x.Resolve(Query{Host: host, Port: port, Unknown: model.UnknownRefuse, Destination: d, Client: client})
		switch o {
		case Passed:
			if h, _ := parseHost(host); key != "pass" || h.addr != d.Addr().Unmap() {
				t.Fatalf("%q to %s: %q", host, dst, key)
			}
		case Resolved:
			table, ok := e.scopes[key]
			if _, target := parseTarget(key); !ok || !target {
				t.Fatalf("%q to %s: %q is no scope", host, dst, key)
			}
			want := "own"
			if strings.Contains(table, "/host/") {
				want = "*"
			}
			if v := e.vhost(table, host); v != want {
				t.Fatalf("%q to %s: %q, where it gets virtual host %q", host, dst, key, v)
			}
			if table == e.scopes[dst] {
				t.Fatalf("%q to %s: back to %q", host, dst, key)
			}
		default:
			if key != "" {
				t.Fatalf("%q to %s: %q", host, dst, key)
			}
		}
	})
}
