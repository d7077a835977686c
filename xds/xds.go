// SPDX-License-Identifier: Apache-2.0

// Package xds has what rendering and serving of Envoy resources share: the
// resource types, their order, and a resource as bytes with a version.
//
//	plan rows ──► xds/render ──► Resource ──► xds/serve ──► Envoy
//	                                       Envoy ──► xds/accesslog
package xds

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type URLs of the resources that Fairlead uses.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ScopeType    = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
)

// Types in the order in which resources become ready: what a resource refers to
// comes before it. They are taken away in reverse.
func Types() []string {
	return []string{ClusterType, EndpointType, RouteType, ScopeType, ListenerType}
}

// Phase is a type's place in the order; clusters and their endpoints share one,
// because a cluster is not ready, and Envoy does not acknowledge it, without its
// endpoints. It is -1 for a type that Fairlead does not use.
func Phase(typeURL string) int {
	switch i := slices.Index(Types(), typeURL); {
	case i <= 0:
		return i
	default:
		return i - 1
	}
}

// Phases is the number of phases.
const Phases = 4

// Resource is one Envoy resource as it is sent. It is immutable.
type Resource struct {
	Type string // type URL
	Name string
	// Version is the hash of Body (xxh3-128, hex): the same content has the same
	// version, whoever rendered it and whenever.
	Version string
	Body    []byte // deterministic protobuf bytes
}

// New makes a resource of one of the messages that Types lists; its name is the
// message's own.
func New(m proto.Message) (Resource, error) {
	r := Resource{Type: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())}
	switch m := m.(type) {
	case *cluster.Cluster:
		r.Name = m.GetName()
	case *endpoint.ClusterLoadAssignment:
		r.Name = m.GetClusterName()
	case *route.RouteConfiguration:
		r.Name = m.GetName()
	case *route.ScopedRouteConfiguration:
		r.Name = m.GetName()
	case *listener.Listener:
		r.Name = m.GetName()
	default:
		return Resource{}, fmt.Errorf("make resource: %s is no resource type of ours", r.Type)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Resource{}, fmt.Errorf("marshal %s %q: %w", Short(r.Type), r.Name, err)
	}
	r.Body, r.Version = b, Version(b)
	return r, nil
}

// Version is the version of a resource with this body.
func Version(body []byte) string {
	h := xxh3.Hash128(body).Bytes()
	return hex.EncodeToString(h[:])
}

// Short is a type URL's last word, for people.
func Short(typeURL string) string {
	for i := len(typeURL) - 1; i >= 0; i-- {
		if typeURL[i] == '.' || typeURL[i] == '/' {
			return typeURL[i+1:]
		}
	}
	return typeURL
}

// JSON is the resource for people: its message in protobuf's JSON, with the fields
// in the order of their declaration.
func (r Resource) JSON() ([]byte, error) {
	m, err := anypb.UnmarshalNew(&anypb.Any{TypeUrl: r.Type, Value: r.Body}, proto.UnmarshalOptions{})
	if err != nil {
		return nil, fmt.Errorf("read %s %q: %w", Short(r.Type), r.Name, err)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", Short(r.Type), r.Name, err)
	}
	// protojson varies its spaces on purpose.
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", Short(r.Type), r.Name, err)
	}
	return out.Bytes(), nil
}
