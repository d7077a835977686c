// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Fairlead as Helm installs it, while agents and a node go and come back: what is lost is
// what was lost with them, and nothing that is forbidden passes.
func TestFaults(t *testing.T) {
	f := newInstalled(t, main)
	f.deployShop(t)
	before := map[string]map[string][]string{}
	for _, n := range nodes {
		before[n] = f.state(t, n)
	}
	f.helmInstall(t)
	f.c.kubectl(t, "wait", "--for=condition=Established", "-f", "../../deploy/crds", "--timeout=60s")
	f.plane(t, "istio", "apply")
	for _, n := range nodes {
		f.settled(t, n)
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fleet)
	}{
		{"agents restarted", agentsRestarted},
		{"node killed", nodeKilled},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
	f.helmUninstall(t)
	for _, n := range nodes {
		sameState(t, n, ofNobody(before[n]), ofNobody(f.state(t, n)))
	}
}

var (
	podLinks     = regexp.MustCompile(`veth[0-9a-f]{8}`)
	podPins      = regexp.MustCompile(`(fl_(?:from|to)_pod)-[0-9]+`)
	podAddresses = regexp.MustCompile(`10\.244\.[0-9]+\.[0-9]+|fd44:[0-9]+::[0-9a-f:]+`)
)

// ofNobody is a node's state without the names and addresses of its pods, which have others
// when they start anew, and without what kube-proxy has of these. How often there is a line
// is a part of it.
func ofNobody(state map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, what := range []string{"programs", "pins", "rules", "sysctls", "cgroups", "processes"} {
		times := map[string]int{}
		for _, line := range state[what] {
			line = podPins.ReplaceAllString(podAddresses.ReplaceAllString(podLinks.ReplaceAllString(line, "POD"), "POD"), "$1-POD")
			times[line]++
			out[what] = append(out[what], fmt.Sprintf("%s (%d)", line, times[line]))
		}
	}
	for _, line := range state["nftables"] {
		if strings.Contains(line, "fairlead") {
			out["nftables"] = append(out["nftables"], line)
		}
	}
	for _, line := range state["routes"] {
		if !podLinks.MatchString(line) {
			out["routes"] = append(out["routes"], line)
		}
	}
	return out
}

// guests are a namespace that lets nobody in, one that lets everybody, and in the latter
// somebody on each of some nodes who knocks at the addresses that come next on a node.
type guests struct {
	f          *fleet
	shut, open string
	knockers   map[string]*knocker
}

func (f *fleet) guests(t *testing.T, shut, open string, on ...string) *guests {
	t.Helper()
	f.rooms(t, shut, open)
	var text string
	for _, n := range on {
		text += plainPod(open, "knocker-"+n, n)
	}
	f.applySoon(t, text)
	f.c.kubectl(t, "wait", "-n", open, "pod", "--all", "--for=condition=Ready", "--timeout=90s")
	g := &guests{f, shut, open, map[string]*knocker{}}
	for _, n := range on {
		g.knockers[n] = f.knocker(t, open, "knocker-"+n, "-every", "50ms", "-timeout", "500ms")
	}
	return g
}

// applySoon applies pods of a namespace whose account takes its time.
func (f *fleet) applySoon(t *testing.T, text string) {
	t.Helper()
	eventually(t, 30*time.Second, "pods", func() error {
		_, err := f.c.try(t.Context(), text, "apply", "-f", "-")
		return err
	})
}

// heard checks what came of knocking at addresses: none of the pods that let nobody in has
// let anybody in, and others have.
func (g *guests) heard(t *testing.T, came map[netip.Addr]knocks) (tried, shut int) {
	t.Helper()
	in := map[string]string{}
	for line := range strings.Lines(g.f.c.kubectl(t, "get", "pods", "-n", g.shut, "-o", `jsonpath={range .items[*]}{.status.podIP} {.metadata.name}{"\n"}{end}`)) {
		ip, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		in[ip] = name
	}
	open := 0
	for a, k := range came {
		tried += k.Tried
		switch name, closed := in[a.String()]; {
		case closed && k.LetIn > 0:
			t.Errorf("%s let somebody in %d times of %d, from %s to %s", name, k.LetIn, k.Tried, k.First, k.Last)
		case closed && k.Tried > 0:
			shut++
		case !closed && k.LetIn > 0:
			open++
		}
	}
	if shut == 0 || open == 0 {
		t.Errorf("somebody has knocked at %d pods that let nobody in, and was let in by %d others: want some of each", shut, open)
	}
	return tried, shut
}

