// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

const (
	cds = xds.ClusterType
	eds = xds.EndpointType
	rds = xds.RouteType
	srd = xds.ScopeType
	lds = xds.ListenerType
)

func TestFirstAnswersAndChanges(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(cds, "a", 1), resource(cds, "b", 1), resource(rds, "r", 1)})
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster a@1 b@1")
	c.subscribe(lds)
	c.want("Listener") // nothing, but said
	c.subscribe(rds, "r")
	c.want("RouteConfiguration r@1")

	p := push(t, s, set(resource(cds, "a", 1), resource(cds, "b", 2), resource(cds, "c", 1), resource(rds, "unwanted", 1))...)
	c.want("Cluster b@2") // one by one, and nothing for what is the same
	c.want("Cluster c@1")
	p.rejected()
	c.quiet()
	if n := s.Counters(); n.Resources != 5 || n.Nacks != 0 || n.Acks != 5 {
		t.Errorf("counters %+v", n)
	}
}

func TestPushGoesByPhases(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	for _, typ := range xds.Types() {
		c.subscribe(typ)
		c.want(xds.Short(typ))
	}
	all := []xds.Resource{resource(lds, "l", 1), scope(t, "s", "r"), resource(rds, "r", 1), resource(eds, "c", 1), resource(cds, "c", 1)}
	p := push(t, s, set(all...)...)
	cluster, got := c.next()
	if got != "Cluster c@1" {
		t.Fatal(got)
	}
	c.want("ClusterLoadAssignment c@1") // Envoy holds the answer for the cluster until it has these
	c.quiet()
	p.waiting()
	c.ack(cluster)
	c.want("RouteConfiguration r@1")
	c.want("ScopedRouteConfiguration s@r")
	c.want("Listener l@1")
	p.rejected()

	var gone []serve.Change
	for _, r := range all {
		gone = append(gone, serve.Change{Type: r.Type, Name: r.Name})
	}
	p = push(t, s, gone...)
	for _, want := range []string{"Listener -l", "ScopedRouteConfiguration -s", "RouteConfiguration -r", "Cluster -c", "ClusterLoadAssignment -c"} {
		c.want(want)
	}
	p.rejected()
	if n := s.Status().Resources; n["Cluster"]+n["Listener"] != 0 {
		t.Errorf("left: %v", n)
	}
}

func TestSyncDeletesTheRest(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(cds, "a", 1), resource(cds, "b", 1)})
	if _, err := s.Sync(t.Context(), []xds.Resource{resource(cds, "b", 1), resource(rds, "r", 1)}); err != nil {
		t.Fatal(err)
	}
	got := s.Resources()
	if len(got) != 2 || got[0].Name != "b" || got[1].Name != "r" {
		t.Errorf("%+v", got)
	}
}

func TestEndpointsFollowAChangedCluster(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(cds, "a", 1), resource(eds, "a", 1)})
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster a@1")
	c.subscribe(eds, "a")
	c.want("ClusterLoadAssignment a@1")
	p := push(t, s, set(resource(cds, "a", 2))...)
	c.want("Cluster a@2")
	c.want("ClusterLoadAssignment a@1")
	p.rejected()
	p = push(t, s, set(resource(cds, "a", 3), resource(eds, "a", 2))...)
	c.want("Cluster a@3")
	c.want("ClusterLoadAssignment a@2") // once
	p.rejected()
	c.quiet()
}

func TestResubscriptionIsAnswered(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(eds, "a", 1), resource(eds, "b", 1)})
	c := start(t, s)()
	c.subscribe(eds, "a")
	c.want("ClusterLoadAssignment a@1")
	c.subscribe(eds, "a", "b") // again, without having let go
	c.want("ClusterLoadAssignment a@1 b@1")
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesUnsubscribe: []string{"a"}})
	c.sync()
	push(t, s, set(resource(eds, "a", 2))...).rejected()
	c.quiet()
	c.subscribe(eds, "a")
	c.want("ClusterLoadAssignment a@2")
}

func TestMissingNamesAreAnswered(t *testing.T) {
	standIn := func(typ, name string) (xds.Resource, bool) { return resource(typ, name, "500"), typ == rds }
	s := serve.New(serve.Options{StandIn: standIn}, nil)
	c := start(t, s)()
	c.subscribe(rds, "r")
	c.want("RouteConfiguration r@500")
	c.subscribe(eds, "e")
	c.want("ClusterLoadAssignment -e")
	p := push(t, s, set(resource(rds, "r", 1), resource(eds, "e", 1))...)
	c.want("ClusterLoadAssignment e@1")
	c.want("RouteConfiguration r@1")
	p.rejected()
}

