// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// routes are a table that refers to clusters, with a version that people can read.
func routes(t testing.TB, name string, version any, clusters ...string) xds.Resource {
	t.Helper()
	v := &route.VirtualHost{Name: "v", Domains: []string{"*"}}
	for _, c := range clusters {
		v.Routes = append(v.Routes, &route.Route{
			Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
			Action: &route.Route_Route{Route: &route.RouteAction{ClusterSpecifier: &route.RouteAction_Cluster{Cluster: c}}},
		})
	}
	r, err := xds.New(&route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{v}})
	if err != nil {
		t.Fatal(err)
	}
	r.Version = fmt.Sprint(version)
	return r
}

// standIn answers for routes and endpoints.
func standIn(typ, name string) (xds.Resource, bool) {
	if typ != rds {
		return resource(typ, name, "none"), typ == eds
	}
	r, err := xds.New(&route.RouteConfiguration{Name: name})
	r.Version = "500"
	return r, err == nil
}

func clusters(names ...string) []xds.Resource {
	var out []xds.Resource
	for _, n := range names {
		out = append(out, resource(cds, n, 1))
	}
	return out
}

func lazily(rs ...[]xds.Resource) *serve.Server {
	return serve.New(serve.Options{Lazy: true, StandIn: standIn}, slices.Concat(rs...))
}

func (c *client) unsubscribe(typ string, names ...string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesUnsubscribe: names})
}

// back says what a client has that was here before, of a type.
func (c *client) back(typ string, named bool, has ...string) {
	c.t.Helper()
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: typ, Node: &core.Node{Id: "n1"}, InitialResourceVersions: map[string]string{}}
	for _, h := range has {
		name, version, _ := strings.Cut(h, "@")
		req.InitialResourceVersions[name] = version
		if named {
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, name)
		}
	}
	c.send(req)
}

// begin asks for clusters and scopes as a client that starts does.
func (c *client) begin(clusters, scopes string) {
	c.t.Helper()
	c.subscribe(cds)
	c.want("Cluster" + clusters)
	c.subscribe(srd)
	c.want("ScopedRouteConfiguration" + scopes)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(what, "never came")
}

func TestLazyClustersComeBeforeRoutes(t *testing.T) {
	s := lazily(clusters("a", "b", "c"), []xds.Resource{routes(t, "r", 1, "a", "b"), routes(t, "unused", 1, "c"), scope(t, "s", "r"), scope(t, "s2", "unused")})
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	c.subscribe(srd)
	m, got := c.next()
	if got != "ScopedRouteConfiguration s@r~0 s2@unused~0" {
		t.Fatal(got)
	}
	for _, r := range m.Resources {
		var sc route.ScopedRouteConfiguration
		if err := proto.Unmarshal(r.Resource.Value, &sc); err != nil || !sc.OnDemand || sc.RouteConfigurationName == "" {
			t.Errorf("%v %v", &sc, err)
		}
	}
	c.ack(m)
	c.subscribe(rds, "r")
	first, _ := c.next()
	second, got := c.next()
	if got != "Cluster b@1" {
		t.Fatal(got)
	}
	c.ack(second)
	c.quiet()
	c.ack(first)
	c.want("RouteConfiguration r@1")
	c.sync()
	if got := s.InUse(); !slices.Equal(got, []string{"r"}) {
		t.Errorf("in use: %q", got)
	}
	if got := s.Clusters("r"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("clusters: %q", got)
	}

	// What is not in use costs nothing and is settled at once.
	before := s.Counters()
	push(t, s, set(resource(cds, "c", 2), resource(eds, "c", 2), routes(t, "unused", 2, "c"), resource(cds, "d", 1))...).rejected()
	push(t, s, serve.Change{Type: rds, Name: "unused"}, serve.Change{Type: cds, Name: "c"}).rejected()
	if after := s.Counters(); after.Responses != before.Responses {
		t.Errorf("%+v, was %+v", after, before)
	}
	c.quiet()
}

// A client that comes back asks for clusters before it asks for the routes that need
// them: a change in between is not over before it is there.
func TestLazyClustersWaitForRoutesToBeAsked(t *testing.T) {
	s := lazily([]xds.Resource{routes(t, "r", 1, "a"), scope(t, "s", "r")})
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	p := push(t, s, set(resource(cds, "a", 1))...)
	p.waiting()
	c.back(rds, true, "r@1")
	m, got := c.next()
	if got != "Cluster a@1" {
		t.Fatal(got)
	}
	p.waiting()
	c.ack(m)
	p.rejected()
}

