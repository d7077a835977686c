// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"

	"fairlead.io/fairlead/translators/objects"
)

// mesh is what both halves read: services with a VirtualService each, and workloads, all
// clients, on one node.
type mesh struct {
	services, workloads int
}

const (
	namespace = "shop"
	node      = "node-1"
	perPort   = 2 // endpoints of a service
)

func (m mesh) String() string {
	return fmt.Sprintf("%d services, %d workloads", m.services, m.workloads)
}

func serviceAddr(i int) string     { return fmt.Sprintf("10.96.%d.%d", i/250, i%250+1) }
func endpointAddr(i, e int) string { return fmt.Sprintf("10.%d.%d.%d", 200+e, i/250, i%250+1) }
func workloadAddr(i int) string    { return fmt.Sprintf("10.244.1.%d", i+1) }
func serviceName(i int) string     { return fmt.Sprint("s", i) }

// virtualService has three routes; seconds are the first one's timeout.
func (m mesh) virtualService(i, seconds int) string {
	return strings.NewReplacer("NAME", serviceName(i), "OTHER", serviceName((i+1)%m.services), "SECONDS", fmt.Sprint(seconds)).Replace(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME]
  http:
  - match: [{headers: {x-user: {exact: NAME}}, uri: {prefix: /api}}]
    timeout: SECONDSs
    retries: {attempts: 3, retryOn: 5xx}
    route: [{destination: {host: NAME}}]
  - match: [{uri: {prefix: /v1/}}]
    rewrite: {uri: /}
    route: [{destination: {host: NAME}, weight: 90}, {destination: {host: OTHER}, weight: 10}]
  - route: [{destination: {host: NAME}}]
`)
}

// virtualServices are all of them, in one text.
func (m mesh) virtualServices() string {
	var all []string
	for i := range m.services {
		all = append(all, m.virtualService(i, 3))
	}
	return strings.Join(all, "---")
}

// inputs are the mesh as Fairlead reads it, each VirtualService an input of its own; that
// of service i is number i.
func (m mesh) inputs() []objects.Input {
	var in []objects.Input
	for i := range m.services {
		in = append(in, objects.Input{Name: "routes/" + serviceName(i), Data: []byte(m.virtualService(i, 3))})
	}
	in = append(in, objects.Input{Name: "base", Data: []byte(`
apiVersion: v1
kind: Node
metadata: {name: node-1, annotations: {fairlead.io/agent: "true"}}
status: {addresses: [{type: InternalIP, address: 10.240.0.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
`)})
	for i := range m.workloads {
		in = append(in, objects.Input{Name: fmt.Sprint("workload/", i), Data: []byte(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: client%d, namespace: shop, labels: {app: client}}
spec: {nodeName: node-1, serviceAccountName: client, containers: [{name: main, image: load}]}
status: {phase: Running, podIPs: [{ip: %s}], conditions: [{type: Ready, status: "True"}]}
`, i, workloadAddr(i)))})
	}
	for i := range m.services {
		var addrs []string
		for e := range perPort {
			addrs = append(addrs, fmt.Sprintf(`{addresses: [%s], conditions: {ready: true}}`, endpointAddr(i, e)))
		}
		in = append(in, objects.Input{Name: "service/" + serviceName(i), Data: []byte(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: shop}
spec: {clusterIP: %[2]s, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: shop, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [%[3]s]
`, serviceName(i), serviceAddr(i), strings.Join(addrs, ", ")))})
	}
	return in
}
