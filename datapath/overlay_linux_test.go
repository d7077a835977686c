// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

const overlayName = "vx0"

// SetRemote tells the datapath.
func (h *Helper) SetRemote(addrs []netip.Addr, _ *None) error {
	h.datapath.SetRemote(addrs)
	return nil
}

// tunnel makes a VXLAN between the nodes, over eth0, and leads what is for the other node's
// pods into it.
func (n *network) tunnel(node string, number int) {
	n.t.Helper()
	h, other := n.hosts[node], n.hosts[map[string]string{"a": "b", "b": "a"}[node]]
	under, err := h.link.LinkByName("eth0")
	check(n.t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = overlayName, 1450
	attrs.HardwareAddr = net.HardwareAddr{2, 9, 0, 0, 0, byte(number)}
	check(n.t, h.link.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 7, VtepDevIndex: under.Attrs().Index,
		SrcAddr: h.v4.AsSlice(), Group: other.v4.AsSlice(), Port: 8472}))
	l, err := h.link.LinkByName(overlayName)
	check(n.t, err)
	check(n.t, h.link.LinkSetUp(l))
	n.address(h, l, fmt.Sprintf("10.250.0.%d/24", number), fmt.Sprintf("fd50::%d/64", number))
	for prefix, via := range map[string]string{
		fmt.Sprintf("10.244.%d.0/24", 3-number): fmt.Sprintf("10.250.0.%d", 3-number),
		fmt.Sprintf("fd44:%d::/64", 3-number):   fmt.Sprintf("fd50::%d", 3-number),
	} {
		check(n.t, h.link.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(prefix)), Gw: netip.MustParseAddr(via).AsSlice()}))
	}
}

// on is an interface as a node's status has it; zero if it has not.
func on(st Status, name string) Attached {
	i := slices.IndexFunc(st.Interfaces, func(a Attached) bool { return a.Name == name })
	if i < 0 {
		return Attached{}
	}
	return st.Interfaces[i]
}

// Packets of other nodes' pods that come by a tunnel meet the programs of uplinks there.
func TestOverlay(t *testing.T) {
	w := newWorld(t, false)
	remote := []netip.Addr{netip.MustParseAddr("10.244.2.1"), netip.MustParseAddr("fd44:2::1")}
	call[None](w.proc["a"], "SetRemote", remote)
	if st := call[Status](w.proc["a"], "Status", None{}); len(st.Interfaces) != 4 { // lo, eth0, two pods
		t.Errorf("there is no overlay: %+v", st.Interfaces)
	}
	programs := func(st Status) string {
		if got := strings.Join(on(st, overlayName).Programs, " "); got != "fl_from_net fl_to_net" {
			return fmt.Sprintf("%s has %q", overlayName, got)
		}
		return ""
	}
	onward := map[string]string{}
	for _, a := range []netip.Addr{w.hosts["a2"].v4, w.hosts["a2"].v6} {
		onward[at(a, 8080)] = "original"
	}
	call[None](w.proc["a"], "Redirected", Proxy{Port: inPort, Name: "inbound", Onward: onward})
	for _, round := range []string{"made while the agent runs", "made anew"} {
		w.tunnel("a", 1)
		w.tunnel("b", 2)
		w.wait("a", programs) // it hears of the routes
		w.set("a", nil)
		for _, pair := range [][2]string{{"a1", "b1"}, {"b1", "a1"}} {
			for _, network := range []string{"tcp", "udp"} {
				for _, a := range []netip.Addr{w.hosts[pair[1]].v4, w.hosts[pair[1]].v6} {
					if got := w.mustDial(pair[0], Client{Network: network, Addr: at(a, 8080)}); got.Server != pair[1] {
						t.Errorf("%s: %s dials %s: %+v", round, pair[0], a, got)
					}
				}
			}
		}
		w.set("a", func(p *Planned) {
			p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: plan.Check, Rule: 77})
		})
		w.flows("a", anyFlow)
		for _, a := range []netip.Addr{w.hosts["a2"].v4, w.hosts["a2"].v6} {
			got := w.mustDial("b1", Client{Network: "tcp", Addr: at(a, 8080)})
			if got.Server != "a2" || got.Seen == got.Local {
				t.Errorf("%s: what is checked is reached: %+v", round, got)
			}
		}
		index := on(call[Status](w.proc["a"], "Status", None{}), overlayName).Ifindex
		flows := w.flows("a", func(f Flow) bool { return f.Reason == "inbound" })
		if len(flows) != 2 {
			t.Errorf("%s: %d connections were redirected, want 2", round, len(flows))
		}
		for _, f := range flows {
			if f.Direction != FromNet || f.Ifindex != index {
				t.Errorf("%s: flow %+v, want one of interface %d", round, f, index)
			}
		}
		// Nobody beyond the tunnel has an address of this node's pods.
		spoofed := w.counter("a", "spoofed")
		_, _ = w.dial("b", Client{Network: "udp", Addr: at(w.hosts["a1"].v4, 8080), From: at(w.hosts["a2"].v4, 999), Wait: 300 * time.Millisecond})
		if w.counter("a", "spoofed") == spoofed {
			t.Errorf("%s: another node sends as a pod of this one", round)
		}
		for _, node := range []string{"a", "b"} {
			l, err := w.hosts[node].link.LinkByName(overlayName)
			check(t, err)
			check(t, w.hosts[node].link.LinkDel(l))
		}
		w.wait("a", func(st Status) string {
			if a := on(st, overlayName); a.Name != "" {
				return fmt.Sprintf("it is gone: %+v", a)
			}
			return ""
		})
	}

	// Packets without Ethernet header are not read.
	a := w.hosts["a"]
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "tun0"
	check(t, inNetns(a.netns, func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN})
	}))
	l, err := a.link.LinkByName("tun0")
	check(t, err)
	check(t, a.link.LinkSetUp(l))
	check(t, a.link.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.MustParsePrefix("10.244.2.0/24"))}))
	w.wait("a", func(st Status) string {
		if got := on(st, "tun0"); len(got.Programs) > 0 || !strings.Contains(got.Reason, "no Ethernet header") {
			return fmt.Sprintf("tun0: %+v", got)
		}
		return ""
	})
}
