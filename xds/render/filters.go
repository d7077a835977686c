// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	cors "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	filterchain "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	ondemand "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Names of the HTTP filters that routes give configuration to, in their order.
const (
	AuthorityFilter   = "fl.authority"   // finds the frontend of a Host
	FaultFilter       = "fl.fault"       // the client's stage: aborts and delays,
	CORSFilter        = "fl.cors"        // answers to browsers,
	ClientFilter      = "fl.client"      // and any further filters
	DestinationFilter = "fl.destination" // the destination's stage: any further filters that refuse nobody,
	PathFilter        = "fl.path"        // of clusters alone: refuses paths that servers read differently
	DenyFilter        = "fl.deny"        // what any plane denies; then AllowFilter,
	RateLimitFilter   = "fl.ratelimit"   // and of what may pass how much
)

// AllowFilter is the filter of one plane's allows; group < AllowSlots.
func AllowFilter(group int) string { return fmt.Sprintf("fl.allow.%d", group) }

// AllowSlots is how many groups of allows an inbound policy may have: a listener
// has one filter for the denials of all planes, and one for what each plane allows.
const AllowSlots = 5

// ClientMetadata is the gRPC metadata that tells the authority server the client's
// identity; "-" if it has none.
const ClientMetadata = "x-client"

// httpFilters is the chain of every listener, in an order that is fixed for good,
// because a change here drains every connection of the node: what finds the routes,
// the client's stage, the destination's, the router. Routes say what the filters do.
//
// A filter that is disabled here is switched on by the route, but is missing for the
// request that loads its route table: its chain was made before. So what a route may ask
// for is enabled, with nothing to do, at 2 to 4 microseconds of CPU a request; see
// decision 0013. A chain that comes whole with the route is missing for that request in
// either case.
func httpFilters(inbound bool) []*hcm.HttpFilter {
	// Only inbound tables have limits, so only there it costs.
	limit := disabled(RateLimitFilter, &ratelimit.LocalRateLimit{StatPrefix: "fl"})
	limit.Disabled = !inbound
	fs := []*hcm.HttpFilter{
		enabled("envoy.filters.http.on_demand", &ondemand.OnDemand{}),
		enabled(AuthorityFilter, authority()),
		// Loads the routes of the frontend that was found.
		enabled("fl.on_demand", &ondemand.OnDemand{}),
		enabled(FaultFilter, &fault.HTTPFault{DisableDownstreamClusterStats: true}),
		enabled(CORSFilter, &cors.Cors{}),
		disabled(ClientFilter, &filterchain.FilterChainConfig{}),
		disabled(DestinationFilter, &filterchain.FilterChainConfig{}),
		enabled(DenyFilter, &rbac.RBAC{}),
	}
	for i := range AllowSlots {
		fs = append(fs, enabled(AllowFilter(i), &rbac.RBAC{}))
	}
	// Behind all that refuses: what is refused uses nothing up that others have.
	fs = append(fs, limit)
	// No x-envoy-* headers are added for applications to see.
	return append(fs, enabled("envoy.filters.http.router", &router.Router{SuppressEnvoyHeaders: true}))
}

func enabled(name string, config proto.Message) *hcm.HttpFilter {
	return &hcm.HttpFilter{Name: name, ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

func disabled(name string, config proto.Message) *hcm.HttpFilter {
	f := enabled(name, config)
	f.Disabled = true
	return f
}

// authority asks the node proxy which scope a Host means. The answer overwrites
// DestinationHeader, and the route is looked up anew.
func authority() *extauthz.ExtAuthz {
	return &extauthz.ExtAuthz{
		Services: &extauthz.ExtAuthz_GrpcService{GrpcService: &core.GrpcService{
			TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: AuthorityCluster}},
			Timeout:         durationpb.New(authorityTimeout),
			InitialMetadata: []*core.HeaderValue{{Key: ClientMetadata, Value: "%FILTER_STATE(" + IdentityKey + ":PLAIN)%"}},
			// While the node proxy restarts requests wait for it.
			RetryPolicy: &core.RetryPolicy{
				RetryOn:    "connect-failure,unavailable,reset",
				NumRetries: uint32Value(1000),
				RetryBackOff: &core.BackoffStrategy{
					BaseInterval: durationpb.New(25 * time.Millisecond),
					MaxInterval:  durationpb.New(100 * time.Millisecond),
				},
			},
		}},
		TransportApiVersion: core.ApiVersion_V3,
		ClearRouteCache:     true,
		StatusOnError:       &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		// A list that names no header of any request: none is sent.
		AllowedHeaders: &matcher.ListStringMatcher{Patterns: []*matcher.StringMatcher{
			{MatchPattern: &matcher.StringMatcher_Exact{Exact: "x-none"}},
		}},
	}
}

// authorityTimeout is how long a request waits for an answer.
const authorityTimeout = 3 * time.Second
