// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutation "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpclog "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	filterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	originaldst "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrc "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	setfilterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/set_filter_state/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlymutation "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	ipdetection "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// DestinationHeader carries the address that the client had dialled from the
// listener to the scopes. It never leaves the proxy.
const DestinationHeader = "x-fl-dst"

// Keys of filter state that outbound listeners set for each connection.
const (
	IdentityKey = "fl.identity" // SPIFFE id of the client
	SelectsKey  = "fl.selects"  // "|p1|p2|": the predicates that it satisfies
)

// Static clusters that a node's bootstrap must have.
const (
	AccessLogCluster     = "als"
	OriginalHTTPCluster  = "original/http"
	OriginalHTTP2Cluster = "original/http2"
)

// AllowSlots is how many groups of allows an inbound policy may have: a listener
// has one slot for the denials of all planes, and one for what each plane allows.
// They stand disabled in the chain and are switched on by routes.
const AllowSlots = 5

// Names of filters that hold policy. In a cluster they have a prefix of their own,
// because Envoy gives a filter the configuration that a route has for its name.
const (
	routePrefix = "fl."
	foldPrefix  = "fl.fold."
	denySlot    = "deny"
)

func allowSlot(group int) string { return fmt.Sprintf("allow.%d", group) }

// Listener renders a proxy port: bound to the loopback addresses, so that nobody
// but the kernel's redirect reaches it, and transparent, so that it answers for
// the addresses that clients dialled.
func Listener(l *plan.Listener, port uint16) (xds.Resource, error) {
	if port == 0 {
		return xds.Resource{}, fmt.Errorf("render listener %s: no port", l.Name)
	}
	for _, s := range append([]string{l.Name, l.Identity}, l.Selects...) {
		if strings.ContainsAny(s, "|\r\n\x00") || !utf8.ValidString(s) {
			return xds.Resource{}, fmt.Errorf("render listener %s: %q cannot be filter state", l.Name, s)
		}
	}
	m := &listener.Listener{
		Name:    l.Name,
		Address: address("127.0.0.1", port),
		AdditionalAddresses: []*listener.AdditionalAddress{
			{Address: address("::1", port)},
		},
		Transparent:      wrapperspb.Bool(true),
		TrafficDirection: core.TrafficDirection_OUTBOUND,
		// The restored address first: the filters behind it may use it.
		ListenerFilters: []*listener.ListenerFilter{
			listenerFilter("envoy.filters.listener.original_dst", &originaldst.OriginalDst{}),
			listenerFilter("envoy.filters.listener.original_src", &originalsrc.OriginalSrc{}),
		},
		FilterChains: []*listener.FilterChain{{
			Filters: []*listener.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(connectionManager(l))},
			}},
		}},
	}
	if l.Inbound {
		m.TrafficDirection = core.TrafficDirection_INBOUND
	} else {
		m.ListenerFilters = append(m.ListenerFilters, clientState(l))
	}
	return finish("listener", l.Name, m)
}

// clientState tells routes and policies who the clients of the port are. The
// values are hashable, which keeps upstream connections of different clients
// apart, and shared with upstream, where the folded policy is judged.
func clientState(l *plan.Listener) *listener.ListenerFilter {
	selects := "|"
	for _, s := range l.Selects {
		selects += s + "|"
	}
	var values []*filterstate.FilterStateValue
	for _, kv := range [][2]string{{IdentityKey, l.Identity}, {SelectsKey, selects}} {
		if kv[1] == "" { // a client without identity has no such key: nothing matches it
			continue
		}
		values = append(values, &filterstate.FilterStateValue{
			Key:        &filterstate.FilterStateValue_ObjectKey{ObjectKey: kv[0]},
			FactoryKey: "envoy.hashable_string",
			Value: &filterstate.FilterStateValue_FormatString{FormatString: &core.SubstitutionFormatString{
				Format: &core.SubstitutionFormatString_TextFormatSource{TextFormatSource: &core.DataSource{
					Specifier: &core.DataSource_InlineString{InlineString: literal(kv[1])},
				}},
			}},
			SharedWithUpstream: filterstate.FilterStateValue_ONCE,
		})
	}
	return listenerFilter("envoy.filters.listener.set_filter_state", &setfilterstate.Config{OnAccept: values})
}

