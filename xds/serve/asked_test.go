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
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// candidates are the name, and then the one without class: "tcp|class|to", "tcp||to".
func candidates(typ, name string) []string {
	parts := strings.Split(name, "|")
	if typ != cds || len(parts) != 3 || parts[1] == "" {
		return []string{name}
	}
	return []string{name, parts[0] + "||" + parts[2]}
}

// connectionCluster is one of connections; whose endpoints go by its name.
func connectionCluster(t testing.TB, name string, version any) xds.Resource {
	t.Helper()
	r, err := xds.New(&cluster.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: &core.ConfigSource{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Version = fmt.Sprint(version)
	return r
}

// standInForAll answers for clusters, too.
func standInForAll(typ, name string) (xds.Resource, bool) {
	if typ == cds && strings.HasPrefix(name, "tcp|") {
		r, err := xds.New(&cluster.Cluster{Name: name})
		r.Version = "none"
		return r, err == nil
	}
	return standIn(typ, name)
}

func asking(initial ...xds.Resource) *serve.Server {
	return serve.New(serve.Options{Lazy: true, StandIn: standInForAll, Candidates: candidates}, initial)
}

func TestAskedClusters(t *testing.T) {
	s := asking()
	c := start(t, s)()
	c.begin("", "")
	c.settle()
	c.subscribe(cds, "tcp|a|d")
	c.want("Cluster tcp|a|d@none") // at once

	p := push(t, s, set(connectionCluster(t, "tcp||d", 1))...)
	m, got := c.next()
	if got != "Cluster tcp|a|d@1=tcp||d" {
		t.Fatal(got)
	}
	p.waiting()
	var body cluster.Cluster
	if err := proto.Unmarshal(m.Resources[0].Resource.Value, &body); err != nil || body.Name != "tcp|a|d" || body.EdsClusterConfig.GetServiceName() != "tcp||d" {
		t.Errorf("%v %v", &body, err)
	}
	c.ack(m)
	p.rejected()

	p = push(t, s, set(connectionCluster(t, "tcp|a|d", 1))...)
	c.want("Cluster tcp|a|d@1")
	p.rejected()
	push(t, s, set(connectionCluster(t, "tcp||d", 2))...).rejected() // a closer one serves
	c.quiet()
	p = push(t, s, serve.Change{Type: cds, Name: "tcp|a|d"})
	m, got = c.next()
	if got != "Cluster tcp|a|d@2=tcp||d" {
		t.Fatal(got)
	}
	p.waiting()
	c.ack(m)
	p.rejected()
	p = push(t, s, serve.Change{Type: cds, Name: "tcp||d"})
	m, got = c.next()
	if got != "Cluster tcp|a|d@none" {
		t.Fatal(got)
	}
	p.waiting()
	c.ack(m)
	p.rejected()
	p = push(t, s, set(connectionCluster(t, "tcp||d", 2))...)
	c.want("Cluster tcp|a|d@2=tcp||d")
	p.rejected()

	// What nobody asks for costs nothing.
	push(t, s, set(connectionCluster(t, "tcp||other", 1), connectionCluster(t, "tcp|b|d", 1))...).rejected()
	push(t, s, serve.Change{Type: cds, Name: "tcp|b|d"}).rejected()
	c.quiet()

	c.unsubscribe(cds, "tcp|a|d")
	c.want("Cluster -tcp|a|d")
	c.unsubscribe(cds, "*")
	c.sync()
	eventually(t, "nothing kept", func() bool { return serve.Held(s) == c.synced }) // the names that it asks for
}

// A client waits for the endpoints of each cluster, but asks for them once.
func TestAskedClustersShareEndpoints(t *testing.T) {
	s := asking(connectionCluster(t, "tcp||d", 1), resource(eds, "tcp||d", 1))
	c := start(t, s)()
	c.begin("", "")
	c.subscribe(cds, "tcp|a|d")
	c.want("Cluster tcp|a|d@1=tcp||d")
	c.subscribe(eds, "tcp||d")
	c.want("ClusterLoadAssignment tcp||d@1")
	for _, name := range []string{"tcp|b|d", "tcp||d"} {
		c.subscribe(cds, name)
		if _, got := c.next(); !strings.HasPrefix(got, "Cluster "+name+"@1") {
			t.Fatal(got)
		}
		c.want("ClusterLoadAssignment tcp||d@1")
	}
	p := push(t, s, set(connectionCluster(t, "tcp||d", 2))...)
	var all []*discovery.DeltaDiscoveryResponse
	var lines []string
	for range 4 {
		m, got := c.next()
		all, lines = append(all, m), append(lines, got)
	}
	if want := []string{"Cluster tcp|a|d@2=tcp||d", "Cluster tcp|b|d@2=tcp||d", "Cluster tcp||d@2", "ClusterLoadAssignment tcp||d@1"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	for _, m := range all[:3] {
		p.waiting()
		c.ack(m)
	}
	p.rejected()
}

func TestAskedClustersAreRejected(t *testing.T) {
	s := asking(connectionCluster(t, "tcp||d", 1))
	c := start(t, s)()
	c.begin("", "")
	c.settle()
	c.subscribe(cds, "tcp|a|d")
	c.want("Cluster tcp|a|d@1=tcp||d")
	p := push(t, s, set(connectionCluster(t, "tcp||d", "bad"))...)
	m, _ := c.next()
	c.nack(m, "no")
	p.rejected("tcp||d")
	c.quiet() // it has the one before
	c.subscribe(cds, "tcp|b|d")
	c.want("Cluster tcp|b|d@1=tcp||d")

	// The answer is to what was sent, whatever is meant by the name now.
	c.unsubscribe(cds, "tcp|b|d")
	c.want("Cluster -tcp|b|d")
	s.Apply(set(connectionCluster(t, "tcp||d", "worse")), nil)
	m, got := c.next()
	if got != "Cluster tcp|a|d@worse=tcp||d" {
		t.Fatal(got)
	}
	s.Apply(set(connectionCluster(t, "tcp|a|d", 1)), nil)
	c.want("Cluster tcp|a|d@1")
	c.nack(m, "no")
	c.sync()
	if got := s.Status().Rejected; len(got) != 1 || got[0].Name != "tcp||d" || got[0].Version != "worse" {
		t.Errorf("%+v", got)
	}
	p = push(t, s, serve.Change{Type: cds, Name: "tcp|a|d"})
	c.want("Cluster tcp|a|d@1=tcp||d")
	p.rejected()

	// One that is bad from the start hides what is farther.
	p = push(t, s, set(connectionCluster(t, "tcp|a|d", "bad"))...)
	m, _ = c.next()
	c.nack(m, "no")
	p.rejected("tcp|a|d")
	c.want("Cluster tcp|a|d@none")
	p = push(t, s, serve.Change{Type: cds, Name: "tcp|a|d"})
	c.want("Cluster tcp|a|d@1=tcp||d")
	p.rejected()
	if got := s.Status().Rejected; len(got) != 1 || got[0].Name != "tcp||d" || got[0].Kept != "1" {
		t.Errorf("%+v", got)
	}
}

// TestAskedClustersOfAClientThatComesBack: it says what it asked for and what it has,
// to a server that knows nothing of it.
func TestAskedClustersOfAClientThatComesBack(t *testing.T) {
	s := asking(connectionCluster(t, "tcp||same", 1), connectionCluster(t, "tcp||back", 1), connectionCluster(t, "tcp||other", 1), connectionCluster(t, "tcp|a|other", 1))
	c := start(t, s)()
	c.send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: "n1"}, TypeUrl: cds,
		ResourceNamesSubscribe: []string{"*", "tcp|a|same", "tcp|a|back", "tcp|a|other", "tcp|a|lost", "tcp|a|nothing", "tcp|a|none"},
		InitialResourceVersions: map[string]string{
			"tcp|a|same": "1=tcp||same", "tcp|a|other": "1=tcp||other", "tcp|a|lost": "1=tcp||lost", "tcp|a|none": "none",
		},
	})
	c.want("Cluster tcp|a|back@1=tcp||back tcp|a|lost@none tcp|a|nothing@none tcp|a|other@1")
	c.settle()
	c.quiet()
	for _, n := range []string{"lost", "none", "nothing"} {
		p := push(t, s, set(connectionCluster(t, "tcp||"+n, 2))...)
		c.want("Cluster tcp|a|" + n + "@2=tcp||" + n)
		p.rejected()
	}
}

