// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
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
	collect(m.ProtoReflect(), &names)
	slices.Sort(names)
	return slices.Compact(names)
}

func collect(m protoreflect.Message, names *[]string) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		if inner, err := a.UnmarshalNew(); err == nil {
			collect(inner.ProtoReflect(), names)
		}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					collect(v.Message(), names)
					return true
				})
			}
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				collect(v.List().Get(i).Message(), names)
			}
		case f.Message() != nil:
			collect(v.Message(), names)
		case clusterFields[f.FullName()]:
			*names = append(*names, v.String())
		}
		return true
	})
}