// Agents are replaced one after another, again and again, while pods come and go and
// requests are served: none is lost, and none of the new pods is open for a moment.
func agentsRestarted(t *testing.T, f *fleet) {
	g := f.guests(t, "cell", "hall", nodes...)
	storm := f.storm(t, nodes...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	rollouts := make(chan error, 1)
	done := 0
	go func() {
		for ctx.Err() == nil {
			for _, args := range [][]string{{"restart"}, {"status", "--timeout=4m"}} {
				if _, err := f.c.try(ctx, "", append([]string{"rollout", args[0], "-n", namespace, "daemonset/fairlead-agent"}, args[1:]...)...); err != nil && ctx.Err() == nil {
					rollouts <- err
					return
				}
			}
			if ctx.Err() == nil {
				done++
			}
		}
		rollouts <- nil
	}()
	begun := time.Now()
	const waves, each = 6, 10
	tried, shut := 0, 0
	for wave := range waves {
		at := map[string][]netip.Addr{}
		var text string
		for _, n := range nodes {
			at[n] = f.next(t, n, 2*each) // one that is tried again has another
			g.knockers[n].say(t, "+", at[n])
			for i := range each {
				ns := g.shut
				if i%5 == 0 {
					ns = g.open
				}
				text += plainPod(ns, fmt.Sprintf("guest-%s-%d-%d", n, wave, i), n)
			}
		}
		f.applySoon(t, text)
		for _, ns := range []string{g.shut, g.open} {
			f.c.kubectl(t, "wait", "-n", ns, "pod", "-l", "app=plain", "--for=condition=Ready", "--timeout=300s")
		}
		came := map[netip.Addr]knocks{}
		for _, n := range nodes {
			for a, k := range g.knockers[n].stop(t, at[n]) {
				came[a] = k
			}
		}
		more, guarded := g.heard(t, came)
		tried, shut = tried+more, shut+guarded
		f.c.kubectl(t, "delete", "pod", "-n", g.shut, "--all", "--wait=false")
		f.c.kubectl(t, "delete", "pod", "-n", g.open, "-l", "app=plain", "--field-selector", "metadata.name!=knocker-node-1,metadata.name!=knocker-node-2", "--wait=false")
		eventually(t, 300*time.Second, "pods of a wave that go", func() error {
			if left := f.c.kubectl(t, "get", "pods", "-n", g.shut, "-o", "name") + f.c.kubectl(t, "get", "pods", "-n", g.open, "-o", "name"); strings.Contains(left, "guest-") {
				return fmt.Errorf("%d are there", strings.Count(left, "guest-"))
			}
			return nil
		})
	}
	stop()
	if err := <-rollouts; err != nil {
		t.Error(err)
	}
	f.c.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/fairlead-agent", "--timeout=4m")
	for _, n := range nodes {
		f.settled(t, n)
	}
	if done == 0 {
		t.Error("not all agents were replaced even once")
	}
	t.Logf("agents were replaced %d times in %s; %d pods came and went, of which %d were to let nobody in and were knocked at; %d knocks",
		done, time.Since(begun).Round(time.Second), waves*each*len(nodes), shut, tried)
	calm(t, storm)
}

// again is a service of the shop whose requests are tried again, and one of which all pods
// are on node-2.
const again = `apiVersion: v1
kind: Service
metadata: {name: again, namespace: shop}
spec: {selector: {app: reviews}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec: {selector: {app: reviews, side: near}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: again, namespace: shop}
spec:
  hosts: [again]
  http:
  - route: [{destination: {host: again}}]
    retries: {attempts: 3, perTryTimeout: 3s, retryOn: "connect-failure,refused-stream,reset,gateway-error"}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: again, namespace: shop}
spec: {host: again, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}}}}
`

// echoService is balanced by the kernel: its namespace has no mesh.
const echoService = `---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: porch}
spec: {selector: {app: echo}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// by are the URLs of a path at both addresses of a service.
func (f *fleet) by(t *testing.T, namespace, service, path string) []string {
	t.Helper()
	four, six := f.c.addresses(t, namespace, "service", service, ".spec.clusterIPs[*]")
	return []string{"-host", service, "-url", "http://" + four + path, "-url", "http://[" + six + "]" + path}
}

// A node dies as by a power cut, and comes back. Requests for its pods fail until Kubernetes
// takes them out of their services, unless they are tried again; no other request fails, and
// none that is forbidden is let through, not when the node comes back either.
func nodeKilled(t *testing.T, f *fleet) {
	for _, s := range []string{"reviews", "reviews-v1", "reviews-v2"} { // from here on Kubernetes is to take pods out
		f.c.kubectl(t, "patch", "service", "-n", "shop", s, "-p", `{"spec": {"publishNotReadyAddresses": false}}`)
	}
	f.c.kubectl(t, "label", "pod", "-n", "shop", "reviews-v1-2", "reviews-v2-2", "side=near")
	f.apply(t, again)
	g := f.guests(t, "cellar", "porch", "node-2")
	f.applySoon(t, plainPod("cellar", "shut", "node-1")+plainPod("porch", "open", "node-1")+unhurried(t, onBoth("porch", "echo", "default"))+echoService)
	for _, ns := range []string{"cellar", "porch"} {
		f.c.kubectl(t, "wait", "-n", ns, "pod", "--all", "--for=condition=Ready", "--timeout=90s")
	}
	for _, n := range nodes {
		f.settled(t, n)
	}
	for _, pod := range strings.Fields(f.c.kubectl(t, "get", "pods", "-A", "--field-selector", "spec.nodeName=node-1", "-o", `jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {end}`)) {
		ns, name, _ := strings.Cut(pod, "/") // a machine without time may take longer than a node may be away
		f.c.kubectl(t, "patch", "pod", "-n", ns, name, "--type", "json", "-p", `[{"op": "add", "path": "/spec/tolerations/-", "value": {"operator": "Exists"}}]`)
	}
	before := ofNobody(f.state(t, "node-1"))
	next := f.next(t, "node-1", 60) // its pods come back with other addresses
	four, six := f.c.addresses(t, "shop", "pod", "reviews-v1-2", ".status.podIPs[*].ip")
	flags := []string{"-rate", "20", "-connections", "4", "-fresh", "0.3", "-timeout", "20s"}
	storm := f.storm(t, "node-2")
	lossy := map[string]*sending{
		"by Envoy":      storm["allowed from node-2"],
		"by the kernel": f.sendWithout(t, "porch/knocker-node-2", append(f.by(t, "porch", "echo", "/"), flags...)...),
	}
	delete(storm, "allowed from node-2")
	for what, at := range map[string][]string{
		"allowed, to a pod of the node that lives":         {"-url", "http://" + four + ":8080/api/1", "-url", "http://[" + six + "]:8080/api/1"},
		"allowed, to a service with pods of that node":     f.by(t, "shop", "near", "/api/1"),
		"allowed, to a service that is tried again":        f.by(t, "shop", "again", "/api/1"),
		"forbidden as it is asked, though tried again":     append(f.by(t, "shop", "again", "/admin"), "-forbid"),
		"forbidden as it is asked, of the node that lives": append(f.by(t, "shop", "near", "/admin"), "-forbid"),
	} {
		storm[what] = f.sendWithout(t, "shop/frontend-2", append(at, flags...)...)
	}
	time.Sleep(3 * time.Second)

	begun := time.Now()
	f.c.run(t, "kill.sh", "node-1")
	up := false
	t.Cleanup(func() {
		if !up {
			f.upAgain(t)
		}
	})
	f.c.kubectl(t, "wait", "--for=condition=Ready=Unknown", "node/node-1", "--timeout=90s")
	eventually(t, 60*time.Second, "no endpoint is the dead node's", func() error {
		out := f.c.kubectl(t, "get", "endpointslices", "-n", "shop", "-o", `jsonpath={range .items[*].endpoints[?(@.nodeName=="node-1")]}{.conditions.ready} {end}`) +
			f.c.kubectl(t, "get", "endpointslices", "-n", "porch", "-o", `jsonpath={range .items[*].endpoints[?(@.nodeName=="node-1")]}{.conditions.ready} {end}`)
		if strings.Contains(out, "true") {
			return errors.New(out)
		}
		return nil
	})
	gone := time.Since(begun)
	f.settled(t, "node-2")
	time.Sleep(5 * time.Second)
	t.Logf("Kubernetes takes the node's pods out of their services after %s", gone.Round(time.Second))
	for what, l := range lossy {
		s := l.end()
		t.Logf("of %d requests balanced %s until %s after it died, %d failed: %v", s.Requests, what, time.Since(begun).Round(time.Second), s.Failed, s.Failures)
		// Of its pods' connections some are reset, as processes die before their kernel; then nobody
		// answers, and Envoy says so, or nobody does.
		lost := uint64(0)
		for _, class := range []string{"reset", "refused", "closed", "timeout", "unreachable", "status 503"} {
			lost += s.Failures[class]
		}
		if s.Violations > 0 || s.OK < 100 || !s.Final || s.Failed != lost {
			t.Errorf("through the node's death, balanced %s: %+v", what, s)
		}
	}
	storm["balanced by Envoy, once they are out, until the node is back"] = f.sendWithout(t, "shop/frontend-2", append(f.by(t, "shop", "reviews", "/api/1"), flags...)...)
	storm["balanced by the kernel, once they are out, until the node is back"] = f.sendWithout(t, "porch/knocker-node-2", append(f.by(t, "porch", "echo", "/"), flags...)...)

	k := g.knockers["node-2"]
	k.say(t, "+", next)
	time.Sleep(5 * time.Second)
	back := time.Now()
	f.c.up(t)
	up = true
	t.Logf("the node is Ready %s after it was started", time.Since(back).Round(time.Second))
	for _, ns := range []string{"cellar", "porch", "shop"} {
		eventually(t, 5*time.Minute, "pods of "+ns+" are back", func() error {
			out, err := f.c.try(t.Context(), "", "get", "pods", "-n", ns, "-o", `jsonpath={range .items[?(@.spec.nodeName=="node-1")]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
			if err != nil || strings.Contains(out, "=False") || !strings.Contains(out, "=True") {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	t.Logf("its pods are back %s after it was started", time.Since(back).Round(time.Second))
	for _, n := range nodes {
		f.settled(t, n)
	}
	t.Logf("its agent has everything up %s after it was started", time.Since(back).Round(time.Second))
	time.Sleep(3 * time.Second)
	g.heard(t, k.stop(t, next))
	sameState(t, "node-1", before, ofNobody(f.state(t, "node-1")))
	for what, l := range f.storm(t, nodes...) {
		storm[what+", once the node is back"] = l
	}
	time.Sleep(10 * time.Second)
	calm(t, storm)
	f.expect(t, "shop/frontend-1", []string{"reviews-v1-1", "reviews-v1-2", "reviews-v2-1", "reviews-v2-2"}, "-repeat", "80", "http://reviews/api/1")
	for _, client := range []string{"batch-1", "batch-2"} {
		for _, server := range []string{"reviews-v1-1", "reviews-v1-2"} {
			four, _ := f.c.addresses(t, "shop", "pod", server, ".status.podIPs[*].ip")
			f.expect(t, "shop/"+client, []string{"403"}, "-repeat", "10", "http://"+net.JoinHostPort(four, "8080")+"/api/1")
		}
	}
	f.c.kubectl(t, "delete", "service,virtualservice,destinationrule", "-n", "shop", "again", "--ignore-not-found")
}
