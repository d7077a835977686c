// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"

	"fairlead.io/fairlead/translators/translatortest"
)

// world is what the objects are about.
const world = `
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1, a: x}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c}]}
status: {podIP: 10.244.1.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web, version: v2, a: b}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c}]}
status: {podIP: 10.244.1.2, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: shop, labels: {app: api, version: v1}}
spec: {nodeName: n2, serviceAccountName: api, containers: [{name: c}]}
status: {podIP: 10.244.2.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}, {name: tcp, port: 9000}, {name: tcp-b, port: 9001}, {name: tls, port: 9443}, {name: tls-b, port: 9444}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.2, selector: {app: api}, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}, {name: tcp, port: 9000}, {name: tcp-b, port: 9001}, {name: tls, port: 9443}, {name: tls-b, port: 9444}]}
`

const rules = `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: subsets, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`

// leafServices are VirtualServices to delegate to.
const leafServices = `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: shop}
spec: {http: [{match: [{uri: {prefix: /leaf}}], route: [{destination: {host: web, subset: v1}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf-b, namespace: shop}
spec: {http: [{match: [{uri: {prefix: /leaf}}], route: [{destination: {host: web, subset: v2}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: other}
spec: {http: [{route: [{destination: {host: web.shop.svc.cluster.local}}]}]}
`

const user = `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: user, namespace: shop}
spec:
  hosts: [web, api]
  http: [{route: [{destination: {host: web, subset: v1, port: {number: 80}}}]}]
  tcp: [{match: [{port: 9001}], route: [{destination: {host: web, subset: v1}}]}]
`

// ledgerKind is a kind and how its fields are tried.
type ledgerKind struct {
	kind, api string
	spec      proto.Message
	world     string
	// bases are specifications to which a field is added: that of the longest prefix
	// of its path.
	bases map[string]string
	// values are JSON values for fields whose type does not tell a good one.
	values map[string]string
	// silent fields change nothing and need no diagnostic, for the reason given.
	silent map[string]string
}

// ledgerScope is what is counted, and how much of it is to be translated.
var ledgerScope = translatortest.Scope{
	Excluded: excluded(map[string][]string{
		"of Gateways":                              {"VirtualService gateways", "VirtualService http.match.gateways", "VirtualService tcp.match.gateways", "VirtualService tls.match.gateways"},
		"TLS that begins at the client":            slices.Concat(eachLevel(".tls"), []string{"ServiceEntry subjectAltNames"}),
		"of gateways between networks":             {"ServiceEntry endpoints.network", "WorkloadEntry network"},
		"of Sidecars, the hosts of egress count":   {"Sidecar ingress", "Sidecar inboundConnectionPool", "Sidecar egress.bind", "Sidecar egress.captureMode", "Sidecar egress.port", "Sidecar outboundTrafficPolicy.egressProxy"},
		"of gateways and waypoints":                {"AuthorizationPolicy targetRef", "AuthorizationPolicy targetRefs"},
		"of the action CUSTOM":                     {"AuthorizationPolicy provider"},
		"of tokens (JWT)":                          {"AuthorizationPolicy rules.from.source.requestPrincipals", "AuthorizationPolicy rules.from.source.notRequestPrincipals"},
		"settings of a mesh; they have no floor":   {"MeshConfig"},
		"neither traffic nor authorization inside": {"Gateway", "WorkloadGroup", "EnvoyFilter", "ProxyConfig", "RequestAuthentication", "Telemetry", "WasmPlugin", "TrafficExtension"},
	}),
	Floors: map[string]float64{"": 0.95, "VirtualService": 0.97},
}

// excluded maps fields to the reason that they share.
func excluded(by map[string][]string) map[string]string {
	out := map[string]string{}
	for why, fields := range by {
		for _, f := range fields {
			out[f] = why
		}
	}
	return out
}

// eachLevel are the fields of that name in the policies of a DestinationRule.
func eachLevel(name string) []string {
	var out []string
	for level := range policyLevels {
		out = append(out, "DestinationRule "+level+name)
	}
	return out
}

