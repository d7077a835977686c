// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// modePort is where the tests' listener of a mode is.
func modePort(m plan.Mode) uint16 {
	n, err := modeNumber(m)
	if err != nil {
		panic(err)
	}
	return outPort + 20 + uint16(n)
}

func listenerOf(m plan.Mode) string { return "out/" + string(m) + "/y" }

// captureAll gives a pod a listener of every mode.
func (p *Planned) captureAll(pod string) {
	all := map[plan.Mode]string{}
	for _, m := range plan.Modes() {
		all[m] = listenerOf(m)
		p.Ports[all[m]] = modePort(m)
	}
	for _, row := range p.Pods {
		if row.Name == "ns/"+pod {
			row.Listeners = all
		}
	}
}

// listeners starts one for each mode, which answers with its name.
func (w *world) listeners() {
	w.t.Helper()
	proxy := w.start("a")
	for _, m := range plan.Modes() {
		call[None](proxy, "Redirected", Proxy{Port: modePort(m), Name: string(m)})
	}
}

// Each mode has its own listener, and whoever has none is balanced.
func testModes(t *testing.T, w *world) {
	w.listeners()
	vips := func(m plan.Mode) [2]string {
		n, err := modeNumber(m)
		check(t, err)
		return [2]string{fmt.Sprintf("10.96.1.%d", n), fmt.Sprintf("fd96::1:%d", n)}
	}
	w.flows("a", anyFlow)
	edit := func(lacks plan.Mode) {
		w.set("a", func(p *Planned) {
			for _, m := range plan.Modes() {
				for _, vip := range vips(m) {
					p.Services = append(p.Services, w.service(vip, 80, model.TCP, m, "b1"))
				}
			}
			p.captureAll("a1")
			p.Ports[listenerOf(lacks)] = 0
		})
		w.ready()
	}
	for _, lacks := range []plan.Mode{plan.Kernel, plan.TLS, plan.Detect3, plan.Kernel, plan.Opaque} {
		edit(lacks)
		for _, m := range plan.Modes() {
			if m == plan.Any {
				continue // of no address of its own
			}
			for _, vip := range vips(m) {
				to, want := at(mustAddr(vip), 80), string(m)
				if m == lacks {
					want = "b1"
				}
				if got := w.mustDial("a1", Client{Network: "tcp", Addr: to}); got.Server != want || got.Peer != to {
					t.Errorf("without a listener for %s, a1 dials %s of mode %s: %+v", lacks, to, m, got)
				}
				if got := w.mustDial("a2", Client{Network: "tcp", Addr: to}); got.Server != "b1" || got.Peer != to {
					t.Errorf("a2 is not captured and dials %s: %+v", to, got)
				}
			}
		}
	}
	flows := w.flows("a", func(f Flow) bool { return f.Reason == "outbound" })
	if want := 2 * (5*(len(plan.Modes())-1) - 3); len(flows) != want { // of each family, but what lacked a listener
		t.Errorf("%d flows were redirected, want %d", len(flows), want)
	}
	for _, f := range flows {
		n := f.Destination.Addr().AsSlice()
		if want := outPort + 20 + uint16(n[len(n)-1]); f.ProxyPort != want {
			t.Errorf("flow %+v, want port %d", f, want)
		}
	}
	ports := call[Status](w.proc["a"], "Status", None{}).Pods[0].ProxyPorts
	if ports[plan.TLS] != modePort(plan.TLS) || ports[plan.Opaque] != 0 || len(ports) != len(plan.Modes())-1 {
		t.Errorf("the status says %v", ports)
	}
}

// An address of a pod may stand for a service: it is redirected, or left alone.
func testDirect(t *testing.T, w *world) {
	w.listeners()
	for mode, want := range map[plan.Mode]string{plan.HTTP: "http", plan.Kernel: "b1"} {
		w.set("a", func(p *Planned) {
			for _, a := range []netip.Addr{w.hosts["b1"].v4, w.hosts["b1"].v6} {
				p.Services = append(p.Services, &plan.Service{Addr: a, Port: 8080, Protocol: model.TCP, Mode: mode, Direct: true})
			}
			p.captureAll("a1")
		})
		w.ready()
		for _, a := range []netip.Addr{w.hosts["b1"].v4, w.hosts["b1"].v6} {
			to := Client{Network: "tcp", Addr: at(a, 8080)}
			if got := w.mustDial("a1", to); got.Server != want || got.At != to.Addr {
				t.Errorf("a1 dials %s of mode %s: %+v", to.Addr, mode, got)
			}
			for _, from := range []string{"a", "a2", "b"} {
				if got := w.mustDial(from, to); got.Server != "b1" {
					t.Errorf("%s dials %s of mode %s: %+v", from, to.Addr, mode, got)
				}
			}
		}
	}
}

