// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Routes that the kernel follows are for captured pods, whether the proxy has a port for
// them yet or not; for other pods and for the nodes the services' own endpoints are.
func testRouted(t *testing.T, w *world) {
	vips := map[string][]string{"tcp": {"10.96.0.8:80", "[fd96::8]:80"}, "udp": {"10.96.0.8:53", "[fd96::8]:53"}}
	edit := func(captured bool, port uint16) {
		w.set("a", func(p *Planned) {
			for _, vip := range []string{"10.96.0.8", "fd96::8"} {
				for port, proto := range map[uint16]model.Protocol{80: model.TCP, 53: model.UDP} {
					s := w.service(vip, port, proto, plan.Kernel, "b1")
					s.Routed = &plan.KernelRoute{Backends: w.service(vip, port, proto, plan.Kernel, "a2").Backends}
					p.Services = append(p.Services, s)
				}
			}
			p.Ports[outbound] = port
			if captured {
				p.capture("a1")
			}
		})
	}
	reaches := func(when, from, want string) {
		t.Helper()
		for network, addrs := range vips {
			for _, vip := range addrs {
				if got := w.mustDial(from, Client{Network: network, Addr: vip}); got.Server != want || got.Peer != vip {
					t.Errorf("%s: %s dials %s by %s: %+v, want %s", when, from, vip, network, got, want)
				}
			}
		}
	}
	edit(true, outPort)
	w.ready()
	reaches("captured", "a1", "a2")
	reaches("not captured", "a2", "b1")
	reaches("the node itself", "a", "b1")
	edit(true, 0)
	reaches("without a port of the proxy", "a1", "a2")
	edit(false, outPort)
	reaches("captured no more", "a1", "b1")
	edit(true, 0)
	reaches("captured, without a port yet", "a1", "a2")
}
