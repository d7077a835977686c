// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"slices"
	"testing"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

// Routes say what retries they have only where they differ from most others.
func TestCommonRetry(t *testing.T) {
	usual := &model.Retry{Attempts: 2, On: []string{"connect-failure"}}
	other := &model.Retry{Attempts: 3, On: []string{"5xx"}}
	to := func(id string, r *model.Retry) plan.Route {
		return plan.Route{ID: id, Match: model.RouteMatch{Path: ptr(match(model.Prefix, "/"+id))},
			Clusters: []plan.WeightedCluster{{Name: "c", Weight: 1}}, Retry: r}
	}
	direct := plan.Route{ID: "d", Direct: &model.Direct{Status: 418}}
	for name, c := range map[string]struct {
		routes []plan.Route
		host   uint32   // attempts of the host's
		own    []uint32 // of the routes', 0: none
	}{
		"one route":       {[]plan.Route{to("a", usual)}, 0, []uint32{2}},
		"all alike":       {[]plan.Route{to("a", usual), to("b", usual)}, 2, []uint32{0, 0}},
		"all different":   {[]plan.Route{to("a", usual), to("b", other)}, 0, []uint32{2, 3}},
		"most alike":      {[]plan.Route{to("a", other), to("b", usual), to("c", usual)}, 2, []uint32{3, 0, 0}},
		"one has none":    {[]plan.Route{to("a", usual), to("b", usual), to("c", nil)}, 0, []uint32{2, 2, 0}},
		"one is answered": {[]plan.Route{to("a", usual), direct, to("b", usual)}, 2, []uint32{0, 0, 0}},
	} {
		r, err := render.RouteTable(&plan.RouteTable{Name: "t", Routes: c.routes})
		if err != nil {
			t.Fatal(name, err)
		}
		var m route.RouteConfiguration
		if err := proto.Unmarshal(r.Body, &m); err != nil {
			t.Fatal(name, err)
		}
		h := m.VirtualHosts[0]
		var own []uint32
		for _, r := range h.Routes {
			own = append(own, r.GetRoute().GetRetryPolicy().GetNumRetries().GetValue())
		}
		if got := h.GetRetryPolicy().GetNumRetries().GetValue(); got != c.host || !slices.Equal(own, c.own) {
			t.Errorf("%s: the host %d, the routes %v; want %d, %v", name, got, own, c.host, c.own)
		}
	}
}
