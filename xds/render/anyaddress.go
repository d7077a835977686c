// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"net/netip"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"

	"fairlead.io/fairlead/model/plan"
)

// Connections to addresses that nobody is known to have, or that are in a service's
// range, are told apart by the range and the port, where others are by the address: names
// of clusters must not be as many as addresses. A filter chain for each range, of which
// Envoy takes the longest, writes it down. Those of all addresses are always there.
//
// Envoy chooses a chain by the address first, and does not look at others if nothing else
// of it fits; so each range has all chains. It chooses by the port before that: a port at
// which there are tunnels has all of them for itself.

// anyChains adds what a listener of AnyDetect or AnyOpaque does with connections.
func anyChains(m *listener.Listener, l *plan.Listener) error {
	patterns, err := names(l.ServerNames, isDNSName)
	if err != nil {
		return fmt.Errorf("server name: %w", err)
	}
	ranges := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	for _, r := range l.Ranges {
		if !r.IsValid() || r != r.Masked() || r.Bits() == 0 {
			return fmt.Errorf("%s is no range", r)
		}
		ranges = append(ranges, r)
	}
	for _, port := range tunnelledPorts(l) {
		for _, r := range ranges {
			m.FilterChains = append(m.FilterChains, rangeChains(l, patterns, r, port)...)
		}
	}
	if l.Mode == plan.AnyDetect {
		m.ListenerFilters = append(m.ListenerFilters, tlsInspector(),
			listenerFilter("envoy.filters.listener.http_inspector", &httpinspector.HttpInspector{}))
	}
	return nil
}

// rangeChains are the chains of a range for connections to a port, 0: to all for which
// there are none.
func rangeChains(l *plan.Listener, patterns []string, r netip.Prefix, port uint16) []*listener.FilterChain {
	var out []*listener.FilterChain
	add := func(name string, match *listener.FilterChainMatch, filters ...*listener.Filter) {
		match.PrefixRanges = []*core.CidrRange{{AddressPrefix: r.Addr().String(), PrefixLen: uint32Value(uint32(r.Bits()))}}
		name = r.String() + name
		if port != 0 {
			match.DestinationPort = uint32Value(uint32(port))
			name = fmt.Sprintf(":%d %s", port, name)
		}
		out = append(out, &listener.FilterChain{Name: name, FilterChainMatch: match, Filters: filters})
	}
	if l.Mode == plan.AnyOpaque {
		add("", &listener.FilterChainMatch{}, anyConnections(l, connectionPrefix+l.Class+"|", r, port)...)
		return out
	}
	prefix := func(pattern string) string { return serverNamePrefix + pattern + "|" + l.Class + "|" }
	for _, p := range patterns {
		add(" "+p, &listener.FilterChainMatch{ServerNames: []string{p}}, anyConnections(l, prefix(p), r, port)...)
	}
	if r.Bits() == 0 {
		add(" http", &listener.FilterChainMatch{
			TransportProtocol:    "raw_buffer",
			ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"},
		}, requests(l))
	}
	add(" raw", &listener.FilterChainMatch{TransportProtocol: "raw_buffer"}, anyConnections(l, prefix(""), r, port)...)
	add("", &listener.FilterChainMatch{}, anyConnections(l, prefix(""), r, port)...)
	return out
}

// anyConnections sends a connection to the cluster whose name begins like this and ends
// with a range and the port that the client had dialled.
func anyConnections(l *plan.Listener, prefix string, r netip.Prefix, port uint16) []*listener.Filter {
	return toCluster(l, prefix+r.String()+":", "%DOWNSTREAM_LOCAL_PORT%", plan.ConnectionTimes{}, tunnelTo(l, prefix+plan.RangePort(r, port)))
}

// wideRanges lists what may stand for the last part of a cluster's name: itself, and if
// it is a range the wider ones, up to all addresses.
func wideRanges(at string) []string {
	out := []string{at}
	i := strings.LastIndexByte(at, ':')
	if i < 0 {
		return out
	}
	r, err := netip.ParsePrefix(at[:i])
	if err != nil {
		return out
	}
	for bits := r.Bits() - 1; bits >= 0; bits-- {
		out = append(out, netip.PrefixFrom(r.Addr(), bits).Masked().String()+at[i:])
	}
	return out
}