func TestLazyChangeOfRoutes(t *testing.T) {
	s := lazily(clusters("a", "b", "c"), []xds.Resource{routes(t, "r", 1, "a", "b"), scope(t, "s", "r")})
	c := start(t, s)()
	c.begin("", " s@r~0")
	c.subscribe(rds, "r")
	c.want("Cluster a@1")
	c.want("Cluster b@1")
	c.want("RouteConfiguration r@1")
	c.sync()
	p := push(t, s, set(routes(t, "r", 2, "b", "c"))...)
	m, got := c.next()
	if got != "Cluster c@1" {
		t.Fatal(got)
	}
	p.waiting()
	c.ack(m)
	m, got = c.next()
	if got != "RouteConfiguration r@2" {
		t.Fatal(got)
	}
	c.quiet() // the routes that the client has need them all
	c.ack(m)
	p.rejected()
	time.Sleep(300 * time.Millisecond) // until it is clear what the client came with
	c.want("Cluster -a")

	// Rejected routes leave the clusters of those that serve on.
	p = push(t, s, set(routes(t, "r", "bad", "a"))...)
	c.want("Cluster a@1")
	m, _ = c.next()
	c.nack(m, "no good")
	p.rejected("r")
	c.want("Cluster -a")
	// A change of what is in use goes on as ever.
	p = push(t, s, set(resource(cds, "b", 2), resource(cds, "a", 2))...)
	c.want("Cluster b@2")
	p.rejected()
	// Routes that are taken away while something leads to them.
	p = push(t, s, serve.Change{Type: rds, Name: "r"})
	c.want("RouteConfiguration r@500")
	p.rejected()
	c.want("Cluster -b -c")
	p = push(t, s, serve.Change{Type: srd, Name: "s"})
	c.want("ScopedRouteConfiguration -s")
	p.rejected()
	c.unsubscribe(rds, "r")
	c.sync()
	c.unsubscribe(cds, "*")
	eventually(t, "nothing kept", func() bool { return serve.Held(s) == c.synced }) // the names that it asks for
	c.quiet()
}

func TestLazyTablesShareClusters(t *testing.T) {
	s := lazily(clusters("a", "b", "c"), []xds.Resource{routes(t, "r1", 1, "a", "b"), routes(t, "r2", 1, "b", "c")})
	c := start(t, s)()
	c.begin("", "")
	time.Sleep(300 * time.Millisecond)
	c.subscribe(rds, "r1", "r2")
	c.want("Cluster a@1")
	c.want("Cluster b@1")
	m, got := c.next()
	if got != "Cluster c@1" {
		t.Fatal(got)
	}
	c.want("RouteConfiguration r1@1")
	c.ack(m)
	c.want("RouteConfiguration r2@1")
	c.unsubscribe(rds, "r1")
	c.want("Cluster -a")
	c.unsubscribe(rds, "r2")
	c.want("Cluster -b -c")
	c.subscribe(rds, "r2")
	c.want("Cluster b@1")
	c.want("Cluster c@1")
	c.want("RouteConfiguration r2@1")
	c.quiet()
}

func TestLazyRoutesAreAnsweredAnyway(t *testing.T) {
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn, ClusterWait: 100 * time.Millisecond},
		slices.Concat(clusters("bad", "slow"), []xds.Resource{routes(t, "r", 1, "bad", "unknown"), routes(t, "r2", 1, "slow")}))
	c := start(t, s)()
	c.begin("", "")
	c.subscribe(rds, "r")
	m, got := c.next()
	if got != "Cluster bad@1" {
		t.Fatal(got)
	}
	c.nack(m, "bad")
	c.want("RouteConfiguration r@1")
	if got := s.Status().Rejected; len(got) != 1 || got[0].Name != "bad" {
		t.Errorf("rejected: %+v", got)
	}
	c.subscribe(rds, "none")
	c.want("RouteConfiguration none@500")
	c.subscribe(rds, "r2")
	m, got = c.next()
	if got != "Cluster slow@1" {
		t.Fatal(got)
	}
	began := time.Now()
	c.want("RouteConfiguration r2@1")
	if d := time.Since(began); d < 50*time.Millisecond {
		t.Errorf("after %v", d)
	}
	c.ack(m)
	// What was unknown comes later.
	p := push(t, s, set(resource(cds, "unknown", 1))...)
	c.want("Cluster unknown@1")
	p.rejected()
	p = push(t, s, set(resource(cds, "bad", 2))...)
	c.want("Cluster bad@2")
	p.rejected()
	c.quiet()
}

