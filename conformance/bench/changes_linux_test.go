// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/lab"
)

// crossed is a client and a server on each node. Each client asks the other node's server.
const crossed = `
apiVersion: v1
kind: Namespace
metadata: {name: bench, labels: {fairlead.io/capture: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client-%[1]d, namespace: bench}
spec: {serviceAccountName: client, nodeName: node-%[1]d, containers: [{name: main, image: fairlead/load}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server-%[1]d, namespace: bench, labels: {app: server, number: "%[1]d"}}
spec: {nodeName: node-%[1]d, containers: [{name: main, image: fairlead/echo, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: server-%[1]d, namespace: bench}
spec: {selector: {number: "%[1]d"}, ipFamilies: [IPv4], ports: [{name: http, port: 80, targetPort: 8080}]}
---
`

// many is a pod elsewhere, a service of it and a policy for it; %[1]d is its number, %[2]s
// its address, %[3]s the service's.
const many = `---
apiVersion: v1
kind: Pod
metadata: {name: pod-%[1]d, namespace: many, labels: {app: "pod-%[1]d"}, uid: pod-%[1]d}
spec: {serviceAccountName: sa-%[1]d, nodeName: node-3, containers: [{name: main, image: some, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: %[2]s, podIPs: [{ip: %[2]s}]}
---
apiVersion: v1
kind: Service
metadata: {name: svc-%[1]d, namespace: many}
spec: {clusterIP: %[3]s, clusterIPs: [%[3]s], selector: {app: "pod-%[1]d"}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: policy-%[1]d, namespace: many}
spec:
  selector: {matchLabels: {app: "pod-%[1]d"}}
  rules: [{from: [{source: {principals: [cluster.local/ns/bench/sa/client, cluster.local/ns/many/sa/sa-%[1]d]}}]}]
`

// slice is a service's endpoints.
const slice = `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: svc-%[1]d, namespace: many, labels: {kubernetes.io/service-name: svc-%[1]d}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [%[2]s]
`

func endpoint(a netip.Addr) string { return fmt.Sprintf("{addresses: [%s]}", a) }

// nth is an address below 10.x/16.
func nth(x byte, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, x, byte(i >> 8), byte(i)}) }

// changing is the policy that governs both servers: it lets in one account, by one method if
// requests are judged.
func changing(requests, allow bool) string {
	account, to := "client", ""
	if requests {
		method := "PUT"
		if allow {
			method = "GET"
		}
		to = fmt.Sprintf(", to: [{operation: {methods: [%s]}}]", method)
	} else if !allow {
		account = "nobody"
	}
	return fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: servers, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/bench/sa/%s]}}]%s}]
