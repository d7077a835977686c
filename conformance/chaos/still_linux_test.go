// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"strings"

	"fairlead.io/fairlead/translators/objects"
)

// Services that no change touches: in each way in which a request or a connection
// finds its own.
const (
	webIP, otherIP, rawIP, rpcIP, splitIP = "10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5"
	webIP6, otherIP6, rawIP6, splitIP6    = "fd96::1", "fd96::2", "fd96::3", "fd96::5"
)

// stillServers are the ports of their backends, which tell who answers.
var stillServers = map[string]uint16{"web": 7001, "other": 7002, "raw-a": 7003, "raw-b": 7004, "rpc": 7005, "split-a": 7006, "split-b": 7007}

const nodes = `
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd44:1::/64"]}
status: {addresses: [{type: InternalIP, address: 10.240.0.1}, {type: InternalIP, address: "fd40::1"}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
spec: {podCIDR: 10.244.2.0/24, podCIDRs: [10.244.2.0/24, "fd44:2::/64"]}
status: {addresses: [{type: InternalIP, address: 10.240.0.2}, {type: InternalIP, address: "fd40::2"}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: still, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: still-smi, labels: {fairlead.io/capture: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: churn, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: churn-smi, labels: {fairlead.io/capture: enabled}}
`

const stillConfig = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: still}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /alpha}, sourceLabels: {app: alpha}}]
    route: [{destination: {host: web}}]
    retries: {attempts: 0}
  - route: [{destination: {host: web}}]
    retries: {attempts: 0}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: still}
spec:
  selector: {matchLabels: {app: web}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/still/sa/alpha]}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: still}
spec:
  hosts: [raw]
  tcp:
  - match: [{sourceLabels: {app: alpha}}] # else the kernel would do it alone
    route:
    - {destination: {host: raw-a, port: {number: 9000}}, weight: 80}
    - {destination: {host: raw-b, port: {number: 9000}}, weight: 20}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: split, namespace: still-smi}
spec:
  service: split
  backends: [{service: split-a, weight: 75}, {service: split-b, weight: 25}]
`

// podText is a pod; its addresses end in the same number.
func podText(namespace, name, account, node string, last int, labels string) string {
	net := strings.TrimPrefix(node, "node-")
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {%s}}
spec: {nodeName: %s, serviceAccountName: %s, containers: [{name: c, image: x}]}
status: {podIP: 10.244.%s.%d, podIPs: [{ip: 10.244.%s.%d}, {ip: "fd44:%s::%x"}], conditions: [{type: Ready, status: "True"}]}
---
`, name, namespace, labels, node, account, net, last, net, last, net, last)
}

// serviceText is a service of one port, whose backends are its own.
func serviceText(namespace, name, ip, ip6, port string, number, target uint16) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec: {clusterIP: %s, clusterIPs: [%s, "%s"], ipFamilies: [IPv4, IPv6], selector: {service: %s}, ports: [{name: %s, port: %d, targetPort: %d}]}
---
`, name, namespace, ip, ip, ip6, name, port, number, target)
}

// member of a service: a pod on node-2, by the last number of its addresses.
type member struct {
	pod   string
	last  int
	ready bool
}

// slicesText are a service's endpoints in both families.
func slicesText(namespace, service, port string, target uint16, endpoints []member) string {
	var out strings.Builder
	for _, family := range []string{"IPv4", "IPv6"} {
		fmt.Fprintf(&out, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-%s, namespace: %s, labels: {kubernetes.io/service-name: %s}}
addressType: %s
ports: [{name: %s, port: %d, protocol: TCP}]
endpoints:
`, service, strings.ToLower(family), namespace, service, family, port, target)
		for _, e := range endpoints {
			addr := fmt.Sprintf("10.244.2.%d", e.last)
			if family == "IPv6" {
				addr = fmt.Sprintf("fd44:2::%x", e.last)
			}
			fmt.Fprintf(&out, "- {addresses: [\"%s\"], conditions: {ready: %t}, nodeName: node-2, targetRef: {kind: Pod, name: %s, namespace: %s}}\n",
				addr, e.ready, e.pod, namespace)
		}
		if len(endpoints) == 0 {
			out.WriteString("  []\n")
		}
		out.WriteString("---\n")
	}
	return out.String()
}

// stillObjects are the part of the cluster that stays as it is.
func stillObjects() []objects.Input {
	var text strings.Builder
	text.WriteString(nodes + "---\n" + stillConfig + "---\n")
	text.WriteString(podText("still", "alpha", "alpha", "node-1", 11, "app: alpha"))
	text.WriteString(podText("still", "beta", "beta", "node-1", 12, "app: beta"))
	for i, s := range []struct {
		namespace, name, ip, ip6, port string
		number                         uint16
	}{
		{"still", "web", webIP, webIP6, "http", 80},
		{"still", "other", otherIP, otherIP6, "http", 80},
		{"still", "rpc", rpcIP, "fd96::4", "grpc", 80},
		{"still", "raw-a", "10.96.0.13", "fd96::13", "tcp", 9000},
		{"still", "raw-b", "10.96.0.14", "fd96::14", "tcp", 9000},
		{"still-smi", "split-a", "10.96.0.15", "fd96::15", "http", 80},
		{"still-smi", "split-b", "10.96.0.16", "fd96::16", "http", 80},
		{"still", "raw", rawIP, rawIP6, "tcp", 9000},
		{"still-smi", "split", splitIP, splitIP6, "http", 80},
	} {
		target, backed := stillServers[s.name]
		text.WriteString(serviceText(s.namespace, s.name, s.ip, s.ip6, s.port, s.number, target))
		if !backed {
			continue // it is its backends' services that have any
		}
		last := 1 + i
		pod := s.name + "-1"
		text.WriteString(podText(s.namespace, pod, s.name, "node-2", last, fmt.Sprintf("app: %s, service: %s", s.name, s.name)))
		text.WriteString(slicesText(s.namespace, s.name, s.port, target, []member{{pod, last, true}}))
	}
	return []objects.Input{{Name: "still.yaml", Data: []byte(text.String())}}
}
