// SPDX-License-Identifier: Apache-2.0

package pipeline_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/translators/objects"
)

// service is one of many: a pod, its service and account. %[1]d is its number, %[2]s the pod's
// address, %[3]s the service's.
const service = `
apiVersion: v1
kind: Pod
metadata: {name: pod-%[1]d, namespace: shop, labels: {app: "app-%[1]d"}}
spec: {serviceAccountName: sa-%[1]d, nodeName: node-2, containers: [{name: main, image: some, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIPs: [{ip: %[2]s}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: svc-%[1]d, namespace: shop}
spec: {clusterIP: %[3]s, clusterIPs: [%[3]s], selector: {app: "app-%[1]d"}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: svc-%[1]d, namespace: shop, labels: {kubernetes.io/service-name: svc-%[1]d}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [%[2]s]}]
`

// governed are what each plane has for one service.
var governed = map[string]string{
	"istio": `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-%[1]d, namespace: shop}
spec:
  selector: {matchLabels: {app: "app-%[1]d"}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/sa-0]}}], to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: peers-%[1]d, namespace: shop}
spec: {selector: {matchLabels: {app: "app-%[1]d"}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule-%[1]d, namespace: shop}
spec: {host: svc-%[1]d, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: routes-%[1]d, namespace: shop}
spec: {hosts: [svc-%[1]d], http: [{route: [{destination: {host: svc-%[1]d}}]}]}
`,
	"smi": `---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: read-%[1]d, namespace: shop}
spec: {matches: [{name: read, methods: [GET]}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: allow-%[1]d, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: sa-%[1]d, namespace: shop}
  sources: [{kind: ServiceAccount, name: sa-0, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: read-%[1]d}]
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: split-%[1]d, namespace: shop}
spec: {service: svc-%[1]d, backends: [{service: svc-%[1]d, weight: 100}]}
`,
	"linkerd": `---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: server-%[1]d, namespace: shop}
spec: {podSelector: {matchLabels: {app: "app-%[1]d"}}, port: http, proxyProtocol: HTTP/1}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: allow-%[1]d, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: server-%[1]d}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: sa-0}]
---
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: svc-%[1]d.shop.svc.cluster.local, namespace: shop}
spec: {routes: [{name: all, condition: {pathRegex: /.*}}]}
`,
	"gateway": `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: routes-%[1]d, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: svc-%[1]d, port: 80}]
  rules: [{backendRefs: [{name: svc-%[1]d, port: 80}]}]
`,
}

// What a mesh of n services holds grows with n, not with its square: whatever a policy or a
// route is judged by, it does not rest on everything that is there.
func TestMemoryGrowsAsTheMesh(t *testing.T) {
	const few, times = 150, 4
	nth := func(x byte, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, x, byte(i >> 8), byte(i)}) }
	for plane, objectsOfPlane := range governed {
		t.Run(plane, func(t *testing.T) {
			held := func(n int) float64 {
				inputs := mesh(0)
				for i := range n {
					inputs = append(inputs, objects.Input{
						Name: fmt.Sprintf("%05d.yaml", i),
						Data: []byte(fmt.Sprintf(service+objectsOfPlane, i, nth(250, i), nth(97, i))),
					})
				}
				before := heap()
				p, err := pipeline.New(pipeline.Options{Node: "node-1"})
				if err != nil {
					t.Fatal(err)
				}
				p.Load(inputs...)
				after := heap()
				runtime.KeepAlive(p)
				return after - before
			}
			a, b := held(few), held(few*times)
			t.Logf("%d services: %.1f MB, %d: %.1f MB", few, a/1e6, few*times, b/1e6)
			// A square would be 16.
			if b/a > 1.5*times {
				t.Errorf("%d times as many services hold %.1f times as much", times, b/a)
			}
		})
	}
}

// heap is what is held, in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
