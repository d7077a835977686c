// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

func through(target string) *model.TrafficPolicy {
	return &model.TrafficPolicy{Tunnel: &model.Tunnel{Host: target, Port: 443}}
}

func led(service string, weight uint32, p *model.TrafficPolicy) model.Backend {
	b := to(service, weight)
	b.Policy = p
	return b
}

// ways prints what listeners know of tunnels.
func ways(s *incr.Store) []string {
	var out []string
	for _, r := range s.Rows(plan.Listeners) {
		l := r.Value.(*plan.Listener)
		for _, t := range l.Tunnels {
			to := "straight"
			if t.Tunnel != nil {
				to = t.Tunnel.Host
			}
			at := plan.RangePort(t.At, t.Port)
			if l.Mode != plan.AnyDetect {
				at = netip.AddrPortFrom(t.At.Addr(), t.Port).String()
			}
			out = append(out, fmt.Sprintf("%s %s %s %s", l.Mode, at, strings.ReplaceAll(t.Cluster, l.Class, "class"), to))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Connections that are led on go to the proxy, which knows it of exactly those clients and
// server names that it holds for; where none are, nothing is different.
func TestTunnels(t *testing.T) {
	const at = "10.96.0.9:5432"
	for name, c := range map[string]struct {
		f    model.Frontend
		mode plan.Mode
		want []string
	}{
		"the service itself": {model.Frontend{Backends: []model.Backend{led("db", 1, through("a.example"))}}, plan.Opaque,
			[]string{"opaque " + at + " tcp||" + at + " a.example"}},
		"no tunnel": {model.Frontend{Backends: []model.Backend{led("db", 1, &model.TrafficPolicy{Limits: model.Limits{Connections: 1}})}}, plan.Opaque, nil},
		"split, as the first that is there": {model.Frontend{Backends: []model.Backend{{Namespace: "shop", Service: "no", Port: 1, Weight: 1, Missing: true},
			led("db", 1, through("a.example")), led("db2", 1, through("b.example"))}}, plan.Opaque,
			[]string{"opaque " + at + " tcp||" + at + " a.example"}},
		"of some clients": {model.Frontend{Connections: []model.ConnectionRoute{
			{SourceLabels: map[string]string{"v": "1"}, Backends: []model.Backend{led("db2", 1, through("a.example"))}},
			{Backends: []model.Backend{to("db", 1)}}}}, plan.Opaque,
			[]string{"opaque " + at + " tcp|class|" + at + " a.example", "opaque " + at + " tcp|class|" + at + " straight"}},
		"by server name": {model.Frontend{Connections: []model.ConnectionRoute{
			{ServerNames: []string{"*.example"}, Backends: []model.Backend{led("db2", 1, through("a.example"))}},
			{ServerNames: []string{"x.example"}, Backends: []model.Backend{to("db", 1)}}}}, plan.TLS,
			[]string{"tls " + at + " tls|*.example||" + at + " a.example", "tls " + at + " tls|x.example||" + at + " straight"}},
		"not of requests": {model.Frontend{App: model.AppDetect, Connections: []model.ConnectionRoute{
			{Backends: []model.Backend{led("db2", 1, through("a.example"))}}}}, plan.Detect,
			[]string{"detect " + at + " tcp||" + at + " a.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(database(c.f)...)
			if got := s.Get(plan.Services, "TCP/"+at).(*plan.Service).Mode; got != c.mode {
				t.Errorf("mode %s, want %s", got, c.mode)
			}
			check(t, ways(s), c.want...)
		})
	}
}

// At addresses that nobody has, and in ranges, tunnels are told apart by the port; all ways
// of the port count, because a wider range may stand in for one that says nothing.
func TestTunnelsInRanges(t *testing.T) {
	any := service("any", "10.96.0.50", 443, model.AppTLS)
	s := any.value.(*model.Service)
	s.VIPs, s.MeshOnly, s.Reach = nil, true, model.ReachAnywhere
	ranged := service("ranged", "10.96.0.51", 443, model.AppTLS)
	s = ranged.value.(*model.Service)
	s.VIPs, s.MeshOnly, s.Ranges = nil, true, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	route := func(of string, p *model.TrafficPolicy) input {
		return frontend("red", model.Frontend{Service: of, Port: 443, App: model.AppTLS, Connections: []model.ConnectionRoute{
			{ServerNames: []string{of + ".example"}, Backends: []model.Backend{led("db", 1, p)}}}})
	}
	rows := append(database(model.Frontend{Backends: []model.Backend{to("db", 1)}}), any, ranged)
	check(t, ways(store(append(slices.Clone(rows), route("any", nil), route("ranged", nil))...)))
	got := ways(store(append(slices.Clone(rows), route("any", through("a.example")), route("ranged", nil))...))
	for _, want := range []string{
		"any-detect 0.0.0.0/0:443 tls|any.example||0.0.0.0/0:443 a.example",
		"any-detect 0.0.0.0/0:443 tls|||0.0.0.0/0:443 straight",
		"any-detect 10.1.0.0/16:443 tls|ranged.example||10.1.0.0/16:443 straight",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing of %q", want, got)
		}
	}
}