// TestStandInsAreLimited: what is not there any more does not fill the client, however
// many names it once asked for, and comes back unasked.
func TestStandInsAreLimited(t *testing.T) {
	s := asking()
	serve.SetMaxStandIns(s, 2)
	c := start(t, s)()
	c.begin("", "")
	c.settle()
	for i := range 2 {
		c.subscribe(cds, fmt.Sprint("tcp|a|", i))
		c.want(fmt.Sprintf("Cluster tcp|a|%d@none", i))
	}
	c.subscribe(cds, "tcp|a|2")
	c.want("Cluster tcp|a|2@none")
	c.want("Cluster -tcp|a|0")
	push(t, s, serve.Change{Type: cds, Name: "tcp||0"}).rejected()
	c.quiet()

	p := push(t, s, set(connectionCluster(t, "tcp||0", 1), connectionCluster(t, "tcp||1", 1))...)
	c.want("Cluster tcp|a|0@1=tcp||0")
	c.want("Cluster tcp|a|1@1=tcp||1")
	p.rejected()
	// Those that go at once make room for themselves.
	p = push(t, s, serve.Change{Type: cds, Name: "tcp||0"}, serve.Change{Type: cds, Name: "tcp||1"})
	c.want("Cluster tcp|a|0@none")
	c.want("Cluster tcp|a|1@none")
	c.want("Cluster -tcp|a|2")
	p.rejected()
	c.subscribe(cds, "tcp|a|2") // asked again, as by an Envoy that dropped it
	c.want("Cluster tcp|a|2@none")
	c.want("Cluster -tcp|a|0")
	c.quiet()

	// Of the names of a client that comes back only so many are given.
	d := start(t, s)()
	d.subscribe(cds, "*", "tcp|a|0", "tcp|a|1", "tcp|a|2", "tcp|a|3")
	d.want("Cluster tcp|a|2@none tcp|a|3@none")
	d.quiet()
}

