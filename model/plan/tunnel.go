// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// tunnels has a row for each cluster of connections to a place at which some of these go
// through a tunnel.
const tunnels incr.Table = "plan/tunnel" // *tunnelled, key: the mode, and the cluster

// tunnelled is how the connections of a mode go that are a class's, or anybody's.
type tunnelled struct {
	mode  Mode
	class string // "": all for which there is none of their own
	Tunnelled
}

// Tunnelled is how connections go that want a cluster, of those that are sent to a port of
// an address, which is written as a prefix, or of any in a range.
type Tunnelled struct {
	At      netip.Prefix  `json:"at"`
	Port    uint16        `json:"port"`
	Cluster string        `json:"cluster"`
	Tunnel  *model.Tunnel `json:"tunnel,omitempty"` // nil: straight to its endpoints
}

// tunnelsOf are those that a listener of the mode and the class has to know, sorted.
func tunnelsOf(r *incr.Reader, m Mode, class string) []Tunnelled {
	var out []Tunnelled
	for _, row := range r.All(tunnels) {
		if t := row.Value.(*tunnelled); t.mode == m && (t.class == "" || t.class == class) {
			out = append(out, t.Tunnelled)
		}
	}
	slices.SortFunc(out, func(a, b Tunnelled) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return out
}

// putTunnels puts how the connections go that want clusters of which one may stand in for
// another, if a tunnel is among them. Which way holds for a connection is found as its
// cluster is: so those without a tunnel count, too.
func (c *compiler) putTunnels(all []*tunnelled) {
	if !slices.ContainsFunc(all, func(t *tunnelled) bool { return t.Tunnel != nil }) {
		return
	}
	for _, t := range all {
		c.put(tunnels, string(t.mode)+" "+t.Cluster, t)
	}
}

// tunnelOf is where backends lead the connections that they share.
func tunnelOf(backends []model.Backend) *model.Tunnel {
	if p := policyOf(backends); p != nil {
		return p.Tunnel
	}
	return nil
}

// policyOf is the policy of connections that backends share: that of the first that is
// there.
func policyOf(backends []model.Backend) *model.TrafficPolicy {
	for _, b := range backends {
		if !b.Missing {
			return b.Policy
		}
	}
	return nil
}

// place is where connections are sent that are told apart by it.
type place struct {
	at   netip.Prefix
	port uint16
	dst  netip.AddrPort // the address, if it is one and no range
}

func atAddress(dst netip.AddrPort) place {
	return place{netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen()), dst.Port(), dst}
}

func inRange(r netip.Prefix, port uint16) place { return place{at: r, port: port} }

// String is as the place stands in the names of clusters.
func (p place) String() string {
	if p.dst.IsValid() {
		return p.dst.String()
	}
	return RangePort(p.at, p.port)
}