func TestReturningClientGetsTheDifference(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{
		resource(cds, "same", 1), resource(cds, "changed", 2), resource(eds, "changed", 1), resource(eds, "same", 1),
		resource(rds, "r", 2), scope(t, "s", "r"),
	})
	c := start(t, s)()
	back := func(typ string, named bool, has map[string]string) {
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: typ, InitialResourceVersions: has}
		if named {
			for n := range has {
				req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
			}
		}
		c.send(req)
	}
	// Everything at once, listeners first, as Envoy does.
	back(lds, false, map[string]string{"gone": "1"})
	back(cds, false, map[string]string{"same": "1", "changed": "1", "gone": "1"})
	back(eds, true, map[string]string{"same": "1", "changed": "1", "gone": "1"})
	back(srd, false, map[string]string{"s": "r", "gone": "r0"})
	back(rds, true, map[string]string{"r": "1", "r0": "1"})
	// The listener's answer waits for nothing, as nothing was sent before it.
	seen := map[string]bool{}
	var held []*discovery.DeltaDiscoveryResponse
	for range 3 {
		m, l := c.next()
		seen[l] = true
		held = append(held, m)
	}
	if !seen["Listener"] || !seen["Cluster changed@2"] || !seen["ClusterLoadAssignment changed@1"] {
		t.Fatalf("got %v", seen)
	}
	c.quiet() // no routes before the clusters are answered
	for _, m := range held {
		c.ack(m)
	}
	c.want("RouteConfiguration r@2")
	c.want("ScopedRouteConfiguration")
	// What vanished goes last and in reverse.
	c.want("Listener -gone")
	c.want("ScopedRouteConfiguration -gone")
	c.want("Cluster -gone")
	c.quiet()
}

func TestRejectionKeepsTheLastGood(t *testing.T) {
	var told []string
	standIn := func(typ, name string) (xds.Resource, bool) { return resource(typ, name, "500"), typ == rds }
	s := serve.New(serve.Options{StandIn: standIn, OnReject: func(r serve.Rejection) { told = append(told, r.Name+"@"+r.Version) }},
		[]xds.Resource{resource(rds, "old", 1)})
	connect := start(t, s)
	c := connect()
	c.subscribe(rds)
	c.want("RouteConfiguration old@1")
	p := push(t, s, set(resource(rds, "new", "bad"), resource(rds, "old", "bad"), resource(rds, "other", 1))...)
	for range 3 {
		m, l := c.next()
		if strings.Contains(l, "bad") {
			c.nack(m, "nonsense")
		} else {
			c.ack(m)
		}
	}
	c.want("RouteConfiguration new@500") // in place of what never was good
	p.rejected("new", "old")
	if p.out.Rejected[0].Detail != "nonsense" || len(told) != 2 {
		t.Errorf("outcome %+v, told %q", p.out, told)
	}
	// The same again: known already, nothing is sent.
	push(t, s, set(resource(rds, "old", "bad"))...).rejected("old")
	c.quiet()
	// A client that comes now gets what is good.
	d := connect()
	d.subscribe(rds)
	d.want("RouteConfiguration new@500 old@1 other@1")
	// Back to what it was: the client has it.
	push(t, s, set(resource(rds, "old", 1))...).rejected()
	c.quiet()
	if left := s.Status().Rejected; len(left) != 1 || left[0].Name != "new" {
		t.Errorf("still rejected: %+v", left)
	}
}

func TestRejectedBatchIsHalved(t *testing.T) {
	var all []xds.Resource
	for i := range 20 {
		all = append(all, resource(cds, fmt.Sprintf("c%02d", i), 1))
	}
	s := serve.New(serve.Options{}, all)
	c := start(t, s)()
	c.subscribe(cds)
	accepted := map[string]bool{}
	responses := 0
	for len(accepted) < 19 || s.Status().Rejected == nil {
		m, l := c.next()
		responses++
		if strings.Contains(l, "c13@") {
			c.nack(m, "c13 is bad")
		} else {
			for _, r := range m.Resources {
				accepted[r.Name] = true
			}
			c.ack(m)
		}
		if responses > 20 {
			t.Fatalf("%d responses", responses)
		}
		if len(accepted) == 19 { // the answer to the last one may be on its way
			time.Sleep(10 * time.Millisecond)
		}
	}
	if got := s.Status().Rejected; len(got) != 1 || got[0].Name != "c13" || got[0].Detail != "c13 is bad" {
		t.Errorf("rejected %+v", got)
	}
}

