// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/hubble"
)

// A flow is a line: of what was refused it says why, by whose word, and what to do.
func TestFlowLines(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	ip := netip.MustParseAddrPort
	client, web := hubble.Peer{Pod: "shop/client-1", Addr: ip("10.244.1.2:4000")}, hubble.Peer{Pod: "shop/web-1", Addr: ip("10.244.1.3:8080")}
	for want, f := range map[string]hubble.Flow{
		`forwarded  node-1   shop/client-1:4000 -> shop/web:80 at 10.244.1.3:8080 GET web/a 200 1ms by VirtualService shop/web spec.http[0]`: {
			Verdict: "forwarded", Direction: "proxy", Source: client, Service: "shop/web:80", Upstream: web.Addr, HTTP: &hubble.HTTP{Method: "GET", Authority: "web", Path: "/a", Status: 200, Duration: time.Millisecond},
			DecidedBy: []string{"VirtualService shop/web spec.http[0]"}},
		`dropped    node-1   shop/client-1:4000 -> shop/web-1:8080 TCP to-pod (policy: a rule denies it) by p.yaml:7: AuthorizationPolicy shop/p spec.rules[0]`: {
			Verdict: "dropped", Direction: "to-pod", Protocol: "TCP", Reason: "policy", Rule: "0a", Source: client, Destination: web, DecidedBy: []string{"p.yaml:7: AuthorizationPolicy shop/p spec.rules[0]"}},
		`dropped    node-1   shop/client-1:4000 -> 10.0.0.1:0 UDP from-pod (spoofed: its source address is not the sender's) -- find out what in the pod sends it; a pod may use the addresses that its status has, and no others`: {
			Verdict: "dropped", Direction: "from-pod", Protocol: "UDP", Reason: "spoofed", Source: client, Destination: hubble.Peer{Addr: ip("10.0.0.1:0")}},
		`dropped    node-1   shop/client-1 curl[7] -> 192.0.2.1:443 TCP connect (unknown-host: its host is nobody's, and who sends it may reach known ones alone) by Sidecar shop/held spec.outboundTrafficPolicy -- declare the host, by a ServiceEntry or a Service, or let unknown ones pass`: {
			Verdict: "dropped", Direction: "connect", Protocol: "TCP", Reason: "unknown-host", Source: hubble.Peer{Pod: "shop/client-1"}, Process: "curl[7]", Destination: hubble.Peer{Addr: ip("192.0.2.1:443")},
			DecidedBy: []string{"Sidecar shop/held spec.outboundTrafficPolicy"}},
		`lost       node-1   1 flow is not shown: the kernel's ring of events was full`:                                              {Verdict: hubble.Lost, Reason: hubble.LostInKernel, Lost: 1},
		`lost       node-1   9 flows are not shown: Envoy wrote more of its access log than the agent could read`:                    {Verdict: hubble.Lost, Reason: hubble.LostInAccessLog, Lost: 9},
		`lost       node-1   9 flows are not shown: more came than were read here; ask for less, by --namespace, --pod or --verdict`: {Verdict: hubble.Lost, Reason: hubble.LostByObserver, Lost: 9},
		`forwarded  node-1   shop/client-1:4000 -> shop/web-1:8080 TCP 3 B sent, 5 B received 1m0s`: {
			Verdict: "forwarded", Direction: "proxy", Protocol: "TCP", Source: client, Destination: web, TCP: &hubble.TCP{Sent: 3, Received: 5, Duration: time.Minute}},
	} {
		f.Time, f.Node = at, "node-1"
		f.Explain()
		var b strings.Builder
		if err := printFlow(&b, f, "table"); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff("03:04:05.678 "+want+"\n", b.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}
