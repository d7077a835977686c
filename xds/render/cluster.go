// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	codec "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// Source ports of Envoy's upstream connections. They tell the destination's
// kernel whether its policy was judged here; no pod may use them.
const (
	CheckedLow, CheckedHigh     = 61000, 62399
	InboundLow, InboundHigh     = 62400, 63263 // for the inbound listener to judge
	UncheckedLow, UncheckedHigh = 63264, 65535
)

// UpstreamMark is the socket mark of Envoy's upstream connections, in the bits
// 0xf00. It takes a privilege to set it.
const UpstreamMark = 0x300

// InboundMark is that of connections which the inbound listener makes, for requests
// that it let in.
const InboundMark = 0x500

const (
	// connectTimeout is as in the model where nothing is said.
	connectTimeout = 10 * time.Second
	// Upstream connections are per client address, so many of them are used once
	// in a while: idle ones go soon. Sooner, too, than servers close theirs (5 s is
	// a usual time), because a request sent into a connection that is being closed
	// is lost.
	upstreamIdle = 4 * time.Second
	// CheckedMost is how long a connection takes new requests whose source port says that
	// they were judged here. The other node stops to believe new connections when this one
	// is behind, and can end none without losing requests; Envoy ends them between two.
	CheckedMost = 30 * time.Second
)

// Cluster renders a set of endpoints that obey one policy.
func Cluster(c *plan.Cluster) (xds.Resource, error) {
	filters, err := foldedPolicy(c.Policy)
	if err == nil && len(filters) > 0 && c.App == model.AppTCP {
		err = errors.New("connections have no requests that a policy could be judged on")
	}
	if err == nil && c.Inbound && (c.Policy != nil || c.Checked) {
		err = errors.New("it is judged at the other end, and here")
	}
	if err == nil && slices.Contains(StaticClusters(), c.Name) {
		err = errors.New("the name is one of the proxy's own")
	}
	if err != nil {
		return xds.Resource{}, fmt.Errorf("render cluster %s: %w", c.Name, err)
	}
	m := &cluster.Cluster{
		Name:                 c.Name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: ads()},
	}
	if c.Original {
		m.ClusterDiscoveryType, m.EdsClusterConfig = &cluster.Cluster_Type{Type: cluster.Cluster_ORIGINAL_DST}, nil
		if c.Port != 0 {
			m.LbConfig = &cluster.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &cluster.Cluster_OriginalDstLbConfig{
				UpstreamPortOverride: uint32Value(uint32(c.Port)),
			}}
		}
	}
	if c.Names != nil {
		if err := lookUp(m, c.Names); err != nil {
			return xds.Resource{}, fmt.Errorf("render cluster %s: %w", c.Name, err)
		}
	}
	if c.App == model.AppTCP {
		forConnections(m)
	}
	if err := deal(m, c); err != nil {
		return xds.Resource{}, fmt.Errorf("render cluster %s: %w", c.Name, err)
	}
	withUpstream(m, c.App, c.Checked, filters, c.Traffic)
	if c.Inbound {
		m.UpstreamBindConfig = upstreamSockets(InboundLow, InboundHigh, UpstreamMark)
	}
	return finish("cluster", c.Name, m)
}

// Static clusters that a node's bootstrap must have, beside OriginalClusters. All are
// gRPC, over unix sockets.
const (
	XDSCluster       = "xds"       // the node proxy's, of resources
	AccessLogCluster = "als"       // the agent's, of access logs
	AuthorityCluster = "authority" // the node proxy's, of whom a Host means
)

// StaticClusters are the names of all clusters that resources refer to and that are
// in the bootstrap: they are never sent.
func StaticClusters() []string {
	names := []string{XDSCluster, AccessLogCluster, AuthorityCluster}
	for _, o := range originals() {
		names = append(names, o.name())
	}
	return names
}

// original is a way to the address that the client had dialled.
type original struct {
	app     model.App // AppHTTP, AppHTTP2, or AppDetect for the client's own
	checked bool
}

func originals() []original {
	var all []original
	for _, app := range []model.App{model.AppHTTP, model.AppHTTP2, model.AppDetect} {
		all = append(all, original{app, true}, original{app, false})
	}
	return all
}

func (o original) name() string {
	n := "original/" + string(o.app)
	if o.checked {
		n += "/checked"
	}
	return n
}

