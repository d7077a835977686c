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
	filterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldst "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrc "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	setfilterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/set_filter_state/v3"
	tlsinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
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

// Listener renders a proxy port: bound to the loopback addresses, so that nobody
// but the kernel's redirect reaches it, and transparent, so that it answers for
// the addresses that clients dialled.
func Listener(l *plan.Listener, port uint16) (xds.Resource, error) {
	if port == 0 {
		return xds.Resource{}, fmt.Errorf("render listener %s: no port", l.Name)
	}
	for _, s := range append([]string{l.Name, l.Identity, l.Class}, l.Selects...) {
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
	}
	if l.Inbound {
		m.TrafficDirection = core.TrafficDirection_INBOUND
	} else {
		m.ListenerFilters = append(m.ListenerFilters, clientState(l))
	}
	if err := chains(m, l); err != nil {
		return xds.Resource{}, fmt.Errorf("render listener %s: %w", l.Name, err)
	}
	return finish("listener", l.Name, m)
}

// chains adds what a listener of the mode does with connections. Inspectors come last:
// Envoy skips the listener filters behind one that waited in vain.
func chains(m *listener.Listener, l *plan.Listener) error {
	if l.Inbound && l.Mode != plan.HTTP {
		return fmt.Errorf("inbound, and of mode %q", l.Mode)
	}
	if len(l.ServerNames) > 0 && l.Mode != plan.TLS && l.Mode != plan.AnyDetect {
		return fmt.Errorf("server names, and of mode %q", l.Mode)
	}
	if l.DetectTimeout < 0 || l.DetectTimeout > 0 && !detects(l.Mode) && l.Mode != plan.AnyDetect {
		return fmt.Errorf("a timeout of %s for the first bytes, and of mode %q", l.DetectTimeout, l.Mode)
	}
	if len(l.Times) > 0 && l.Mode != plan.TLS && l.Mode != plan.Opaque && !detects(l.Mode) {
		return fmt.Errorf("times of connections, and of mode %q", l.Mode)
	}
	if err := checkTunnels(l); err != nil {
		return err
	}
	if len(l.Ranges) > 0 && l.Mode != plan.AnyDetect && l.Mode != plan.AnyOpaque {
		return fmt.Errorf("ranges, and of mode %q", l.Mode)
	}
	switch {
	case l.Mode == plan.HTTP || l.Mode == plan.Any:
		m.FilterChains = []*listener.FilterChain{{Filters: []*listener.Filter{requests(l)}}}
		return nil
	case l.Mode == plan.Opaque:
		return connectionChains(m, l)
	case l.Mode == plan.AnyOpaque:
		return anyChains(m, l)
	case l.Mode == plan.AnyDetect:
		if err := anyChains(m, l); err != nil {
			return err
		}
	case detects(l.Mode):
		m.ListenerFilters = append(m.ListenerFilters, tlsInspector(),
			listenerFilter("envoy.filters.listener.http_inspector", &httpinspector.HttpInspector{}))
		if err := connectionChains(m, l); err != nil {
			return err
		}
	case l.Mode == plan.TLS:
		m.ListenerFilters = append(m.ListenerFilters, tlsInspector())
		if err := connectionChains(m, l); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no listener is of mode %q", l.Mode)
	}
	// Clients of TLS may connect long before they speak; others get what they would get
	// if nobody looked, when the time is over.
	m.ListenerFiltersTimeout = atLeastMS(l.DetectTimeout)
	m.ContinueOnListenerFiltersTimeout = true
	return nil
}

func detects(m plan.Mode) bool {
	return m == plan.Detect || m == plan.Detect2 || m == plan.Detect3
}

func tlsInspector() *listener.ListenerFilter {
	return listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspector.TlsInspector{})
}

// requests reads a connection's requests.
func requests(l *plan.Listener) *listener.Filter {
	return networkFilter("envoy.filters.network.http_connection_manager", connectionManager(l))
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
			Key:                &filterstate.FilterStateValue_ObjectKey{ObjectKey: kv[0]},
			FactoryKey:         "envoy.hashable_string",
			Value:              formatted(literal(kv[1])),
			SharedWithUpstream: filterstate.FilterStateValue_ONCE,
		})
	}
	return listenerFilter("envoy.filters.listener.set_filter_state", &setfilterstate.Config{OnAccept: values})
}

