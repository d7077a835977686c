// SPDX-License-Identifier: Apache-2.0

package render

import (
	"slices"
	"strings"
	"time"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	filterstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	networkstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// Connections that are not read as requests have no routes in Envoy: a filter chain
// writes down which cluster it wants, by the pattern of server names that the chain is
// for, the class of the listener's clients, and the address that they dialled. Envoy
// asks for the cluster by that name, once for good. So there is no chain for each
// destination, and nothing that a client says gets into a name.
//
// The names are those of plan.ConnectionCluster and plan.ServerNameCluster.
const (
	connectionPrefix = "tcp|"
	serverNamePrefix = "tls|"
)

// OfConnections reports whether a cluster is one that Envoy asks for when a connection
// comes, by its name.
func OfConnections(cluster string) bool {
	return strings.HasPrefix(cluster, connectionPrefix) || strings.HasPrefix(cluster, serverNamePrefix)
}

// clusterTimeout is how long a connection waits for a cluster that was never used,
// as when the node proxy restarts.
const clusterTimeout = 5 * time.Second

// connections sends a connection to the cluster whose name begins like this and ends
// with the address that the client had dialled.
func connections(l *plan.Listener, prefix string, t plan.ConnectionTimes) []*listener.Filter {
	return toCluster(l, prefix, "%DOWNSTREAM_LOCAL_ADDRESS%", t, tunnelTo(l, prefix+t.To.String()))
}

// toCluster sends a connection to the cluster whose name has two parts, the second of
// which is Envoy's to fill in. Without times a connection may be silent, and last, for
// ever: that is the protocol's matter.
func toCluster(l *plan.Listener, prefix, format string, t plan.ConnectionTimes, through *model.Tunnel) []*listener.Filter {
	sourceIP := &typev3.HashPolicy{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}
	return []*listener.Filter{
		networkFilter("envoy.filters.network.set_filter_state", &networkstate.Config{
			OnNewConnection: []*filterstate.FilterStateValue{{
				Key:   &filterstate.FilterStateValue_ObjectKey{ObjectKey: "envoy.tcp_proxy.cluster"},
				Value: formatted(literal(prefix) + format),
			}},
		}),
		networkFilter("envoy.filters.network.tcp_proxy", &tcpproxy.TcpProxy{
			StatPrefix:       l.Name,
			ClusterSpecifier: &tcpproxy.TcpProxy_Cluster{Cluster: "none"}, // the filter state has another
			IdleTimeout:      atLeastMS(t.Idle),
			HashPolicy:       []*typev3.HashPolicy{sourceIP}, // for clusters that hash
			TunnelingConfig:  tunneling(through),

			MaxDownstreamConnectionDuration: orNil(t.Max),
			OnDemand: &tcpproxy.TcpProxy_OnDemand{
				OdcdsConfig: ads(),
				Timeout:     durationpb.New(clusterTimeout),
			},
			AccessLog: []*accesslog.AccessLog{connectionLog()},
		}),
	}
}

// Candidates lists the names under which the plan may have what Envoy asks for by
// name, the closest first: it has less to tell apart than a listener says. Of all
// other resources that is the name alone.
func Candidates(typeURL, name string) []string {
	out := []string{name}
	if typeURL != xds.ClusterType {
		return out
	}
	parts := strings.Split(name, "|")
	switch {
	case strings.HasPrefix(name, connectionPrefix) && len(parts) == 3:
		out = out[:0]
		for _, at := range wideRanges(parts[2]) {
			for _, class := range []string{parts[1], ""} {
				out = append(out, connectionPrefix+class+"|"+at)
			}
		}
	case strings.HasPrefix(name, serverNamePrefix) && len(parts) == 4:
		for _, at := range wideRanges(parts[3]) {
			for _, p := range wider(parts[1]) {
				for _, class := range []string{parts[2], ""} {
					out = append(out, serverNamePrefix+p+"|"+class+"|"+at)
				}
			}
		}
	}
	return slices.Compact(out)
}

// wider lists the patterns that take every name that a pattern takes, itself first and
// "" last.
func wider(pattern string) []string {
	out := []string{pattern}
	for rest := strings.TrimPrefix(pattern, "*."); ; {
		_, parent, more := strings.Cut(rest, ".")
		switch {
		case !more && pattern == "":
			return out
		case !more:
			return append(out, "")
		}
		out = append(out, "*."+parent)
		rest = parent
	}
}

// NoCluster stands in for a cluster of connections that nobody rendered: what is sent
// there is closed at once. Were there none, a connection would wait for it in vain.
func NoCluster(name string) (xds.Resource, error) {
	return finish("cluster", name, &cluster.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(connectTimeout),
	})
}

// forConnections makes a cluster one of connections. It says by what name the plan has
// it, and keeps the endpoints of that name, so that it may go by others.
func forConnections(m *cluster.Cluster) {
	if m.EdsClusterConfig != nil {
		m.EdsClusterConfig.ServiceName = m.GetName()
	}
	// A share is a locality: it keeps its weight whatever number of endpoints it has.
	m.CommonLbConfig = &cluster.Cluster_CommonLbConfig{
		LocalityConfigSpecifier: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		},
	}
	m.Metadata = &core.Metadata{FilterMetadata: map[string]*structpb.Struct{
		metadataKey: {Fields: map[string]*structpb.Value{routeKey: structpb.NewStringValue(m.GetName())}},
	}}
}

// Where the metadata of a cluster of connections says what decided for it.
const (
	metadataKey = "fl"
	routeKey    = "route"
)
