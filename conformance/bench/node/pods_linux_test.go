// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
)

const (
	pods    = 50
	podPort = 15201 // of the first pod's listener
)

// podListener is the name of a pod's listener: each has an identity of its own.
func podListener(n int) string { return fmt.Sprintf("out/http/pod-%d", n) }

func podOf(listener string) (n int, is bool) {
	text, is := strings.CutPrefix(listener, "out/http/pod-")
	n, err := strconv.Atoi(text)
	return n, is && err == nil
}

// podAddress is where a pod's requests come from.
func podAddress(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 10, 1, byte(n + 1)}) }

// manyPods is ours with a listener for each of many pods.
type manyPods struct{ ours }

func (l manyPods) all(n int) []xds.Resource {
	out := l.ours.all(n)
	for i := range pods {
		out = append(out, rendered(l.b, &plan.Listener{
			Name: podListener(i), Mode: plan.HTTP, Identity: fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/pod-%d", i),
			Selects: []string{fmt.Sprintf("p%d", i)}, Class: fmt.Sprintf("%04x", i),
		})...)
	}
	return out
}

// flipPods redirects each pod to its own listener, after flip has redirected all to one.
func flipPods(bank int) error {
	if err := flip(bank); err != nil {
		return err
	}
	var rules strings.Builder
	for i := range pods {
		fmt.Fprintf(&rules, "add rule inet pods in meta l4proto tcp ip saddr %s ip daddr 10.96.0.0/16 tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept\n",
			podAddress(i), podPort+i+bank*proxy.BankPorts)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table inet pods {}\ndelete table inet pods\ntable inet pods { chain in { type filter hook prerouting priority -149; } }\n" + rules.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("redirect pods: %w: %s", err, out)
	}
	return nil
}

// BenchmarkManyPods compares the memory of the node's Envoy, for 50 pods of which each has an
// identity of its own, with that of 50 Envoys, one beside each pod, which have the same services:
// one table each, and nothing for what comes in. Pages that Envoys share count once.
//
// Each pod asks for 20 services: the node's Envoy is then asked for nearly all.
func BenchmarkManyPods(b *testing.B) {
	const services, each = 1_000, 20
	var node, cars float64
	b.Run("node", func(b *testing.B) {
		for b.Loop() {
			s := startProxy(b, manyPods{ours{b}}, services, false, flipPods)
			to(services-1).waitServed(b, time.Minute)
			for pod := range pods {
				for range each {
					to(rand.IntN(services)).from(b, podAddress(pod))
				}
			}
			s.envoy = s.find()
			s.envoy.settle()
			node = mb(s.envoy.pss())
			b.ReportMetric(mb(s.envoy.allocated()), "allocated-MB")
		}
		b.ReportMetric(node, "MB")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("sidecars", func(b *testing.B) {
		for b.Loop() {
			s := startPlainFeed(b, newOneTable(b), services)
			var all []*envoy
			for i := range pods {
				e, _ := s.runPlain(fmt.Sprintf("sidecar-%d", i))
				all = append(all, e)
				e.waitClusters(services)
			}
			// They all listen at the same port, and the kernel deals requests out to them.
			for range pods * each {
				to(rand.IntN(services)).mustOnce(b)
			}
			cars = 0
			for _, e := range all {
				e.settle()
				cars += mb(e.pss())
			}
		}
		b.ReportMetric(cars, "MB")
		b.ReportMetric(cars/node, "x-node")
		b.ReportMetric(0, "ns/op")
	})
}

// from is a request from an address, on a connection of its own.
func (t target) from(b *testing.B, addr netip.Addr) {
	b.Helper()
	c, err := t.connectFrom(addr, 5*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if resp, err := c.get(15 * time.Second); err != nil || resp.StatusCode != 200 {
		b.Fatalf("request from %s to %s: %+v, %v", addr, t.addr, resp, err)
	}
}

// waitClusters waits until an Envoy has at least so many clusters, and its listener.
func (e *envoy) waitClusters(n int) {
	e.b.Helper()
	time.Sleep(300 * time.Millisecond) // it makes its socket
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		clusters, listeners := 0, 0
		for line := range strings.Lines(string(e.ask(`/stats?filter=^(cluster_manager\.active_clusters|listener_manager\.total_listeners_active)$`))) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			v, err := strconv.Atoi(value)
			if err != nil {
				e.b.Fatal(err)
			}
			if strings.HasPrefix(name, "cluster") {
				clusters = v
			} else {
				listeners = v
			}
		}
		if clusters >= n && listeners > 0 {
			return
		}
	}
	e.b.Fatalf("envoy %d has not %d clusters", e.pid, n)
}