func formatted(text string) *filterstate.FilterStateValue_FormatString {
	return &filterstate.FilterStateValue_FormatString{FormatString: &core.SubstitutionFormatString{
		Format: &core.SubstitutionFormatString_TextFormatSource{TextFormatSource: &core.DataSource{
			Specifier: &core.DataSource_InlineString{InlineString: text},
		}},
	}}
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
		HttpFilters:                   httpFilters(l.Inbound),
		AccessLog:                     []*accesslog.AccessLog{requestLog()},

		// Policy, routes and the application must mean the same path: dots and
		// slashes are normalised. A path with an escaped slash has two meanings, and
		// which one an application takes is not ours to guess: such a request is
		// refused. A redirect would hand the client a path that it did not ask for,
		// and clients that do not follow it would see a failure all the same.
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcm.HttpConnectionManager_REJECT_REQUEST,

		// Scopes and hosts are looked up without the dot.
		StripTrailingHostDot: true,
		HttpProtocolOptions:  &core.Http1ProtocolOptions{AcceptHttp_10: true, DefaultHostForHttp_10: NoHost},

		// WebSocket over HTTP/2 (RFC 8441). CONNECT itself is not among the upgrades, and
		// no route of requests takes it.
		Http2ProtocolOptions: &core.Http2ProtocolOptions{AllowConnect: true},
		UpgradeConfigs:       []*hcm.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},

		// Clients have the address of their connection and no other: requests from
		// addresses that Envoy takes for internal could set timeouts and retries by
		// x-envoy-* headers. x-forwarded-for passes as it came.
		OriginalIpDetectionExtensions: []*core.TypedExtensionConfig{noDetection()},
		GenerateRequestId:             wrapperspb.Bool(true),
		PreserveExternalRequestId:     true,
		ServerHeaderTransformation:    hcm.HttpConnectionManager_PASS_THROUGH,

		// For requests that wait for their routes; those that have some may be silent
		// for as long as they like. Envoy forgets who waits if the scope changes at
		// that moment: such a request ends by this, where it would never end.
		StreamIdleTimeout: durationpb.New(time.Minute),
		// Headers must come, though: a client that dribbles them holds memory.
		RequestHeadersTimeout: durationpb.New(time.Minute),
	}
}

// destinationHeader overwrites what a client may have sent, before the scope is chosen.
func destinationHeader(l *plan.Listener) *core.TypedExtensionConfig {
	key := "%DOWNSTREAM_LOCAL_ADDRESS%"
	switch {
	case l.Inbound:
		key = "in|" + key
	case l.Mode == plan.Any || l.Mode == plan.AnyDetect:
		key = "any|%DOWNSTREAM_LOCAL_PORT%"
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

// ScopesListener takes no connections: it only keeps the scopes in Envoy, for an Envoy's
// bootstrap. They are there while a listener has them, and Envoy does not ask for them a
// second time on the same stream: on a node whose last listener had gone, requests to the
// next one found no scope and were answered 404.
func ScopesListener() *listener.Listener {
	return &listener.Listener{
		Name:       "scopes",
		Address:    address("127.0.0.1", 0),
		BindToPort: wrapperspb.Bool(false),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{networkFilter("envoy.filters.network.http_connection_manager",
			&hcm.HttpConnectionManager{
				StatPrefix:     "scopes",
				RouteSpecifier: scopedRoutes(),
				HttpFilters:    []*hcm.HttpFilter{enabled("envoy.filters.http.router", &router.Router{})},
			})}}},
	}
}

func listenerFilter(name string, config proto.Message) *listener.ListenerFilter {
	return &listener.ListenerFilter{
		Name:       name,
		ConfigType: &listener.ListenerFilter_TypedConfig{TypedConfig: pack(config)},
	}
}

func networkFilter(name string, config proto.Message) *listener.Filter {
	return &listener.Filter{
		Name:       name,
		ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(config)},
	}
}
