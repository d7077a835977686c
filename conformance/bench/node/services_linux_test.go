// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

const (
	clientID   = "spiffe://cluster.local/ns/shop/sa/client"
	strangerID = "spiffe://cluster.local/ns/shop/sa/stranger"
	listener   = "out/http/0a1b"
)

// Services that figures are taken at; all are among the used ones.
const (
	plainService   = 1 // requests to it are routed by the address they go to
	guardedService = 2 // the same, and two policies are asked
	namedService   = 3 // by authority
	askedService   = 4 // by authority; requests to it are for namedService
	changedService = 5 // its routes change
	policyService  = 6 // its policy changes

	used       = 50  // services in use
	firstAsked = 100 // further services, each asked once
)

func nameOf(i int) string { return fmt.Sprintf("shop/svc-%d:80", i) }

// hostOf is the name that clients know a service by.
func hostOf(i int) string { return fmt.Sprintf("svc-%d.shop.svc.cluster.local", i) }

// clusterOf is a service's cluster with its endpoints.
func clusterOf(i int, policy *plan.Policy) (*plan.Cluster, *plan.ClusterEndpoints) {
	e := &plan.ClusterEndpoints{Cluster: nameOf(i)}
	for n := range 3 {
		e.Backends = append(e.Backends, plan.Backend{Addrs: []netip.AddrPort{endpointOf(i, n)}})
	}
	return &plan.Cluster{Name: nameOf(i), App: model.AppHTTP, Checked: true, Policy: policy}, e
}

// tableOf is a service's three routes. The last one, which requests of the benchmark
// take, says the revision in the answer; 0: it says nothing.
func tableOf(i, revision int) *plan.RouteTable {
	t := &plan.RouteTable{Name: nameOf(i)}
	for n, path := range []string{"/api/v1", "/static", "/"} {
		r := plan.Route{
			ID:       fmt.Sprintf("%014x%02x", i, n),
			Match:    model.RouteMatch{Path: &model.StringMatch{Kind: model.Prefix, Value: path}},
			Clusters: []plan.WeightedCluster{{Name: nameOf(i), Weight: 1}},
		}
		if path == "/" && revision > 0 {
			r.ResponseHeaders.Set = []model.Header{{Name: revisionHeader, Value: strconv.Itoa(revision)}}
		}
		t.Routes = append(t.Routes, r)
	}
	return t
}

const revisionHeader = "x-rev"

// byAuthority has a table's requests routed by their host, as an Istio frontend's are.
func byAuthority(t *plan.RouteTable, i int) *plan.RouteTable {
	t.Hosts = []string{hostOf(i), fmt.Sprintf("svc-%d.shop.svc", i), fmt.Sprintf("svc-%d.shop", i), fmt.Sprintf("svc-%d", i), vip(i).Addr().String()}
	t.Elsewhere = &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}
	return t
}

func scopeOf(i int) *plan.Scope {
	return &plan.Scope{Key: plan.DestinationKey(vip(i)), RouteTable: nameOf(i)}
}

// policyFor denies a path, and allows a client.
func policyFor(id string) *plan.Policy {
	return &plan.Policy{
		Deny: []model.AuthRule{{To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Prefix, Value: "/internal"}}}}}},
		Allow: [][]model.AuthRule{{{From: []model.Peer{{Identities: []model.StringMatch{
			{Kind: model.Exact, Value: id}, {Kind: model.Exact, Value: "spiffe://cluster.local/ns/shop/sa/other"}}}}}}},
	}
}

func policyOf(i int) *plan.Policy {
	if i == guardedService || i == policyService {
		return policyFor(clientID)
	}
	return nil
}

// rendered are the resources of rows.
func rendered(b *testing.B, rows ...any) []xds.Resource {
	b.Helper()
	out := make([]xds.Resource, 0, len(rows))
	for _, row := range rows {
		var r xds.Resource
		var err error
		switch row := row.(type) {
		case *plan.Cluster:
			r, err = render.Cluster(row)
		case *plan.ClusterEndpoints:
			r, err = render.Endpoints(row)
		case *plan.RouteTable:
			r, err = render.RouteTable(row)
		case *plan.Scope:
			r, err = render.Scope(row)
		case *plan.Listener:
			r, err = render.Listener(row, portOf(row.Name))
		default:
			b.Fatalf("row %T", row)
		}
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// upstream are the resources of a service that are the same in every layout.
func upstream(b *testing.B, i int) []xds.Resource {
	c, e := clusterOf(i, policyOf(i))
	return rendered(b, c, e)
}

// portOf is where a listener listens.
func portOf(name string) uint16 {
	if n, is := podOf(name); is {
		return podPort + uint16(n)
	}
	return outPort
}

func outbound(b *testing.B) xds.Resource {
	return rendered(b, &plan.Listener{Name: listener, Mode: plan.HTTP, Identity: clientID, Selects: []string{"p1", "p2"}, Class: "0a1b"})[0]
}