// originalFor is the one that speaks app.
func originalFor(app model.App, checked bool) (original, error) {
	switch app {
	case model.AppGRPC:
		app = model.AppHTTP2
	case model.AppHTTP, model.AppHTTP2, model.AppDetect:
	default:
		return original{}, fmt.Errorf("requests to the original destination, which speaks %q", app)
	}
	return original{app, checked}, nil
}

// OriginalClusters are the static clusters that lead to the address that the client
// had dialled, for the bootstrap.
func OriginalClusters() []*cluster.Cluster {
	var all []*cluster.Cluster
	for _, o := range originals() {
		m := withUpstream(&cluster.Cluster{
			Name:                 o.name(),
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_ORIGINAL_DST},
			LbPolicy:             cluster.Cluster_CLUSTER_PROVIDED,
		}, o.app, o.checked, nil, nil)
		if o.checked { // only inbound routes lead here
			m.UpstreamBindConfig = upstreamSockets(CheckedLow, CheckedHigh, InboundMark)
		}
		all = append(all, m)
	}
	return all
}

// withUpstream adds what all clusters that lead to pods have; p may be nil.
func withUpstream(m *cluster.Cluster, app model.App, checked bool, filters []*hcm.HttpFilter, p *model.TrafficPolicy) *cluster.Cluster {
	if p == nil {
		p = &model.TrafficPolicy{}
	}
	m.ConnectTimeout = durationpb.New(cmp.Or(p.TCP.ConnectTimeout, connectTimeout))
	m.CircuitBreakers = thresholds(p.Limits)
	m.UpstreamBindConfig = upstreamSockets(UncheckedLow, UncheckedHigh, UpstreamMark)
	if checked {
		m.UpstreamBindConfig = upstreamSockets(CheckedLow, CheckedHigh, UpstreamMark)
	}
	if p.Tunnel != nil {
		app = tunnelApp(p.Tunnel)
	}
	if app != model.AppTCP {
		m.TypedExtensionProtocolOptions = map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(protocol(app, checked, filters, p)),
		}
	}
	return m
}

// protocol is what the port's declaration says, whatever the client speaks: a
// server that declares http need not know HTTP/2. Where nothing is declared, or the
// policy says so, the client knows.
func protocol(app model.App, checked bool, filters []*hcm.HttpFilter, p *model.TrafficPolicy) *upstream.HttpProtocolOptions {
	o := &upstream.HttpProtocolOptions{
		CommonHttpProtocolOptions: connectionTimes(checked, p),
		HttpFilters:               filters,
		OutlierDetection:          errorMatcher(p.Outlier),
	}
	switch {
	case p.ClientProtocol:
		app = model.AppDetect
	case p.Upgrade:
		app = model.AppHTTP2
	}
	http1, http2 := &core.Http1ProtocolOptions{}, http2Options(p)
	explicit := &upstream.HttpProtocolOptions_ExplicitHttpConfig{}
	switch app {
	case model.AppDetect:
		o.UpstreamProtocolOptions = &upstream.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstream.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: http1, Http2ProtocolOptions: http2,
			},
		}
		return o
	case model.AppHTTP2, model.AppGRPC:
		explicit.ProtocolConfig = &upstream.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2}
	default:
		explicit.ProtocolConfig = &upstream.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: http1}
	}
	o.UpstreamProtocolOptions = &upstream.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	return o
}

// foldPrefix keeps the names of a cluster's filters apart from those of the chain,
// because Envoy gives a filter the configuration that a route has for its name.
const foldPrefix = "fold."

// foldedPolicy is the destination's policy as upstream filters, judged after the
// request was rewritten.
func foldedPolicy(p *plan.Policy) ([]*hcm.HttpFilter, error) {
	if p == nil {
		return nil, nil
	}
	rules, err := policyFilters(p, byIdentity{})
	if err != nil {
		return nil, err
	}
	if p.AsksForPath() {
		r, err := refuseAmbiguous(p)
		if err != nil {
			return nil, err
		}
		rules = append([]filter{{PathFilter, r}}, rules...)
	}
	var fs []*hcm.HttpFilter
	for _, r := range rules {
		config, err := packChecked(r.rbac)
		if err != nil {
			return nil, err
		}
		fs = append(fs, &hcm.HttpFilter{
			Name:       foldPrefix + r.name,
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: config},
		})
	}
	if len(fs) == 0 {
		return nil, nil
	}
	return append(fs, &hcm.HttpFilter{
		Name:       "envoy.filters.http.upstream_codec",
		ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(&codec.UpstreamCodec{})},
	}), nil
}

