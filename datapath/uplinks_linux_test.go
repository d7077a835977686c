// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
)

// The uplinks are where default routes lead, of either family, also by several hops; not
// where others lead, nor those of other tables.
func TestDefaultUplinks(t *testing.T) {
	need.Root(t)
	file := filepath.Join(t.TempDir(), "node")
	check(t, makeNetns(file))
	t.Cleanup(func() { check(t, unix.Unmount(file, unix.MNT_DETACH)) })
	check(t, inNetns(file, func() error { return uplinksOf(t) }))
}

// uplinksOf is on a thread of its own, which must come to its end.
func uplinksOf(t *testing.T) error {
	if got, err := DefaultUplinks(); err == nil {
		t.Errorf("without a default route: %v", got)
	}
	indexes := map[string]int{}
	for i, name := range []string{"a", "b", "c", "d", "other"} {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "to-" + name}); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		indexes[name] = l.Attrs().Index
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, byte(i), 1), Mask: net.CIDRMask(24, 32)}}
		if err := errors.Join(netlink.LinkSetUp(l), netlink.AddrAdd(l, addr)); err != nil {
			return err
		}
	}
	via := func(third byte) net.IP { return net.IPv4(10, 9, third, 254) }
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	_, some, _ := net.ParseCIDR("192.0.2.0/24")
	for _, r := range []netlink.Route{
		{Dst: some, LinkIndex: indexes["other"]},
		{Dst: all4, LinkIndex: indexes["other"], Table: 77},
		{Dst: all4, LinkIndex: indexes["b"], Gw: via(1)},
	} {
		if err := netlink.RouteAdd(&r); err != nil {
			return fmt.Errorf("add %v: %w", r, err)
		}
	}
	if got, err := DefaultUplinks(); err != nil || !slices.Equal(got, []string{"b"}) {
		t.Errorf("one default route: %v, %v", got, err)
	}
	for _, r := range []netlink.Route{
		{Dst: all6, LinkIndex: indexes["a"]},
		{Dst: all4, Priority: 10, MultiPath: []*netlink.NexthopInfo{{LinkIndex: indexes["c"], Gw: via(2)}, {LinkIndex: indexes["d"], Gw: via(3)}}},
	} {
		if err := netlink.RouteAdd(&r); err != nil {
			return fmt.Errorf("add %v: %w", r, err)
		}
	}
	if got, err := DefaultUplinks(); err != nil || !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("several: %v, %v", got, err)
	}
	return nil
}
