// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// The node of TestChanges, all on loopback: clients, services, and pods of another
// node that one process plays. What clients send to services goes to the listeners
// that the plan says, as the kernel programs would have it.
const (
	alpha, beta   = "10.244.1.11", "10.244.1.12"
	alpha6, beta6 = "fd44:1::b", "fd44:1::c"

	network = `
set -e
ip link set lo up
for a in 10.244.1.11 10.244.1.12; do ip addr add $a/32 dev lo; done
for a in fd44:1::b fd44:1::c; do ip addr add $a/128 dev lo nodad; done
ip route add local 10.244.2.0/24 dev lo
ip -6 route add local fd44:2::/64 dev lo
ip route add 10.96.0.0/16 dev lo src 10.244.1.11
ip -6 route add fd96::/16 dev lo src fd44:1::b
echo "32768 65535" > /proc/sys/net/ipv4/ip_local_port_range
echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse
for f in -4 -6; do ip $f rule add fwmark 0x200/0xf00 lookup 100; ip $f route add local default dev lo table 100; done
`
)

func setUpNetwork(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", network).CombinedOutput(); err != nil {
		t.Fatalf("set up network: %v: %s", err, out)
	}
}

// path leads from a client to a service's address.
type path struct {
	from netip.Addr
	to   netip.AddrPort
}

// kernel plays the node's: it gives paths to the listeners that the plan says.
type kernel struct {
	mu        sync.Mutex
	listeners map[path]uint16 // ports
	sorted    []path
}

// paths are those of now, sorted; the list must not be changed.
func (k *kernel) paths() []path {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sorted
}

// redirected is what the plan wants.
func redirected(p *pipeline.Pipeline, ports map[string]uint16) map[path]uint16 {
	out := map[path]uint16{}
	for _, s := range p.Rows(plan.Services) {
		s := s.Value.(*plan.Service)
		if s.Protocol != model.TCP || s.Mode == plan.Kernel || s.Addr.IsUnspecified() {
			continue
		}
		for _, pod := range p.Rows(plan.Pods) {
			pod := pod.Value.(*plan.Pod)
			if port := ports[pod.Listeners[s.Mode]]; port != 0 && pod.Addr.Is4() == s.Addr.Is4() {
				out[path{pod.Addr, netip.AddrPortFrom(s.Addr, s.Port)}] = port
			}
		}
	}
	return out
}

// become makes the redirects what is wanted, at one stroke.
func (k *kernel) become(want map[path]uint16) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if maps.Equal(k.listeners, want) {
		return nil
	}
	sorted := slices.SortedFunc(maps.Keys(want), func(a, b path) int { return cmp.Or(a.from.Compare(b.from), a.to.Compare(b.to)) })
	var rules strings.Builder
	for _, p := range sorted { // no sets: not all versions of nft can look up IPv6 in them
		family, loopback := "ip", "127.0.0.1"
		if p.from.Is6() {
			family, loopback = "ip6", "[::1]"
		}
		fmt.Fprintf(&rules, "\t\t%s saddr %s %s daddr %s tcp dport %d tproxy %s to %s:%d meta mark set 0x200 accept\n",
			family, p.from, family, p.to.Addr(), p.to.Port(), family, loopback, want[p])
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`
table inet t {}
delete table inet t
table inet t {
	chain out {
		type route hook output priority mangle
		meta mark & 0xf00 == 0x300 accept
		ip daddr 10.96.0.0/16 meta mark set 0x200
		ip6 daddr fd96::/16 meta mark set 0x200
	}
	chain passed { # by the proxy to an address of a service: there is no kernel that would balance it
		type filter hook output priority filter
		meta mark & 0xf00 == 0x300 ip daddr 10.96.0.0/16 tcp flags & syn == syn reject with tcp reset
		meta mark & 0xf00 == 0x300 ip6 daddr fd96::/16 tcp flags & syn == syn reject with tcp reset
	}
	chain in {
		type filter hook prerouting priority mangle
%s	}
}
`, rules.String()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("redirect: %w: %s", err, out)
	}
	k.listeners, k.sorted = want, sorted
	return nil
}
