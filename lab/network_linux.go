// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/lab/cluster"
)

// Addresses that every lab has.
var (
	outsideAddresses = []netip.Addr{netip.MustParseAddr("10.240.0.250"), netip.MustParseAddr("fd40::250")}
	serviceRanges    = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")}
	// gateways are what pods send everything to. They are nobody's address: pods
	// and nodes know each other's hardware addresses from the start.
	gateways = []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")}
	// dnsAddress is on each node's lo.
	dnsAddress = netip.MustParseAddr("169.254.20.10")
)

const dnsPort = 53

// uplink is the device by which nodes reach each other.
const uplink = "eth0"

const (
	fabricBits4 = 24
	fabricBits6 = 64
)

// everywhere are settings of all namespaces: addresses serve at once, and servers
// under load keep their queues.
func everywhere() map[string]string {
	return map[string]string{
		"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
		"ipv6/conf/all/accept_ra": "0", "ipv6/conf/default/accept_ra": "0",
		"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"core/somaxconn": "4096",
	}
}

// onNodes are settings of nodes besides: they are routers that check where packets
// come from.
func onNodes() map[string]string {
	out := everywhere()
	for k, v := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/default/forwarding": "1",
		"ipv4/conf/all/rp_filter": "1", "ipv4/conf/default/rp_filter": "1",
	} {
		out[k] = v
	}
	return out
}

// prepareNode readies a node's namespace; it runs in it.
func prepareNode() error {
	if err := sysctls(onNodes()); err != nil {
		return err
	}
	return trackConnections()
}

// wireFabric makes the nodes and the outside, joined by a bridge.
func (l *lab) wireFabric() error {
	err := newNetns(l.paths.ns(fabricPlace), func() error {
		if err := sysctls(everywhere()); err != nil {
			return err
		}
		snoop := false // nobody asks, so nobody would be heard
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &snoop}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("make bridge: %w", err)
		}
		return netlink.LinkSetUp(bridge)
	})
	if err != nil {
		return fmt.Errorf("make fabric: %w", err)
	}
	for i, name := range l.record.Nodes {
		if err := newNetns(l.paths.ns(name), prepareNode); err != nil {
			return fmt.Errorf("make node %s: %w", name, err)
		}
		if err := l.plug(name, cluster.NodeAddresses(i+1)); err != nil {
			return fmt.Errorf("connect node %s: %w", name, err)
		}
	}
	if err := newNetns(l.paths.ns(outsidePlace), func() error { return sysctls(everywhere()) }); err != nil {
		return fmt.Errorf("make the outside: %w", err)
	}
	if err := l.plug(outsidePlace, outsideAddresses); err != nil {
		return fmt.Errorf("connect the outside: %w", err)
	}
	for _, place := range append([]string{outsidePlace}, l.record.Nodes...) {
		if err := l.routeFabric(place); err != nil {
			return fmt.Errorf("set routes of %s: %w", place, err)
		}
	}
	return nil
}

// plug connects a place to the bridge by its eth0.
func (l *lab) plug(place string, addrs []netip.Addr) error {
	fabric, err := openNetns(l.paths.ns(fabricPlace))
	if err != nil {
		return err
	}
	defer fabric.close()
	there, err := openNetns(l.paths.ns(place))
	if err != nil {
		return err
	}
	defer there.close()
	bridge, err := fabric.LinkByName("br0")
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	name := device(place)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index}, PeerName: uplink,
		PeerNamespace: netlink.NsFd(there.ns)}
	if err := fabric.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth: %w", err)
	}
	if err := fabric.up(name); err != nil {
		return err
	}
	for i, a := range addrs {
		if err := there.address(uplink, netip.PrefixFrom(a, []int{fabricBits4, fabricBits6}[i])); err != nil {
			return err
		}
	}
	return there.up(uplink)
}