`, account, to)
}

// cluster is a lab whose source has objects that the lab does not know of.
type cluster struct {
	*rig
	name   string
	source string
}

// put writes a file of the source in one go.
func (c *cluster) put(name, text string) {
	c.b.Helper()
	hidden := filepath.Join(c.source, "."+name)
	if err := os.WriteFile(hidden, []byte(text), 0o644); err != nil {
		c.b.Fatal(err)
	}
	if err := os.Rename(hidden, filepath.Join(c.source, name)); err != nil {
		c.b.Fatal(err)
	}
}

// writes are those of both nodes to each map.
func (c *cluster) writes() map[string]int {
	c.b.Helper()
	out := map[string]int{}
	for _, a := range c.agents(c.name) {
		st, err := a.Status(c.b.Context())
		if err != nil {
			c.b.Fatal(err)
		}
		for m, n := range st.Writes {
			out[m] += int(n)
		}
	}
	return out
}

// settled waits until both agents have read a source of so many objects, and have applied it,
// and nothing is written any more.
func (c *cluster) settled(objects int) {
	c.b.Helper()
	var was map[string]int
	for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		done := true
		for _, a := range c.agents(c.name) {
			st, err := a.Status(c.b.Context())
			done = done && err == nil && st.Objects >= objects && st.Revision == st.Applied
		}
		if !done {
			was = nil
			continue
		}
		now := c.writes()
		if maps.Equal(now, was) {
			return
		}
		was = now
	}
	c.b.Fatalf("the agents of %s have not applied %d objects", c.name, objects)
}

// BenchmarkChange reports, with 10,000 services, each with a pod and a policy, what a change
// writes to the kernel's maps of both nodes, and how long a policy takes until both enforce it:
// from the file's being there to the beginning of the first request that is judged by it.
func BenchmarkChange(b *testing.B) {
	const services, changes = 10_000, 60
	r := newRig(b)
	r.up(lab.Options{Name: "bench-many"}, fmt.Sprintf(crossed, 1)+fmt.Sprintf(crossed, 2))
	st, err := lab.StatusOf("bench-many")
	if err != nil {
		b.Fatal(err)
	}
	c := &cluster{rig: r, name: "bench-many", source: filepath.Join(st.Run, "source")}
	var all, endpoints strings.Builder
	all.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: many}\n")
	for i := range services {
		fmt.Fprintf(&all, many, i, nth(250, i), nth(97, i))
		if i > 0 { // that of the first is a file of its own
			fmt.Fprintf(&endpoints, slice, i, endpoint(nth(250, i)))
		}
	}
	began := time.Now()
	c.put("many.yaml", all.String())
	c.put("slices.yaml", endpoints.String())
	c.put("first.yaml", fmt.Sprintf(slice, 0, endpoint(nth(250, 0))))
	c.put("policy.yaml", changing(false, true))
	c.settled(4 * services)
	b.Logf("%d services, pods and policies: applied after %.0f s", services, time.Since(began).Seconds())
	probes := []*probe{startProbe(b, c.name, "bench/client-1", "http://server-2/"), startProbe(b, c.name, "bench/client-2", "http://server-1/")}
	for _, p := range probes {
		p.await(b, time.Time{}, true)
	}
	for _, requests := range []bool{false, true} {
		name := map[bool]string{false: "by-identity", true: "by-request"}[requests]
		b.Run(name, func(b *testing.B) {
			c.b = b
			for b.Loop() {
				c.policyChanges(probes, requests, changes)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("backend", func(b *testing.B) {
		c.b = b
		for b.Loop() {
			var writes []float64
			for k := range 10 {
				before := c.writes()
				c.put("first.yaml", fmt.Sprintf(slice, 0, endpoint(nth(250, 0))+strings.Repeat(", "+endpoint(nth(250, 1)), (k+1)%2)))
				time.Sleep(time.Second)
				c.settled(4 * services)
				writes = append(writes, c.written(before))
			}
			b.ReportMetric(slices.Max(writes)/2, "writes/change/node")
		}
		b.ReportMetric(0, "ns/op")
	})
}

// policyChanges narrows and widens.
func (c *cluster) policyChanges(probes []*probe, requests bool, n int) {
	b := c.b
	b.Helper()
	if requests { // both servers are open; the policy becomes one of requests
		c.put("policy.yaml", changing(true, true))
		time.Sleep(2 * time.Second)
	}
	var took, writes []float64
	for k := range 2 * n {
		allow := k%2 == 1
		before := c.writes()
		time.Sleep(time.Duration(100+rand.IntN(100)) * time.Millisecond)
		began := time.Now()
		c.put("policy.yaml", changing(requests, allow))
		var last time.Duration
		for _, p := range probes {
			last = max(last, p.await(b, began, allow).Sub(began))
		}
		// A connection that is dropped says so late: of those only the narrowing is timed.
		if requests || !allow {
			took = append(took, float64(last.Microseconds())/1000)
		}
		time.Sleep(100 * time.Millisecond)
		writes = append(writes, c.written(before))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "p50-ms")
	b.ReportMetric(took[len(took)*99/100], "p99-ms")
	b.ReportMetric(slices.Max(writes)/2, "writes/change/node")
	b.ReportMetric(median(writes)/2, "median-writes/change/node")
}

// written is how many writes there were since.
func (c *cluster) written(before map[string]int) float64 {
	c.b.Helper()
	sum := 0
	for m, n := range c.writes() {
		if d := n - before[m]; d > 0 {
			sum += d
		}
	}
	return float64(sum)
}
