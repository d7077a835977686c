// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"net/netip"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"fairlead.io/fairlead/model/plan"
)

// connectionChains adds what a listener does with connections to exact addresses: once
// for all of them, and once for each whose connections have times or a tunnel of their
// own. A chain that comes or goes ends no connection of others.
//
// Envoy looks for a chain by port first, then by address, and never goes back: so the
// chains for all stand there once more for each port that some address is told apart at.
func connectionChains(m *listener.Listener, l *plan.Listener) error {
	all, err := chainsOf(l, plan.ConnectionTimes{})
	if err != nil {
		return err
	}
	if m.FilterChains = all; l.Mode != plan.Opaque {
		m.FilterChains, m.DefaultFilterChain = all[:len(all)-1], all[len(all)-1]
	}
	for _, t := range l.Times {
		if !t.To.IsValid() || t.Idle < 0 || t.Max < 0 || t.Idle+t.Max == 0 {
			return fmt.Errorf("times %s and %s of connections to %s", t.Idle, t.Max, t.To)
		}
	}
	ports := map[uint16]bool{}
	for _, t := range toldApart(l) {
		if !ports[t.To.Port()] {
			ports[t.To.Port()] = true
			if err := addChains(m, l, plan.ConnectionTimes{To: netip.AddrPortFrom(netip.Addr{}, t.To.Port())}); err != nil {
				return err
			}
		}
		if err := addChains(m, l, t); err != nil {
			return err
		}
	}
	return nil
}

// toldApart are the addresses whose connections have something of their own, sorted, with
// their times.
func toldApart(l *plan.Listener) []plan.ConnectionTimes {
	out := slices.Clone(l.Times)
	for _, t := range l.Tunnels {
		to := netip.AddrPortFrom(t.At.Addr(), t.Port)
		if !slices.ContainsFunc(out, func(have plan.ConnectionTimes) bool { return have.To == to }) {
			out = append(out, plan.ConnectionTimes{To: to})
		}
	}
	slices.SortFunc(out, func(a, b plan.ConnectionTimes) int { return a.To.Compare(b.To) })
	return out
}

// addChains adds those for an address and port, or for a port alone.
func addChains(m *listener.Listener, l *plan.Listener, t plan.ConnectionTimes) error {
	own, err := chainsOf(l, t)
	if err != nil {
		return err
	}
	for _, c := range own {
		if c.FilterChainMatch == nil {
			c.FilterChainMatch = &listener.FilterChainMatch{}
		}
		c.FilterChainMatch.DestinationPort = uint32Value(uint32(t.To.Port()))
		c.Name = fmt.Sprintf(":%d %s", t.To.Port(), c.Name)
		if a := t.To.Addr(); a.IsValid() {
			c.FilterChainMatch.PrefixRanges = []*core.CidrRange{{AddressPrefix: a.String(), PrefixLen: uint32Value(uint32(a.BitLen()))}}
			c.Name = a.String() + c.Name
		}
		m.FilterChains = append(m.FilterChains, c)
	}
	return nil
}

// chainsOf are the chains of a mode; the last one takes what the others do not.
func chainsOf(l *plan.Listener, t plan.ConnectionTimes) ([]*listener.FilterChain, error) {
	rest := func(prefix string) *listener.FilterChain {
		return &listener.FilterChain{Filters: connections(l, prefix, t)}
	}
	if l.Mode == plan.Opaque {
		return []*listener.FilterChain{rest(connectionPrefix + l.Class + "|")}, nil
	}
	if detects(l.Mode) {
		out := []*listener.FilterChain{{
			FilterChainMatch: &listener.FilterChainMatch{
				// TLS may name the same protocols, of what is inside it.
				TransportProtocol:    "raw_buffer",
				ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"},
			},
			Filters: []*listener.Filter{requests(l)},
		}}
		if t.To.Port() != 0 {
			// Where there are chains for what is not TLS, Envoy looks at no others for it: but
			// for the listener's default, which is not the address's.
			raw := rest(connectionPrefix + l.Class + "|")
			raw.Name, raw.FilterChainMatch = "raw", &listener.FilterChainMatch{TransportProtocol: "raw_buffer"}
			out = append(out, raw)
		}
		return append(out, rest(connectionPrefix+l.Class+"|")), nil
	}
	patterns, err := names(l.ServerNames, isDNSName)
	if err != nil {
		return nil, fmt.Errorf("server name: %w", err)
	}
	prefix := func(pattern string) string { return serverNamePrefix + pattern + "|" + l.Class + "|" }
	var out []*listener.FilterChain
	for _, p := range patterns {
		out = append(out, &listener.FilterChain{
			Name:             p,
			FilterChainMatch: &listener.FilterChainMatch{ServerNames: []string{p}},
			Filters:          connections(l, prefix(p), t),
		})
	}
	return append(out, rest(prefix(""))), nil
}
