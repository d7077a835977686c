// SPDX-License-Identifier: Apache-2.0

package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/translators/objects"
)

// istioMesh writes n services of a namespace, each with endpoints, three routes and a
// traffic policy; clients in that namespace, and in one of their own with a Sidecar; and
// MeshConfig. The names of the inputs say what is in them.
func istioMesh(n int) []objects.Input {
	inputs := []objects.Input{
		{Name: "base", Data: []byte(`
apiVersion: v1
kind: Node
metadata: {name: node-1, annotations: {fairlead.io/agent: "true"}}
status: {addresses: [{type: InternalIP, address: 10.240.0.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {fairlead.io/capture: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: clients, labels: {fairlead.io/capture: enabled}}
`)},
		{Name: "mesh", Data: []byte(meshConfig("connectTimeout: 3s"))},
		{Name: "sidecar", Data: []byte(clientSidecar(6, 7, 8))},
	}
	for i, ns := range []string{"clients", "clients", "shop"} {
		inputs = append(inputs, objects.Input{Name: fmt.Sprint("client", i), Data: []byte(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: client%d, namespace: %s, labels: {app: client}}
spec: {nodeName: node-1, containers: [{name: main, image: load}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.%d}], conditions: [{type: Ready, status: "True"}]}
`, i, ns, i+1))})
	}
	for i := range n {
		inputs = append(inputs,
			objects.Input{Name: fmt.Sprint("service", i), Data: []byte(plainService(i))},
			objects.Input{Name: fmt.Sprint("routes", i), Data: []byte(threeRoutes(i, n, "3s"))},
			objects.Input{Name: fmt.Sprint("policy", i), Data: []byte(destinationRule(i, 100))})
	}
	return inputs
}

func meshConfig(mesh string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \"" + mesh + "\"}\n"
}

// clientSidecar lets clients see these services.
func clientSidecar(services ...int) string {
	var hosts []string
	for _, i := range services {
		hosts = append(hosts, fmt.Sprintf("shop/s%d.shop.svc.cluster.local", i))
	}
	return "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: clients}\nspec: {egress: [{hosts: [" + strings.Join(hosts, ", ") + "]}]}\n"
}

func plainService(i int) string {
	return strings.NewReplacer("NAME", fmt.Sprint("s", i), "VIP", fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
		"POD", fmt.Sprintf("10.245.%d.%d", i/250, i%250+1)).Replace(`
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec: {clusterIP: VIP, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: NAME, namespace: shop, labels: {kubernetes.io/service-name: NAME}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [POD], conditions: {ready: true}}]
`)
}

func threeRoutes(i, n int, timeout string) string {
	return strings.NewReplacer("NAME", fmt.Sprint("s", i), "OTHER", fmt.Sprint("s", (i+1)%n), "TIMEOUT", timeout).Replace(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME]
  http:
  - match: [{headers: {x-user: {exact: me}}, uri: {prefix: /api}}]
    timeout: TIMEOUT
    retries: {attempts: 3, retryOn: 5xx}
    route: [{destination: {host: NAME}}]
  - match: [{uri: {prefix: /v1/}}]
    rewrite: {uri: /}
    route: [{destination: {host: NAME}, weight: 90}, {destination: {host: OTHER}, weight: 10}]
  - route: [{destination: {host: NAME}}]
`)
}

func destinationRule(i, connections int) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%d, namespace: shop}
spec: {host: s%d, trafficPolicy: {connectionPool: {tcp: {maxConnections: %d}}}}
`, i, i, connections)
}

// computedBy counts the keys that each stage computes for an edit of the mesh.
func computedBy(t *testing.T, p *pipeline.Pipeline, mesh []objects.Input, e objects.Input) map[string]int {
	t.Helper()
	i := slices.IndexFunc(mesh, func(in objects.Input) bool { return in.Name == e.Name })
	edited := slices.Clone(mesh)
	edited[i] = e
	before := p.Computed()
	if len(p.Load(edited...)) == 0 {
		t.Error("the edit changes nothing")
	}
	counts := p.Computed()
	for stage, n := range before {
		if counts[stage] -= n; counts[stage] == 0 {
			delete(counts, stage)
		}
	}
	p.Load(mesh...)
	return counts
}

// What an edit computes is what it may change: objects about one service cost the same in
// a mesh of any size. A Sidecar and MeshConfig are read for every service; later stages
// compute those alone that come out different.
func TestComputedByOneEdit(t *testing.T) {
	for _, n := range []int{20, 200} {
		p, err := pipeline.New(pipeline.Options{Node: "node-1"})
		if err != nil {
			t.Fatal(err)
		}
		mesh := istioMesh(n)
		p.Load(mesh...)
		for _, c := range []struct {
			what string
			edit objects.Input
			want map[string]int
		}{
			{"VirtualService", objects.Input{Name: "routes7", Data: []byte(threeRoutes(7, n, "4s"))},
				map[string]int{"istio/validate": 1, "istio/translate": 2, "merge": 1, "plan/predicate": 1, "plan/service": 2}},
			{"DestinationRule", objects.Input{Name: "policy7", Data: []byte(destinationRule(7, 50))},
				map[string]int{"istio/validate": 1, "istio/translate": 5, "merge": 2, "plan/predicate": 2, "plan/service": 3}},
			{"Sidecar", objects.Input{Name: "sidecar", Data: []byte(clientSidecar(6, 8))},
				map[string]int{"istio/validate": 1, "istio/defaults": 1, "istio/translate": n + 1, "merge": 1, "plan/predicate": 1, "plan/service": 2}},
			{"MeshConfig, used by every service", objects.Input{Name: "mesh", Data: []byte(meshConfig("connectTimeout: 5s"))},
				map[string]int{"istio/validate": 1, "istio/defaults": 1, "istio/translate": 3*n + 2, "merge": n, "plan/predicate": n, "plan/service": n}},
			{"MeshConfig, used by none", objects.Input{Name: "mesh", Data: []byte(meshConfig("connectTimeout: 3s\\naccessLogFile: /dev/stdout"))},
				map[string]int{"istio/validate": 1, "istio/defaults": 1, "istio/translate": 3*n + 2}},
		} {
			if d := cmp.Diff(c.want, computedBy(t, p, mesh, c.edit)); d != "" {
				t.Errorf("%s, %d services (-want +got):\n%s", c.what, n, d)
			}
		}
	}
}
