// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultUplinks are the interfaces of the process' network namespace that its default
// routes lead to, in order of their names.
func DefaultUplinks() ([]string, error) {
	families := []int{unix.AF_INET}
	if hasIPv6() {
		families = append(families, unix.AF_INET6)
	}
	var out []string
	add := func(index int) error {
		if index == 0 {
			return nil // leads to several, which are looked at themselves; or nowhere
		}
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("find interface %d of a default route: %w", index, err)
		}
		if name := l.Attrs().Name; name != loopbackName && !slices.Contains(out, name) {
			out = append(out, name)
		}
		return nil
	}
	for _, family := range families {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil {
			return nil, fmt.Errorf("list %s routes: %w", familyName(family), err)
		}
		for _, r := range routes {
			if !isDefault(r.Dst) {
				continue
			}
			if err := add(r.LinkIndex); err != nil {
				return nil, err
			}
			for _, hop := range r.MultiPath {
				if err := add(hop.LinkIndex); err != nil {
					return nil, err
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("find the interface towards the other nodes: this node has no default route")
	}
	slices.Sort(out)
	return out, nil
}