// connectionManager is the one profile that serves all planes. It trusts nothing
// that a client says about itself: addresses come from the connection, and
// x-envoy-* headers control nothing.
func connectionManager(l *plan.Listener) *hcm.HttpConnectionManager {
	return &hcm.HttpConnectionManager{
		CodecType:                     hcm.HttpConnectionManager_AUTO,
		StatPrefix:                    l.Name,
		RouteSpecifier:                scopedRoutes(),
		EarlyHeaderMutationExtensions: []*core.TypedExtensionConfig{destinationHeader(l)},
		HttpFilters:                   httpFilters(),
		AccessLog:                     []*accesslog.AccessLog{accessLog()},

		// Policy, routes and the application must mean the same path: dots and
		// slashes are normalised. A path with an escaped slash has two meanings, and
		// which one an application takes is not ours to guess: such a request is
		// refused. A redirect would hand the client a path that it did not ask for,
		// and clients that do not follow it would see a failure all the same.
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcm.HttpConnectionManager_REJECT_REQUEST,

		// WebSocket over HTTP/2 (RFC 8441).
		Http2ProtocolOptions: &core.Http2ProtocolOptions{AllowConnect: true},
		UpgradeConfigs:       []*hcm.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},

		// Clients have the address of their connection and no other: requests from
		// addresses that Envoy takes for internal could set timeouts and retries by
		// x-envoy-* headers. x-forwarded-for passes as it came.
		OriginalIpDetectionExtensions: []*core.TypedExtensionConfig{noDetection()},
		GenerateRequestId:             wrapperspb.Bool(true),
		PreserveExternalRequestId:     true,
		ServerHeaderTransformation:    hcm.HttpConnectionManager_PASS_THROUGH,

		// Streams may be silent for as long as they like; routes have timeouts of
		// their own where a plane says so.
		StreamIdleTimeout: durationpb.New(0),
		// Headers must come, though: a client that dribbles them holds memory.
		RequestHeadersTimeout: durationpb.New(time.Minute),
	}
}

// destinationHeader overwrites what a client may have sent, before the scope is chosen.
func destinationHeader(l *plan.Listener) *core.TypedExtensionConfig {
	key := "%DOWNSTREAM_LOCAL_ADDRESS%"
	if l.Inbound {
		key = "in|" + key
	}
	return &core.TypedExtensionConfig{
		Name: "fl.destination",
		TypedConfig: pack(&earlymutation.HeaderMutation{Mutations: []*mutation.HeaderMutation{{
			Action: &mutation.HeaderMutation_Append{Append: &core.HeaderValueOption{
				Header:       &core.HeaderValue{Key: DestinationHeader, Value: key},
				AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}},
		}}}),
	}
}

// noDetection replaces Envoy's own look into x-forwarded-for. (Empty ranges of
// internal addresses would not do: Envoy takes them for the private ones.) The
// header that it looks into is ours, and never an address alone.
func noDetection() *core.TypedExtensionConfig {
	return &core.TypedExtensionConfig{
		Name:        "envoy.http.original_ip_detection.custom_header",
		TypedConfig: pack(&ipdetection.CustomHeaderConfig{HeaderName: DestinationHeader}),
	}
}

func scopedRoutes() *hcm.HttpConnectionManager_ScopedRoutes {
	return &hcm.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcm.ScopedRoutes{
		Name:            "fl",
		RdsConfigSource: ads(),
		ScopeKeyBuilder: &hcm.ScopedRoutes_ScopeKeyBuilder{
			Fragments: []*hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{{
				Type: &hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{
					HeaderValueExtractor: &hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
						Name:        DestinationHeader,
						ExtractType: &hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{Index: 0},
					},
				},
			}},
		},
		ConfigSpecifier: &hcm.ScopedRoutes_ScopedRds{ScopedRds: &hcm.ScopedRds{ScopedRdsConfigSource: ads()}},
	}}
}

// httpFilters is the chain of every listener, in an order that is fixed for good:
// the client's stage (faults, CORS, rewrites), then the destination's (external
// authorization, JWT, denials of any plane, one allow slot per plane), then the
// router. Filters stand disabled and are switched on per route. A change here
// drains every connection of the node.
func httpFilters() []*hcm.HttpFilter {
	slot := func(name string) *hcm.HttpFilter {
		return &hcm.HttpFilter{
			Name:       name,
			Disabled:   true,
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(&rbac.RBAC{})},
		}
	}
	fs := []*hcm.HttpFilter{slot(routePrefix + denySlot)}
	for i := range AllowSlots {
		fs = append(fs, slot(routePrefix+allowSlot(i)))
	}
	return append(fs, &hcm.HttpFilter{
		Name: "envoy.filters.http.router",
		ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(&router.Router{
			// No x-envoy-* headers are added for applications to see.
			SuppressEnvoyHeaders: true,
		})},
	})
}

func accessLog() *accesslog.AccessLog {
	return &accesslog.AccessLog{
		Name: "envoy.access_loggers.http_grpc",
		ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: pack(&grpclog.HttpGrpcAccessLogConfig{
			CommonConfig: &grpclog.CommonGrpcAccessLogConfig{
				LogName:             "fl",
				TransportApiVersion: core.ApiVersion_V3,
				GrpcService: &core.GrpcService{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: AccessLogCluster},
				}},
				BufferFlushInterval:     durationpb.New(time.Second),
				FilterStateObjectsToLog: []string{IdentityKey},
			},
		})},
	}
}

func listenerFilter(name string, config proto.Message) *listener.ListenerFilter {
	return &listener.ListenerFilter{
		Name:       name,
		ConfigType: &listener.ListenerFilter_TypedConfig{TypedConfig: pack(config)},
	}
}
