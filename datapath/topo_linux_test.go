// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
)

// network is two nodes with pods, each a network namespace; a node and its pods
// share a cgroup. It is taken down at the test's end.
//
//	pod a1, pod a2 ── node a ──eth0── node b ── pod b1
type network struct {
	t    testing.TB
	dir  string // files of network namespaces
	pins string // a BPF file system
	// bridged: the pods of node a are ports of a bridge, and each other's neighbours; else
	// each has routes of its own.
	bridged bool
	hosts   map[string]*hostNet
}

// hostNet is a node or a pod.
type hostNet struct {
	name   string
	netns  string // file
	cgroup string
	link   *netlink.Handle
	v4, v6 netip.Addr
}

// networks are those that this process has made.
var networks atomic.Int64

func newNetwork(t testing.TB) *network { return newNetworkWith(t, false) }

func newNetworkWith(t testing.TB, bridged bool) *network {
	t.Helper()
	need.Root(t)
	root := cgroup2(t)
	n := &network{t: t, dir: t.TempDir(), pins: t.TempDir(), hosts: map[string]*hostNet{}, bridged: bridged}
	if err := unix.Mount("bpf", n.pins, "bpf", 0, ""); err != nil {
		need.Missing(t, "needs a BPF file system: %v", err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(n.pins, unix.MNT_DETACH)) })
	unique := networks.Add(1) // a benchmark has two at a time
	for _, node := range []string{"a", "b"} {
		cgroup := filepath.Join(root, fmt.Sprintf("fl-datapath-%d-%d-%s", os.Getpid(), unique, node))
		check(t, os.Mkdir(cgroup, 0o755))
		t.Cleanup(func() { check(t, os.Remove(cgroup)) })
		n.addHost(node, cgroup)
	}
	n.connectNodes()
	if bridged {
		n.addBridge()
	}
	n.addPod("a", "a1", "10.244.1.11", "fd44:1::11")
	n.addPod("a", "a2", "10.244.1.12", "fd44:1::12")
	n.addPod("b", "b1", "10.244.2.11", "fd44:2::11")
	return n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cgroup2 finds where cgroup v2 is mounted.
func cgroup2(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	check(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	need.Missing(t, "needs a cgroup v2 mount")
	return ""
}

func (n *network) addHost(name, cgroup string) *hostNet {
	n.t.Helper()
	h := &hostNet{name: name, netns: filepath.Join(n.dir, name), cgroup: cgroup}
	check(n.t, makeNetns(h.netns))
	n.t.Cleanup(func() { check(n.t, unix.Unmount(h.netns, unix.MNT_DETACH)) })
	check(n.t, inNetns(h.netns, func() (err error) {
		for name, v := range map[string]string{
			"net/ipv6/conf/all/accept_dad": "0", "net/ipv6/conf/default/accept_dad": "0",
			"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/default/rp_filter": "1",
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(v), 0); err != nil {
				return err
			}
		}
		h.link, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}))
	n.t.Cleanup(h.link.Close)
	lo, err := h.link.LinkByName("lo")
	check(n.t, err)
	check(n.t, h.link.LinkSetUp(lo))
	n.hosts[name] = h
	return h
}

// makeNetns makes a network namespace that lives as long as its file is mounted.
func makeNetns(file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, "")
	})
}

// veth joins two hosts and returns both ends.
func (n *network) veth(a *hostNet, aName string, b *hostNet, bName string) (netlink.Link, netlink.Link) {
	n.t.Helper()
	ns, err := os.Open(b.netns)
	check(n.t, err)
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
	check(n.t, a.link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(ns.Fd())}))
	la, err := a.link.LinkByName(aName)
	check(n.t, err)
	lb, err := b.link.LinkByName(bName)
	check(n.t, err)
	check(n.t, a.link.LinkSetUp(la))
	check(n.t, b.link.LinkSetUp(lb))
	return la, lb
}

func (n *network) address(h *hostNet, l netlink.Link, prefixes ...string) {
	n.t.Helper()
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		check(n.t, h.link.AddrAdd(l, a))
	}
}

