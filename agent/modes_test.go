// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"strings"
	"testing"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// theModes has a service for each mode of listeners but the further detecting ones.
const theModes = `
apiVersion: v1
kind: Service
metadata: {name: many, namespace: shop}
spec:
  clusterIP: 10.96.0.8
  selector: {app: web}
  ports: [{name: tls, port: 443}, {name: tcp, port: 9000}, {name: some, port: 7000}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: many, namespace: shop}
spec:
  hosts: [many]
  http:
  - match: [{port: 7000}]
    route: [{destination: {host: many, port: {number: 7000}}}]
  tls:
  - match: [{port: 443, sniHosts: [many]}]
    route: [{destination: {host: many, port: {number: 443}}}]
  tcp:
  - match: [{port: 9000, sourceLabels: {app: web}}]
    route: [{destination: {host: web, port: {number: 80}}}]
`

func inRange(port uint16) bool { return port >= firstPort && port <= lastPort }

// Each mode's listener gets a port, gets connections when Envoy has it, and gives the
// port back when nobody needs it any more.
func TestAListenerForEachMode(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	if !inRange(r.to["shop/web http"]) {
		t.Fatalf("ports %v", r.to)
	}
	r.reject = func(c serve.Change) string {
		if c.Type == xds.ListenerType && strings.HasPrefix(c.Name, "out/opaque/") {
			return "cannot bind"
		}
		return ""
	}
	r.write("host.yaml", theHost)
	r.write("modes.yaml", theModes)
	log := r.took(r.reload)
	before(t, log, "set Listener", "kernel")
	seen := map[uint16]plan.Mode{}
	for _, m := range []plan.Mode{plan.HTTP, plan.TLS, plan.Any, plan.Detect} {
		port := r.to["shop/web "+string(m)]
		if !inRange(port) || seen[port] != "" {
			t.Errorf("%s at port %d, as %s; ports %v", m, port, seen[port], r.to)
		}
		seen[port] = m
	}
	if port := r.to["shop/web opaque"]; port != 0 {
		t.Errorf("opaque, which Envoy did not take, at port %d", port)
	}
	if got := r.one(); got.Type != "Listener" || got.Serving != Nothing || len(got.Sources) == 0 || got.Sources[0].Object() != "Pod shop/web" {
		t.Errorf("rejected %+v", got)
	}
	r.write("modes.yaml", "")
	r.write("host.yaml", "")
	before(t, r.took(r.reload)+"\n"+r.took(r.lingered), "kernel", "delete Listener")
	if r.to["shop/web tls"]+r.to["shop/web any"]+r.to["shop/web detect"] != 0 || len(r.ports.state.Used) != 2 {
		t.Errorf("kernel's ports %v, listeners' %v, resting %v", r.to, r.ports.state.Used, r.ports.state.Resting)
	}
	for port, m := range seen {
		if _, resting := r.ports.state.Resting[port]; !resting {
			t.Errorf("port %d, of %s, does not rest", port, m)
		}
	}
}
