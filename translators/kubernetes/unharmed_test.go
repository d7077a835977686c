// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/translatortest"
)

// One bad object of each of Kubernetes' own kinds costs the others nothing.
func TestUnharmed(t *testing.T) {
	var good strings.Builder
	for i := range 100 {
		fmt.Fprintf(&good, `---
apiVersion: v1
kind: Namespace
metadata: {name: n%[1]d, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Node
metadata: {name: node-%[1]d}
spec: {podCIDR: 10.244.%[1]d.0/24}
status: {addresses: [{type: InternalIP, address: 10.240.0.%[2]d}]}
---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: shop}
spec: {clusterIP: 10.96.1.%[2]d, selector: {app: s%[1]d}, ports: [{name: http, port: 80}, {name: grpc, port: 90, targetPort: g}]}
---
apiVersion: v1
kind: Service
metadata: {name: sliced%[1]d, namespace: shop}
spec: {clusterIP: 10.96.2.%[2]d, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sliced%[1]d, namespace: shop, labels: {kubernetes.io/service-name: sliced%[1]d}}
addressType: IPv4
endpoints: [{addresses: [10.8.0.%[2]d]}]
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: p%[1]d, namespace: shop, labels: {app: s%[1]d}}
spec: {nodeName: node-%[1]d, serviceAccountName: a, containers: [{name: c, ports: [{name: g, containerPort: 9090}]}]}
status: {phase: Running, podIP: 10.244.%[1]d.2, conditions: [{type: Ready, status: "True"}]}
`, i, i+1)
	}
	const first = "metadata: {name: bad, namespace: shop, labels: {app: s1, kubernetes.io/service-name: sliced1}}\n"
	var bad []string
	for _, typ := range kubernetes.New(kubernetes.Options{}).Types() {
		version := strings.TrimPrefix(typ.Kind.Group+"/"+typ.Version, "/")
		head := fmt.Sprintf("apiVersion: %s\nkind: %s\n%s", version, typ.Kind.Kind, first)
		for _, body := range []string{"spec: 7\nendpoints: 7\nsecrets: 7\n", "nosuch: [1]\n", "metadata: 7\n", "spec: [\n"} {
			bad = append(bad, head+body)
		}
	}
	bad = append(bad,
		"apiVersion: v1\nkind: Service\n"+first+"spec: {clusterIP: not-an-address, ports: [{port: 80}]}\n",
		"apiVersion: v1\nkind: Service\n"+first+"spec: {clusterIP: 10.96.3.1, ports: [{port: 99999, protocol: SCTP}]}\n",
		"apiVersion: v1\nkind: Service\n"+first+"spec: {type: ExternalName, externalName: example.com}\n",
		"apiVersion: v1\nkind: Pod\n"+first+"spec: {containers: 7}\nstatus: {podIP: 10.244.1.3}\n",
		"apiVersion: v1\nkind: Pod\n"+first+"spec: {containers: [{name: c}]}\nstatus: {podIP: none}\n",
		"apiVersion: v1\nkind: Node\n"+first+"spec: {podCIDR: all}\nstatus: {addresses: [{type: InternalIP, address: here}]}\n",
		"apiVersion: v1\nkind: Node\nmetadata: {name: bad, annotations: {fairlead.io/agent: maybe}}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: bad, labels: {istio-injection: maybe}}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: bad, annotations: {fairlead.io/route-by: luck}}\n",
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+first+"addressType: IPv4\nendpoints: [{addresses: [nowhere]}]\nports: [{name: http, port: 8080}]\n",
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+first+"addressType: 7\nendpoints: [{addresses: 10.8.9.9}]\n",
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+first+"addressType: IPv4\nendpoints: [{addresses: [10.8.9.9], conditions: 7}]\nports: [{name: http, port: 8080}]\n",
	)
	translatortest.Unharmed(t, nil, good.String(), bad...)
}
