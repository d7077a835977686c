// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metrics "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/xds/render"
)

// BankKey is where a node's metadata says which bank its Envoy runs in.
const BankKey = "bank"

// Bootstrap is the start-up configuration of the Envoy in a bank: where its
// resources and access logs go, and nothing that ever changes. paths are absolute.
func Bootstrap(node string, bank int, paths Paths) ([]byte, error) {
	return boundedBootstrap(node, bank, paths, bounds{})
}

// boundedBootstrap is Bootstrap for an Envoy that keeps within bounds.
func boundedBootstrap(node string, bank int, paths Paths, within bounds) ([]byte, error) {
	ads := &core.ConfigSource{
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
		ResourceApiVersion:    core.ApiVersion_V3,
	}
	m := &bootstrap.Bootstrap{
		Node: &core.Node{
			Id: node, Cluster: "fairlead",
			Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{BankKey: structpb.NewNumberValue(float64(bank))}},
		},
		Admin: &bootstrap.Admin{Address: adminPipe(paths.Admin[bank])},
		StaticResources: &bootstrap.Bootstrap_StaticResources{
			Listeners: []*listener.Listener{render.ScopesListener()},
			Clusters:  bootstrapClusters(bank, paths),
		},
		DynamicResources: &bootstrap.Bootstrap_DynamicResources{
			AdsConfig: adsSource(),
			CdsConfig: ads,
			LdsConfig: ads,
		},
		// Statistics by cluster and route table are most of Envoy's memory at
		// thousands of services.
		StatsConfig: &metrics.StatsConfig{StatsMatcher: &metrics.StatsMatcher{
			StatsMatcher: &metrics.StatsMatcher_ExclusionList{ExclusionList: &matcher.ListStringMatcher{
				Patterns: []*matcher.StringMatcher{
					{MatchPattern: &matcher.StringMatcher_Prefix{Prefix: "cluster."}},
					{MatchPattern: &matcher.StringMatcher_Contains{Contains: ".rds."}},
					{MatchPattern: &matcher.StringMatcher_Contains{Contains: ".scoped_rds."}},
					{MatchPattern: &matcher.StringMatcher_Prefix{Prefix: "vhost."}},
				},
			}},
		}},
		// What a large configuration took while it was decoded goes back to the system.
		MemoryAllocatorManager: &bootstrap.MemoryAllocatorManager{
			BytesToRelease:        64 << 20,
			MemoryReleaseInterval: durationpb.New(time.Second),
		},
		DeferredStatOptions: &bootstrap.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
		ClusterManager:      &bootstrap.ClusterManager{EnableDeferredClusterCreation: true},
		LayeredRuntime: &bootstrap.LayeredRuntime{Layers: []*bootstrap.RuntimeLayer{{
			Name:           "fl",
			LayerSpecifier: &bootstrap.RuntimeLayer_StaticLayer{StaticLayer: render.Runtime()},
		}}},
	}
	within.apply(m)
	if err := m.ValidateAll(); err != nil {
		return nil, fmt.Errorf("make bootstrap: %w", err)
	}
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("make bootstrap: %w", err)
	}
	// protojson varies its white space on purpose; the file's hash tells whether a
	// running Envoy has the same.
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil {
		return nil, fmt.Errorf("make bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func bootstrapClusters(bank int, paths Paths) []*cluster.Cluster {
	return append([]*cluster.Cluster{
		pipeCluster(render.XDSCluster, paths.XDS[bank]),
		pipeCluster(render.AccessLogCluster, paths.AccessLog),
		authorityCluster(paths.Authority[bank]),
	}, render.OriginalClusters()...)
}

// staticClusters are the names of those that Envoys have from their bootstrap.
func staticClusters(paths Paths) []string {
	var names []string
	for _, c := range bootstrapClusters(0, paths) {
		names = append(names, c.GetName())
	}
	return names
}

func adsSource() *core.ApiConfigSource {
	return &core.ApiConfigSource{
		ApiType:             core.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion: core.ApiVersion_V3,
		// Otherwise each ACK repeats the node, 61 KB of it.
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &core.GrpcService_EnvoyGrpc{
				ClusterName: render.XDSCluster,
				// The proxy is back soon; Envoy's own pause would grow to 30 s.
				RetryPolicy: &core.RetryPolicy{RetryBackOff: &core.BackoffStrategy{
					BaseInterval: durationpb.New(50 * time.Millisecond),
					MaxInterval:  durationpb.New(time.Second),
				}},
			},
		}}},
	}
}

// authorityCluster has no bounds of its own: requests that wait for the proxy to come
// back are bounded by those that wait for an answer, and by default three may retry.
func authorityCluster(path string) *cluster.Cluster {
	const many = 100_000
	c := pipeCluster(render.AuthorityCluster, path)
	c.CircuitBreakers = &cluster.CircuitBreakers{Thresholds: []*cluster.CircuitBreakers_Thresholds{{
		MaxRequests: wrapperspb.UInt32(many), MaxPendingRequests: wrapperspb.UInt32(many), MaxRetries: wrapperspb.UInt32(many),
	}}}
	return c
}

// pipeCluster is a gRPC server behind a unix socket.
func pipeCluster(name, path string) *cluster.Cluster {
	options := &upstream.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstream.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &core.Http2ProtocolOptions{},
				},
			},
		},
	}
	return &cluster.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment: &endpoint.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{{
				HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: pipe(path)}},
			}}}},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(options),
		},
	}
}

func pack(m proto.Message) *anypb.Any {
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic("proxy: " + err.Error()) // constants of ours
	}
	return packed
}

func pipe(path string) *core.Address {
	return &core.Address{Address: &core.Address_Pipe{Pipe: &core.Pipe{Path: path}}}
}

// adminPipe is in a folder that is closed to others.
func adminPipe(path string) *core.Address {
	return &core.Address{Address: &core.Address_Pipe{Pipe: &core.Pipe{Path: path, Mode: 0o666}}}
}
