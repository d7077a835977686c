// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"net/netip"
	"testing"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

// Which way a connection goes is said by the closest name, as for its cluster: of the
// class before that of all, of the pattern before a wider one, of the range before one
// around it. So those that go straight are among them.
func TestClosestTunnel(t *testing.T) {
	to := func(host string) *model.Tunnel { return &model.Tunnel{Host: host, Port: 443} }
	at, wide, narrow := netip.MustParsePrefix("10.96.0.1/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16")
	for name, c := range map[string]struct {
		l    plan.Listener
		want map[string]string // by the name of the chain; those without are left out
	}{
		"pattern": {plan.Listener{Mode: plan.TLS, ServerNames: []string{"*.com", "a.x.com", "b.com", "c.org"}, Tunnels: []plan.Tunnelled{
			{At: at, Port: 443, Cluster: "tls|*.com||10.96.0.1:443", Tunnel: to("wide")}, {At: at, Port: 443, Cluster: "tls|b.com||10.96.0.1:443"}}},
			map[string]string{"10.96.0.1:443 *.com": "wide:443", "10.96.0.1:443 a.x.com": "wide:443"}},
		"class": {plan.Listener{Mode: plan.Opaque, Class: "c", Tunnels: []plan.Tunnelled{
			{At: at, Port: 80, Cluster: "tcp|c|10.96.0.1:80", Tunnel: to("own")}, {At: at, Port: 80, Cluster: "tcp||10.96.0.1:80", Tunnel: to("all")}}},
			map[string]string{"10.96.0.1:80 ": "own:443"}},
		"not of requests": {plan.Listener{Mode: plan.Detect, Tunnels: []plan.Tunnelled{{At: at, Port: 80, Cluster: "tcp||10.96.0.1:80", Tunnel: to("a")}}},
			map[string]string{"10.96.0.1:80 ": "a:443", "10.96.0.1:80 raw": "a:443"}},
		"range": {plan.Listener{Mode: plan.AnyOpaque, Ranges: []netip.Prefix{wide, narrow}, Tunnels: []plan.Tunnelled{
			{At: wide, Port: 80, Cluster: "tcp||10.0.0.0/8:80", Tunnel: to("wide")}}},
			map[string]string{":80 10.0.0.0/8": "wide:443", ":80 10.1.0.0/16": "wide:443"}},
		"straight in a range of a range": {plan.Listener{Mode: plan.AnyOpaque, Ranges: []netip.Prefix{wide, narrow}, Tunnels: []plan.Tunnelled{
			{At: wide, Port: 80, Cluster: "tcp||10.0.0.0/8:80", Tunnel: to("wide")}, {At: narrow, Port: 80, Cluster: "tcp||10.1.0.0/16:80"}}},
			map[string]string{":80 10.0.0.0/8": "wide:443"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.l.Name = "l"
			r, err := render.Listener(&c.l, 1)
			if err != nil {
				t.Fatal(err)
			}
			var m listener.Listener
			if err := proto.Unmarshal(r.Body, &m); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, chain := range append(m.FilterChains, m.DefaultFilterChain) {
				for _, f := range chain.GetFilters() {
					var p tcpproxy.TcpProxy
					if f.GetTypedConfig().UnmarshalTo(&p) == nil && p.TunnelingConfig != nil {
						got[chain.Name] = p.TunnelingConfig.Hostname
					}
				}
			}
			for k, v := range c.want {
				if got[k] != v {
					t.Errorf("%q: %q, want %q", k, got[k], v)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestBadTunnels(t *testing.T) {
	good := plan.Tunnelled{At: netip.MustParsePrefix("10.96.0.1/32"), Port: 80, Cluster: "tcp||10.96.0.1:80", Tunnel: &model.Tunnel{Host: "A.example", Port: 1}}
	for want, change := range map[string]func(*plan.Listener, *plan.Tunnelled){
		"":                      func(*plan.Listener, *plan.Tunnelled) {},
		`tunnels, and`:          func(l *plan.Listener, _ *plan.Tunnelled) { l.Mode = plan.HTTP },
		`at 10.96.0.0/16, port`: func(_ *plan.Listener, t *plan.Tunnelled) { t.At = netip.MustParsePrefix("10.96.0.0/16") },
		`at 10.96.0.1/8, port`: func(l *plan.Listener, t *plan.Tunnelled) {
			l.Mode, t.At = plan.AnyOpaque, netip.MustParsePrefix("10.96.0.1/8")
		},
		`port 0, and of mode`:     func(_ *plan.Listener, t *plan.Tunnelled) { t.Port = 0 },
		`a tunnel of "web"`:       func(_ *plan.Listener, t *plan.Tunnelled) { t.Cluster = "web" },
		`leads to "%REQ(a)%"`:     func(_ *plan.Listener, t *plan.Tunnelled) { t.Tunnel = &model.Tunnel{Host: "%REQ(a)%", Port: 1} },
		`leads to "a:1"`:          func(_ *plan.Listener, t *plan.Tunnelled) { t.Tunnel = &model.Tunnel{Host: "a:1", Port: 1} },
		`leads to "a", port 0`:    func(_ *plan.Listener, t *plan.Tunnelled) { t.Tunnel = &model.Tunnel{Host: "a"} },
		`leads to "*.example", p`: func(_ *plan.Listener, t *plan.Tunnelled) { t.Tunnel = &model.Tunnel{Host: "*.example", Port: 1} },
	} {
		l, tunnel := plan.Listener{Name: "l1", Mode: plan.Opaque}, good
		change(&l, &tunnel)
		l.Tunnels = []plan.Tunnelled{tunnel}
		_, err := render.Listener(&l, 1)
		if want != "" {
			check(t, err, "l1", want)
		} else if err != nil {
			t.Error(err)
		}
	}
}
