// SPDX-License-Identifier: Apache-2.0

package render

import (
	"time"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpclog "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	metadata "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracing "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// RouteTag is the custom tag of access log entries of connections that says by what
// name the plan has the cluster: the id of its Origin. What Envoy calls it may say more.
const RouteTag = "fl.route"

func requestLog() *accesslog.AccessLog {
	return &accesslog.AccessLog{
		Name: "envoy.access_loggers.http_grpc",
		ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: pack(&grpclog.HttpGrpcAccessLogConfig{
			CommonConfig: commonLog(),
		})},
	}
}

func connectionLog() *accesslog.AccessLog {
	c := commonLog()
	c.CustomTags = []*tracing.CustomTag{{
		Tag: RouteTag,
		Type: &tracing.CustomTag_Metadata_{Metadata: &tracing.CustomTag_Metadata{
			Kind: &metadata.MetadataKind{Kind: &metadata.MetadataKind_Cluster_{Cluster: &metadata.MetadataKind_Cluster{}}},
			MetadataKey: &metadata.MetadataKey{Key: metadataKey, Path: []*metadata.MetadataKey_PathSegment{{
				Segment: &metadata.MetadataKey_PathSegment_Key{Key: routeKey},
			}}},
		}},
	}}
	return &accesslog.AccessLog{
		Name:       "envoy.access_loggers.tcp_grpc",
		ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: pack(&grpclog.TcpGrpcAccessLogConfig{CommonConfig: c})},
	}
}

func commonLog() *grpclog.CommonGrpcAccessLogConfig {
	return &grpclog.CommonGrpcAccessLogConfig{
		LogName:             "fl",
		TransportApiVersion: core.ApiVersion_V3,
		GrpcService: &core.GrpcService{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: AccessLogCluster},
		}},
		BufferFlushInterval:     durationpb.New(time.Second),
		FilterStateObjectsToLog: []string{IdentityKey},
	}
}
