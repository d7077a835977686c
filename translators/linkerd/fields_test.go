// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"regexp"
	"slices"
	"testing"

	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// company is what an object needs around it for its fields to matter.
const company = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {linkerd.io/inject: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: v9, annotations: {linkerd.io/inject: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec:
  nodeName: n1
  containers:
  - name: c
    ports: [{name: http, containerPort: 8080}, {name: admin, containerPort: 9090}, {name: grpc, containerPort: 9091}, {name: seven, containerPort: 7}]
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: db, port: 3306}, {name: seven, port: 7}, {name: grpc, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}, {name: seven, port: 7}]}
---
apiVersion: v1
kind: Service
metadata: {name: v9, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: v9}
spec: {clusterIP: 10.0.0.4, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: v9}
spec: {clusterIP: 10.0.0.5, ports: [{name: http, port: 80}]}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: other, namespace: shop, labels: {app: other}}
spec: {podSelector: {matchLabels: {app: web}}, port: admin, proxyProtocol: HTTP/1}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: grpc, namespace: shop, labels: {app: v9}}
spec: {podSelector: {matchLabels: {app: web}}, port: grpc, proxyProtocol: gRPC}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: of-object, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: object}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: client}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: by-mesh, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: other}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: object}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: by-network, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: other}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: NetworkAuthentication, name: object}]
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: of-object, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: object}]
  rules: [{matches: [{path: {value: /x}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: v9, namespace: shop}
spec: {identityRefs: [{kind: ServiceAccount, name: nine}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: company, namespace: shop}
spec: {networks: [{cidr: 10.9.0.0/16}]}
`

const byAccount = `"requiredAuthenticationRefs": [{"kind": "ServiceAccount", "name": "client", "namespace": "shop"}]`

// bodies are valid specifications, one per kind; the tests change one field of them.
var bodies = map[objects.Kind]string{
	serverKind: `{"podSelector": {"matchLabels": {"app": "web"}}, "port": "http", "proxyProtocol": "HTTP/1"}`,
	serverAuthorizationKind: `{"server": {"name": "other"}, "client": {"meshTLS": {"identities": ["client.shop.serviceaccount.identity.linkerd.cluster.local"]},
		"networks": [{"cidr": "10.0.0.0/8"}]}}`,
	authorizationPolicyKind:   `{"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "other"}, ` + byAccount + `}`,
	meshTLSKind:               `{"identityRefs": [{"kind": "ServiceAccount", "name": "client", "namespace": "shop"}]}`,
	networkAuthenticationKind: `{"networks": [{"cidr": "10.0.0.0/8"}]}`,
	rateLimitKind: `{"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "other"}, "total": {"requestsPerSecond": 100},
		"overrides": [{"requestsPerSecond": 5, "clientRefs": [{"kind": "ServiceAccount", "name": "client"}]}]}`,
	httpRouteKind: `{"parentRefs": [{"group": "core", "kind": "Service", "name": "web", "port": 80}],
		"rules": [{"matches": [{"path": {"value": "/a"}}], "backendRefs": [{"name": "v1", "port": 80}, {"name": "web", "port": 80}]}]}`,
	gatewayapi.HTTPRouteKind: `{"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
		"rules": [{"matches": [{"path": {"value": "/a"}}], "backendRefs": [{"name": "v1", "port": 80}, {"name": "web", "port": 80}]}]}`,
	gatewayapi.GRPCRouteKind: `{"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 81}],
		"rules": [{"matches": [{"method": {"service": "a.B"}}], "backendRefs": [{"name": "v1", "port": 80}, {"name": "web", "port": 80}]}]}`,
	serviceProfileKind: `{"routes": [{"name": "a", "condition": {"pathRegex": "/a"}, "isRetryable": true},
		{"name": "b", "condition": {"pathRegex": "/b"}}], "dstOverrides": [{"authority": "v1.shop.svc.cluster.local:80", "weight": "1"}, {"authority": "web.shop.svc.cluster.local:80", "weight": "1"}],
		"retryBudget": {"retryRatio": 0.5, "minRetriesPerSecond": 3, "ttl": "20s"}}`,
}

// unused says why a field means nothing.
func unused(typ objects.Type, field string) string {
	switch {
	case typ.Kind == serviceProfileKind && field == "spec.routes[0].name":
		return "a label of metrics, which nobody keeps by route"
	case field == "spec.rules[0].name":
		return "a name; nothing refers to it"
	case field == "spec.useDefaultGateways":
		return "of Gateways"
	}
	return ""
}

// scope: what is counted, and how much of it is to be translated.
var scope = translatortest.Scope{
	Excluded: map[string]string{
		"EgressNetwork":    "refused as a whole",
		"ExternalWorkload": "refused as a whole",
		"Link":             "of other clusters: refused as a whole",

		"Server spec.externalWorkloadSelector": "selects ExternalWorkloads",
	},
	Floors: map[string]float64{"": 0.9},
}

// TestEveryField: every field of every version changes the plan or is named by a
// diagnostic.
func TestEveryField(t *testing.T) {
	types := slices.DeleteFunc(theTranslator(t).Types(), func(typ objects.Type) bool {
		// Namespaces are read for their annotations, and Linkerd does not ask for grants.
		return typ.Kind == objects.NamespaceKind || typ.Kind == gatewayapi.ReferenceGrantKind
	})
	fields := translatortest.Ledger{
		Make: newTranslator, Types: types, Company: company, Bodies: bodiesOf, Beside: beside, Unused: unused,
		Name: func(k objects.Kind) string {
			if k == serviceProfileKind {
				return "web.shop.svc.cluster.local"
			}
			return "object"
		},
		Values: func(typ objects.Type, field string) []any {
			if typ.Kind == serverKind && field == "spec.port" {
				return []any{"seven", 9090}
			}
			return translatortest.Values(samples, field)
		},
		// References to what is not there, or cannot be meant: as in Linkerd.
		Faults: []string{"invalid-object", "invalid-value", "unknown-server", "unknown-backend", "unsupported-parent", "unsupported-kind"},
	}.Run(t)
	translatortest.Section(t, "README.md", "fields", fields.Table())
	fields.Reference(t, "../../docs/reference/linkerd.md", "Linkerd", "go test ./translators/linkerd -run TestEveryField -update", scope)
}

// theTranslator is one of the defaults.
func theTranslator(t *testing.T) *Translator {
	t.Helper()
	tr, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// bodiesOf are the valid objects of a type; what its version does not have is left out.
func bodiesOf(typ objects.Type) []string {
	body, ok := bodies[typ.Kind]
	switch {
	case !ok:
		return nil // refused as a whole
	case typ.Kind == httpRouteKind && slices.Contains([]string{"v1alpha1", "v1beta1"}, typ.Version):
		body = regexp.MustCompile(`, "backendRefs": \[[^]]*\]`).ReplaceAllString(body, "")
	}
	return []string{`{"spec": ` + body + `}`}
}
