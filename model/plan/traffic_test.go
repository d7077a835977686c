// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// placed is a node with its place, "region/zone/subzone".
func placed(name, ip, where string) input {
	in := node(name, ip)
	parts := append(strings.Split(where, "/"), "", "")
	in.value.(*model.Node).Locality = model.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	return in
}

// near is a world with endpoints in five places; the client's node is in eu/eu-1/a.
func near() []input {
	return []input{
		placed("n1", "10.240.0.1", "eu/eu-1/a"), placed("n2", "10.240.0.2", "eu/eu-1/b"), placed("n3", "10.240.0.3", "eu/eu-2"),
		placed("n4", "10.240.0.4", "us/us-1"), placed("n5", "10.240.0.5", "asia/asia-1"),
		pod("client", "n1", "10.244.1.1", "client", nil),
		pod("web-1", "n1", "10.244.1.2", "web", map[string]string{"v": "1"}),
		pod("web-2", "n2", "10.244.2.2", "web", map[string]string{"v": "1"}),
		pod("web-3", "n3", "10.244.3.2", "web", map[string]string{"v": "2"}),
		pod("web-4", "n4", "10.244.4.2", "web", map[string]string{"v": "2"}),
		pod("web-5", "n5", "10.244.5.2", "web", map[string]string{"v": "2"}),
		service("web", "10.96.0.1", 80, model.AppHTTP),
		endpoints("web", 80, 8080, "10.244.1.2", "10.244.2.2", "10.244.3.2", "10.244.4.2", "10.244.5.2"),
	}
}

// steered is a frontend of the service whose requests, or connections, have a policy.
func steered(port uint16, http bool, p *model.TrafficPolicy) input {
	f := &model.Frontend{Namespace: "shop", Service: "web", Port: port, Src: []model.Source{{Kind: "Rule", Name: "r"}}}
	backends := []model.Backend{{Namespace: "shop", Service: "web", Port: port, Weight: 1, Policy: p}}
	if http {
		f.Routes = []model.Route{{Backends: backends}}
	} else {
		f.Backends = backends
	}
	return input{"route/red", f.Key(), f}
}

// shares prints the endpoints of the only cluster whose name begins like this: the last
// number but one of their addresses, in groups of "priority:weight".
func shares(t *testing.T, rows []input, prefix string) string {
	t.Helper()
	for _, r := range store(rows...).Rows(plan.Endpoints) {
		if !strings.HasPrefix(r.Key, prefix) || strings.HasSuffix(r.Key, "@6") {
			continue
		}
		e := r.Value.(*plan.ClusterEndpoints)
		of := func(bs []plan.Backend) string {
			var out []string
			for _, b := range bs {
				text := strings.Split(b.Addrs[0].Addr().String(), ".")[2]
				if b.Weight > 0 {
					text += fmt.Sprint("x", b.Weight)
				}
				out = append(out, text)
			}
			return strings.Join(out, ",")
		}
		var out []string
		if len(e.Backends) > 0 {
			out = append(out, of(e.Backends))
		}
		for _, s := range e.Shares {
			out = append(out, fmt.Sprintf("%d:%d(%s)", s.Priority, s.Weight, of(s.Backends)))
		}
		return strings.Join(out, " ")
	}
	t.Fatalf("no cluster %s", prefix)
	return ""
}

func TestNearEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		near *model.NearFar
		want string
	}{
		"nobody":                       {nil, "1,2,3,4,5"},
		"own place first":              {&model.NearFar{Failover: true}, "0:1(1) 1:1(2) 2:1(3) 3:2(4,5)"},
		"then a region":                {&model.NearFar{Failover: true, Regions: map[string]string{"eu": "asia"}}, "0:1(1) 1:1(2) 2:1(3) 3:1(5) 4:1(4)"},
		"from other regions":           {&model.NearFar{Failover: true, Regions: map[string]string{"us": "asia"}}, "0:1(1) 1:1(2) 2:1(3) 3:2(4,5)"},
		"regions alone":                {&model.NearFar{ByRegion: true}, "0:3(1,2,3) 1:2(4,5)"},
		"regions in order":             {&model.NearFar{ByRegion: true, Regions: map[string]string{"eu": "us"}}, "0:3(1,2,3) 1:1(4) 2:1(5)"},
		"labels of the node":           {&model.NearFar{Labels: []string{model.TopologyRegion, model.TopologyZone}}, "0:2(1,2) 1:1(3) 2:2(4,5)"},
		"the node itself":              {&model.NearFar{Labels: []string{model.TopologyNetwork, model.TopologyCluster, model.TopologyHost}}, "0:1(1) 1:4(2,3,4,5)"},
		"a label with its value":       {&model.NearFar{Labels: []string{"v=2"}}, "0:3(3,4,5) 1:2(1,2)"},
		"labels, then places":          {&model.NearFar{Labels: []string{"v=2"}, ByRegion: true}, "0:1(3) 1:2(4,5) 2:2(1,2)"},
		"another cluster":              {&model.NearFar{Labels: []string{model.TopologyCluster + "=other", "v=2"}}, "1,2,3,4,5"},
		"shares":                       {&model.NearFar{Distribute: []model.Distribute{{From: "us", To: map[string]uint32{"us": 100}}, {From: "eu/*", To: map[string]uint32{"eu/eu-1/*": 80, "us": 20}}}}, "0:40(1) 0:40(2) 0:20(4)"},
		"shares of other places":       {&model.NearFar{Distribute: []model.Distribute{{From: "us", To: map[string]uint32{"us": 100}}}}, "1,2,3,4,5"},
		"a share of a place, anywhere": {&model.NearFar{Distribute: []model.Distribute{{From: "*", To: map[string]uint32{"eu/eu-1/a": 100}}}}, "0:100(1)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &model.TrafficPolicy{Balance: model.RoundRobin, Locality: c.near}
			if got := shares(t, append(near(), steered(80, true, p)), "shop/web:80="); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// A pod that says that it is elsewhere is there; endpoints have weights; one of whom
// nobody knows where it is is far.
func TestPlacesOfEndpoints(t *testing.T) {
	rows := append(near(), steered(80, true, &model.TrafficPolicy{Locality: &model.NearFar{Failover: true}}))
	for _, r := range rows {
		switch v := r.value.(type) {
		case *model.Workload:
			if v.Name == "web-4" {
				v.Locality = model.Locality{Region: "eu", Zone: "eu-1", SubZone: "a"}
			}
		case *model.Endpoints:
			v.Ports[0].Backends[3].Weight = 3
			v.Ports[0].Backends = append(v.Ports[0].Backends, model.Endpoint{Addr: addr("10.9.9.9"), Port: 80})
		}
	}
	if got, want := shares(t, rows, "shop/web:80="), "0:4(1,4x3) 1:1(2) 2:1(3) 3:2(9,5)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// clusters prints names and, if any, what makes them differ.
func clusters(rows ...input) []string {
	var out []string
	for _, r := range store(rows...).Rows(plan.Clusters) {
		c := r.Value.(*plan.Cluster)
		if strings.HasSuffix(c.Name, "@6") {
			continue
		}
		name, hash, ok := strings.Cut(c.Name, "=")
		if ok {
			name += "=" + strings.Repeat(".", len(hash[:16])) + hash[16:]
		}
		if c.Policy != nil {
			name += " guarded"
		}
		if c.Checked {
			name += " checked"
		}
		if c.Original {
			name += " original"
		}
		out = append(out, name)
	}
	return out
}

// Another policy is another cluster; endpoints that obey different rules are in one
// where the policy counts or compares among them, and are judged where they are.
func TestPolicyNamesClusters(t *testing.T) {
	guarded := append(near(), allow("a", model.Target{Labels: map[string]string{"v": "1"}}, model.AuthRule{To: []model.Operation{{Methods: []model.StringMatch{{Kind: model.Exact, Value: "GET"}}}}}))
	check(t, clusters(append(near(), steered(80, true, nil))...), "shop/web:80 checked")
	check(t, clusters(append(near(), steered(80, true, &model.TrafficPolicy{Balance: model.Random}))...), "shop/web:80=................ checked")
	split := clusters(append(slices.Clone(guarded), steered(80, true, &model.TrafficPolicy{Balance: model.Random}))...)
	if len(split) != 2 {
		t.Errorf("a policy that looks at nothing among the endpoints: %v", split)
	}
	for name, p := range map[string]*model.TrafficPolicy{
		"hash": {Balance: model.ByRing, Hash: []model.HashOn{{SourceIP: true}}}, "limits": {Limits: model.Limits{Requests: 1}},
		"outlier": {Outlier: &model.Outlier{Consecutive5xx: 1}}, "locality": {Locality: &model.NearFar{Failover: true}},
	} {
		if got := clusters(append(slices.Clone(guarded), steered(80, true, p))...); !slices.Equal(got, []string{"shop/web:80=................"}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	check(t, clusters(append(near(), steered(80, true, &model.TrafficPolicy{Balance: model.AsDialled}))...), "dialled/shop/web:80=................ original")
}

// Routes hash by what their backends want, each thing once.
func TestHashesOfRoutes(t *testing.T) {
	user, ip := model.HashOn{Header: "x-user"}, model.HashOn{SourceIP: true}
	in := steered(80, true, nil)
	hash := func(on ...model.HashOn) *model.TrafficPolicy {
		return &model.TrafficPolicy{Balance: model.ByRing, Hash: on}
	}
	in.value.(*model.Frontend).Routes[0].Backends = []model.Backend{
		{Namespace: "shop", Service: "web", Port: 80, Weight: 1, Policy: hash(user), Labels: map[string]string{"v": "1"}},
		{Namespace: "shop", Service: "web", Port: 80, Weight: 1, Policy: hash(user, ip), Labels: map[string]string{"v": "2"}},
		{Namespace: "shop", Service: "web", Port: 80, Weight: 1, Policy: hash(model.HashOn{Query: "q"}), Missing: true},
	}
	rt := store(append(near(), in)...).Get(plan.RouteTables, "shop/web:80").(*plan.RouteTable)
	if got := model.Bytes(rt.Routes[0].Hash); string(got) != string(model.Bytes([]model.HashOn{user, ip})) {
		t.Errorf("%s", got)
	}
}

// The kernel balances connections unless their policy needs the proxy.
func TestPolicyMovesConnections(t *testing.T) {
	for name, c := range map[string]struct {
		p    *model.TrafficPolicy
		want plan.Mode
	}{
		"none": {nil, plan.Kernel}, "even": {&model.TrafficPolicy{Balance: model.Random}, plan.Kernel},
		"limit": {&model.TrafficPolicy{Limits: model.Limits{Connections: 1}}, plan.Opaque}, "outlier": {&model.TrafficPolicy{Outlier: &model.Outlier{}}, plan.Opaque},
		"hash": {&model.TrafficPolicy{Balance: model.ByRing, Hash: []model.HashOn{{SourceIP: true}}}, plan.Opaque},
		"time": {&model.TrafficPolicy{TCP: model.TCPPolicy{Idle: time.Second}}, plan.Opaque}, "near": {&model.TrafficPolicy{Locality: &model.NearFar{Failover: true}}, plan.Opaque},
	} {
		rows := append(near()[:11], service("web", "10.96.0.1", 9000, model.AppTCP), endpoints("web", 9000, 9000, "10.244.1.2", "10.244.3.2"), steered(9000, false, c.p))
		s := store(rows...)
		if got := s.Get(plan.Services, "TCP/10.96.0.1:9000").(*plan.Service).Mode; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if cl, _ := s.Get(plan.Clusters, "tcp||10.96.0.1:9000").(*plan.Cluster); (cl != nil) != (c.want == plan.Opaque) || cl != nil && cl.Traffic != c.p {
			t.Errorf("%s: cluster %+v", name, cl)
		}
	}
	rows := append(near()[:11], service("web", "10.96.0.1", 9000, model.AppTCP), endpoints("web", 9000, 9000, "10.244.1.2", "10.244.3.2"),
		steered(9000, false, &model.TrafficPolicy{Locality: &model.NearFar{Failover: true}}))
	if got, want := shares(t, rows, "tcp||"), "0:1(1) 1:1(3)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The kernel gives endpoints their weights.
func TestKernelWeights(t *testing.T) {
	eps := endpoints("web", 9000, 9000, "10.244.1.2", "10.244.3.2")
	eps.value.(*model.Endpoints).Ports[0].Backends[1].Weight = 3
	s := store(append(near()[:11], service("web", "10.96.0.1", 9000, model.AppTCP), eps)...)
	got := s.Get(plan.Services, "TCP/10.96.0.1:9000").(*plan.Service).Backends
	if len(got) != 2 || got[1].Weight != 3*got[0].Weight {
		t.Errorf("%v", got)
	}
}

// What is counted for all pods of the node is said where there are several.
func TestCountedByNode(t *testing.T) {
	limited := steered(80, true, &model.TrafficPolicy{Limits: model.Limits{Requests: 1}})
	codes := func(rows ...input) (out []string) {
		for _, r := range store(rows...).Rows(plan.Diagnostics) {
			for _, d := range r.Value.([]model.Diagnostic) {
				out = append(out, d.Code+" "+d.Source.Name)
			}
		}
		return out
	}
	check(t, codes(append(near(), limited)...), "counted-by-node r") // client and web-1
	sourced := steered(80, true, &model.TrafficPolicy{Limits: model.Limits{Requests: 1}, Src: []model.Source{{Name: "pool"}, {Name: "outlier"}}})
	check(t, codes(append(near(), sourced)...), "counted-by-node pool", "counted-by-node outlier")
	alone := slices.DeleteFunc(near(), func(in input) bool { return in.key == "shop/web-1" })
	check(t, codes(append(alone, limited)...))
	check(t, codes(append(near(), steered(80, true, &model.TrafficPolicy{Balance: model.Random}))...))
}

// Listeners know how long connections to an address may be silent, and may last.
func TestTimesOfConnections(t *testing.T) {
	rows := append(near()[:11], service("web", "10.96.0.1", 9000, model.AppTCP), endpoints("web", 9000, 9000, "10.244.1.2"))
	policy := func(idle, last time.Duration) *model.TrafficPolicy {
		return &model.TrafficPolicy{TCP: model.TCPPolicy{Idle: idle, MaxDuration: last}}
	}
	timesOf := func(in input) (out []string) {
		s := store(append(slices.Clone(rows), in)...)
		for _, r := range s.Rows(plan.Listeners) {
			for _, at := range r.Value.(*plan.Listener).Times {
				out = append(out, fmt.Sprintf("%s %s %s %s", r.Value.(*plan.Listener).Mode, at.To, at.Idle, at.Max))
			}
		}
		for _, r := range s.Rows(plan.Diagnostics) {
			for _, d := range r.Value.([]model.Diagnostic) {
				out = append(out, d.Code)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	check(t, timesOf(steered(9000, false, policy(time.Minute, time.Hour))), "opaque 10.96.0.1:9000 1m0s 1h0m0s")
	check(t, timesOf(steered(9000, false, &model.TrafficPolicy{Limits: model.Limits{Connections: 1}})), "counted-by-node")
	several := steered(9000, false, nil)
	backend := func(p *model.TrafficPolicy) []model.Backend {
		return []model.Backend{{Namespace: "shop", Service: "web", Port: 9000, Weight: 1, Policy: p}}
	}
	several.value.(*model.Frontend).Connections = []model.ConnectionRoute{
		{SourceNamespace: "shop", Backends: backend(policy(time.Minute, time.Hour))}, {Backends: backend(policy(2*time.Minute, 0))}}
	check(t, timesOf(several), "connection-times", "opaque 10.96.0.1:9000 2m0s 0s")
}

// policyRows are edits of policies, and of where nodes are.
func policyRows() []input {
	limits := &model.TrafficPolicy{Limits: model.Limits{Requests: 1}, Locality: &model.NearFar{Failover: true}}
	times := &model.TrafficPolicy{TCP: model.TCPPolicy{Idle: time.Second}, Locality: &model.NearFar{Distribute: []model.Distribute{{From: "*", To: map[string]uint32{"eu/*": 90, "us": 10}}}}}
	return []input{
		steered(80, true, limits), steered(80, true, &model.TrafficPolicy{Balance: model.AsDialled}), steered(80, false, times),
		placed("n1", "10.240.0.1", "eu/eu-1/a"), placed("n1", "10.240.0.1", "us/us-1"), placed("n2", "10.240.0.2", "eu/eu-1/b"),
	}
}
