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
// of it fits; so each range has all chains.

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
	for _, r := range ranges {
		add := func(name string, match *listener.FilterChainMatch, filters ...*listener.Filter) {
			match.PrefixRanges = []*core.CidrRange{{AddressPrefix: r.Addr().String(), PrefixLen: uint32Value(uint32(r.Bits()))}}
			m.FilterChains = append(m.FilterChains, &listener.FilterChain{Name: r.String() + name, FilterChainMatch: match, Filters: filters})
		}
		if l.Mode == plan.AnyOpaque {
			add("", &listener.FilterChainMatch{}, anyConnections(l, connectionPrefix+l.Class+"|", r)...)
			continue
		}
		prefix := func(pattern string) string { return serverNamePrefix + pattern + "|" + l.Class + "|" }
		for _, p := range patterns {
			add(" "+p, &listener.FilterChainMatch{ServerNames: []string{p}}, anyConnections(l, prefix(p), r)...)
		}
		if r.Bits() == 0 {
			add(" http", &listener.FilterChainMatch{
				TransportProtocol:    "raw_buffer",
				ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"},
			}, requests(l))
		}
		add(" raw", &listener.FilterChainMatch{TransportProtocol: "raw_buffer"}, anyConnections(l, prefix(""), r)...)
		add("", &listener.FilterChainMatch{}, anyConnections(l, prefix(""), r)...)
	}
	if l.Mode == plan.AnyDetect {
		m.ListenerFilters = append(m.ListenerFilters, tlsInspector(),
			listenerFilter("envoy.filters.listener.http_inspector", &httpinspector.HttpInspector{}))
	}
	return nil
}

// anyConnections sends a connection to the cluster whose name begins like this and ends
// with a range and the port that the client had dialled.
func anyConnections(l *plan.Listener, prefix string, r netip.Prefix) []*listener.Filter {
	return toCluster(l, prefix+r.String()+":", "%DOWNSTREAM_LOCAL_PORT%", plan.ConnectionTimes{})
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
