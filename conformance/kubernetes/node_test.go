// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"
)

// served is a pod of these tests: an echo server that is a client, too, and is probed in
// each way that there is.
type served struct{ Namespace, Name, Node, App, Version, Account string }

var servedManifest = template.Must(template.New("").Parse(`
{{range .}}---
apiVersion: v1
kind: Pod
metadata: {name: {{.Name}}, namespace: {{.Namespace}}, labels: {app: {{.App}}, version: {{.Version}}}}
spec:
  nodeName: {{.Node}}
  serviceAccountName: {{.Account}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: fairlead.local/lab:1
    imagePullPolicy: Never
    args: [-port, 8080=http, -port, 9090=tcp]
    ports: [{containerPort: 8080}, {containerPort: 9090}]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: FAIRLEAD_POD, value: '{"pod": "$(POD)", "node": "$(NODE)"}'}
    startupProbe: {exec: {command: [id]}, periodSeconds: 1}
    readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1, failureThreshold: 2}
    livenessProbe: {tcpSocket: {port: 9090}, periodSeconds: 2, failureThreshold: 3}
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
{{end}}`))

// onBoth are two pods, one a node.
func onBoth(namespace, app, account string) []served {
	var out []served
	for _, n := range []string{"1", "2"} {
		out = append(out, served{namespace, app + "-" + n, "node-" + n, app, "v" + n, account})
	}
	return out
}

