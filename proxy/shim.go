// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"fairlead.io/fairlead/xds"
)

// adaptStreams adapts what goes to each Envoy.
func adaptStreams(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	return h(srv, &adapted{ServerStream: ss})
}

type adapted struct {
	grpc.ServerStream
	node  *core.Node
	adapt func(xds.Resource) (xds.Resource, error)
}

func (a *adapted) RecvMsg(m any) error {
	if err := a.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if r := m.(*discovery.DeltaDiscoveryRequest); a.node == nil && r.GetNode() != nil {
		a.node = r.GetNode()
		a.adapt = adapt(a.node)
	}
	return nil
}

func (a *adapted) SendMsg(m any) error {
	if r := m.(*discovery.DeltaDiscoveryResponse); a.adapt != nil {
		for _, res := range r.GetResources() {
			got, err := a.adapt(xds.Resource{Type: res.GetResource().GetTypeUrl(), Name: res.GetName(), Body: res.GetResource().GetValue()})
			if err != nil {
				return err
			}
			res.Resource.Value = got.Body
		}
	}
	return a.ServerStream.SendMsg(m)
}
