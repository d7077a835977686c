// SPDX-License-Identifier: Apache-2.0

package istio

import (
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
)

// vm is somebody whom a ServiceEntry may select.
const vm = `
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 10.8.0.9, labels: {a: x}}
` + entryRules

// entryRules are rules for a.example.com: its subset and nearness matter.
const entryRules = `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: entry, namespace: shop}
spec: {host: a.example.com, subsets: [{name: x, labels: {a: x}}], trafficPolicy: {outlierDetection: {interval: 1s}, loadBalancer: {localityLbSetting: {enabled: true}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: entry, namespace: shop}
spec: {hosts: [a.example.com], http: [{match: [{uri: {prefix: /x}}], route: [{destination: {host: a.example.com, subset: x}}]}, {route: [{destination: {host: a.example.com}}]}]}
`

func serviceEntryLedger() ledgerKind {
	const static = `{hosts: [a.example.com], addresses: [10.9.0.1], resolution: STATIC, endpoints: [{address: 10.8.0.1}], ports: [{number: 80, name: http, protocol: HTTP}]}`
	return ledgerKind{
		kind: "ServiceEntry", api: "networking.istio.io/v1", spec: &networking.ServiceEntry{}, world: world + vm,
		bases: map[string]string{
			"":                 static,
			"endpoints":        `{hosts: [a.example.com], addresses: [10.9.0.1], resolution: STATIC, endpoints: [{address: 10.8.0.1}, {address: 10.8.0.2, locality: r1/z1}], ports: [{number: 80, name: http, protocol: HTTP}]}`,
			"resolution":       `{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}]}`,
			"workloadSelector": `{hosts: [a.example.com], resolution: STATIC, workloadSelector: {labels: {b: y}}, ports: [{number: 80, name: http, protocol: HTTP}]}`,
		},
		values: map[string]string{
			"hosts": `["b.example.com"]`, "addresses": `["10.9.0.0/24"]`, "ports.number": `81`, "ports.protocol": `"TCP"`, "ports.targetPort": `8080`, "ports.name": `"web"`,
			"resolution": `"DNS" | "DNS_ROUND_ROBIN"`, "location": `"MESH_INTERNAL"`, "exportTo": `["."]`, "workloadSelector.labels": `{"a": "x"}`,
			"endpoints.address": `"10.8.0.3"`, "endpoints.ports": `{"http": 8080}`, "endpoints.locality": `"r1/z1"`,
		},
		silent: map[string]string{
			"location":   "it says who is spoken to by mutual TLS, of which there is none yet, and what metrics are called",
			"ports.name": "a name; endpoints say by it where they serve the port",
		},
	}
}

func workloadEntryLedger() ledgerKind {
	const entry = `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vms, namespace: shop}
spec: {hosts: [a.example.com], resolution: STATIC, workloadSelector: {labels: {a: x}}, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: near, namespace: shop}
spec: {address: 10.8.0.3, labels: {a: x}, locality: r1/z1}
` + entryRules
	return ledgerKind{
		kind: "WorkloadEntry", api: "networking.istio.io/v1", spec: &networking.WorkloadEntry{}, world: world + entry,
		bases:  map[string]string{"": `{address: 10.8.0.1, labels: {a: x}}`},
		values: map[string]string{"address": `"10.8.0.2"`, "ports": `{"http": 8080}`, "labels": `{"a": "y"}`, "locality": `"r1/z1"`},
	}
}

func peerAuthenticationLedger() ledgerKind {
	return ledgerKind{
		kind: "PeerAuthentication", api: "security.istio.io/v1", spec: &security.PeerAuthentication{}, world: world,
		bases: map[string]string{
			"":              `{mtls: {mode: PERMISSIVE}}`,
			"selector":      `{mtls: {mode: STRICT}}`,
			"portLevelMtls": `{selector: {matchLabels: {a: b}}}`,
		},
		values: map[string]string{"mtls.mode": `"STRICT" | ="UNSET"`, "portLevelMtls.mode": `"STRICT"`},
	}
}