func TestManyChangesAreBatched(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	var all []xds.Resource
	for i := range 1000 {
		all = append(all, resource(cds, fmt.Sprint(i), 1))
	}
	p := push(t, s, set(all...)...)
	m, _ := c.next()
	if len(m.Resources) != 1000 {
		t.Errorf("%d resources in the first response", len(m.Resources))
	}
	c.ack(m)
	p.rejected()
}

func TestLateRejection(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(rds, "r", 1)})
	connect := start(t, s)
	c := connect()
	c.subscribe(rds)
	c.want("RouteConfiguration r@1")
	p := push(t, s, set(resource(rds, "r", 2), scope(t, "s", "r"))...)
	m, _ := c.next()
	c.ack(m)
	p.rejected() // nobody wants scopes: over
	c.nack(m, "found out later")
	for len(s.Status().Rejected) == 0 {
		time.Sleep(time.Millisecond)
	}
	d := connect()
	d.subscribe(rds)
	d.want("RouteConfiguration r@1")
}

// TestUnjudgedVersionsComeBeforeOldOnes: what was wanted while nobody used it takes the
// place of a bad version, not what somebody had before.
func TestUnjudgedVersionsComeBeforeOldOnes(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(rds, "r", 1)})
	c := start(t, s)()
	c.subscribe(rds, "r")
	c.want("RouteConfiguration r@1")
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: rds, ResourceNamesUnsubscribe: []string{"r"}})
	c.sync()
	push(t, s, set(resource(rds, "r", 2))...).rejected()
	push(t, s, set(resource(rds, "r", 3))...).rejected()
	c.subscribe(rds, "r")
	m, got := c.next()
	if got != "RouteConfiguration r@3" {
		t.Fatal(got)
	}
	c.nack(m, "no good")
	if m, got = c.next(); got != "RouteConfiguration r@2" {
		t.Fatal(got)
	}
	c.nack(m, "no better")
	c.want("RouteConfiguration r@1")
	if bad := s.Status().Rejected; len(bad) != 1 || bad[0].Version != "3" || bad[0].Kept != "1" {
		t.Errorf("%+v", bad)
	}
}

func TestScopeIsInUseWhenItsRoutesAre(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(srd)
	c.want("ScopedRouteConfiguration")
	p := push(t, s, set(resource(rds, "r", 1), scope(t, "s", "r"))...)
	c.want("ScopedRouteConfiguration s@r")
	p.waiting()
	c.subscribe(rds, "r")
	m, _ := c.next()
	p.waiting()
	c.nack(m, "no good")
	p.rejected("r") // though the push of the routes themselves was over before
}

func TestListenerIsInUseWhenItsScopesAre(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(lds)
	c.want("Listener")
	p := push(t, s, set(resource(rds, "r", 1), scope(t, "s", "r"), resource(lds, "l", 1))...)
	c.want("Listener l@1")
	p.waiting()
	c.subscribe(srd)
	c.want("ScopedRouteConfiguration s@r")
	p.waiting()
	c.subscribe(rds, "r")
	c.want("RouteConfiguration r@1")
	p.rejected()
}

func TestPushEndsWhenTheClientLeaves(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	p := push(t, s, set(resource(cds, "a", 1), resource(rds, "r", 1))...)
	p.waiting()
	c.close()
	p.rejected()
	if p.out.Clients != 0 {
		t.Errorf("outcome %+v", p.out)
	}
}

func TestPushSaysWhatItWaitedFor(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	changes := set(resource(cds, "a", 1), resource(rds, "r", 1))
	_, err := s.Push(ctx, changes)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Cluster a") {
		t.Errorf("error %v", err)
	}
	if n := s.Status().Resources["RouteConfiguration"]; n != 0 {
		t.Error("a phase that was not reached is stored")
	}
	// Again, and now it is answered.
	p := push(t, s, changes...)
	c.want("Cluster a@1")
	p.rejected()
}

func TestSupersededChangeIsSettled(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	done := make(chan serve.Outcome, 2)
	s.Apply(set(resource(cds, "a", 1)), func(o serve.Outcome) { done <- o })
	first, _ := c.next()
	s.Apply(set(resource(cds, "a", 2)), func(o serve.Outcome) { done <- o })
	<-done
	c.ack(first)
	c.want("Cluster a@2")
	<-done
}

