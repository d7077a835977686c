// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"net/netip"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clustercommon "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnscluster "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	cares "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model/plan"
)

const (
	// A name is looked up again when its answer is out of date, or after this long if the
	// answer does not say.
	nameRefresh = time.Minute
	// Envoy takes a cluster into use when its names were looked up once, whether they were
	// found or not; until then it takes no other cluster. So it must not ask for long.
	queryTimeout = 1 // second
	queryTries   = 2
)

// lookUp makes a cluster one whose endpoints are known by name.
func lookUp(m *cluster.Cluster, n *plan.Names) error {
	if n.One && count(n.Endpoints.Shares)+len(n.Endpoints.Backends) > 1 {
		return fmt.Errorf("one endpoint is wanted of %d", count(n.Endpoints.Shares)+len(n.Endpoints.Backends))
	}
	a, err := assignment(&n.Endpoints)
	if err != nil {
		return err
	}
	family := clustercommon.DnsLookupFamily_V4_ONLY
	if n.V6 {
		family = clustercommon.DnsLookupFamily_V6_ONLY
	}
	m.EdsClusterConfig, m.LoadAssignment = nil, a
	m.ClusterDiscoveryType = &cluster.Cluster_ClusterType{ClusterType: &cluster.Cluster_CustomClusterType{
		Name: "envoy.cluster.dns",
		TypedConfig: pack(&dnscluster.DnsCluster{
			DnsRefreshRate:               durationpb.New(nameRefresh),
			RespectDnsTtl:                true,
			DnsLookupFamily:              family,
			AllAddressesInSingleEndpoint: n.One,
			TypedDnsResolverConfig: &core.TypedExtensionConfig{
				Name: "envoy.network.dns_resolver.cares",
				TypedConfig: pack(&cares.CaresDnsResolverConfig{
					// Names are whole: the node's search domains are not theirs.
					DnsResolverOptions:  &core.DnsResolverOptions{NoDefaultSearchDomain: true},
					QueryTimeoutSeconds: wrapperspb.UInt64(queryTimeout),
					QueryTries:          uint32Value(queryTries),
				}),
			},
		}),
	}}
	return nil
}

// hostAddress is that of a backend that is known by name.
func hostAddress(b plan.Backend) (*core.Address, error) {
	if _, err := netip.ParseAddr(b.Host); err == nil || !isDNSName(b.Host) || b.Host[0] == '*' || b.Port == 0 {
		return nil, fmt.Errorf("%q, port %d, is no name of a backend", b.Host, b.Port)
	}
	return address(b.Host, b.Port), nil
}
