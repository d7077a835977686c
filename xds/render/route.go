// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"math"
	"net/http"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// Scope renders the way from a destination to its routes. Its name is its key.
func Scope(s *plan.Scope) (xds.Resource, error) {
	key := s.Key
	if key == "" {
		return xds.Resource{}, fmt.Errorf("render scope of %s: no key", s.RouteTable)
	}
	return finish("scope", key, &route.ScopedRouteConfiguration{
		Name:                   key,
		RouteConfigurationName: s.RouteTable,
		Key: &route.ScopedRouteConfiguration_Key{
			Fragments: []*route.ScopedRouteConfiguration_Key_Fragment{{
				Type: &route.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: key},
			}},
		},
	})
}

// RouteTable renders the routes of one frontend, or of one local pod's port.
func RouteTable(t *plan.RouteTable) (xds.Resource, error) {
	m, err := table(t)
	if err != nil {
		return xds.Resource{}, fmt.Errorf("render route table %s: %w", t.Name, err)
	}
	return finish("route table", t.Name, m)
}

func table(t *plan.RouteTable) (*route.RouteConfiguration, error) {
	var routes []*route.Route
	for i := range t.Routes {
		rs, err := renderRoute(&t.Routes[i])
		if err != nil {
			return nil, fmt.Errorf("route %d (%s): %w", i, t.Routes[i].ID, err)
		}
		routes = append(routes, rs...)
	}
	hosts, err := virtualHosts(t, routes)
	if err != nil {
		return nil, err
	}
	if t.Limit != nil {
		if t.Elsewhere != nil {
			return nil, errors.New("a limit, and hosts that are looked up elsewhere")
		}
		if err := limited(hosts[0], t.Limit); err != nil {
			return nil, err
		}
	}
	m := routeConfiguration(t.Name, hosts)
	m.IgnorePortInHostMatching = t.Elsewhere != nil
	return m, allowBodies(m)
}

// RouteTable500 stands in for a route table that cannot be rendered, or that
// Envoy rejected and of which it has no earlier version: it answers 500.
func RouteTable500(name string) (xds.Resource, error) {
	return finish("route table", name, routeConfiguration(name, []*route.VirtualHost{
		ownHost("*", []string{"*"}, []*route.Route{{
			Name:   "invalid",
			Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
			Action: directResponse(http.StatusInternalServerError, "the routes of this service are invalid\n"),
		}}),
	}))
}

// PassResources are what PassKey leads to: requests go on to where they were sent,
// in the protocol that the client speaks, without a claim that anything was judged.
// They are the same in every proxy, and must be there before the first listener.
func PassResources() ([]xds.Resource, error) {
	t, err := RouteTable(&plan.RouteTable{Name: plan.PassKey, Routes: []plan.Route{
		{ID: plan.PassKey, Original: true, App: model.AppDetect},
	}})
	if err != nil {
		return nil, err
	}
	s, err := Scope(&plan.Scope{Key: plan.PassKey, RouteTable: plan.PassKey})
	if err != nil {
		return nil, err
	}
	return []xds.Resource{t, s}, nil
}

func routeConfiguration(name string, hosts []*route.VirtualHost) *route.RouteConfiguration {
	return &route.RouteConfiguration{
		Name:                   name,
		RequestHeadersToRemove: []string{DestinationHeader},
		// A cluster that is not there answers 503 for its own route; with validation
		// the whole table would be rejected.
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts:     hosts,
	}
}

// Parts is how many routes in Envoy a route becomes. They follow each other.
func Parts(r *plan.Route) int {
	rs, err := renderRoute(r)
	if err != nil {
		return 1
	}
	return len(rs)
}

// renderRoute is one route, or several where Envoy needs them to say the same.
func renderRoute(r *plan.Route) ([]*route.Route, error) {
	match, err := routeMatch(r)
	if err != nil {
		return nil, err
	}
	m := &route.Route{Name: r.ID, Match: match}
	request, err := headerEdit(r.RequestHeaders, requestSide)
	if err != nil {
		return nil, err
	}
	response, err := headerEdit(r.ResponseHeaders, responseSide)
	if err != nil {
		return nil, err
	}
	m.RequestHeadersToAdd, m.RequestHeadersToRemove = request.add, request.remove
	m.ResponseHeadersToAdd, m.ResponseHeadersToRemove = response.add, response.remove
	if m.TypedPerFilterConfig, err = perRoute(r); err != nil {
		return nil, err
	}
	switch {
	case r.Direct != nil && r.Redirect != nil:
		return nil, errors.New("an answer and a redirect")
	case r.Direct != nil:
		m.Action = directResponse(r.Direct.Status, r.Direct.Body)
	case r.Redirect != nil:
		a, err := redirect(r.Redirect, r.Match.Path)
		if err != nil {
			return nil, err
		}
		m.Action = &route.Route_Redirect{Redirect: a}
		return withoutPort(m, r.Redirect), nil
	case len(r.Clusters) == 0 && !r.Original:
		m.Action = directResponse(http.StatusServiceUnavailable, "")
	case r.Original:
		m.Action, err = forward(m, r, nil, request.authority)
	default:
		return shares(m, r, request.authority)
	}
	return []*route.Route{m}, err
}

