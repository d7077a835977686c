// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
)

// BankPorts is how far the ports of a bank's listeners are from those of the bank
// before it. The kernel adds the same.
const BankPorts = 1000

// adapt gives an Envoy's listeners the ports of its bank; nil: they have them.
func adapt(node *core.Node) func(xds.Resource) (xds.Resource, error) {
	bank := bankOf(node)
	if bank == 0 {
		return nil
	}
	return func(r xds.Resource) (xds.Resource, error) {
		if r.Type != xds.ListenerType {
			return r, nil
		}
		return shiftPorts(r, uint32(bank)*BankPorts)
	}
}

func bankOf(node *core.Node) int {
	return int(node.GetMetadata().GetFields()[BankKey].GetNumberValue())
}

// clientName is what an Envoy is called where rejections tell Envoys apart.
func clientName(bank int) string { return fmt.Sprintf("bank %d", bank) }

// shiftPorts adds to the ports that a listener binds.
func shiftPorts(r xds.Resource, by uint32) (xds.Resource, error) {
	var l listener.Listener
	if err := proto.Unmarshal(r.Body, &l); err != nil {
		return xds.Resource{}, fmt.Errorf("read listener %s: %w", r.Name, err)
	}
	addrs := []*core.Address{l.GetAddress()}
	for _, a := range l.GetAdditionalAddresses() {
		addrs = append(addrs, a.GetAddress())
	}
	for _, a := range addrs {
		if p, ok := a.GetSocketAddress().GetPortSpecifier().(*core.SocketAddress_PortValue); ok {
			p.PortValue += by
		}
	}
	return xds.New(&l)
}