// What nobody is known to have goes to a listener of its own, by port.
func testAny(t *testing.T, w *world) {
	w.listeners()
	for _, node := range []string{"a", "b"} {
		server := w.start(node)
		for _, a := range []netip.Addr{w.hosts[node].v4, w.hosts[node].v6} {
			call[None](server, "Listen", Server{Network: "tcp", Addr: at(a, 8080), Name: node})
		}
	}
	everywhere := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	edit := func(mode plan.Mode) {
		w.set("a", func(p *Planned) {
			for _, a := range everywhere {
				p.Services = append(p.Services, &plan.Service{Addr: a, Port: 8080, Protocol: model.TCP, Mode: mode})
			}
			for _, vip := range []string{"10.96.1.9", "fd96::1:9"} {
				p.Services = append(p.Services, w.service(vip, 8080, model.TCP, plan.Kernel, "b1"))
			}
			for prefix, unassigned := range map[string]bool{"10.244.2.0/24": true, "fd44:2::/64": true, "198.51.100.0/24": false} {
				p.Prefixes = append(p.Prefixes, &plan.Prefix{Prefix: netip.MustParsePrefix(prefix), Class: 9, Unassigned: unassigned})
			}
			p.captureAll("a1")
		})
		w.ready()
	}
	edit(plan.Any)
	for _, a := range []string{"198.51.100.7", "203.0.113.7", "2001:db8::7"} {
		to := at(mustAddr(a), 8080)
		if got := w.mustDial("a1", Client{Network: "tcp", Addr: to}); got.Server != "any" || got.At != to || got.Seen != got.Local {
			t.Errorf("a1 dials %s: %+v", to, got)
		}
		for from, to := range map[string]string{"a2": to, "a1": at(mustAddr(a), 8081)} {
			if got, err := w.dial(from, Client{Network: "tcp", Addr: to, Wait: 200 * time.Millisecond}); err == nil {
				t.Errorf("%s dials %s: %+v", from, to, got)
			}
		}
	}
	for _, host := range []string{"a", "b", "a1", "a2", "b1"} {
		for _, a := range []netip.Addr{w.hosts[host].v4, w.hosts[host].v6} {
			if got := w.mustDial("a1", Client{Network: "tcp", Addr: at(a, 8080)}); got.Server != host {
				t.Errorf("a1 dials %s of %s: %+v", a, host, got)
			}
		}
	}
	for _, vip := range []string{"10.96.1.9:8080", "[fd96::1:9]:8080"} {
		if got := w.mustDial("a1", Client{Network: "tcp", Addr: vip}); got.Server != "b1" {
			t.Errorf("a1 dials a service: %+v", got)
		}
	}
	lost := func(why string, addresses ...string) {
		for _, a := range addresses {
			if got, err := w.dial("a1", Client{Network: "tcp", Addr: at(mustAddr(a), 8080), Wait: 200 * time.Millisecond}); err == nil {
				t.Errorf("%s: a1 dials %s: %+v", why, a, got)
			}
		}
	}
	lost("a pod that is not known yet", "10.244.2.99", "fd44:2::99")
	edit(plan.Kernel)
	lost("the proxy is bypassed", "198.51.100.7", "2001:db8::7")
}

// Services have ranges of addresses, the longest counts; and a client may be held to
// services.
func testRanges(t *testing.T, w *world) {
	w.listeners()
	ranges := map[string]plan.Mode{"198.51.100.0/24": plan.AnyOpaque, "198.51.0.0/16": plan.AnyDetect, "2001:db8::/64": plan.AnyOpaque, "10.244.0.0/16": plan.AnyOpaque}
	edit := func(known bool) {
		w.set("a", func(p *Planned) {
			for r, mode := range ranges {
				r := netip.MustParsePrefix(r)
				p.Services = append(p.Services, &plan.Service{Addr: r.Addr(), Bits: uint8(r.Bits()), Port: 8080, Protocol: model.TCP, Mode: mode, Direct: true})
			}
			for _, vip := range []string{"10.96.1.9", "fd96::1:9"} {
				p.Services = append(p.Services, w.service(vip, 8080, model.TCP, plan.Kernel, "b1"))
			}
			p.captureAll("a1")
			for _, row := range p.Pods {
				row.KnownOnly = known && row.Name == "ns/a1"
			}
		})
		w.ready()
	}
	for _, known := range []bool{false, true} {
		edit(known)
		for a, want := range map[string]plan.Mode{"198.51.100.7": plan.AnyOpaque, "198.51.7.7": plan.AnyDetect, "2001:db8::7": plan.AnyOpaque} {
			to := at(mustAddr(a), 8080)
			if got := w.mustDial("a1", Client{Network: "tcp", Addr: to}); got.Server != string(want) || got.At != to {
				t.Errorf("a1 dials %s: %+v", to, got)
			}
		}
		for _, vip := range []string{"10.96.1.9:8080", "[fd96::1:9]:8080"} {
			if got := w.mustDial("a1", Client{Network: "tcp", Addr: vip}); got.Server != "b1" {
				t.Errorf("a1 dials a service: %+v", got)
			}
		}
		for _, a := range []netip.Addr{w.hosts["a1"].v4, w.hosts["a1"].v6} {
			if got := w.mustDial("a1", Client{Network: "tcp", Addr: at(a, 8080)}); got.Server != "a1" {
				t.Errorf("a1 dials itself: %+v", got)
			}
		}
		for _, a := range []netip.Addr{w.hosts["b1"].v4, w.hosts["b1"].v6} {
			got, err := w.dial("a1", Client{Network: "tcp", Addr: at(a, 8080), Wait: 200 * time.Millisecond})
			if (err == nil) == known || err == nil && got.Server != "b1" {
				t.Errorf("held to services: %t; a1 dials a pod at %s: %+v, %v", known, a, got, err)
			}
			if got := w.mustDial("a2", Client{Network: "tcp", Addr: at(a, 8080)}); got.Server != "b1" {
				t.Errorf("a2 dials a pod at %s: %+v", a, got)
			}
		}
	}
	edit(false)
	if got := w.mustDial("a1", Client{Network: "tcp", Addr: at(w.hosts["b1"].v4, 8080)}); got.Server != "b1" {
		t.Errorf("a1 is not held to services any more: %+v", got)
	}
}