func TestReferencesInRoutes(t *testing.T) {
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	action := &route.RouteAction{
		ClusterSpecifier: &route.RouteAction_WeightedClusters{WeightedClusters: &route.WeightedCluster{
			Clusters: []*route.WeightedCluster_ClusterWeight{{Name: "w1"}, {Name: "w2"}},
		}},
		RequestMirrorPolicies: []*route.RouteAction_RequestMirrorPolicy{{Cluster: "mirror"}},
	}
	perRoute := &extauthz.ExtAuthzPerRoute{Override: &extauthz.ExtAuthzPerRoute_CheckSettings{CheckSettings: &extauthz.CheckSettings{
		ServiceOverride: &extauthz.CheckSettings_GrpcService{GrpcService: &core.GrpcService{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: "authz"},
		}}},
	}}}
	r, err := xds.New(&route.RouteConfiguration{
		Name: "r",
		VirtualHosts: []*route.VirtualHost{{
			Name: "not-a-cluster", Domains: []string{"*"},
			Routes: []*route.Route{{Name: "neither", Action: &route.Route_Route{Route: action}}, {
				Action: &route.Route_Route{Route: &route.RouteAction{ClusterSpecifier: &route.RouteAction_ClusterHeader{ClusterHeader: "x"}}},
			}},
			TypedPerFilterConfig: map[string]*anypb.Any{"f": pack(&route.FilterConfig{Config: pack(perRoute)})},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := lazily([]xds.Resource{r})
	if got, want := s.Clusters("r"), []string{"authz", "mirror", "w1", "w2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.Clusters("none"); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestStaticClustersAreNotSent(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		s := serve.New(serve.Options{Lazy: lazy, Static: []string{"log"}}, slices.Concat(clusters("a", "log"), []xds.Resource{routes(t, "r", 1, "a", "log")}))
		c := start(t, s)()
		c.subscribe(cds)
		if lazy {
			c.want("Cluster")
			c.subscribe(rds, "r")
		}
		c.want("Cluster a@1")
		if lazy {
			c.want("RouteConfiguration r@1")
		}
		push(t, s, set(resource(cds, "log", 2))...).rejected()
		c.quiet()
	}
}

// adaptByNode gives clusters another content for clients that ask for it.
func adaptByNode(node *core.Node) func(xds.Resource) (xds.Resource, error) {
	suffix := node.GetMetadata().GetFields()["suffix"].GetStringValue()
	if suffix == "" {
		return nil
	}
	return func(r xds.Resource) (xds.Resource, error) {
		switch {
		case r.Type != cds:
			return r, nil
		case r.Version == "unfit":
			return r, fmt.Errorf("it does not fit")
		}
		m := &cluster.Cluster{Name: r.Name, AltStatName: suffix}
		out, err := xds.New(m)
		out.Version = r.Version + suffix
		return out, err
	}
}

func TestResourcesAreAdaptedToClients(t *testing.T) {
	var told []string
	s := serve.New(serve.Options{Adapt: adaptByNode, OnReject: func(r serve.Rejection) { told = append(told, r.Name+"@"+r.Version+": "+r.Detail) }}, clusters("a", "b"))
	connect := start(t, s)
	plain, c := connect(), connect()
	plain.subscribe(cds)
	plain.want("Cluster a@1 b@1")
	node := &core.Node{Id: "n2", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"suffix": structpb.NewStringValue("x")}}}
	c.send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: cds, InitialResourceVersions: map[string]string{"b": "1x"}})
	m, got := c.next()
	if got != "Cluster a@1x" {
		t.Fatal(got)
	}
	var body cluster.Cluster
	if err := proto.Unmarshal(m.Resources[0].Resource.Value, &body); err != nil || body.AltStatName != "x" {
		t.Errorf("%v %v", &body, err)
	}
	c.ack(m)
	p := push(t, s, set(resource(cds, "a", 2))...)
	plain.want("Cluster a@2")
	p.waiting()
	m, got = c.next()
	if got != "Cluster a@2x" {
		t.Fatal(got)
	}
	c.nack(m, "no")
	p.rejected("a")
	if len(told) != 0 { // the other one has it
		t.Errorf("told %q", told)
	}
	plain.close()
	eventually(t, "end of a client", func() bool { return len(s.Status().Clients) == 1 })
	if len(told) != 1 || told[0] != "a@2: no" {
		t.Errorf("told %q", told)
	}
	push(t, s, set(resource(cds, "b", "unfit"))...).rejected("b")
	c.quiet()
	if len(told) != 2 || told[1] != "b@unfit: adapt to client: it does not fit" {
		t.Errorf("told %q", told)
	}
}

// TestChangesCostTheSameAtAnySize: what there is besides costs nothing.
func TestChangesCostTheSameAtAnySize(t *testing.T) {
	allocs := func(n int) float64 {
		s := lazily(services(t, n))
		c := start(t, s)()
		c.subscribe(cds)
		c.want("Cluster")
		c.subscribe(srd)
		m, _ := c.next()
		c.ack(m)
		c.settle()
		version := 1
		return testing.AllocsPerRun(50, func() {
			version++
			settled := false
			changes := set(routes(t, "svc7", version, "svc7"), resource(cds, "svc7", version), resource(eds, "svc7", version))
			s.Apply(changes, func(serve.Outcome) { settled = true })
			if !settled {
				t.Error("a change of what is not in use was not settled at once")
			}
		})
	}
	if small, big := allocs(10), allocs(3000); big > 2*small {
		t.Errorf("a change allocates %v times among 3000 services, %v among 10", big, small)
	}
}