// upstreamSockets keeps Envoy's source ports apart from those of the pods whose
// addresses it uses. A range outside the node's ip_local_port_range would be
// ignored by the kernel without a word: the datapath sets that.
func upstreamSockets(low, high, mark int64) *core.BindConfig {
	const (
		ipprotoIP        = 0  // also for IPv6 sockets
		ipLocalPortRange = 51 // IP_LOCAL_PORT_RANGE: high 16 bits the last port, low 16 bits the first
		solSocket        = 1
		soMark           = 36
	)
	return &core.BindConfig{SocketOptions: []*core.SocketOption{{
		Description: "source ports",
		Level:       ipprotoIP,
		Name:        ipLocalPortRange,
		Value:       &core.SocketOption_IntValue{IntValue: high<<16 | low},
		State:       core.SocketOption_STATE_PREBIND,
	}, {
		// By it the kernel knows the proxy's connections: a process of the host could
		// take a port of the range, but not this mark.
		Description: "mark of the proxy",
		Level:       solSocket,
		Name:        soMark,
		Value:       &core.SocketOption_IntValue{IntValue: mark},
		State:       core.SocketOption_STATE_PREBIND,
	}}}
}

// Endpoints renders a cluster's backends. A backend with two addresses is one
// endpoint: Envoy takes the address of the client's family.
func Endpoints(e *plan.ClusterEndpoints) (xds.Resource, error) {
	m, err := assignment(e)
	if err != nil {
		return xds.Resource{}, fmt.Errorf("render endpoints of %s: %w", e.Cluster, err)
	}
	return finish("endpoints of", e.Cluster, m)
}

func assignment(e *plan.ClusterEndpoints) (*endpoint.ClusterLoadAssignment, error) {
	m := &endpoint.ClusterLoadAssignment{ClusterName: e.Cluster}
	if len(e.Shares) > 0 && len(e.Backends) > 0 {
		return nil, errors.New("backends beside shares")
	}
	if len(e.Backends) > 0 {
		group, err := lbEndpoints(e.Backends)
		if err != nil {
			return nil, err
		}
		// Where localities have weights, one that has none, or no name to have it by, has no
		// endpoints for clusters that hash.
		m.Endpoints = []*endpoint.LocalityLbEndpoints{{Locality: &core.Locality{}, LbEndpoints: group, LoadBalancingWeight: uint32Value(1)}}
	}
	total := uint64(0)
	for _, s := range e.Shares {
		if total += uint64(s.Weight); s.Weight == 0 || total > math.MaxUint32 {
			return nil, fmt.Errorf("weight %d, %d in all", s.Weight, total)
		}
		if _, err := lbEndpoints(s.Backends); err != nil {
			return nil, err
		}
	}
	for i, s := range disjoint(e.Shares) {
		group, err := lbEndpoints(s.Backends)
		if err != nil {
			return nil, err
		}
		m.Endpoints = append(m.Endpoints, &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{SubZone: strconv.Itoa(i)},
			Priority:            s.Priority,
			LoadBalancingWeight: uint32Value(s.Weight),
			LbEndpoints:         group,
		})
	}
	return m, nil
}

func lbEndpoints(backends []plan.Backend) ([]*endpoint.LbEndpoint, error) {
	var out []*endpoint.LbEndpoint
	for _, b := range backends {
		ep := &endpoint.Endpoint{}
		switch {
		case b.Host != "":
			a, err := hostAddress(b)
			if err != nil {
				return nil, err
			}
			ep.Address = a
		case len(b.Addrs) == 0:
			return nil, errors.New("a backend without address")
		}
		for i, a := range b.Addrs {
			if !a.IsValid() || a.Addr().Zone() != "" || a.Port() == 0 {
				return nil, fmt.Errorf("%s is no address of a backend", a)
			}
			addr := address(a.Addr().Unmap().String(), a.Port())
			if i == 0 {
				ep.Address = addr
				continue
			}
			ep.AdditionalAddresses = append(ep.AdditionalAddresses, &endpoint.Endpoint_AdditionalAddress{Address: addr})
		}
		lb := &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: ep}}
		if b.Weight > 0 {
			lb.LoadBalancingWeight = uint32Value(b.Weight)
		}
		out = append(out, lb)
	}
	return out, nil
}

// NoEndpoints stands in for endpoints that nobody rendered: Envoy waits for those
// of a cluster before it takes the cluster into use.
func NoEndpoints(cluster string) (xds.Resource, error) {
	return Endpoints(&plan.ClusterEndpoints{Cluster: cluster})
}

func uint32Value(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }
