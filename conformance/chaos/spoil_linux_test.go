// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
)

// spoil is a version of a resource that only Envoy finds bad, as if our own checks had
// a gap.
func spoil(of xds.Resource, n int) (xds.Resource, error) {
	var m proto.Message
	switch of.Type {
	case xds.RouteType:
		m = &route.RouteConfiguration{Name: of.Name, VirtualHosts: []*route.VirtualHost{{Name: "*", Domains: []string{"*"}, Routes: []*route.Route{{
			Name:   fmt.Sprint("bad-", n),
			Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: "("}}},
			Action: &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{Status: 200}},
		}}}}}
	case xds.ClusterType:
		c := &cluster.Cluster{}
		if err := proto.Unmarshal(of.Body, c); err != nil {
			return of, err
		}
		c.Filters = append(c.Filters, &cluster.Filter{Name: fmt.Sprint("nobody-", n)})
		m = c
	case xds.EndpointType:
		m = &endpoint.ClusterLoadAssignment{ClusterName: of.Name, Endpoints: []*endpoint.LocalityLbEndpoints{{Priority: uint32(3 + n%50)}}}
	case xds.ListenerType:
		l := &listener.Listener{}
		if err := proto.Unmarshal(of.Body, l); err != nil {
			return of, err
		}
		l.ListenerFilters = append(l.ListenerFilters, &listener.ListenerFilter{Name: fmt.Sprint("nobody-", n)})
		m = l
	case xds.ScopeType:
		m = &route.ScopedRouteConfiguration{Name: of.Name, RouteConfigurationName: fmt.Sprint("bad-", n),
			RouteConfiguration: &route.RouteConfiguration{Name: "two of them"},
			Key: &route.ScopedRouteConfiguration_Key{Fragments: []*route.ScopedRouteConfiguration_Key_Fragment{
				{Type: &route.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: of.Name}}}}}
	default:
		return of, fmt.Errorf("no bad %s is known", of.Type)
	}
	return xds.New(m)
}