// routeFabric leads to the other nodes' pods by their nodes, and to whatever is not
// of the lab by the outside.
func (l *lab) routeFabric(place string) error {
	h, err := openNetns(l.paths.ns(place))
	if err != nil {
		return err
	}
	defer h.close()
	for i, name := range l.record.Nodes {
		if name == place {
			continue
		}
		via := cluster.NodeAddresses(i + 1)
		for j, p := range cluster.PodRanges(i + 1) {
			if err := h.route(uplink, p, via[j], netip.Addr{}); err != nil {
				return err
			}
		}
		if place == outsidePlace && i == 0 {
			for j, p := range serviceRanges {
				if err := h.route(uplink, p, via[j], netip.Addr{}); err != nil {
					return err
				}
			}
		}
	}
	if place == outsidePlace {
		return nil
	}
	if err := h.address("lo", netip.PrefixFrom(dnsAddress, 32)); err != nil {
		return err
	}
	for _, via := range outsideAddresses {
		if err := h.route(uplink, netip.PrefixFrom(unspecified(via), 0), via, netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// wirePod makes a pod's namespace and connects it to its node.
func (l *lab) wirePod(p *cluster.Pod) error {
	place := podPlace(p)
	if err := newNetns(l.paths.ns(place), func() error { return sysctls(everywhere()) }); err != nil {
		return fmt.Errorf("make pod %s: %w", p.Key(), err)
	}
	if err := l.connectPod(p); err != nil {
		return fmt.Errorf("connect pod %s: %w", p.Key(), err)
	}
	return nil
}

func (l *lab) connectPod(p *cluster.Pod) error {
	node, err := openNetns(l.paths.ns(p.Node))
	if err != nil {
		return err
	}
	defer node.close()
	inside, err := openNetns(l.paths.ns(podPlace(p)))
	if err != nil {
		return err
	}
	defer inside.close()
	host := device(podPlace(p))
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: uplink, PeerNamespace: netlink.NsFd(inside.ns)}
	if err := node.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth: %w", err)
	}
	hostMAC, err := node.mac(host)
	if err != nil {
		return err
	}
	podMAC, err := inside.mac(uplink)
	if err != nil {
		return err
	}
	for _, a := range p.Addresses {
		if err := inside.address(uplink, netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	if err := inside.up(uplink); err != nil {
		return err
	}
	if err := node.up(host); err != nil {
		return err
	}
	own := cluster.NodeAddresses(l.nodeNumber(p.Node))
	for i, a := range p.Addresses {
		gw := gateways[i]
		if err := inside.neighbour(uplink, gw, hostMAC); err != nil {
			return err
		}
		if err := inside.route(uplink, netip.PrefixFrom(gw, gw.BitLen()), netip.Addr{}, netip.Addr{}); err != nil {
			return err
		}
		if err := inside.route(uplink, netip.PrefixFrom(unspecified(gw), 0), gw, netip.Addr{}); err != nil {
			return err
		}
		// Without a source of its own the node would speak to the pod from whatever
		// address it finds first.
		if err := node.route(host, netip.PrefixFrom(a, a.BitLen()), netip.Addr{}, own[i]); err != nil {
			return err
		}
		if err := node.neighbour(host, a, podMAC); err != nil {
			return err
		}
	}
	return nil
}

// unwirePod takes a pod's device and namespace away.
func (l *lab) unwirePod(p *cluster.Pod) error {
	node, err := openNetns(l.paths.ns(p.Node))
	if err != nil {
		return err
	}
	defer node.close()
	if link, err := node.LinkByName(device(podPlace(p))); err == nil {
		if err := node.LinkDel(link); err != nil {
			return fmt.Errorf("remove device of pod %s: %w", p.Key(), err)
		}
	}
	return deleteNetns(l.paths.ns(podPlace(p)))
}

// device is the name of the outer end of a place's device.
func device(place string) string {
	sum := sha256.Sum256([]byte(place))
	return "fl" + hex.EncodeToString(sum[:5])
}

// nodeNumber counts from 1.
func (l *lab) nodeNumber(name string) int {
	for i, n := range l.record.Nodes {
		if n == name {
			return i + 1
		}
	}
	return 0
}

func (h *netnsHandle) index(dev string) (int, error) {
	link, err := h.LinkByName(dev)
	if err != nil {
		return 0, fmt.Errorf("find device %s: %w", dev, err)
	}
	return link.Attrs().Index, nil
}

func (h *netnsHandle) mac(dev string) (net.HardwareAddr, error) {
	link, err := h.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", dev, err)
	}
	return link.Attrs().HardwareAddr, nil
}

func (h *netnsHandle) up(dev string) error {
	link, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find device %s: %w", dev, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", dev, err)
	}
	return nil
}

func (h *netnsHandle) address(dev string, p netip.Prefix) error {
	link, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find device %s: %w", dev, err)
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, dev, err)
	}
	return nil
}

// route leads to p by a device, via a gateway and from a source if they are valid.
func (h *netnsHandle) route(dev string, p netip.Prefix, via, src netip.Addr) error {
	i, err := h.index(dev)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: i, Dst: ipNet(p)}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if src.IsValid() {
		r.Src = src.AsSlice()
	}
	if err := h.RouteReplace(r); err != nil {
		return fmt.Errorf("add route to %s by %s: %w", p, dev, err)
	}
	return nil
}

// neighbour fixes the hardware address of a neighbour: nobody has to ask for it.
func (h *netnsHandle) neighbour(dev string, a netip.Addr, mac net.HardwareAddr) error {
	i, err := h.index(dev)
	if err != nil {
		return err
	}
	family := unix.AF_INET6
	if a.Is4() {
		family = unix.AF_INET
	}
	n := &netlink.Neigh{LinkIndex: i, Family: family, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
	if err := h.NeighSet(n); err != nil {
		return fmt.Errorf("fix neighbour %s on %s: %w", a, dev, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
