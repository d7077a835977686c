// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
)

// ownApp are two namespaces with a pod, a service and a policy each.
func ownApp(annotations string) string {
	var out []string
	for i, ns := range []string{"shop", "store"} {
		with := ""
		if ns == "store" {
			with = annotations
		}
		out = append(out, strings.NewReplacer("NS", ns, "LAST", fmt.Sprint(10+i), "WITH", with).Replace(`apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {istio-injection: enabled}, annotations: {WITH}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: NS, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.244.1.LAST, podIPs: [{ip: 10.244.1.LAST}], phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {clusterIP: 10.96.0.LAST, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: NS, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.LAST], conditions: {ready: true}, nodeName: n1}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: NS}
spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
`))
	}
	return strings.Join(out, "---\n")
}

// Each proxy has the listeners of its own clients, and what is judged on the way to its own
// pods; what clients may ask for, all have. The same comes of it in any order.
func TestEachProxyHasItsOwn(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": ownApp("fairlead.io/proxy: own")})
	r.opts.RunDir = t.TempDir()
	r.load()
	rows := r.rows(plan.EnvoyTables())
	names := func(proxy string, backwards bool) (out []string) {
		renderer, err := NewRenderer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := renderer.ports.allocateSlot("store"); err != nil {
			t.Fatal(err)
		}
		rows := slices.Clone(rows)
		if backwards {
			slices.Reverse(rows)
		}
		for _, row := range rows {
			renderer.Take([]incr.Change{{Table: row.Table, Key: row.Key, New: row.Value}})
		}
		for _, res := range renderer.Of(proxy) {
			out = append(out, xds.Short(res.Type)+" "+res.Name)
			if res.Type != xds.ListenerType { // whose port is whose depends on the order
				out[len(out)-1] += " " + res.Version
			}
		}
		return out
	}
	shared, own := names("", false), names("store", false)
	if again := names("", true); !slices.Equal(shared, again) {
		t.Errorf("the node's proxy has, in another order,\n%v\nnot\n%v", again, shared)
	}
	if again := names("store", true); !slices.Equal(own, again) {
		t.Errorf("store's proxy has, in another order,\n%v\nnot\n%v", again, own)
	}
	only := func(a, b []string) (out []string) {
		for _, n := range a {
			if !slices.Contains(b, n) {
				f := strings.Fields(n)
				out = append(out, f[0]+" "+strings.Split(f[1], "/http/")[0])
			}
		}
		slices.Sort(out)
		return out
	}
	for _, c := range []struct {
		of        string
		has, want []string
	}{
		{"the node's", only(shared, own), []string{"Listener in/http", "Listener out", "RouteConfiguration in|shop/web:8080", "ScopedRouteConfiguration in|10.244.1.10:8080"}},
		{"store's", only(own, shared), []string{"Listener in/http@store", "Listener out", "RouteConfiguration in|store/web:8080", "ScopedRouteConfiguration in|10.244.1.11:8080"}},
	} {
		if !slices.Equal(c.has, c.want) {
			t.Errorf("alone %s proxy has %q, want %q", c.of, c.has, c.want)
		}
	}
	for _, n := range own {
		if strings.HasPrefix(n, "Listener out") && !strings.Contains(n, "@store") {
			t.Errorf("store's proxy has %s", n)
		}
	}
}

