// SPDX-License-Identifier: Apache-2.0

package istiod

import (
	"fmt"
	"net/netip"
	"strings"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	cares "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/conformance/istio/wire"
)

// sidecar collects what one Envoy runs: a client's outbound half, or the inbound halves
// of all servers.
type sidecar struct {
	listeners []*listener.Listener
	clusters  []*cluster.Cluster
	secrets   []*tls.Secret
}

// stock makes what was generated fit for an Envoy that is fed once and is not Istio's
// own: routes and endpoints stand where they are referred to, secrets have the
// workload's name, and what no stock Envoy knows is gone.
func (g *generated) stock(prefix string) (ls []*listener.Listener, cs []*cluster.Cluster) {
	mu := &mutator{rename: map[string]string{}}
	for _, c := range g.clusters {
		mu.rename[c.GetName()] = prefix + c.GetName()
	}
	if prefix == "" {
		clear(mu.rename)
	}
	mu.edit = func(m proto.Message) bool {
		switch m := m.(type) {
		case *hcm.HttpConnectionManager:
			if r := m.GetRds(); r != nil {
				rc := &route.RouteConfiguration{Name: r.GetRouteConfigName()}
				if have := g.routes[rc.GetName()]; have != nil {
					rc = proto.Clone(have).(*route.RouteConfiguration)
				}
				mu.do(rc)
				m.RouteSpecifier = &hcm.HttpConnectionManager_RouteConfig{RouteConfig: rc}
			}
		case *tls.SdsSecretConfig:
			m.SdsConfig = nil // by name: a static secret
			if m.GetName() == "default" {
				m.Name = secretName(g.pod.Key())
			}
		}
		return true
	}
	for _, l := range g.listeners {
		l = proto.Clone(l).(*listener.Listener)
		mu.do(l)
		ls = append(ls, l)
	}
	for _, c := range g.clusters {
		service := c.GetEdsClusterConfig().GetServiceName()
		if service == "" {
			service = c.GetName()
		}
		c = proto.Clone(c).(*cluster.Cluster)
		mu.do(c)
		if c.GetType() == cluster.Cluster_EDS {
			c.ClusterDiscoveryType = &cluster.Cluster_Type{Type: cluster.Cluster_STATIC}
			c.EdsClusterConfig = nil
			c.LoadAssignment = &endpoint.ClusterLoadAssignment{ClusterName: c.GetName()}
			if have := g.endpoints[service]; have != nil {
				c.LoadAssignment = proto.Clone(have).(*endpoint.ClusterLoadAssignment)
				mu.do(c.LoadAssignment)
			}
		}
		cs = append(cs, c)
	}
	return ls, cs
}

func secretName(pod string) string { return "default/" + pod }

// outbound is the client's half of a sidecar: all that it sends comes by the listener
// that hands over to the others.
func (g *generated) outbound(port uint16) sidecar {
	ls, cs := g.stock("")
	var s sidecar
	for _, l := range ls {
		if l.GetTrafficDirection() != core.TrafficDirection_OUTBOUND {
			continue
		}
		if l.GetName() == "virtualOutbound" {
			l.Address = address("127.0.0.1", port)
			l.Transparent = wrapperspb.Bool(true)
		}
		s.listeners = append(s.listeners, l)
	}
	for _, c := range cs {
		if strings.HasPrefix(c.GetName(), "inbound|") || c.GetName() == "InboundPassthroughCluster" {
			continue
		}
		if !strings.Contains(c.GetName(), "xds-grpc") {
			c.UpstreamBindConfig = fromPod(g.pod.Addr)
		}
		s.clusters = append(s.clusters, c)
	}
	return s
}

// inbound adds the server's half of a sidecar.
func (s *sidecar) inbound(g *generated, port uint16) {
	ls, cs := g.stock(g.pod.Key() + " ")
	for _, l := range ls {
		if l.GetName() != "virtualInbound" {
			continue
		}
		l.Name = "inbound " + g.pod.Key()
		l.Address = address("127.0.0.1", port)
		l.AdditionalAddresses = nil
		l.UseOriginalDst = nil
		l.BindToPort = nil
		l.Transparent = wrapperspb.Bool(true)
		s.listeners = append(s.listeners, l)
	}
	for _, c := range cs {
		_, name, _ := strings.Cut(c.GetName(), " ")
		if strings.HasPrefix(name, "inbound|") || name == "InboundPassthroughCluster" {
			s.clusters = append(s.clusters, c)
		}
	}
}

// fromPod has connections come from the pod, and marks them for the servers' sidecars.
func fromPod(a netip.Addr) *core.BindConfig {
	return &core.BindConfig{
		SourceAddress: address(a.String(), 0).GetSocketAddress(),
		SocketOptions: []*core.SocketOption{{Level: 1, Name: 36, Value: &core.SocketOption_IntValue{IntValue: wire.Inbound}, State: core.SocketOption_STATE_PREBIND}},
	}
}

func address(ip string, port uint16) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: ip, PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(port)}}}}
}

// bootstrap is the whole configuration of an Envoy.
func (s *sidecar) bootstrap() *bootstrap.Bootstrap {
	return &bootstrap.Bootstrap{
		Node:            &core.Node{Id: "bench", Cluster: "bench"},
		StaticResources: &bootstrap.Bootstrap_StaticResources{Listeners: s.listeners, Clusters: s.clusters, Secrets: s.secrets},
		LayeredRuntime: &bootstrap.LayeredRuntime{Layers: []*bootstrap.RuntimeLayer{{Name: "istio",
			LayerSpecifier: &bootstrap.RuntimeLayer_StaticLayer{StaticLayer: runtime()}}}},
		TypedDnsResolverConfig: &core.TypedExtensionConfig{Name: "envoy.network.dns_resolver.cares", TypedConfig: pack(&cares.CaresDnsResolverConfig{
			Resolvers: []*core.Address{address("127.0.0.1", 53)}, DnsResolverOptions: &core.DnsResolverOptions{NoDefaultSearchDomain: true},
		})},
	}
}

// runtime are the flags that Istio's bootstrap sets in every sidecar.
func runtime() *structpb.Struct {
	s, err := structpb.NewStruct(map[string]any{
		"re2.max_program_size.error_level":                               "32768",
		"envoy.reloadable_features.http_reject_path_with_fragment":       false,
		"envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": false,
	})
	if err != nil {
		panic(fmt.Sprint("istiod: ", err)) // constants of ours
	}
	return s
}

func pack(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic("istiod: " + err.Error()) // constants of ours
	}
	return a
}
