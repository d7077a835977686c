// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

const (
	changes  = 30 // of each kind, one at a time
	restarts = 3
	idleTime = time.Minute
)

func BenchmarkCluster(b *testing.B) {
	if b.N > 1 {
		b.Skip("one run is enough: -benchtime 1x")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		b.Fatal(err)
	}
	c := testcluster.Cluster{Name: "fairlead-scale", Root: root}
	if os.Getenv("KEEP") == "" {
		b.Cleanup(func() { // also of one that came up by half
			if err := c.Down(); err != nil {
				b.Error(err)
			}
		})
	}
	b.Setenv("NODE_REPORT", "5m") // Kubernetes' default: what agents hear while nothing happens counts
	c.Up(b)
	c.Kubectl(b, "apply", "-f", "testdata/istio.yaml")
	c.Kubectl(b, "wait", "--for=condition=Established", "-f", "testdata/istio.yaml", "--timeout=60s")
	c.Install(b)
	w := &world{b: b, c: c, api: newAPI(b, c), ctx: b.Context(), agents: map[string]*http.Client{}, client: map[string]string{}, address: map[string]string{}, servers: map[string][]at{}}
	for _, node := range nodes {
		w.agents[node] = w.dial(node)
	}
	b.Cleanup(func() { fmt.Print("\n", &w.table) }) // what there is of it

	w.begin()
	w.measure(small)
	w.fill()
	w.measure(big)
	w.restart()
}

// begin makes the services that are used, and uses them.
func (w *world) begin() {
	w.create("/api/v1/namespaces", namespace(usedIn))
	w.c.Kubectl(w.b, "wait", "-n", usedIn, "--for=create", "serviceaccount/default", "--timeout=60s")
	pods := "/api/v1/namespaces/" + usedIn + "/pods"
	for _, node := range nodes {
		w.create(pods, realPod("client-"+node, "client", node, "load"))
	}
	for i := range used {
		name := fmt.Sprintf("used-%d", i)
		w.create("/api/v1/namespaces/"+usedIn+"/services", service(name))
		w.create(istioSecurity+usedIn+"/authorizationpolicies", policy(usedIn, name))
		w.create(istioNetwork+usedIn+"/virtualservices", virtualService(name))
		for _, node := range nodes {
			w.create(pods, realPod(name+"-"+node, name, node))
		}
	}
	w.c.Kubectl(w.b, "wait", "-n", usedIn, "--for=condition=Ready", "pod", "--all", "--timeout=300s")
	of := func(kind, name, path string) string {
		return w.c.Kubectl(w.b, "get", kind, "-n", usedIn, name, "-o", "jsonpath={"+path+"}")
	}
	for _, node := range nodes {
		w.client[node] = strings.TrimPrefix(of("pod", "client-"+node, ".status.containerStatuses[0].containerID"), "containerd://")
	}
	for i := range used {
		name := fmt.Sprintf("used-%d", i)
		w.address[name] = of("service", name, ".spec.clusterIP")
		for _, node := range nodes {
			w.servers[name] = append(w.servers[name], at{name + "-" + node, node, of("pod", name+"-"+node, ".status.podIP")})
		}
		w.create(slicesOf+usedIn+"/endpointslices", slice(name, w.servers[name]))
	}
	w.settled(used * 6)
	for i := range used {
		w.holds(fmt.Sprintf("used-%d", i), 5, succeeds)
	}
}

func (w *world) create(path string, object m) {
	w.b.Helper()
	if _, err := w.api.create(w.ctx, path, object); err != nil {
		w.b.Fatal(err)
	}
}

