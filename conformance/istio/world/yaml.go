// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"strings"
)

// Objects are the world's objects of Kubernetes as documents of YAML: the same for both
// halves, but for what more labels pods have.
func (w *World) Objects(more func(*Pod) map[string]string) []string {
	var out []string
	for _, n := range sorted(w.Namespaces) {
		out = append(out, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels: {kubernetes.io/metadata.name: %s%s}\n", n, n, flow(w.Namespaces[n])))
	}
	for i, n := range sorted(w.Nodes) {
		out = append(out, fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata:\n  name: %s\n  labels: {kubernetes.io/hostname: %s%s}\n  annotations: {fairlead.io/agent: \"true\"}\nstatus:\n  addresses: [{type: InternalIP, address: 192.168.0.%d}]\n",
			n, n, flow(w.Nodes[n]), i+1))
	}
	accounts := map[string]bool{}
	for _, p := range w.Pods {
		out = append(out, podObject(p, more))
		if k := p.Namespace + "/" + p.Account; !accounts[k] {
			accounts[k] = true
			out = append(out, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\n", p.Account, p.Namespace))
		}
	}
	for _, s := range w.Services {
		out = append(out, serviceObject(s), w.sliceObject(s))
	}
	return out
}

func podObject(p *Pod, more func(*Pod) map[string]string) string {
	inject := ""
	if more != nil {
		inject = flow(more(p))
	}
	if p.Outside {
		inject += ", sidecar.istio.io/inject: \"false\""
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
  namespace: %s
  labels: {%s%s}
spec:
  serviceAccountName: %s
  nodeName: %s
  containers: [{name: main, image: echo}]
status:
  phase: Running
  podIP: %s
  podIPs: [{ip: %s}]
  conditions: [{type: Ready, status: "True"}]
`, p.Name, p.Namespace, strings.TrimPrefix(flow(p.Labels), ", "), inject, p.Account, p.Node, p.Addr, p.Addr)
}

func serviceObject(s *Service) string {
	addr := "None"
	if s.Addr.IsValid() {
		addr = s.Addr.String()
	}
	ports := ""
	for _, p := range s.Ports {
		ports += fmt.Sprintf("  - {port: %d, targetPort: %d, protocol: TCP", p.Port, p.Target)
		if p.Name != "" {
			ports += ", name: " + p.Name
		}
		if p.AppProtocol != "" {
			ports += fmt.Sprintf(", appProtocol: %q", strings.ReplaceAll(p.AppProtocol, "+", "/"))
		}
		ports += "}\n"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: %s
  namespace: %s
  creationTimestamp: "2024-01-01T00:00:00Z"
  annotations: {%s}
spec:
  clusterIP: %s
  clusterIPs: [%s]
  selector: {%s}
  ports:
%s`, s.Name, s.Namespace, strings.TrimPrefix(flow(s.Annotations), ", "), addr, addr, strings.TrimPrefix(flow(s.Selector), ", "), ports)
}

func (w *World) sliceObject(s *Service) string {
	ports, eps := "", ""
	for _, p := range s.Ports {
		ports += fmt.Sprintf("- {name: %q, port: %d, protocol: TCP}\n", p.Name, p.Target)
	}
	for _, p := range w.Endpoints(s) {
		zone := w.Nodes[p.Node]["topology.kubernetes.io/zone"]
		eps += fmt.Sprintf("- {addresses: [%s], conditions: {ready: true}, nodeName: %s, zone: %q, targetRef: {kind: Pod, name: %s, namespace: %s}}\n", p.Addr, p.Node, zone, p.Name, p.Namespace)
	}
	if eps == "" {
		eps = "[]\n"
	} else {
		eps = "\n" + eps
	}
	return fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %s
  namespace: %s
  labels: {kubernetes.io/service-name: %s}
addressType: IPv4
ports:
%sendpoints: %s`, s.Name, s.Namespace, s.Name, ports, eps)
}

func flow(m map[string]string) string {
	out := ""
	for _, k := range sorted(m) {
		out += fmt.Sprintf(", %s: %q", k, m[k])
	}
	return out
}
