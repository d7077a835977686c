// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
)

// clusterFields hold names of clusters, in routes and in what filters are told by
// routes.
var clusterFields = map[protoreflect.FullName]bool{
	"envoy.config.route.v3.RouteAction.cluster":                     true,
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy.cluster": true,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.name":      true,
	"envoy.config.core.v3.GrpcService.EnvoyGrpc.cluster_name":       true,
	"envoy.config.core.v3.HttpUri.cluster":                          true,
}

// clustersOf lists the clusters that a route table refers to, each once, sorted.
// Extensions whose type is not linked in, and bodies that cannot be read, refer to
// none.
func clustersOf(r *xds.Resource) []string {
	var m route.RouteConfiguration
	if r == nil || proto.Unmarshal(r.Body, &m) != nil {
		return nil
	}
	var names []string
	walk(m.ProtoReflect(), func(f protoreflect.FieldDescriptor, v protoreflect.Value) {
		if clusterFields[f.FullName()] {
			names = append(names, v.String())
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// usesScopes reports whether a listener finds its routes by scopes. One that cannot be
// read may do so.
func usesScopes(r *xds.Resource) bool {
	var m listener.Listener
	if proto.Unmarshal(r.Body, &m) != nil {
		return true
	}
	uses := false
	scoped := (*hcm.ScopedRoutes)(nil).ProtoReflect().Descriptor()
	walk(m.ProtoReflect(), func(f protoreflect.FieldDescriptor, _ protoreflect.Value) {
		uses = uses || f.Message() == scoped
	})
	return uses
}

// walk visits all fields that are set and have one value, those within messages of
// types that are linked in, too.
func walk(m protoreflect.Message, visit func(protoreflect.FieldDescriptor, protoreflect.Value)) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		if inner, err := a.UnmarshalNew(); err == nil {
			walk(inner.ProtoReflect(), visit)
		}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					walk(v.Message(), visit)
					return true
				})
			}
		case f.IsList():
			if f.Message() != nil {
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message(), visit)
				}
			}
		default:
			visit(f, v)
			if f.Message() != nil {
				walk(v.Message(), visit)
			}
		}
		return true
	})
}