func TestExpectedClientIsWaitedFor(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	connect := start(t, s)
	s.Expect(time.Minute)
	p := push(t, s, set(resource(cds, "a", 1))...)
	p.waiting()
	c := connect()
	p.waiting() // here, but it may still want clusters
	c.subscribe(cds)
	c.want("Cluster a@1")
	p.rejected()
	c.close()

	s.Expect(20 * time.Millisecond)
	p = push(t, s, set(resource(cds, "b", 1))...)
	p.rejected() // it did not come
	if p.out.Clients != 0 {
		t.Errorf("outcome %+v", p.out)
	}
}

func TestAbandonedPushIsForgotten(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := s.Push(ctx, set(resource(cds, "a", 1))); err == nil {
			t.Error("no error")
		}
		cancel()
	}
	if n := serve.Waiting(s); n != 0 {
		t.Errorf("%d waiters left", n)
	}
}

// TestTwoClients: what two clients say about one resource is kept apart.
func TestTwoClients(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	connect := start(t, s)
	a, b := connect(), connect()
	a.subscribe(cds)
	a.want("Cluster")
	b.subscribe(cds, "x")
	b.want("Cluster -x")
	p := push(t, s, set(resource(cds, "x", 1), resource(cds, "y", 1))...)
	a.want("Cluster x@1")
	a.want("Cluster y@1")
	p.waiting()
	b.want("Cluster x@1")
	p.rejected()
	b.quiet() // it does not want y
	if n := len(s.Status().Clients); n != 2 {
		t.Errorf("%d clients", n)
	}
}

// TestVeryManyResources: a client that comes back lists more than gRPC takes by default.
func TestVeryManyResources(t *testing.T) {
	const n = 60_000
	var all []xds.Resource
	has := map[string]string{}
	for i := range n {
		r := resource(cds, fmt.Sprintf("a-rather-long-namespace/and-a-long-service-name-%d:8080", i), fmt.Sprintf("%032d", i))
		all = append(all, r)
		has[r.Name] = r.Version
	}
	s := serve.New(serve.Options{}, all)
	connect := start(t, s)
	c := connect()
	c.subscribe(cds)
	if m, _ := c.next(); len(m.Resources) != n {
		t.Errorf("%d resources", len(m.Resources))
	}
	d := connect()
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: cds, InitialResourceVersions: has})
	d.want("Cluster")
}

// listens is a real listener, with routes by scopes or without.
func listens(t *testing.T, name string, scoped bool) xds.Resource {
	t.Helper()
	var filter proto.Message = &tcpproxy.TcpProxy{StatPrefix: name, ClusterSpecifier: &tcpproxy.TcpProxy_Cluster{Cluster: "c"}}
	if scoped {
		filter = &hcm.HttpConnectionManager{StatPrefix: name, RouteSpecifier: &hcm.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcm.ScopedRoutes{Name: "s"}}}
	}
	config, err := anypb.New(filter)
	if err != nil {
		t.Fatal(err)
	}
	r, err := xds.New(&listener.Listener{Name: name, FilterChains: []*listener.FilterChain{{
		Filters: []*listener.Filter{{Name: "f", ConfigType: &listener.Filter_TypedConfig{TypedConfig: config}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r.Version = "1"
	return r
}

// TestListenersWithoutScopes: Envoy does not ask for scopes if none of its listeners
// has any, but does so just after it took the first one.
func TestListenersWithoutScopes(t *testing.T) {
	for _, lazy := range []bool{true, false} {
		s := serve.New(serve.Options{Lazy: lazy}, []xds.Resource{scope(t, "s", "")})
		c := start(t, s)()
		c.subscribe(cds)
		c.want("Cluster")
		c.subscribe(lds)
		c.want("Listener")
		p := push(t, s, set(listens(t, "tcp", false))...)
		m, _ := c.next()
		p.waiting()
		c.ack(m)
		p.rejected()

		p = push(t, s, set(listens(t, "http", true))...)
		c.want("Listener http@1")
		time.Sleep(300 * time.Millisecond) // more than it takes a client to ask for what it came for
		p.waiting()
		c.subscribe(srd)
		m, _ = c.next()
		p.waiting()
		c.ack(m)
		p.rejected()
	}
}