// The kernel sends a pod to its namespace's proxy when that has acknowledged everything,
// until then where it sent before; and the node's proxy keeps what it needs for that.
func TestAMoveWaitsForTheProxy(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": ownApp("")})
	r.opts.RunDir = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); r.own.tasks.Wait() }()
	r.reload(ctx)
	r.lookAfter(ctx)
	before := r.to["store/web http"]
	if before < firstPort || before > lastPort {
		t.Fatalf("store's pod is sent to %d", before)
	}
	r.write("app.yaml", ownApp("fairlead.io/proxy: own, fairlead.io/proxy-memory: 200Mi"))
	r.reload(ctx)
	if got := r.to["store/web http"]; got != before {
		t.Errorf("without its proxy store's pod is sent to %d, not to %d", got, before)
	}
	all, err := proxy.LoadOwn(r.opts.RunDir)
	if want := []proxy.Own{{Name: "store", Slot: 1, Memory: 200 << 20}}; err != nil || !slices.Equal(all, want) {
		t.Errorf("the node proxy is told of %v, %v; want %v", all, err, want)
	}
	r.lingered(ctx)
	for k, p := range r.res.moved {
		if _, still := r.retiring[k]; p == "store" && !still {
			t.Errorf("%v is taken from the node's proxy, and store's has it not", k)
		}
	}
	if len(r.res.moved) == 0 {
		t.Error("nothing moves")
	}
	// It may judge by what is no longer configured: other nodes are told.
	if s := r.pulse(time.Now()); s.Behind != "" {
		t.Errorf("at once other nodes are told: %s", s.Behind)
	}
	if s := r.pulse(time.Now().Add(applyLimit)); !strings.Contains(s.Behind, "the proxy of namespace store") {
		t.Errorf("after %v other nodes are told: %q", applyLimit, s.Behind)
	}
	// It has it all.
	o := r.own.by["store"]
	deadline := time.Now().Add(10 * time.Second)
	for o.answer == nil && time.Now().Before(deadline) {
		o.again = time.Time{}
		r.lookAfter(ctx)
	}
	sent := o.sent
	if o.answer == nil {
		t.Fatal("nothing is sent to store's proxy")
	}
	<-o.answer
	o.sent = sent
	r.ownAnswered(o, ownAnswer{})
	r.rewrite()
	r.lookAfter(ctx)
	r.beginRound()
	if s := r.pulse(time.Now().Add(applyLimit)); s.Behind != "" {
		t.Errorf("when all is acknowledged other nodes are told: %s", s.Behind)
	}
	if got, at := r.to["store/web http"], r.ports.get(name(t, r, "store")); got != at || got < 17100 {
		t.Errorf("store's pod is sent to %d, want its own proxy's %d", got, at)
	}
	r.lingered(ctx)
	if len(r.res.moved) > 0 {
		t.Errorf("the node's proxy keeps %v", r.res.moved)
	}
	// And back.
	r.write("app.yaml", ownApp(""))
	r.reload(ctx)
	if got := r.to["store/web http"]; got < firstPort || got > lastPort {
		t.Errorf("store's pod is sent to %d, which is not the node's proxy's", got)
	}
	o.until = time.Now()
	r.lookAfter(ctx)
	if all, err := proxy.LoadOwn(r.opts.RunDir); err != nil || len(all) != 0 {
		t.Errorf("the node proxy is told of %v, %v; want none", all, err)
	}
	if r.ports.state.Slots["store"] != 0 || r.ports.state.RestingSlots[1].IsZero() {
		t.Errorf("its slot does not rest: %+v", r.ports.state)
	}
}

func name(t *testing.T, r *rig, proxy string) string {
	t.Helper()
	for k := range r.res.own[proxy] {
		if strings.HasPrefix(k.name, "out/http/") {
			return k.name
		}
	}
	t.Fatalf("%s's proxy has no listener for requests", proxy)
	return ""
}

// A node has room for so many; one more namespace shares the node's proxy.
func TestSlots(t *testing.T) {
	now := time.Unix(1000, 0)
	p, err := openPorts(filepath.Join(t.TempDir(), "ports.json"), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if slot, err := p.allocateSlot(fmt.Sprint("ns-", i)); err != nil || slot != i+1 {
			t.Errorf("namespace %d has slot %d, %v", i, slot, err)
		}
	}
	if slot, err := p.allocateSlot("ns-9"); err == nil {
		t.Errorf("a tenth namespace has slot %d", slot)
	}
	p.releaseSlot("ns-3")
	if slot, err := p.allocateSlot("ns-10"); err != nil || slot != 4 {
		t.Errorf("the slot that was given back is not used: %d, %v", slot, err)
	}
	first, err := p.allocate("out/http/a@ns-10")
	if err != nil || first != 17400 {
		t.Errorf("a listener of slot 4 has port %d, %v", first, err)
	}
	if n, err := p.allocate("out/http/a@ns-9"); err != nil || n != firstPort {
		t.Errorf("a listener of a namespace without slot has port %d, %v", n, err)
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	again, err := openPorts(p.file, p.now)
	if err != nil || again.get("out/http/a@ns-10") != first || again.state.Slots["ns-10"] != 4 {
		t.Errorf("the next agent has %+v, %v", again.state, err)
	}
}
