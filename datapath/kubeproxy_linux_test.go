// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// kubeProxy is a node's translation of services as kube-proxy lays it out, twice, for
// addresses of their own: for nftables a map, for iptables a rule for each service, which
// are asked one after another (as nft shows those of iptables-nft). Both end in the
// service's chain, which ends in its endpoint's.
//
// Connections to the backend itself are let out first, so that what is compared with has
// nothing but connection tracking; in a cluster they pass all of this, too.
func kubeProxy(services int, backend netip.AddrPort) string {
	var chains, entries, rules strings.Builder
	for i := range services {
		fmt.Fprintf(&chains, "  chain endpoint-%[1]d { meta l4proto tcp dnat to %[2]s; }\n  chain service-%[1]d { numgen random mod 1 vmap { 0 : goto endpoint-%[1]d }; }\n", i, backend)
		at := func(kind byte) netip.Addr { return netip.MustParseAddrPort(nthService(kind, i)).Addr() }
		fmt.Fprintf(&entries, "    %s . tcp . 80 : goto service-%d,\n", at(viaMap), i)
		fmt.Fprintf(&rules, "    ip daddr %s tcp dport 80 counter jump service-%d\n", at(viaRules), i)
	}
	return fmt.Sprintf(`table ip kube-proxy {
%s
  map services {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
%s    }
  }
  chain one-by-one {
%s  }
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr %s accept
    ip daddr 10.%d.0.0/16 jump one-by-one
    ip daddr . meta l4proto . th dport vmap @services
  }
}
`, chains.String(), entries.String(), rules.String(), backend.Addr(), viaRules)
}

// nft loads rules into a host.
func (n *network) nft(host, rules string) {
	n.t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(n.t.Context(), "nft", "-f", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &out, &out
	check(n.t, inNetns(n.hosts[host].netns, cmd.Start))
	if err := cmd.Wait(); err != nil {
		n.t.Fatalf("nft: %v\n%.2000s", err, out.String())
	}
}

// BenchmarkConnectBesideKubeProxy reports what dialling a service costs, relative to
// dialling its backend: through the datapath, and through the node's rules as kube-proxy
// makes them. All at the same time, by turns.
func BenchmarkConnectBesideKubeProxy(b *testing.B) {
	const services = 10_000
	n := newNetwork(b)
	node, client, server := n.start("a"), n.start("a1"), n.start("a2")
	call[None](server, "Listen", Server{Network: "tcp4", Addr: "0.0.0.0:8080", Name: "a2"})
	call[None](node, "Open", n.options("a"))
	backend := netip.AddrPortFrom(n.hosts["a2"].v4, 8080)
	call[None](node, "Sync", n.serviced(services, backend))
	n.nft("a", kubeProxy(services, backend))
	to := Turns{To: []string{
		backend.String(), nthService(viaDatapath, services-1), nthService(viaMap, services-1),
		nthService(viaRules, 0), nthService(viaRules, services/2), nthService(viaRules, services-1),
	}, N: 5_000}
	for b.Loop() {
		took := call[[]float64](client, "Connects", to)
		for i, name := range []string{"socket", "nftables", "iptables-first", "iptables-middle", "iptables-last"} {
			b.ReportMetric(took[i+1]/took[0], name+"/direct")
		}
	}
	b.ReportMetric(0, "ns/op") // times of this machine say nothing
}
