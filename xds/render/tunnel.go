// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// That connections go through a tunnel is a property of a filter, not of the cluster that
// they go to. So there are chains for each place at which some do, as for those whose
// connections have times of their own, and nothing for anybody else.

// tunnelTo is where connections are led on that want a cluster, by the name that Envoy asks
// for: as that cluster is found, so is this.
func tunnelTo(l *plan.Listener, cluster string) *model.Tunnel {
	if len(l.Tunnels) == 0 {
		return nil
	}
	for _, name := range Candidates(xds.ClusterType, cluster) {
		for _, t := range l.Tunnels {
			if t.Cluster == name {
				return t.Tunnel
			}
		}
	}
	return nil
}

// tunneling asks the endpoints of a cluster to lead connections on; nil: they do not.
func tunneling(t *model.Tunnel) *tcpproxy.TcpProxy_TunnelingConfig {
	if t == nil {
		return nil
	}
	return &tcpproxy.TcpProxy_TunnelingConfig{
		Hostname: literal(t.Target()),
		UsePost:  t.Post,
	}
}

// tunnelApp is what is spoken to the endpoints.
func tunnelApp(t *model.Tunnel) model.App {
	if t.HTTP2 {
		return model.AppHTTP2
	}
	return model.AppHTTP
}

// tunnelledPorts are those at which some connections to no exact address go through a
// tunnel, sorted, behind 0, which is all others.
func tunnelledPorts(l *plan.Listener) []uint16 {
	out := []uint16{0}
	for _, t := range l.Tunnels {
		out = append(out, t.Port)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// checkTunnels refuses what Envoy would refuse, or what would be for other connections than
// those of the listener.
func checkTunnels(l *plan.Listener) error {
	ranges := l.Mode == plan.AnyDetect || l.Mode == plan.AnyOpaque
	if len(l.Tunnels) > 0 && !ranges && l.Mode != plan.TLS && l.Mode != plan.Opaque && !detects(l.Mode) {
		return fmt.Errorf("tunnels, and of mode %q", l.Mode)
	}
	for _, t := range l.Tunnels {
		if !t.At.IsValid() || t.At != t.At.Masked() || !ranges && !t.At.IsSingleIP() || t.Port == 0 || !OfConnections(t.Cluster) {
			return fmt.Errorf("a tunnel of %q at %s, port %d, and of mode %q", t.Cluster, t.At, t.Port, l.Mode)
		}
		if t.Tunnel == nil {
			continue
		}
		if _, err := netip.ParseAddr(t.Tunnel.Host); err != nil && !isDNSName(strings.ToLower(t.Tunnel.Host)) || t.Tunnel.Port == 0 {
			return fmt.Errorf("no tunnel leads to %q, port %d", t.Tunnel.Host, t.Tunnel.Port)
		}
	}
	return nil
}
