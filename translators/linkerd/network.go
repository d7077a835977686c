// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/linkerd/api"
)

// network is a range of addresses with holes.
type network struct {
	prefix netip.Prefix
	except []netip.Prefix
}

// readNetwork reads a range; a single address is one, too.
func readNetwork(n api.Network) (network, error) {
	p, err := readPrefix(n.CIDR)
	if err != nil {
		return network{}, err
	}
	out := network{prefix: p}
	for _, e := range n.Except {
		x, err := readPrefix(e)
		if err != nil {
			return network{}, err
		}
		out.except = append(out.except, x)
	}
	return out, nil
}

func readPrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address or a range of addresses", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: write a range of IPv4 addresses as such", s)
	}
	return p.Masked(), nil
}

// readNetworks reads ranges that were found to be well-formed; others are left out. It
// is not nil, which would be any.
func readNetworks(in []api.Network) []network {
	out := []network{}
	for _, n := range in {
		if nw, err := readNetwork(n); err == nil {
			out = append(out, nw)
		}
	}
	return out
}

// everywhere reports whether the ranges are all addresses of both families.
func everywhere(in []network) bool {
	all := func(p string) bool {
		return slices.ContainsFunc(in, func(n network) bool { return n.prefix == netip.MustParsePrefix(p) && len(n.except) == 0 })
	}
	return all("0.0.0.0/0") && all("::/0")
}

// client is who an authorization lets in: one of Identities, if it is not nil, from one
// of the networks, if they are not nil.
type client struct {
	identities []model.StringMatch
	networks   []network
}

// nobody reports whether the client can be no one: an empty list is not the same as
// none.
func (c client) nobody() bool {
	return c.identities != nil && len(c.identities) == 0 || c.networks != nil && len(c.networks) == 0
}

// peers are the client as the model has it; none: anybody.
func (c client) peers() []model.Peer {
	ids := model.SortContent(c.identities)
	if c.networks == nil || everywhere(c.networks) {
		if ids == nil {
			return nil
		}
		return []model.Peer{{Identities: ids}}
	}
	var out []model.Peer
	for _, n := range c.networks {
		out = append(out, model.Peer{Identities: ids, IPs: []netip.Prefix{n.prefix}, NotIPs: model.SortContent(n.except)})
	}
	return model.SortContent(out)
}
