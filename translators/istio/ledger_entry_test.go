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
`

func serviceEntryLedger() ledgerKind {
	const static = `{hosts: [a.example.com], addresses: [10.9.0.1], resolution: STATIC, endpoints: [{address: 10.8.0.1}], ports: [{number: 80, name: http, protocol: HTTP}]}`
	return ledgerKind{
		kind: "ServiceEntry", api: "networking.istio.io/v1", spec: &networking.ServiceEntry{}, world: world + vm,
		bases: map[string]string{
			"":                 static,
			"resolution":       `{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}]}`,
			"workloadSelector": `{hosts: [a.example.com], resolution: STATIC, workloadSelector: {labels: {b: y}}, ports: [{number: 80, name: http, protocol: HTTP}]}`,
		},
		values: map[string]string{
			"hosts": `["b.example.com"]`, "addresses": `["10.9.0.0/24"]`, "ports.number": `81`, "ports.protocol": `"TCP"`, "ports.targetPort": `8080`, "ports.name": `"web"`,
			"resolution": `"DNS"`, "location": `"MESH_INTERNAL"`, "exportTo": `["."]`, "workloadSelector.labels": `{"a": "x"}`,
			"endpoints.address": `"10.8.0.2"`, "endpoints.ports": `{"http": 8080}`, "endpoints.locality": `"eu/a"`,
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
`
	return ledgerKind{
		kind: "WorkloadEntry", api: "networking.istio.io/v1", spec: &networking.WorkloadEntry{}, world: world + entry,
		bases:  map[string]string{"": `{address: 10.8.0.1, labels: {a: x}}`},
		values: map[string]string{"address": `"10.8.0.2"`, "ports": `{"http": 8080}`, "labels": `{"a": "y"}`, "locality": `"eu/a"`},
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
		values: map[string]string{"mtls.mode": `"STRICT"`, "portLevelMtls.mode": `"STRICT"`},
	}
}