var ledgerKinds = []ledgerKind{
	{
		kind: "VirtualService", api: "networking.istio.io/v1", spec: &networking.VirtualService{}, world: world + rules + leafServices,
		bases: map[string]string{
			"": `{hosts: [web], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web, subset: v1}, weight: 1}, {destination: {host: api}, weight: 1}]}]}`,

			"http.redirect":                `{hosts: [web], http: [{redirect: {authority: a.example}}]}`,
			"http.redirect.authority":      `{hosts: [web], http: [{redirect: {uri: /a}}]}`,
			"http.delegate":                `{hosts: [web], http: [{delegate: {name: leaf}}, {route: [{destination: {host: web}}]}]}`,
			"http.fault.delay":             `{hosts: [web], http: [{fault: {delay: {fixedDelay: 1s, percentage: {value: 50}}}, route: [{destination: {host: web}}]}]}`,
			"http.fault.delay.percent":     `{hosts: [web], http: [{fault: {delay: {fixedDelay: 1s}}, route: [{destination: {host: web}}]}]}`,
			"http.fault.abort":             `{hosts: [web], http: [{fault: {abort: {httpStatus: 503, percentage: {value: 50}}}, route: [{destination: {host: web}}]}]}`,
			"http.corsPolicy":              `{hosts: [web], http: [{corsPolicy: {allowOrigins: [{exact: "https://a.example"}]}, route: [{destination: {host: web}}]}]}`,
			"http.corsPolicy.allowOrigin":  `{hosts: [web], http: [{corsPolicy: {maxAge: 1s}, route: [{destination: {host: web}}]}]}`,
			"http.directResponse.status":   `{hosts: [web], http: [{directResponse: {status: 200}}]}`,
			"http.directResponse.body":     `{hosts: [web], http: [{directResponse: {status: 200}}]}`,
			"http.rewrite.uriRegexRewrite": `{hosts: [web], http: [{rewrite: {uriRegexRewrite: {match: /a, rewrite: /b}}, route: [{destination: {host: web}}]}]}`,
			"http.retries":                 `{hosts: [web], http: [{retries: {attempts: 1}, route: [{destination: {host: web}}]}]}`,
			"http.mirror":                  `{hosts: [web], http: [{mirror: {host: web}, route: [{destination: {host: web}}]}]}`,
			"http.mirrorPercent":           `{hosts: [web], http: [{mirror: {host: web}, route: [{destination: {host: web}}]}]}`,
			"http.mirrorPercentage":        `{hosts: [web], http: [{mirror: {host: web}, route: [{destination: {host: web}}]}]}`,
			"http.mirrors":                 `{hosts: [web], http: [{mirrors: [{destination: {host: web}}], route: [{destination: {host: web}}]}]}`,
			"tcp":                          `{hosts: [web], tcp: [{route: [{destination: {host: web}, weight: 1}, {destination: {host: api}, weight: 1}]}]}`,
			"tls":                          `{hosts: [web.shop.svc.cluster.local, api.shop.svc.cluster.local], tls: [{match: [{sniHosts: [web.shop.svc.cluster.local]}], route: [{destination: {host: web}, weight: 1}, {destination: {host: api}, weight: 1}]}]}`,
		},
		values: map[string]string{
			"hosts": `["api"]`, "gateways": `["mesh", "gw"]`, "exportTo": `["."]`,
			"http.match.port": `80`, "http.match.gateways": `["mesh", "gw"]`, "http.match.uri.regex": `"/[a-z]+"`,
			"http.match.headers.regex": `"a|b"`, "http.match.withoutHeaders.regex": `"a|b"`, "http.match.queryParams.regex": `"a|b"`,
			"http.match.method.regex": `"a|b"`, "http.match.scheme.regex": `"a|b"`, "http.match.authority.regex": `"a|b"`,
			"http.match.uri.exact": `"/b"`, "http.match.uri.prefix": `"/b"`, "http.match.ignoreUriCase": `true`,
			"http.route.destination.host": `"api"`, "http.route.destination.subset": `"v2"`, "http.route.destination.port.number": `8080`,
			"http.route.weight": `3 | 0`, "http.mirror.host": `"api"`, "http.mirror.subset": `"v2"`, "http.mirror.port.number": `8080`,
			"http.mirrors.destination.host": `"api"`, "http.mirrors.destination.subset": `"v2"`, "http.mirrors.destination.port.number": `8080`,
			"http.redirect.scheme": `"https"`, "http.redirect.redirectCode": `302 | 303 | 307 | 308 | =301`, "http.redirect.port": `8443`, "http.redirect.derivePort": `"FROM_REQUEST_PORT"`,
			"http.delegate.name": `"leaf-b"`, "http.delegate.namespace": `"other"`, "http.fault.abort.httpStatus": `418`, "http.fault.abort.grpcStatus": `"ABORTED"`,
			"http.corsPolicy.allowMethods": `["GET"]`, "http.corsPolicy.allowOrigins.regex": `"https://(a|b)"`, "http.corsPolicy.unmatchedPreflights": `"IGNORE" | ="FORWARD" | ="UNSPECIFIED"`, "http.corsPolicy.maxAge": `"7s" | "0s"`,
			"http.directResponse.status": `404`, "http.rewrite.uriRegexRewrite.match": `"/c"`, "http.retries.retryOn": `"reset,503"`,
			"http.retries.retryIgnorePreviousHosts": `false | =true`, "http.retries.attempts": `5 | 0`, "http.corsPolicy.allowCredentials": `true | =false`, "http.mirrorPercentage.value": `50 | 0 | =100`, "http.fault.abort.percentage.value": `7 | 0 | 100`, "http.fault.delay.percentage.value": `7 | 0 | 100`, "http.fault.delay.fixedDelay": `"7s" | "0.001s"`,
			"tls.match.port": `9443`, "tls.match.gateways": `["gw"]`, "tls.match.destinationSubnets": `["192.0.2.0/24"]`, "tls.match.sniHosts": `["api.shop.svc.cluster.local"]`,
			"tls.route.destination.host": `"api"`, "tls.route.destination.subset": `"v2"`, "tls.route.destination.port.number": `9444`, "tls.route.weight": `3 | 0`,
			"tcp.match.port": `9000`, "tcp.match.gateways": `["gw"]`, "tcp.match.destinationSubnets": `["192.0.2.0/24"]`,
			"tcp.route.destination.host": `"api"`, "tcp.route.destination.subset": `"v2"`, "tcp.route.destination.port.number": `9001`, "tcp.route.weight": `3 | 0`,
		},
		silent: map[string]string{
			"http.name":       "a name; traffic is the same",
			"http.match.name": "a name; traffic is the same",
		},
	},
	{
		kind: "DestinationRule", api: "networking.istio.io/v1", spec: &networking.DestinationRule{}, world: world + user,
		bases: ruleBases(), values: ruleValues(),
	},
	{
		kind: "Sidecar", api: "networking.istio.io/v1", spec: &networking.Sidecar{}, world: world + user,
		bases: map[string]string{
			"":                                       `{egress: [{hosts: ["~/*"]}]}`,
			"workloadSelector":                       `{egress: [{hosts: ["~/*"]}]}`,
			"egress.port":                            `{egress: [{port: {number: 8080, protocol: HTTP}, hosts: ["~/*"]}]}`,
			"egress.port.protocol":                   `{egress: [{port: {number: 8080, protocol: HTTP}, hosts: ["*/*"]}]}`,
			"egress.port.number":                     `{egress: [{port: {number: 8080, protocol: HTTP}, hosts: ["*/*"]}]}`,
			"egress.bind":                            `{egress: [{port: {number: 8080, protocol: HTTP}, hosts: ["~/*"]}]}`,
			"egress.captureMode":                     `{egress: [{port: {number: 8080, protocol: HTTP}, hosts: ["~/*"]}]}`,
			"ingress":                                `{ingress: [{port: {number: 80, protocol: HTTP}}]}`,
			"outboundTrafficPolicy":                  `{egress: [{hosts: ["~/*"]}]}`,
			"outboundTrafficPolicy.egressProxy":      `{egress: [{hosts: ["~/*"]}], outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: web.shop.svc.cluster.local}}}`,
			"outboundTrafficPolicy.egressProxy.host": `{egress: [{hosts: ["~/*"]}], outboundTrafficPolicy: {mode: ALLOW_ANY}}`,
		},
		values: map[string]string{
			"egress.hosts": `["*/web.shop.svc.cluster.local"]`, "egress.port.number": `80`, "egress.port.protocol": `"TCP"`, "egress.captureMode": `"NONE"`,
			"egress.bind": `"127.0.0.1"`, "ingress.captureMode": `"NONE"`, "ingress.bind": `"10.0.0.1"`, "ingress.defaultEndpoint": `"127.0.0.1:8081"`,
			"outboundTrafficPolicy.mode": `"REGISTRY_ONLY" | ="ALLOW_ANY"`, "egressProxy.host": `"api.shop.svc.cluster.local"`, "egressProxy.port.number": `8080`,
			"ingress.port.number": `8080`,
		},
		silent: map[string]string{
			"egress.port.name":        "a name; traffic is the same",
			"egress.port.targetPort":  "Istio ignores it",
			"ingress.port.name":       "a name; traffic is the same",
			"ingress.port.targetPort": "Istio ignores it",
			"ingress.port.number":     "a port that is listed is reached as its Service says, and so is one that is not",
			"ingress.port.protocol":   "a port speaks what its Service says",
		},
	},
	serviceEntryLedger(),
	workloadEntryLedger(),
	peerAuthenticationLedger(),
	{
		kind: "AuthorizationPolicy", api: "security.istio.io/v1", spec: &security.AuthorizationPolicy{},
		world: strings.Replace(world, "{name: api, namespace: shop}", "{name: api, namespace: shop, labels: {istio.io/use-waypoint: wp}}", 1),
		bases: map[string]string{
			"":           `{rules: [{}]}`,
			"selector":   `{rules: [{from: [{source: {namespaces: [shop]}}]}]}`,
			"action":     `{rules: [{}]}`,
			"provider":   `{action: CUSTOM, rules: [{}]}`,
			"rules.to":   `{rules: [{to: [{operation: {ports: ["80"]}}]}]}`,
			"rules.when": `{rules: [{when: [{key: source.ip, values: ["10.0.0.1"]}]}]}`,

			"targetRef":       `{targetRef: {kind: Service, name: web}, rules: [{}]}`,
			"targetRef.kind":  `{targetRef: {group: gateway.networking.k8s.io, kind: GatewayClass, name: wp}, rules: [{}]}`,
			"targetRef.group": `{targetRef: {kind: Gateway, name: wp}, rules: [{}]}`,

			"targetRefs":       `{targetRefs: [{kind: Service, name: web}], rules: [{}]}`,
			"targetRefs.kind":  `{targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: wp}], rules: [{}]}`,
			"targetRefs.group": `{targetRefs: [{kind: Gateway, name: wp}], rules: [{}]}`,
		},
		silent: map[string]string{
			"targetRef.namespace":  "as in Istio, a policy that sets it is invalid",
			"targetRefs.namespace": "as in Istio, a policy that sets it is invalid",
		},
		values: map[string]string{
			"action": `"DENY" | "AUDIT" | ="ALLOW"`, "rules.from.source.serviceAccounts": `["shop/a"]`, "rules.from.source.notServiceAccounts": `["shop/a"]`,
			"rules.from.source.ipBlocks": `["10.1.0.0/16"]`, "rules.from.source.notIpBlocks": `["10.1.0.0/16"]`,
			"rules.from.source.remoteIpBlocks": `["10.1.0.0/16"]`, "rules.from.source.notRemoteIpBlocks": `["10.1.0.0/16"]`,
			"rules.to.operation.ports": `["8080"]`, "rules.to.operation.notPorts": `["8080"]`,
			"rules.when.key": `"destination.ip"`, "rules.when.values": `["10.2.0.0/16"]`, "rules.when.notValues": `["10.2.0.0/16"]`,
			"targetRef.kind": `"Gateway"`, "targetRef.group": `"gateway.networking.k8s.io"`, "targetRef.name": `"api"`,
			"targetRefs.kind": `"Gateway"`, "targetRefs.group": `"gateway.networking.k8s.io"`, "targetRefs.name": `"api"`,
		},
	},
}