func (n *network) route(h *hostNet, l netlink.Link, prefix, via string) {
	n.t.Helper()
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(prefix))}
	if via == "" {
		r.Scope = netlink.SCOPE_LINK
	} else {
		r.Gw = net.IP(netip.MustParseAddr(via).AsSlice())
	}
	check(n.t, h.link.RouteAdd(r))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (n *network) connectNodes() {
	n.t.Helper()
	a, b := n.hosts["a"], n.hosts["b"]
	la, lb := n.veth(a, "eth0", b, "eth0")
	a.v4, a.v6 = netip.MustParseAddr("10.240.0.1"), netip.MustParseAddr("fd40::1")
	b.v4, b.v6 = netip.MustParseAddr("10.240.0.2"), netip.MustParseAddr("fd40::2")
	n.address(a, la, "10.240.0.1/24", "fd40::1/64")
	n.address(b, lb, "10.240.0.2/24", "fd40::2/64")
	n.route(a, la, "10.244.2.0/24", "10.240.0.2")
	n.route(a, la, "fd44:2::/64", "fd40::2")
	n.route(b, lb, "10.244.1.0/24", "10.240.0.1")
	n.route(b, lb, "fd44:1::/64", "fd40::1")
}

const bridgeName = "cni0"

func (n *network) bridgedAt(h *hostNet) bool { return n.bridged && h.name == "a" }

// bridges is how many node a has.
func (n *network) bridges() int {
	if n.bridged {
		return 1
	}
	return 0
}

// addBridge is for the pods of node a, whose gateway it is.
func (n *network) addBridge() {
	n.t.Helper()
	a := n.hosts["a"]
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	// With an address of its own it does not take those of its ports.
	attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	check(n.t, a.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	l, err := a.link.LinkByName(bridgeName)
	check(n.t, err)
	check(n.t, a.link.LinkSetUp(l))
	n.address(a, l, "169.254.1.1/32", "fe80::1/64")
}

func (n *network) addPod(node, name, v4, v6 string) {
	n.t.Helper()
	on := n.hosts[node]
	h := n.addHost(name, on.cgroup)
	h.v4, h.v6 = netip.MustParseAddr(v4), netip.MustParseAddr(v6)
	n.plug(on, h)
}

// plug gives a pod its interface.
func (n *network) plug(on, h *hostNet) {
	n.t.Helper()
	outside, inside := n.veth(on, "lx"+h.name, h, "eth0")
	if n.bridgedAt(on) {
		bridge, err := on.link.LinkByName(bridgeName)
		check(n.t, err)
		check(n.t, on.link.LinkSetMaster(outside, bridge))
		// Also when it is made anew: others on the bridge know where it is.
		ip := h.v4.As4()
		check(n.t, h.link.LinkSetHardwareAddr(inside, net.HardwareAddr{2, 1, ip[0], ip[1], ip[2], ip[3]}))
		n.address(h, inside, h.v4.String()+"/24", h.v6.String()+"/64")
	} else {
		n.address(on, outside, "169.254.1.1/32", "fe80::1/64")
		n.address(h, inside, h.v4.String()+"/32", h.v6.String()+"/128")
	}
	n.route(h, inside, "169.254.1.1/32", "")
	n.route(h, inside, "0.0.0.0/0", "169.254.1.1")
	n.route(h, inside, "::/0", "fe80::1")
	n.podRoutes(on, h)
}

// podRoutes lead from a node to its pod. They go when the node's address goes.
func (n *network) podRoutes(on, h *hostNet) {
	n.t.Helper()
	name := "lx" + h.name
	if n.bridgedAt(on) {
		name = bridgeName
	}
	outside, err := on.link.LinkByName(name)
	check(n.t, err)
	for _, a := range [][2]netip.Addr{{h.v4, on.v4}, {h.v6, on.v6}} {
		// The node speaks to its pods under its own address, not under the gateway's.
		check(n.t, on.link.RouteReplace(&netlink.Route{
			LinkIndex: outside.Attrs().Index, Scope: netlink.SCOPE_LINK, Src: a[1].AsSlice(),
			Dst: ipNet(netip.PrefixFrom(a[0], a[0].BitLen())),
		}))
	}
}

// unplug takes it away, as the end of a pod does.
func (n *network) unplug(on, h *hostNet) {
	n.t.Helper()
	l, err := on.link.LinkByName("lx" + h.name)
	check(n.t, err)
	check(n.t, on.link.LinkDel(l))
}
