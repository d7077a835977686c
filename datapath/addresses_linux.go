// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// hostAddresses lists the addresses of the node's own interfaces from which its processes
// speak to pods: neither those of loopback and dummy interfaces, where a node keeps
// addresses of services, nor those of one link only. Sorted, each once.
func hostAddresses() ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	speaks := map[int]bool{}
	for _, l := range links {
		speaks[l.Attrs().Index] = l.Attrs().Index != loopback && l.Type() != "dummy"
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, of := range addrs {
		if a, ok := netip.AddrFromSlice(of.IP); ok && speaks[of.LinkIndex] && !a.Unmap().IsLinkLocalUnicast() {
			out = append(out, a.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// tellAddresses calls Options.Addresses if the addresses are others than the last time.
func (d *Datapath) tellAddresses() {
	if d.opt.Addresses == nil {
		return
	}
	now, err := hostAddresses()
	if err != nil {
		d.log.Warn("learn the node's own addresses; those that are known stay", "error", err)
		return
	}
	if d.told != nil && slices.Equal(now, d.told) {
		return
	}
	d.told = append([]netip.Addr{}, now...)
	d.opt.Addresses(now)
}
