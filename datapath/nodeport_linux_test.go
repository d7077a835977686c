// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// nodePorts are what a node may do to what is sent to its own address, as kube-proxy does.
const (
	masquerading = "30081" // as its own, on to the pod
	keeping      = "30082" // as the client's
)

// translate makes node a send both ports on to a2, at port 8080.
func (w *world) translate(t *testing.T) {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		need.Missing(t, "needs nft: %v", err)
	}
	to := w.hosts["a2"]
	rules := fmt.Sprintf(`table inet ports {
		chain pre {
			type nat hook prerouting priority dstnat
			tcp dport %[1]s fib daddr type local meta mark set meta mark | 0x4000
			meta nfproto ipv4 tcp dport { %[1]s, %[2]s } fib daddr type local dnat ip to %[3]s:8080
			meta nfproto ipv6 tcp dport { %[1]s, %[2]s } fib daddr type local dnat ip6 to [%[4]s]:8080
		}
		chain post {
			type nat hook postrouting priority srcnat
			meta mark & 0x4000 != 0 masquerade
		}
	}`, masquerading, keeping, to.v4, to.v6)
	check(t, inNetns(w.hosts["a"].netns, func() error {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	t.Cleanup(func() {
		check(t, inNetns(w.hosts["a"].netns, func() error { return exec.Command(nft, "delete", "table", "inet", "ports").Run() }))
	})
}

// What the node forwards to a pod under another address than was dialled meets the node's
// inbound port where its policy needs that, and is answered from where it was sent to. The
// proxy is that of testInbound.
func testNodePorts(t *testing.T, w *world) {
	w.translate(t)
	govern := func(action plan.Action) {
		w.set("a", func(p *Planned) {
			p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: action, Rule: 77})
		})
	}
	dial := func(when string, through bool) {
		t.Helper()
		for _, from := range []string{"b", "b1", "a1"} {
			for _, family := range []struct{ node, pod, client netip.Addr }{
				{w.hosts["a"].v4, w.hosts["a2"].v4, w.hosts[from].v4}, {w.hosts["a"].v6, w.hosts["a2"].v6, w.hosts[from].v6},
			} {
				for _, port := range []string{masquerading, keeping} {
					before := w.counter("a", "inbound")
					to := family.node.String()
					addr := net.JoinHostPort(to, port)
					got := w.mustDial(from, Client{Network: "tcp", Addr: addr})
					if got.Server != "a2" || got.At != at(family.pod, 8080) || addrOf(got.Peer) != to {
						t.Errorf("%s: %s dials %s: %+v", when, from, addr, got)
					}
					if kept := addrOf(got.Seen) == family.client.String(); kept != (port == keeping) {
						t.Errorf("%s: %s dials %s and is seen as %s", when, from, addr, got.Seen)
					}
					if n := w.counter("a", "inbound") - before; (n > 0) != through {
						t.Errorf("%s: %s dials %s: %d connections were redirected", when, from, addr, n)
					}
				}
			}
		}
	}
	w.set("a", nil)
	dial("nobody governs", false)
	govern(plan.Allow)
	dial("allowed", false)
	govern(plan.Check)
	dial("checked", true)

	// A connection goes on as it was opened, whatever policy says by then.
	for i, port := range []string{masquerading, keeping} {
		w.mustDial("b", Client{Network: "tcp", Addr: w.hosts["a"].v4.String() + ":" + port, Keep: fmt.Sprint("port", i)})
	}
	govern(plan.Allow)
	for i := range 2 {
		if got := call[Answer](w.proc["b"], "Ask", fmt.Sprint("port", i)); got.Server != "a2" {
			t.Errorf("after policy has changed: %+v", got)
		}
	}
	govern(plan.Deny)
	if got, err := w.dial("b", Client{Network: "tcp", Addr: w.hosts["a"].v4.String() + ":" + masquerading}); err == nil || !refused(err) {
		t.Errorf("denied: %+v, %v", got, err)
	}
}

// counter is how often node counts a reason.
func (w *world) counter(node, reason string) uint64 {
	w.t.Helper()
	return call[Status](w.proc[node], "Status", None{}).Counters[reason]
}
