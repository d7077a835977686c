// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/proxy"
)

// extras are how many services change at once; each has routes and a policy, or none.
const extras = 20

// extra is the nth service in one of its forms; gone, it is nothing.
func (w *world) extra(t *testing.T, rng *rand.Rand, n int) string {
	t.Helper()
	form := rng.IntN(6)
	if form == 0 {
		return ""
	}
	port, number := "http", 8080
	if form == 1 {
		port, number = "tcp", 9000
	}
	var out strings.Builder
	fmt.Fprintf(&out, `apiVersion: v1
kind: Service
metadata: {name: extra-%[1]d, namespace: faults}
spec: {clusterIP: 10.96.77.%[1]d, clusterIPs: [10.96.77.%[1]d], ports: [{name: %[2]s, port: 80, targetPort: %[3]d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: extra-%[1]d-a, namespace: faults, labels: {kubernetes.io/service-name: extra-%[1]d}}
addressType: IPv4
ports: [{name: %[2]s, port: %[3]d, protocol: TCP}]
endpoints:
`, n+1, port, number)
	for _, back := range []string{"back-a", "back-b"} {
		if rng.IntN(3) > 0 || back == "back-a" {
			fmt.Fprintf(&out, "- {addresses: [%q], conditions: {ready: true}}\n", w.podAddress(t, back, false))
		}
	}
	out.WriteString("---\n")
	if form > 2 {
		fmt.Fprintf(&out, `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: extra-%[1]d, namespace: faults}
spec: {hosts: [extra-%[1]d], http: [{match: [{uri: {prefix: /%[2]d}}], route: [{destination: {host: back-a}}]}, {route: [{destination: {host: extra-%[1]d}}]}]}
---
`, n+1, rng.IntN(1000))
	}
	if form > 3 {
		fmt.Fprintf(&out, `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: extra-%[1]d, namespace: faults}
spec: {selector: {matchLabels: {app: back}}, action: DENY, rules: [{from: [{source: {ipBlocks: [10.99.%[1]d.%[2]d/32]}}]}]}
---
`, n+1, rng.IntN(250))
	}
	return out.String()
}

// TestNothingGrows makes changes by the thousand while some of what changes is used. In
// the end, as at the begin: no more memory, descriptors, entries of maps, routes, clusters.
func TestNothingGrows(t *testing.T) {
	w := lives(t)
	n := times(*manyFlag, 300, 10_000)
	rng := rand.New(rand.NewPCG(1, 2))
	file := filepath.Join(w.Status.Run, "source", "zz-extra.yaml")
	write := func(text string) {
		t.Helper()
		unseen := filepath.Join(filepath.Dir(file), ".extra")
		if err := os.WriteFile(unseen, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(unseen, file); err != nil {
			t.Fatal(err)
		}
		if err := w.Applied(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove(file); w.mend(t) })
	forms := make([]string, extras)
	change := func() {
		for i := range forms {
			forms[i] = w.extra(t, rng, i)
		}
		write(strings.Join(forms, ""))
	}
	var used []traffic.Stream
	for i := range extras {
		used = append(used, traffic.Stream{Name: "used", Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 77, byte(i + 1)}), 80).String(), Host: fmt.Sprintf("extra-%d", i+1), Method: "GET", Path: "/api/x",
			Workers: 1, Every: 100 * time.Millisecond, Timeout: time.Second, Want: 200, By: []string{"back-a", "back-b"}})
	}
	for range 10 { // it gets to know all of them
		change()
	}
	use := func() {
		end := w.Client(t, "faults/client-a", used)
		time.Sleep(2 * time.Second)
		end()
	}
	use()
	warm := w.storm(t) // and Envoy has what the storm uses
	time.Sleep(pause())
	warm.end().none("before")
	write("# none\n")
	before := w.sizes(t)
	s := w.storm(t)
	end := w.Client(t, "faults/client-a", used)
	begin := time.Now()
	rounds := max(1, n/extras)
	for range rounds {
		change()
	}
	took := time.Since(begin)
	end()
	s.end().none("changes of others")
	use()
	write("# none\n")
	after := w.sizes(t)
	t.Logf("%d changes in %v", rounds*extras, took.Round(time.Millisecond))
	for _, what := range slices.Sorted(maps.Keys(after)) {
		b, a := before[what], after[what]
		if a != b {
			t.Logf("%s: %d before, %d after", what, b, a)
		}
		most := b
		switch {
		case strings.HasSuffix(what, "memory"):
			most = b + b/4 + 24<<20
		case strings.HasSuffix(what, "descriptors"):
			most = b + 24
		}
		if a > most {
			t.Errorf("%s has grown from %d to %d", what, b, a)
		}
	}
}

// sizes are what must not grow, when what was in use for a moment has gone.
func (w *world) sizes(t *testing.T) map[string]int {
	t.Helper()
	time.Sleep(15 * time.Second) // what nothing leads to stays for ten
	out := map[string]int{}
	for _, node := range w.Nodes() {
		s := w.status(t, node)
		for _, m := range s.Kernel.Maps {
			// Connections and what was asked of late come and go with traffic.
			if slices.ContainsFunc([]string{"conn", "held", "reverse", "affinity", "seen", "flow", "event", "cache", "udp", "peers"}, func(part string) bool { return strings.Contains(m.Name, part) }) {
				continue
			}
			out[node+" map "+m.Name] = m.Entries
		}
		for what, pid := range map[string]int{"agent": w.daemon(t, node, "agent"), "proxy": w.daemon(t, node, "proxy"), "envoy": s.Proxy.Envoy.PID} {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			out[node+" "+what+" descriptors"] = len(fds)
			out[node+" "+what+" memory"] = resident(t, pid)
		}
		for _, family := range []string{"-4", "-6"} {
			b, err := exec.Command("nsenter", "--net="+filepath.Join(w.Status.Run, "netns", node), "ip", family, "route", "show", "table", "all").Output()
			if err != nil {
				t.Fatal(err)
			}
			out[node+" routes "+family] = strings.Count(string(b), "\n")
		}
		out[node+" resources of the agent"] = total(s.Feed.Resources)
		client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) {
			g := slices.IndexFunc(s.Proxy.Generations, func(g proxy.Generation) bool { return g.PID == s.Proxy.Envoy.PID })
			return net.Dial("unix", proxy.PathsIn(w.RunDir(node)).Admin[s.Proxy.Generations[g].Bank])
		}}}
		resp, err := client.Get("http://envoy/stats?filter=" + "%5E(cluster_manager.active_clusters%7Clistener_manager.total_listeners_active)$")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		m, _ := resp.Body.Read(b)
		resp.Body.Close()
		for line := range strings.Lines(string(b[:m])) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if v, err := strconv.Atoi(value); err == nil {
				out[node+" envoy "+name] = v
			}
		}
	}
	return out
}

func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