func TestClustersLinger(t *testing.T) {
	const linger = 400 * time.Millisecond
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn, ClusterLinger: linger},
		slices.Concat(clusters("a", "b", "c"), []xds.Resource{resource(eds, "a", 1), resource(eds, "b", 1), routes(t, "r", 1, "a", "b")}))
	c := start(t, s)()
	c.begin("", "")
	c.settle()
	c.subscribe(rds, "r")
	c.want("Cluster a@1")
	c.want("Cluster b@1")
	c.want("RouteConfiguration r@1")
	c.subscribe(eds, "a", "b")
	c.want("ClusterLoadAssignment a@1 b@1")

	began := time.Now()
	p := push(t, s, append(set(routes(t, "r", 2, "b")), serve.Change{Type: cds, Name: "a"}, serve.Change{Type: eds, Name: "a"})...)
	c.want("RouteConfiguration r@2")
	p.rejected() // without waiting for it to go, and its endpoints stay with it
	c.quiet()
	c.want("Cluster -a")
	if d := time.Since(began); d < linger {
		t.Errorf("gone after %v", d)
	}
	c.unsubscribe(eds, "a")

	// What is needed again in between has never been away.
	p = push(t, s, set(routes(t, "r", 3, "c"))...)
	c.want("Cluster c@1")
	c.want("RouteConfiguration r@3")
	p.rejected()
	time.Sleep(linger / 2)
	p = push(t, s, set(routes(t, "r", 4, "b", "c"))...)
	c.want("RouteConfiguration r@4")
	p.rejected()
	time.Sleep(linger)
	c.quiet()
	p = push(t, s, set(routes(t, "r", 5, "c"))...)
	c.want("RouteConfiguration r@5")
	p.rejected()
	time.Sleep(linger / 2) // its time begins anew
	c.quiet()
	// Endpoints that went meanwhile are told of when they matter.
	push(t, s, serve.Change{Type: eds, Name: "b"}).rejected()
	c.quiet()
	p = push(t, s, set(routes(t, "r", 6, "b", "c"))...)
	c.want("ClusterLoadAssignment b@none")
	c.want("RouteConfiguration r@6")
	p.rejected()
	time.Sleep(linger)
	c.quiet()

	c.unsubscribe(rds, "r")
	c.quiet()
	c.want("Cluster -b -c")
	c.unsubscribe(eds, "b")
	c.unsubscribe(cds, "*")
	c.sync()
	eventually(t, "nothing kept", func() bool { return serve.Held(s) == c.synced }) // the names that it asks for
	c.quiet()
}

// TestClustersOfAClientThatComesBackLinger: its routes may have changed meanwhile.
func TestClustersOfAClientThatComesBackLinger(t *testing.T) {
	s := serve.New(serve.Options{Lazy: true, StandIn: standIn, ClusterLinger: 300 * time.Millisecond},
		slices.Concat(clusters("a", "b"), []xds.Resource{routes(t, "r", 2, "b"), resource(eds, "b", 1)}))
	c := start(t, s)()
	c.back(cds, false, "a@1", "b@1", "gone@1")
	c.want("Cluster")
	c.back(eds, true, "b@1", "gone@1")
	c.back(rds, true, "r@1")
	c.want("RouteConfiguration r@2")
	began := time.Now()
	c.want("Cluster -a -gone")
	if d := time.Since(began); d < 250*time.Millisecond {
		t.Errorf("gone after %v", d)
	}
	c.quiet()
	// A timer that runs ends with the client.
	c.unsubscribe(rds, "r")
	c.sync()
	c.close()
	eventually(t, "end of the client", func() bool { return len(s.Status().Clients) == 0 })
}