// fill writes everything, and waits until it is applied.
func (w *world) fill() {
	agent, leader := w.agentOf("node-1"), w.leader()
	before, operator, had, wrote, begun := w.usage(agent), w.usage(leader), w.status("node-1"), w.operator(), time.Now()
	for i := range namespaces {
		w.create("/api/v1/namespaces", namespace(of(i)))
	}
	each(w.b, absent, func(i int) error {
		uid, err := w.api.create(w.ctx, "/api/v1/nodes", absentNode(i))
		if err == nil {
			_, err = w.api.create(w.ctx, leases, absentLease(i, uid))
		}
		return err
	})
	ctx, stop := context.WithCancel(w.ctx)
	var beats sync.WaitGroup
	beats.Go(func() { w.beat(ctx) })
	w.b.Cleanup(func() { stop(); beats.Wait() })
	for i := range namespaces {
		w.c.Kubectl(w.b, "wait", "-n", of(i), "--for=create", "serviceaccount/default", "--timeout=60s")
	}
	each(w.b, max(services, policies), func(i int) error {
		var errs []error
		name, ns := fmt.Sprintf("s-%d", i), of(i)
		if i < services {
			var pods []at
			for j := range perService {
				n := i*perService + j
				p := at{fmt.Sprintf("s-%d-%d", i, j), absentName(n % absent), fmt.Sprintf("10.242.%d.%d", n/250, n%250+1)}
				pods = append(pods, p)
				path := "/api/v1/namespaces/" + ns + "/pods"
				_, err := w.api.create(w.ctx, path, absentPod(p.pod, name, p.node))
				if err == nil {
					err = w.api.patch(w.ctx, path+"/"+p.pod+"/status", absentStatus(p.address))
				}
				errs = append(errs, err)
			}
			_, err := w.api.create(w.ctx, "/api/v1/namespaces/"+ns+"/services", service(name))
			errs = append(errs, err)
			_, err = w.api.create(w.ctx, slicesOf+ns+"/endpointslices", slice(name, pods))
			errs = append(errs, err)
		}
		if i < policies {
			_, err := w.api.create(w.ctx, istioSecurity+ns+"/authorizationpolicies", policy(ns, name))
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	written := time.Now()
	w.settled(services*(perService+2) + policies)
	w.table.tell(big, "fill: written within, s", written.Sub(begun).Seconds())
	w.table.tell(big, "fill: all applied, of which 3 s are watched, after that, s", time.Since(written).Seconds())
	var op operatorState
	testcluster.Eventually(w.b, 10*time.Minute, "the operator", func() error {
		if op = w.operator(); op.Statuses.Writes-wrote.Statuses.Writes < policies || op.Statuses.Waiting > 0 {
			return fmt.Errorf("it has written %d, %d wait", op.Statuses.Writes, op.Statuses.Waiting)
		}
		return nil
	})
	w.table.tell(big, "fill: statuses written by the operator after that, s", time.Since(written).Seconds())
	w.settled(0)
	after, operatorAfter, has := w.usage(agent), w.usage(leader), w.status("node-1")
	w.table.tell(big, "fill: agent's CPU, s", (after.cpu - before.cpu).Seconds())
	w.table.tell(big, "fill: agent's memory at most (RSS), MB", after.max)
	w.table.tell(big, "fill: agent receives of the API server, MB", float64(after.received-before.received)/1e6)
	w.table.tell(big, "fill: resources to the node proxy", float64(has.Feed.Counters.Resources-had.Feed.Counters.Resources))
	w.table.tell(big, "fill: bytes to the node proxy, MB", float64(has.Feed.Counters.Bytes-had.Feed.Counters.Bytes)/1e6)
	w.table.tell(big, "fill: resources to Envoy", float64(has.Proxy.Served.Counters.Resources-had.Proxy.Served.Counters.Resources))
	w.table.tell(big, "fill: bytes to Envoy, kB", float64(has.Proxy.Served.Counters.Bytes-had.Proxy.Served.Counters.Bytes)/1e3)
	w.table.tell(big, "fill: writes to kernel maps", float64(has.writes()-had.writes()))
	w.table.tell(big, "fill: operator's CPU, s", (operatorAfter.cpu - operator.cpu).Seconds())
	w.table.tell(big, "fill: operator's memory at most (RSS), MB", operatorAfter.max)
	w.table.tell(big, "fill: operator's computations", float64(op.Computed-wrote.Computed))
	w.table.tell(big, "fill: statuses and Events that the operator writes", float64(op.Statuses.Writes+op.Events.Writes-wrote.Statuses.Writes-wrote.Events.Writes))
	if has.Errors > 0 {
		w.b.Errorf("%d diagnostics are errors", has.Errors)
	}
}

// of is the namespace of a service.
func of(i int) string { return fmt.Sprintf("scale-%d", i%namespaces) }

// measure says what changes cost, and what it costs if nothing does.
func (w *world) measure(state int) {
	kinds := []struct {
		name  string
		write func(i int) error
		holds func(i int)
	}{
		{"policy", w.writePolicy, w.policyHolds},
		{"route", w.writeRoute, w.routeHolds},
		{"endpoint", w.writeEndpoint, w.endpointHolds},
	}
	for _, k := range kinds {
		w.timed(state, k.name+" changed", k.write, k.holds)
	}
	for _, k := range kinds {
		w.counted(state, k.name+" changed", k.write)
	}
	w.idle(state)
	w.standing(state)
}

// Changes come in pairs, of which the second takes back the first.
func changed(i int) (service string, back bool) { return fmt.Sprintf("used-%d", i/2%used), i%2 == 1 }

func (w *world) writePolicy(i int) error {
	name, back := changed(i)
	method := "PUT"
	if back {
		method = "GET"
	}
	return w.api.patch(w.ctx, istioSecurity+usedIn+"/authorizationpolicies/"+name, m{"spec": m{"rules": rules(usedIn, "default", method)}})
}

func (w *world) policyHolds(i int) {
	name, back := changed(i)
	want := http.StatusForbidden
	if back {
		want = http.StatusOK
	}
	w.holds(name, 5, func(a answer) error {
		if a.Status != want {
			return fmt.Errorf("want %d", want)
		}
		return nil
	})
}

func (w *world) writeRoute(i int) error {
	name, _ := changed(i)
	return w.api.patch(w.ctx, istioNetwork+usedIn+"/virtualservices/"+name, m{"spec": m{"http": routes(name, strconv.Itoa(i))}})
}

func (w *world) routeHolds(i int) {
	name, _ := changed(i)
	w.holds(name, 5, func(a answer) error {
		if err := succeeds(a); err != nil {
			return err
		}
		if got := a.Headers["x-said"]; !slices.Equal(got, []string{strconv.Itoa(i)}) {
			return fmt.Errorf("it is said %v, not %d", got, i)
		}
		return nil
	})
}

func (w *world) writeEndpoint(i int) error {
	name, back := changed(i)
	list := endpoints(w.servers[name], func(p at) bool { return back || p.node == "node-1" })
	return w.api.patch(w.ctx, slicesOf+usedIn+"/endpointslices/"+name+"-1", m{"endpoints": list})
}

func (w *world) endpointHolds(i int) {
	name, back := changed(i)
	var mu sync.Mutex
	by := map[string]int{}
	w.holds(name, 20, func(a answer) error {
		if err := succeeds(a); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		by[a.Answer.Node]++
		return nil
	})
	if back != (by["node-2"] > 0) || by["node-1"] == 0 {
		w.b.Fatalf("change %d of the endpoints of %s: answered by %v", i, name, by)
	}
}

// timed makes changes, one at a time, and tells how long each takes until the kernel and
// Envoy of both nodes have it, which requests confirm.
func (w *world) timed(state int, what string, write func(i int) error, holds func(i int)) {
	var all, server []time.Duration
	for i := range changes {
		was := map[string]readiness{}
		for _, node := range nodes {
			if was[node] = w.readiness(node); !was[node].applied() {
				w.b.Fatalf("%s is at %+v", node, was[node])
			}
		}
		begun := time.Now()
		if err := write(i); err != nil {
			w.b.Fatal(err)
		}
		server = append(server, time.Since(begun))
		for _, node := range nodes { // whichever is later
			for r := was[node]; r.Revision == was[node].Revision || !r.applied(); r = w.readiness(node) {
				if time.Since(begun) > time.Minute {
					w.b.Fatalf("%s %d is not applied on %s: %+v", what, i, node, r)
				}
				time.Sleep(time.Millisecond)
			}
		}
		all = append(all, time.Since(begun))
		holds(i)
	}
	w.took(state, what+": until both Envoys have acknowledged", all)
	w.took(state, what+": of it, the API server's answer", server)
}

// took tells of durations.
func (w *world) took(state int, what string, all []time.Duration) {
	slices.Sort(all)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	w.table.tell(state, what+", median, ms", ms(all[len(all)/2]))
	w.table.tell(state, what+", slowest, ms", ms(all[len(all)-1]))
}

// counted makes changes, and tells what each costs the agent of a node.
func (w *world) counted(state int, what string, write func(i int) error) {
	agent, leader := w.agentOf("node-1"), w.leader()
	before, operator, had := w.usage(agent), w.cpu(leader), w.status("node-1")
	for i := range changes {
		if err := write(i); err != nil {
			w.b.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(time.Second)
	after, operatorAfter, has := w.usage(agent), w.cpu(leader), w.status("node-1")
	per := func(n float64) float64 { return n / changes }
	w.table.tell(state, what+": agent's CPU, ms", per(float64((after.cpu - before.cpu).Milliseconds())))
	w.table.tell(state, what+": operator's CPU, ms", per(float64((operatorAfter - operator).Milliseconds())))
	w.table.tell(state, what+": agent receives, B", per(float64(after.received-before.received)))
	w.table.tell(state, what+": resources to Envoy", per(float64(has.Proxy.Served.Counters.Resources-had.Proxy.Served.Counters.Resources)))
	w.table.tell(state, what+": bytes to Envoy", per(float64(has.Proxy.Served.Counters.Bytes-had.Proxy.Served.Counters.Bytes)))
	w.table.tell(state, what+": writes to kernel maps", per(float64(has.writes()-had.writes())))
}

// idle measures what it costs when nothing changes but what does by itself.
func (w *world) idle(state int) {
	agent, leader := w.agentOf("node-1"), w.leader()
	proxy, envoy := w.must("node-1", "/bin/fairlead", "proxy", "--node=node-1"), w.must("node-1", "/bin/envoy")
	w.settled(0)
	had := w.status("node-1")
	before, operator, p, e := w.usage(agent), w.usage(leader), w.cpu(proxy), w.cpu(envoy)
	wrote := w.operator()
	time.Sleep(idleTime)
	after, operatorAfter := w.usage(agent), w.usage(leader)
	minutes := idleTime.Minutes()
	second := func(d time.Duration) float64 { return d.Seconds() / minutes }
	w.table.tell(state, "idle: agent's CPU, s a minute", second(after.cpu-before.cpu))
	w.table.tell(state, "idle: agent's CPU with its probes, s a minute", second(after.pod-before.pod))
	w.table.tell(state, "idle: agent receives, kB a minute", float64(after.received-before.received)/1e3/minutes)
	w.table.tell(state, "idle: agent sends, kB a minute", float64(after.sent-before.sent)/1e3/minutes)
	w.table.tell(state, "idle: node proxy's CPU, s a minute", second(w.cpu(proxy)-p))
	w.table.tell(state, "idle: Envoy's CPU, s a minute", second(w.cpu(envoy)-e))
	w.table.tell(state, "idle: operator's CPU, s a minute", second(operatorAfter.cpu-operator.cpu))
	w.table.tell(state, "idle: operator receives, kB a minute", float64(operatorAfter.received-operator.received)/1e3/minutes)
	has, op := w.status("node-1"), w.operator()
	w.table.tell(state, "idle: resources to Envoy", float64(has.Proxy.Served.Counters.Resources-had.Proxy.Served.Counters.Resources))
	w.table.tell(state, "idle: writes to kernel maps", float64(has.writes()-had.writes()))
	w.table.tell(state, "idle: statuses and Events that the operator writes", float64(op.Statuses.Writes+op.Events.Writes-wrote.Statuses.Writes-wrote.Events.Writes))
}

// standing tells what is held.
func (w *world) standing(state int) {
	agent, operator := w.usage(w.agentOf("node-1")), w.usage(w.leader())
	proxy, envoy := w.usage(w.must("node-1", "/bin/fairlead", "proxy", "--node=node-1")), w.usage(w.must("node-1", "/bin/envoy"))
	begun := time.Now()
	s := w.status("node-1")
	w.table.tell(state, "objects that an agent has read", float64(s.Objects))
	w.table.tell(state, "agent's memory (RSS), MB", agent.rss)
	w.table.tell(state, "of it not the binary's pages, MB", agent.own)
	w.table.tell(state, "node proxy's memory (RSS), MB", proxy.rss)
	w.table.tell(state, "Envoy's memory (RSS), MB", envoy.rss)
	w.table.tell(state, "Envoy's memory, not the binary's pages, MB", envoy.own)
	w.table.tell(state, "operator's memory (RSS), MB", operator.rss)
	w.table.tell(state, "resources that the node proxy has", float64(s.Feed.all()))
	w.table.tell(state, "route tables that Envoy has asked for", float64(s.Proxy.InUse))
	w.table.tell(state, "entries of kernel maps", float64(s.entries()))
	w.table.tell(state, "fairlead status: agent's answer, ms", float64(time.Since(begun).Milliseconds()))
}

// restart replaces the agent of a node, some times, and tells how long the next one takes.
func (w *world) restart() {
	const node = "node-1"
	var took []time.Duration
	for range restarts {
		old := w.agentOf(node)
		w.c.Kubectl(w.b, "delete", "pod", "-n", systemIn, "-l", "app.kubernetes.io/component=agent", "--field-selector", "spec.nodeName="+node)
		var next process
		testcluster.Eventually(w.b, 2*time.Minute, "the next agent", func() error {
			if next = w.find(node, "/bin/fairlead", "agent", "--node="+node); next == 0 || next == old {
				return errors.New("it is not there yet")
			}
			return nil
		})
		var r readiness
		for end := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if err := ask(w.agents[node], "/ready", &r); err == nil && r.applied() {
				break
			} else if time.Now().After(end) {
				w.b.Fatalf("the next agent is not ready: %v, %+v", err, r)
			}
		}
		took = append(took, w.age(next))
		u, s := w.usage(next), w.status(node)
		w.table.most(big, "start, of 3 the most: agent's CPU, s", u.cpu.Seconds())
		w.table.most(big, "start, of 3 the most: agent's memory at most (RSS), MB", u.max)
		w.table.most(big, "start, of 3 the most: agent receives of the API server, MB", float64(u.received)/1e6)
		w.table.most(big, "start, of 3 the most: writes to kernel maps", float64(s.writes()))
		for i := range used {
			w.holds(fmt.Sprintf("used-%d", i), 2, succeeds)
		}
		time.Sleep(5 * time.Second)
	}
	w.took(big, "start: until the agent is ready", took)
}

// age is for how long a process has been there.
func (w *world) age(p process) time.Duration {
	w.b.Helper()
	f, err := p.stat()
	if err != nil {
		w.b.Fatal(err)
	}
	began, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		w.b.Fatal(err)
	}
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		w.b.Fatal(err)
	}
	up, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		w.b.Fatal(err)
	}
	return time.Duration(up*float64(time.Second)) - time.Duration(began)*time.Second/ticks
}