// Envoy refuses a table with a larger body, unless the table says otherwise.
const (
	usualBody = 4096
	maxBody   = 1 << 20
)

// allowBodies has Envoy take the bodies that are in the table.
func allowBodies(m *route.RouteConfiguration) error {
	longest := 0
	for _, h := range m.GetVirtualHosts() {
		for _, r := range h.GetRoutes() {
			longest = max(longest, len(r.GetDirectResponse().GetBody().GetInlineString()))
		}
	}
	if longest > maxBody {
		return fmt.Errorf("a body of %d bytes, of which %d are possible", longest, maxBody)
	}
	if longest > usualBody {
		m.MaxDirectResponseBodySizeBytes = uint32Value(uint32(longest))
	}
	return nil
}

func directResponse(status uint32, body string) *route.Route_DirectResponse {
	d := &route.DirectResponseAction{Status: status}
	if body != "" {
		d.Body = &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: body}}
	}
	return &route.Route_DirectResponse{DirectResponse: d}
}

// forward has a route send its requests on, to the clusters or to where they were going.
func forward(m *route.Route, r *plan.Route, clusters []plan.WeightedCluster, authority string) (*route.Route_Route, error) {
	a, err := routeAction(r, clusters, authority)
	if err != nil {
		return nil, err
	}
	if r.Retry != nil && r.Retry.MaxBody > 0 {
		m.RequestBodyBufferLimit = wrapperspb.UInt64(uint64(r.Retry.MaxBody))
	}
	return &route.Route_Route{Route: a}, nil
}

func routeAction(r *plan.Route, clusters []plan.WeightedCluster, authority string) (*route.RouteAction, error) {
	a := &route.RouteAction{}
	if err := chooseCluster(a, r, clusters); err != nil {
		return nil, err
	}
	if r.Rewrite != nil && r.Rewrite.Authority != "" {
		authority = r.Rewrite.Authority
	}
	if authority != "" {
		if err := checkHeaderValue(":authority", authority); err != nil {
			return nil, err
		}
		a.HostRewriteSpecifier = &route.RouteAction_HostRewriteLiteral{HostRewriteLiteral: authority}
	}
	if err := rewritePath(a, r); err != nil {
		return nil, err
	}
	for _, m := range r.Mirrors {
		if m.PerMillion == 0 {
			continue
		}
		if m.Cluster == "" {
			return nil, errors.New("a mirror without cluster")
		}
		a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, &route.RouteAction_RequestMirrorPolicy{
			Cluster:         m.Cluster,
			RuntimeFraction: &core.RuntimeFractionalPercent{DefaultValue: perMillion(m.PerMillion)},
			// Otherwise the host that the copy names ends in "-shadow".
			DisableShadowHostSuffixAppend: !m.Shadow,
		})
	}
	if min(r.Timeout, r.IdleTimeout) < 0 {
		return nil, fmt.Errorf("timeouts %s and %s", r.Timeout, r.IdleTimeout)
	}
	a.Timeout = atLeastMS(r.Timeout) // 0: none, where leaving it out would mean 15 s
	// A gRPC client's own deadline holds if it is shorter. The field is deprecated,
	// but with its replacement (max_stream_duration) Envoy forgets the timeout.
	//lint:ignore SA1019 see above
	a.MaxGrpcTimeout = a.Timeout
	a.IdleTimeout = atLeastMS(r.IdleTimeout) // 0: streams may be silent for as long as they like
	var err error
	if a.HashPolicy, err = hashPolicies(r.Hash); err != nil {
		return nil, err
	}
	a.RetryPolicy, err = retryPolicy(r.Retry)
	return a, err
}

func chooseCluster(a *route.RouteAction, r *plan.Route, clusters []plan.WeightedCluster) error {
	if r.Original {
		o, err := originalFor(r.App, r.Checked)
		if err != nil {
			return err
		}
		a.ClusterSpecifier = &route.RouteAction_Cluster{Cluster: o.name()}
		return nil
	}
	if c := clusters[0]; len(clusters) == 1 && c.RequestHeaders.IsZero() && c.ResponseHeaders.IsZero() {
		a.ClusterSpecifier = &route.RouteAction_Cluster{Cluster: c.Name}
		return nil
	}
	w := &route.WeightedCluster{}
	total := uint64(0)
	for _, c := range clusters {
		request, err := headerEdit(c.RequestHeaders, requestSide)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		response, err := headerEdit(c.ResponseHeaders, responseSide)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		if total += uint64(c.Weight); c.Weight == 0 || total > math.MaxUint32 {
			return fmt.Errorf("cluster %s: weight %d, %d in all", c.Name, c.Weight, total)
		}
		cw := &route.WeightedCluster_ClusterWeight{
			Name:                    c.Name,
			Weight:                  uint32Value(c.Weight),
			RequestHeadersToAdd:     request.add,
			RequestHeadersToRemove:  request.remove,
			ResponseHeadersToAdd:    response.add,
			ResponseHeadersToRemove: response.remove,
		}
		if request.authority != "" {
			cw.HostRewriteSpecifier = &route.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: request.authority}
		}
		w.Clusters = append(w.Clusters, cw)
	}
	a.ClusterSpecifier = &route.RouteAction_WeightedClusters{WeightedClusters: w}
	return nil
}