func manifest(t *testing.T, pods []served) string {
	t.Helper()
	var out bytes.Buffer
	if err := servedManifest.Execute(&out, pods); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// answers is what came of requests: how often each pod answered with 200, or else how
// often there was which status or error.
type answers map[string]int

// ask sends requests from a pod (namespace/name) or, with the network beside the nodes,
// from outside.
func (f *fleet) ask(t *testing.T, from string, args ...string) answers {
	t.Helper()
	got, err := f.tryAsk(t, from, args...)
	if err != nil {
		t.Fatalf("%s asks %s: %v", from, strings.Join(args, " "), err)
	}
	return got
}

// tryAsk is ask that may fail: by itself, not by what comes of the requests.
func (f *fleet) tryAsk(t *testing.T, from string, args ...string) (answers, error) {
	t.Helper()
	args = append([]string{"-timeout", "3s"}, args...)
	var out string
	var err error
	if namespace, pod, ok := strings.Cut(from, "/"); ok {
		out, err = f.c.try(t.Context(), "", append([]string{"exec", "-n", namespace, pod, "--", "call"}, args...)...)
	} else {
		var text []byte
		text, err = f.c.script(t.Context(), "enter.sh", append([]string{from, f.c.folder() + "/build/call"}, args...)...).Output()
		out = string(text)
	}
	got, lost := count(out, repeats(args))
	if lost != nil { // call fails, too, if an answer is an error
		return got, errors.Join(lost, err)
	}
	return got, nil
}

// repeats is how many results "call" prints that is called so.
func repeats(args []string) int {
	if i := slices.Index(args, "-repeat"); i >= 0 && i+1 < len(args) {
		if n, err := strconv.Atoi(args[i+1]); err == nil {
			return n
		}
	}
	return 1
}

// count says what came of requests by the results that "call" has printed. Fewer of these than
// requests are an error: a kubectl exec that is cut off leaves some, and fails as call itself
// does when a request has.
func count(out string, want int) (answers, error) {
	got, have := answers{}, 0
	for d := json.NewDecoder(strings.NewReader(out)); ; have++ {
		var r result
		switch err := d.Decode(&r); {
		case errors.Is(err, io.EOF) && have != want:
			return got, fmt.Errorf("%d results of %d requests: %v", have, want, got)
		case errors.Is(err, io.EOF):
			return got, nil
		case err != nil:
			return got, fmt.Errorf("read result %d of %d: %w: %s", have+1, want, err, out)
		case r.Status == 200 && r.Answer != nil:
			got[r.Answer.Pod]++
		case r.Status != 0:
			got[fmt.Sprint(r.Status)]++
		default:
			got[r.Error]++
		}
	}
}

// What is lost on the way of results is no answer, and not nothing either.
func TestLostResultsAreTold(t *testing.T) {
	all := `{"status": 200, "answer": {"pod": "a"}} {"status": 403} {"error": "refused"}`
	if got, err := count(all, 3); err != nil || !maps.Equal(got, answers{"a": 1, "403": 1, "refused": 1}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, lost := range []string{"", all[:strings.LastIndex(all, " {")], all[:len(all)-5]} {
		if got, err := count(lost, 3); err == nil {
			t.Errorf("of %q: %v", lost, got)
		}
	}
}

// expect asks until all answers are among those that are wanted, and each of these is
// there.
func (f *fleet) expect(t *testing.T, from string, want []string, args ...string) {
	t.Helper()
	eventually(t, 15*time.Second, from+" asks "+strings.Join(args, " "), func() error {
		got, err := f.tryAsk(t, from, args...)
		if err != nil {
			return err
		}
		for a := range got {
			if !slices.Contains(want, a) {
				return fmt.Errorf("%v, want %v", got, want)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}

// A node's pods are found where a CNI plugin put them, their services balanced beside
// kube-proxy, their policies enforced, and the node is given back as it was.
func TestNode(t *testing.T) {
	node(t, main)
}

// The same with pods on a bridge, beside kube-proxy with nftables.
func TestNodeBridged(t *testing.T) {
	c := cluster{"fairlead-bridged", []string{"PROXY_MODE=nftables", "CNI=bridge"}}
	t.Cleanup(func() {
		if out, err := c.script(context.Background(), "down.sh").CombinedOutput(); err != nil {
			t.Errorf("down.sh: %v\n%s", err, out)
		}
	})
	node(t, c)
}

func node(t *testing.T, c cluster) {
	f := newFleet(t, c)
	f.deploy(t)
	before := map[string]map[string][]string{}
	for _, n := range []string{"node-1", "node-2"} {
		before[n] = f.state(t, n)
		f.manage(t, n, true)
		f.start(t, n)
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fleet)
	}{
		{"services", services},
		{"routes", routes},
		{"policies", policies},
		{"not captured", notCaptured},
		{"probes", probes},
		{"node ports", nodePorts},
		{"policies of node ports", nodePortPolicies},
		{"load balancers", loadBalancers},
		{"half installed", func(t *testing.T, f *fleet) { halfInstalled(t, f, before["node-2"]) }},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
	f.uninstall(t, "node-1")
	sameState(t, "node-1", before["node-1"], f.state(t, "node-1"))
	f.expect(t, "mesh/client-1", []string{"web-1", "web-2"}, "-repeat", "40", "http://web/")
}

// deploy makes what the tests ask, and what rules it.
func (f *fleet) deploy(t *testing.T) {
	t.Helper()
	f.deployPods(t)
	if err := f.write("policy.yaml", nodePolicy(t)); err != nil {
		t.Fatal(err)
	}
}

// nodePolicy is routes and policies of what is deployed.
func nodePolicy(t *testing.T) string {
	t.Helper()
	policy, err := os.ReadFile("testdata/node-policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(policy)
}

func (f *fleet) deployPods(t *testing.T) {
	t.Helper()
	all := slices.Concat(onBoth("mesh", "client", "client"), onBoth("mesh", "other", "other"), onBoth("mesh", "web", "web"),
		onBoth("mesh", "guarded", "guarded"), onBoth("mesh", "public", "web"), onBoth("targets", "api", "api"), onBoth("plain", "outsider", "default"))
	base, err := os.ReadFile("testdata/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := f.c.try(context.Background(), "", "delete", "namespace", "mesh", "targets", "plain", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	for _, text := range []string{string(base), manifest(t, all)} {
		if _, err := f.c.try(t.Context(), text, "apply", "-f", "-"); err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []string{"mesh", "targets", "plain"} {
		f.c.kubectl(t, "wait", "-n", ns, "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	}
}

// Services without routes are balanced where they are dialled, by Fairlead.
func services(t *testing.T, f *fleet) {
	for _, client := range []string{"plain/outsider-1", "plain/outsider-2", "mesh/client-1", "mesh/client-2"} {
		for _, family := range []string{"-4", "-6"} {
			f.expect(t, client, []string{"outsider-1", "outsider-2"}, family, "-repeat", "40", "http://outsider.plain/")
		}
	}
	for _, n := range []string{"node-1", "node-2"} {
		before, err := f.status(n)
		if err != nil {
			t.Fatal(err)
		}
		f.ask(t, "plain/outsider-"+n[len(n)-1:], "-4", "-repeat", "20", "http://outsider.plain/")
		after, err := f.status(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := after.Kernel.Counters["balanced"] - before.Kernel.Counters["balanced"]; got < 20 || got > 100 {
			t.Errorf("%s has balanced %d of 20 connections of its pod: not its own, or kube-proxy has", n, got)
		}
	}
}

// Routes are Envoy's, for captured pods.
func routes(t *testing.T, f *fleet) {
	for _, client := range []string{"mesh/client-1", "mesh/client-2"} {
		f.expect(t, client, []string{"web-1"}, "-repeat", "20", "http://web/v1")
		f.expect(t, client, []string{"web-2"}, "-6", "-repeat", "20", "http://web/v2")
		got := f.ask(t, client, "-repeat", "200", "http://web/")
		if got["web-1"] < 140 || got["web-2"] < 15 || got["web-1"]+got["web-2"] != 200 {
			t.Errorf("%s: of 200 requests at 85 to 15, %v", client, got)
		}
	}
}

// Policy holds within a node and across, by service and by address.
func policies(t *testing.T, f *fleet) {
	for _, n := range []string{"1", "2"} {
		f.expect(t, "mesh/client-"+n, []string{"guarded-1", "guarded-2"}, "-repeat", "20", "http://guarded/open")
		f.expect(t, "mesh/client-"+n, []string{"403"}, "-repeat", "20", "http://guarded/shut")
		f.expect(t, "mesh/other-"+n, []string{"403"}, "-repeat", "20", "http://guarded/open")
		f.expect(t, "plain/outsider-"+n, []string{"403"}, "-repeat", "20", "http://guarded.mesh/open")
		f.expect(t, "mesh/client-"+n, []string{"api-1", "api-2"}, "-repeat", "20", "http://api.targets/")
		f.expect(t, "mesh/client-"+n, []string{"403"}, "-method", "POST", "-repeat", "20", "http://api.targets/")
		f.expect(t, "mesh/other-"+n, []string{"403"}, "-repeat", "20", "http://api.targets/")
	}
	for _, server := range []string{"guarded-1", "guarded-2"} {
		four, six := f.c.addresses(t, "mesh", "pod", server, ".status.podIPs[*].ip")
		for _, a := range []string{four, six} {
			url := "http://" + net.JoinHostPort(a, "8080") + "/open"
			for _, n := range []string{"1", "2"} {
				f.expect(t, "mesh/client-"+n, []string{server}, "-repeat", "5", url)
				f.expect(t, "mesh/other-"+n, []string{"403"}, "-repeat", "5", url)
			}
			for _, n := range []string{"1", "2"} {
				if !strings.HasSuffix(server, n) { // of its own node the probes' port is open
					f.expect(t, "node-"+n, []string{"403"}, "-repeat", "5", url)
				}
			}
		}
	}
}

// Who is not captured has no routes, and is nobody's to refuse.
func notCaptured(t *testing.T, f *fleet) {
	for _, client := range []string{"plain/outsider-1", "plain/outsider-2"} {
		f.expect(t, client, []string{"web-1", "web-2"}, "-repeat", "40", "http://web.mesh/v1")
		for _, server := range []string{"outsider-1", "outsider-2"} {
			four, six := f.c.addresses(t, "plain", "pod", server, ".status.podIPs[*].ip")
			for _, a := range []string{four, six} {
				f.expect(t, client, []string{server}, "http://"+net.JoinHostPort(a, "8080"))
			}
		}
	}
}

// Kubelet's probes pass where nobody else does.
func probes(t *testing.T, f *fleet) {
	const ns = "locked"
	f.c.kubectl(t, "create", "namespace", ns)
	t.Cleanup(func() {
		if f.source != "" {
			_ = os.Remove(f.source + "/locked.yaml")
		}
		// With its interfaces: the nodes are compared afterwards.
		if _, err := f.c.try(context.Background(), "", "delete", "namespace", ns); err != nil {
			t.Error(err)
		}
	})
	if err := f.write("locked.yaml", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: locked}
spec: {}
`); err != nil {
		t.Fatal(err)
	}
	if _, err := f.c.try(t.Context(), manifest(t, onBoth(ns, "locked", "default")), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	f.c.kubectl(t, "wait", "-n", ns, "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	for _, server := range []string{"locked-1", "locked-2"} {
		four, _ := f.c.addresses(t, ns, "pod", server, ".status.podIPs[*].ip")
		for _, client := range []string{"mesh/client-1", "mesh/client-2"} {
			f.expect(t, client, []string{"refused"}, "-repeat", "3", "http://"+four+":8080")
		}
	}
	time.Sleep(10 * time.Second) // of probes, each second
	if got := f.c.kubectl(t, "get", "pods", "-n", ns, "-o", `jsonpath={range .items[*]}{.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount} {end}`); got != "true 0 true 0" {
		t.Errorf("ready and restarts are %s", got)
	}
}

// Node ports go on: kube-proxy has them.
func nodePorts(t *testing.T, f *fleet) {
	for service, want := range map[string][]string{"plain/outsider": {"outsider-1", "outsider-2"}, "mesh/web": {"web-1", "web-2"}} {
		namespace, name, _ := strings.Cut(service, "/")
		port := f.c.kubectl(t, "get", "-n", namespace, "service", name, "-o", "jsonpath={.spec.ports[0].nodePort}")
		for _, at := range []string{"10.240.0.1", "10.240.0.2", "fd40::1", "fd40::2"} {
			f.expect(t, "control-plane", want, "-repeat", "40", "http://"+net.JoinHostPort(at, port))
		}
	}
}

// What comes by a node port is judged as what comes by any other way, though the node has
// translated its address; and with the client's own address where the service keeps that.
func nodePortPolicies(t *testing.T, f *fleet) {
	nodes := map[string][]string{"1": {"10.240.0.1", "fd40::1"}, "2": {"10.240.0.2", "fd40::2"}}
	port := func(service string) string {
		return f.c.kubectl(t, "get", "-n", "mesh", "service", service, "-o", "jsonpath={.spec.ports[0].nodePort}")
	}
	for n, addrs := range nodes {
		for _, a := range addrs {
			at := func(service, path string) string { return "http://" + net.JoinHostPort(a, port(service)) + path }
			f.expect(t, "control-plane", []string{"public-1", "public-2"}, "-repeat", "40", at("public", "/open"))
			f.expect(t, "control-plane", []string{"403"}, "-repeat", "20", at("public", "/shut"))
			f.expect(t, "control-plane", []string{"public-" + n}, "-repeat", "20", at("public-local", "/open"))
			f.expect(t, "control-plane", []string{"403"}, "-repeat", "20", at("public-local", "/shut"))
			f.expect(t, "control-plane", []string{"403"}, "-repeat", "20", at("guarded", "/open"))
			f.expect(t, "control-plane", []string{"public-" + n}, "-method", "POST", "-body", strings.Repeat("x", 100_000), at("public-local", "/open"))
			for _, from := range []string{"plain/outsider-1", "plain/outsider-2"} { // a pod of the server's own node, too
				f.expect(t, from, []string{"public-1", "public-2"}, "-repeat", "40", at("public", "/open"))
				f.expect(t, from, []string{"403"}, "-repeat", "20", at("public", "/shut"))
			}
		}
	}
}

// An address that a cloud has given a service leads to it from outside and from pods, captured
// or not, and what comes by it is judged.
func loadBalancers(t *testing.T, f *fleet) {
	addresses := map[string]string{"192.0.2.10": "10.240.0.", "2001:db8::10": "fd40::"} // and where nodes have theirs
	outside := func(ctx context.Context, args ...string) {
		t.Helper()
		if out, err := f.c.script(ctx, "enter.sh", append([]string{"control-plane", "ip"}, args...)...).CombinedOutput(); err != nil {
			t.Errorf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		for a := range addresses {
			outside(context.Background(), "route", "del", a)
		}
		if _, err := f.c.try(context.Background(), "", "patch", "service", "-n", "mesh", "public", "-p", `{"spec": {"type": "NodePort"}}`); err != nil {
			t.Error(err)
		}
	})
	f.c.kubectl(t, "patch", "service", "-n", "mesh", "public", "-p", `{"spec": {"type": "LoadBalancer"}}`)
	f.c.kubectl(t, "patch", "service", "-n", "mesh", "public", "--subresource=status", "-p",
		`{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}, {"ip": "2001:db8::10"}]}}}`)
	for a, nodes := range addresses {
		url := "http://" + net.JoinHostPort(a, "80")
		for _, n := range []string{"1", "2"} {
			outside(t.Context(), "route", "replace", a, "via", nodes+n)
			for _, from := range []string{"control-plane", "plain/outsider-" + n, "mesh/client-" + n} {
				f.expect(t, from, []string{"public-1", "public-2"}, "-repeat", "40", url+"/open")
				f.expect(t, from, []string{"403"}, "-repeat", "20", url+"/shut")
			}
			f.expect(t, "control-plane", []string{"public-1", "public-2"}, "-method", "POST", "-body", strings.Repeat("x", 100_000), "-repeat", "20", url+"/open")
		}
	}
}

// Where Fairlead is gone from a node, and the others know, its pods are who they were, and
// are let in where they were; they have no routes, and nobody guards them.
func halfInstalled(t *testing.T, f *fleet, before map[string][]string) {
	f.manage(t, "node-2", false)
	f.uninstall(t, "node-2")
	sameState(t, "node-2", before, f.state(t, "node-2"))
	f.settled(t, "node-1")
	guarded, _ := f.c.addresses(t, "mesh", "pod", "guarded-1", ".status.podIPs[*].ip")
	f.expect(t, "mesh/client-2", []string{"guarded-1"}, "-repeat", "10", "http://"+guarded+":8080/open")
	f.expect(t, "mesh/client-2", []string{"403"}, "-repeat", "10", "http://"+guarded+":8080/shut")
	f.expect(t, "mesh/other-2", []string{"403"}, "-repeat", "10", "http://"+guarded+":8080/open")
	f.expect(t, "mesh/client-2", []string{"web-1", "web-2"}, "-repeat", "40", "http://web/v1")
	f.expect(t, "mesh/client-1", []string{"web-2"}, "-repeat", "20", "http://web/v2")
	f.expect(t, "mesh/client-1", []string{"guarded-1", "guarded-2"}, "-repeat", "20", "http://guarded/open")
	f.expect(t, "mesh/other-1", []string{"403"}, "-repeat", "20", "http://guarded/open")
	f.manage(t, "node-2", true)
	f.start(t, "node-2")
	f.settled(t, "node-1")
	routes(t, f)
	policies(t, f)
	f.uninstall(t, "node-2")
	sameState(t, "node-2", before, f.state(t, "node-2"))
}
