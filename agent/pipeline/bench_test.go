// SPDX-License-Identifier: Apache-2.0

package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/translators/objects"
)

// mesh writes n services with a VirtualService each, an input a service.
func mesh(n int) []objects.Input {
	inputs := []objects.Input{{Name: "base.yaml", Data: []byte(`
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
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: node-1, containers: [{name: main, image: load}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.1}], conditions: [{type: Ready, status: "True"}]}
`)}}
	for i := range n {
		inputs = append(inputs, objects.Input{Name: fmt.Sprintf("s%05d.yaml", i), Data: []byte(virtualService(i, 75))})
	}
	return inputs
}

func virtualService(i, weight int) string {
	return strings.NewReplacer("NAME", fmt.Sprintf("s%05d", i), "VIP", fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
		"POD", fmt.Sprintf("10.244.%d.%d", 2+i/250, i%250+1), "WEIGHT", fmt.Sprint(weight), "REST", fmt.Sprint(100-weight)).Replace(`
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
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME]
  http:
  - match: [{uri: {prefix: /api/}}]
    route:
    - {destination: {host: NAME, port: {number: 80}}, weight: WEIGHT}
    - {destination: {host: s00000, port: {number: 80}}, weight: REST}
    timeout: 5s
  - route: [{destination: {host: NAME, port: {number: 80}}}]
`)
}

// BenchmarkTranslateToRender measures everything from manifests to Envoy resources
// for 10,000 VirtualServices, one changed object, and the ratio of the two.
func BenchmarkTranslateToRender(b *testing.B) {
	const n = 10000
	inputs := mesh(n)
	for b.Loop() {
		p, err := pipeline.New(pipeline.Options{Node: "node-1"})
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		p.Load(inputs...)
		if _, _, err := agent.Render(p); err != nil {
			b.Fatal(err)
		}
		all := time.Since(begin)
		var one time.Duration
		const edits = 20
		for i := range edits {
			at := 1 + (i*997)%n
			inputs[at].Data = []byte(virtualService(at-1, 10+i))
			begin = time.Now()
			changes := p.Load(inputs...)
			one += time.Since(begin)
			if len(changes) == 0 {
				b.Fatal("an edit changed nothing")
			}
		}
		one /= edits
		b.ReportMetric(float64(all.Milliseconds()), "ms/all")
		b.ReportMetric(float64(one.Microseconds()), "us/one")
		b.ReportMetric(float64(all)/float64(one), "all/one")
	}
}
