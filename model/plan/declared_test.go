// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// declared is a service that a mesh declares.
func declared(s model.Service) input {
	s.Namespace, s.MeshOnly = "shop", true
	return input{"service", s.Key(), &s}
}

func endpointsOf(service string, port uint16, es ...model.Endpoint) input {
	return input{"endpoints", "shop/" + service, &model.Endpoints{Namespace: "shop", Service: service,
		Ports: []model.EndpointsPort{{Port: port, Protocol: model.TCP, Backends: es}}}}
}

func tcpPort(n uint16, app model.App) model.ServicePort {
	return model.ServicePort{Port: n, Protocol: model.TCP, App: app}
}

func kernelService(t *testing.T, s *incr.Store, key string) *plan.Service {
	t.Helper()
	out, _ := s.Get(plan.Services, key).(*plan.Service)
	if out == nil {
		t.Fatalf("no service %s", key)
	}
	return out
}

func clusterNamed(t *testing.T, s *incr.Store, name string) *plan.Cluster {
	t.Helper()
	out, _ := s.Get(plan.Clusters, name).(*plan.Cluster)
	if out == nil {
		var all []string
		for _, r := range s.Rows(plan.Clusters) {
			all = append(all, r.Key)
		}
		t.Fatalf("no cluster %s among %q", name, all)
	}
	return out
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// What a mesh declares is balanced by proxies for captured clients, and left alone by the
// kernel for all others, whatever its protocol.
func TestDeclaredAtItsAddress(t *testing.T) {
	s := store(append(world(),
		declared(model.Service{Name: "db.example.com", Hosts: []string{"db.example.com"}, VIPs: []netip.Addr{addr("10.9.0.1")}, Reach: model.ReachNamed,
			Ports: []model.ServicePort{tcpPort(3306, model.AppTCP)}}),
		endpointsOf("db.example.com", 3306, model.Endpoint{Addr: addr("10.8.0.1"), Port: 3307, Weight: 3}),
	)...)
	got := kernelService(t, s, "TCP/10.9.0.1:3306")
	if got.Mode != plan.Opaque || !got.Direct || len(got.Backends) != 0 {
		t.Errorf("%+v", got)
	}
	clusterNamed(t, s, "tcp||10.9.0.1:3306")
	if got := s.Get(plan.Endpoints, "tcp||10.9.0.1:3306").(*plan.ClusterEndpoints).Backends; len(got) != 1 || got[0].Weight != 3 {
		t.Errorf("%+v", got)
	}
}

// Requests find a declared host at any address; the other ports are led by server name,
// or by the port alone.
func TestDeclaredAnywhere(t *testing.T) {
	s := store(append(world(),
		declared(model.Service{Name: "api.example.com", Hosts: []string{"api.example.com"}, Reach: model.ReachAnywhere, Resolution: model.ResolveDNS,
			Ports: []model.ServicePort{tcpPort(80, model.AppHTTP), tcpPort(443, model.AppTLS), tcpPort(9000, model.AppTCP), tcpPort(81, model.AppHTTP)}}),
		input{"endpoints", "shop/api.example.com", &model.Endpoints{Namespace: "shop", Service: "api.example.com", Ports: []model.EndpointsPort{
			{Port: 80, Protocol: model.TCP, Backends: []model.Endpoint{{Host: "api.example.com", Port: 8080}}},
			{Port: 443, Protocol: model.TCP, Backends: []model.Endpoint{{Host: "api.example.com", Port: 443}}},
			{Port: 9000, Protocol: model.TCP, Backends: []model.Endpoint{{Host: "api.example.com", Port: 9000}}},
		}}},
		frontend("red", model.Frontend{Service: "api.example.com", Port: 443, Connections: []model.ConnectionRoute{
			{ServerNames: []string{"api.example.com"}, Backends: []model.Backend{{Namespace: "shop", Service: "api.example.com", Port: 443, Weight: 1}}}}}),
		declared(model.Service{Name: "plain.example.com", Hosts: []string{"plain.example.com"}, Reach: model.ReachAnywhere, Resolution: model.ResolveOriginal,
			Ports: []model.ServicePort{{Port: 81, Protocol: model.TCP, App: model.AppTCP, Target: 8181}}}),
	)...)
	for key, want := range map[string]plan.Mode{
		"TCP/0.0.0.0:80": plan.Any, "TCP/[::]:80": plan.Any, "TCP/0.0.0.0:443": plan.AnyDetect, "TCP/0.0.0.0:9000": plan.AnyOpaque,
		"TCP/0.0.0.0:81": plan.AnyDetect, // HTTP and what is not
	} {
		if got := kernelService(t, s, key); got.Mode != want {
			t.Errorf("%s is of mode %s, want %s", key, got.Mode, want)
		}
	}
	for _, key := range []string{plan.HostScopeKey("api.example.com", 80, false), plan.HostScopeKey("api.example.com", 80, true), plan.AnyKey(80), plan.AnyKey(443)} {
		if s.Get(plan.Scopes, key) == nil {
			t.Errorf("no scope %s", key)
		}
	}
	if c := clusterNamed(t, s, "shop/api.example.com:80"); c.Names == nil || c.Names.One || c.Names.V6 || c.Names.Endpoints.Backends[0].Host != "api.example.com" {
		t.Errorf("%+v", c)
	}
	if c := clusterNamed(t, s, "shop/api.example.com:80@6"); !c.Names.V6 {
		t.Errorf("%+v", c)
	}
	if c := clusterNamed(t, s, "tls|api.example.com||0.0.0.0/0:443"); c.Names == nil || c.App != model.AppTCP {
		t.Errorf("%+v", c)
	}
	// Other names go on to where they were going.
	if c := clusterNamed(t, s, "tls|||::/0:443"); !c.Original || c.Port != 0 {
		t.Errorf("%+v", c)
	}
	clusterNamed(t, s, "tcp||::/0:9000")
	if c := clusterNamed(t, s, "tls|||0.0.0.0/0:81"); !c.Original || c.Port != 8181 {
		t.Errorf("%+v", c)
	}
	l := listenerOf(t, s, plan.AnyDetect)
	if !slices.Equal(l.ServerNames, []string{"api.example.com"}) || len(l.Ranges) != 0 {
		t.Errorf("%+v", l)
	}
}

// Where those who have a say refuse unknown hosts, connections that nobody takes are
// closed.
func TestDeclaredAnywhereRefused(t *testing.T) {
	s := store(append(world(), defaults("red", model.ByAuthority, model.UnknownRefuse),
		declared(model.Service{Name: "api.example.com", Hosts: []string{"api.example.com"}, Reach: model.ReachAnywhere, Resolution: model.ResolveOriginal,
			Ports: []model.ServicePort{tcpPort(443, model.AppTLS)}}),
		frontend("red", model.Frontend{Service: "api.example.com", Port: 443, Connections: []model.ConnectionRoute{
			{ServerNames: []string{"api.example.com"}, Backends: []model.Backend{{Namespace: "shop", Service: "api.example.com", Port: 443, Weight: 1}}}}}),
		namespace(model.Namespace{Mesh: "red"}),
	)...)
	if c := clusterNamed(t, s, "tls|api.example.com||0.0.0.0/0:443"); !c.Original {
		t.Errorf("%+v", c)
	}
	if c := clusterNamed(t, s, "tls|||0.0.0.0/0:443"); c.Original {
		t.Errorf("%+v", c)
	}
	if got := s.Get(plan.Endpoints, "tls|||0.0.0.0/0:443").(*plan.ClusterEndpoints); len(got.Backends)+len(got.Shares) != 0 {
		t.Errorf("%+v", got)
	}
	for _, row := range s.Rows(plan.Pods) {
		if p := row.Value.(*plan.Pod); p.KnownOnly != (p.Listeners != nil) {
			t.Errorf("pod %s is held to services: %t", p.Name, p.KnownOnly)
		}
	}
}

// A range has rows and clusters of its own; two services without addresses share a port
// by its order, and it is said.
func TestDeclaredRanges(t *testing.T) {
	s := store(append(world(),
		declared(model.Service{Name: "net.example.com", Hosts: []string{"net.example.com"}, Ranges: prefixes("10.9.0.0/16", "fd09::/64"), Reach: model.ReachNamed, Resolution: model.ResolveOriginal,
			Ports: []model.ServicePort{tcpPort(9000, model.AppTCP), tcpPort(80, model.AppHTTP)}}),
		declared(model.Service{Name: "other.example.com", Hosts: []string{"other.example.com"}, Ranges: prefixes("10.9.0.0/16"), Reach: model.ReachNamed,
			Ports: []model.ServicePort{tcpPort(9000, model.AppTCP)}}),
	)...)
	got := kernelService(t, s, "TCP/10.9.0.0/16:9000")
	if got.Mode != plan.AnyOpaque || !got.Direct || got.Bits != 16 {
		t.Errorf("%+v", got)
	}
	kernelService(t, s, "TCP/fd09::/64:9000")
	if s.Get(plan.Services, "TCP/0.0.0.0:9000") != nil || s.Get(plan.Services, "TCP/10.9.0.0/16:80") != nil {
		t.Error("a range is more than a range")
	}
	kernelService(t, s, "TCP/0.0.0.0:80") // requests are told apart by their host
	clusterNamed(t, s, "tcp||10.9.0.0/16:9000")
	if l := listenerOf(t, s, plan.AnyOpaque); !slices.Equal(l.Ranges, prefixes("10.9.0.0/16", "fd09::/64")) {
		t.Errorf("%+v", l)
	}
	diags, _ := s.Get(plan.Diagnostics, "any:9000").([]model.Diagnostic)
	if len(diags) != 1 || diags[0].Code != "shared-port" {
		t.Errorf("%+v", diags)
	}
}

// A service of Kubernetes keeps its address.
func TestDeclaredTakesNoAddress(t *testing.T) {
	s := store(append(world(),
		declared(model.Service{Name: "a.example.com", Hosts: []string{"a.example.com"}, VIPs: []netip.Addr{addr("10.96.0.1")}, Ports: []model.ServicePort{tcpPort(80, model.AppHTTP)}}),
	)...)
	if got := kernelService(t, s, "TCP/10.96.0.1:80"); got.Name != "shop/web" {
		t.Errorf("%+v", got)
	}
	diags, _ := s.Get(plan.Diagnostics, "service/shop/a.example.com").([]model.Diagnostic)
	if len(diags) != 1 || diags[0].Code != "shared-address" {
		t.Errorf("%+v", diags)
	}
}

// What runs elsewhere has the identity of its address, unless the address is a pod's, a
// node's, or may be the next pod's; nothing governs it.
func TestExternalWorkloads(t *testing.T) {
	external := func(name, ip string) input {
		w := &model.Workload{Namespace: "shop", Name: "workloadentry/" + name, Addresses: []netip.Addr{addr(ip)}, External: true,
			Identity: model.SPIFFE("td", "shop", "vm"), Labels: map[string]string{"app": "vm"}}
		return input{"workload", w.Key(), w}
	}
	n := node("n1", "192.168.0.1")
	n.value.(*model.Node).PodRanges = prefixes("10.244.0.0/16")
	rows := append(world(), n, external("a", "10.8.0.1"), external("b", "10.8.0.1"), external("node", "192.168.0.1"), external("range", "10.244.9.9"),
		allow("vm", model.Target{Namespace: "shop"}, from("vm")))
	s := store(rows...)
	if a, _ := s.Get(plan.Addresses, "10.8.0.1").(*plan.Address); a == nil || a.Class == 0 || a.Managed {
		t.Errorf("%+v", a)
	}
	if a, _ := s.Get(plan.Addresses, "192.168.0.1").(*plan.Address); a == nil || !a.Node || a.Class != 0 {
		t.Errorf("%+v", a)
	}
	if a := s.Get(plan.Addresses, "10.244.9.9"); a != nil {
		t.Errorf("%+v", a)
	}
	for _, row := range s.Rows(plan.Governance) {
		if strings.Contains(row.Key, "workloadentry") {
			t.Errorf("%s is governed", row.Key)
		}
	}
	diags, _ := s.Get(plan.Diagnostics, "shop/workloadentry/a").([]model.Diagnostic)
	if len(diags) != 1 || diags[0].Code != "external-unguarded" {
		t.Errorf("%+v", diags)
	}
}

func listenerOf(t *testing.T, s *incr.Store, mode plan.Mode) *plan.Listener {
	t.Helper()
	for _, row := range s.Rows(plan.Listeners) {
		if l := row.Value.(*plan.Listener); l.Mode == mode {
			return l
		}
	}
	t.Fatalf("no listener of mode %s", mode)
	return nil
}

// declaredRows are for random edits.
func declaredRows() []input {
	one := model.Service{Name: "one.example.com", Hosts: []string{"one.example.com"}, VIPs: []netip.Addr{addr("10.9.0.1"), addr("10.96.0.1")}, Reach: model.ReachAnywhere,
		Ports: []model.ServicePort{tcpPort(80, model.AppHTTP), tcpPort(9000, model.AppTCP)}}
	two := one
	two.Name, two.Hosts, two.Resolution = "two.example.com", []string{"two.example.com"}, model.ResolveDNS
	changed := one
	changed.Resolution, changed.Ranges = model.ResolveOriginal, prefixes("10.9.0.0/16")
	three := model.Service{Name: "three.example.com", Hosts: []string{"three.example.com"}, Ranges: prefixes("10.9.0.0/16", "fd09::/64"), Resolution: model.ResolveOriginal,
		Ports: []model.ServicePort{tcpPort(9000, model.AppTLS), tcpPort(9001, model.AppTCP)}}
	names := model.Frontend{Service: "three.example.com", Port: 9000, Connections: []model.ConnectionRoute{{ServerNames: []string{"three.example.com"},
		Backends: []model.Backend{{Namespace: "shop", Service: "three.example.com", Port: 9000, Weight: 1}}}}}
	vm := func(name, ip string) input {
		w := &model.Workload{Namespace: "shop", Name: "workloadentry/" + name, Addresses: []netip.Addr{addr(ip)}, External: true,
			Identity: model.SPIFFE("cluster.local", "shop", "client"), Labels: map[string]string{"app": "web"}}
		return input{"workload", w.Key(), w}
	}
	return []input{
		declared(one), declared(changed), declared(two), declared(three), frontend("red", names),
		endpointsOf("one.example.com", 80, model.Endpoint{Addr: addr("10.8.0.1"), Port: 80, Workload: "shop/workloadentry/a"}),
		endpointsOf("two.example.com", 80, model.Endpoint{Host: "b.example.com", Port: 80}),
		vm("a", "10.8.0.1"), vm("b", "10.8.0.1"), vm("b", "10.244.1.2"),
	}
}
