// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

// layout is a way to say n services in Envoy's resources. Clusters, endpoints and
// policies are the same in all: policy is judged in the clusters.
type layout interface {
	// all is everything there is for the first n services.
	all(n int) []xds.Resource
	// routes are the resources that say a revision of a service's routes.
	routes(i, revision int) []xds.Resource
	// add is what a further service, the i-th, needs; the services before it are there.
	add(i int) []xds.Resource
}

// ours is what the product renders: a scope and a table for each service.
type ours struct{ b *testing.B }

func (l ours) all(n int) []xds.Resource {
	out, err := render.PassResources()
	if err != nil {
		l.b.Fatal(err)
	}
	for i := range n {
		out = append(out, l.add(i)...)
	}
	return append(out, outbound(l.b))
}

func (l ours) add(i int) []xds.Resource {
	return append(upstream(l.b, i), append(l.routes(i, 0), rendered(l.b, scopeOf(i))...)...)
}

func (l ours) routes(i, revision int) []xds.Resource {
	t := tableOf(i, revision)
	if i == namedService || i == askedService {
		t = byAuthority(t, i)
	}
	return rendered(l.b, t)
}

// The other layouts have our listener and tables, less what only ours needs of them:
// no filter but the router, no virtual host for other names.

// chains is one listener with a filter chain and a table for each service. n is how
// many there are.
type chains struct {
	b *testing.B
	n int
}

func newChains(b *testing.B) layout { return &chains{b: b} }

func (l *chains) all(n int) []xds.Resource {
	l.n = n
	var out []xds.Resource
	for i := range n {
		out = append(out, upstream(l.b, i)...)
		out = append(out, l.routes(i, 0)...)
	}
	return append(out, l.listener())
}

func (l *chains) add(i int) []xds.Resource {
	l.n = i + 1
	return append(upstream(l.b, i), append(l.routes(i, 0), l.listener())...)
}

func (l *chains) routes(i, revision int) []xds.Resource { return lean(l.b, tableOf(i, revision)) }

func (l *chains) listener() xds.Resource {
	m, manager := leanListener(l.b)
	manager.EarlyHeaderMutationExtensions = nil
	filter := m.GetFilterChains()[0].GetFilters()[0]
	m.FilterChains = nil
	for i := range l.n {
		manager.RouteSpecifier = routesNamed(nameOf(i))
		m.FilterChains = append(m.FilterChains, &listenerv3.FilterChain{
			Name: nameOf(i),
			FilterChainMatch: &listenerv3.FilterChainMatch{
				DestinationPort: wrapperspb.UInt32(uint32(vip(i).Port())),
				PrefixRanges:    []*core.CidrRange{{AddressPrefix: vip(i).Addr().String(), PrefixLen: wrapperspb.UInt32(32)}},
			},
			Filters: []*listenerv3.Filter{{
				Name:       filter.GetName(),
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(l.b, manager)},
			}},
		})
	}
	return made(l.b, m)
}

// oneTable is one table with a virtual host for each service, chosen by the address
// that the client had dialled.
type oneTable struct {
	b     *testing.B
	hosts []*route.VirtualHost
}

func newOneTable(b *testing.B) layout { return &oneTable{b: b} }

const tableName = "all"

func (l *oneTable) all(n int) []xds.Resource {
	var out []xds.Resource
	for i := range n {
		out = append(out, upstream(l.b, i)...)
		l.hosts = append(l.hosts, l.host(i, 0))
	}
	m, manager := leanListener(l.b)
	manager.RouteSpecifier = routesNamed(tableName)
	m.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(l.b, manager)}
	return append(out, l.table(), made(l.b, m))
}

func (l *oneTable) add(i int) []xds.Resource {
	l.hosts = append(l.hosts, l.host(i, 0))
	return append(upstream(l.b, i), l.table())
}

func (l *oneTable) routes(i, revision int) []xds.Resource {
	l.hosts[i] = l.host(i, revision)
	return []xds.Resource{l.table()}
}

func (l *oneTable) host(i, revision int) *route.VirtualHost {
	h := leanTable(l.b, tableOf(i, revision)).GetVirtualHosts()[0]
	h.Name, h.Domains = nameOf(i), []string{vip(i).String()}
	return h
}

func (l *oneTable) table() xds.Resource {
	return made(l.b, &route.RouteConfiguration{
		Name:                   tableName,
		VhostHeader:            render.DestinationHeader,
		RequestHeadersToRemove: []string{render.DestinationHeader},
		ValidateClusters:       wrapperspb.Bool(false),
		VirtualHosts:           l.hosts,
	})
}

func lean(b *testing.B, t *plan.RouteTable) []xds.Resource {
	return []xds.Resource{made(b, leanTable(b, t))}
}

func leanTable(b *testing.B, t *plan.RouteTable) *route.RouteConfiguration {
	var m route.RouteConfiguration
	if err := proto.Unmarshal(rendered(b, t)[0].Body, &m); err != nil {
		b.Fatal(err)
	}
	m.TypedPerFilterConfig = nil
	for _, h := range m.GetVirtualHosts() {
		h.TypedPerFilterConfig = nil
	}
	return &m
}

// leanListener is our listener and the connection manager in it, without filters but
// the router.
func leanListener(b *testing.B) (*listenerv3.Listener, *hcm.HttpConnectionManager) {
	var m listenerv3.Listener
	if err := proto.Unmarshal(outbound(b).Body, &m); err != nil {
		b.Fatal(err)
	}
	var manager hcm.HttpConnectionManager
	if err := m.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(&manager); err != nil {
		b.Fatal(err)
	}
	manager.HttpFilters = manager.HttpFilters[len(manager.HttpFilters)-1:]
	return &m, &manager
}

func routesNamed(name string) *hcm.HttpConnectionManager_Rds {
	return &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
		RouteConfigName: name,
		ConfigSource: &core.ConfigSource{
			ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
			ResourceApiVersion:    core.ApiVersion_V3,
		},
	}}
}

func packed(b *testing.B, m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		b.Fatal(err)
	}
	return a
}

func made(b *testing.B, m proto.Message) xds.Resource {
	r, err := xds.New(m)
	if err != nil {
		b.Fatal(err)
	}
	return r
}
