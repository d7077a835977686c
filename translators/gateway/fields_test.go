// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// company is what a route needs around it for its fields to matter.
const company = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: http-7, port: 7}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}, {name: http-7, port: 7}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: far}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.0.0.4, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: granted, namespace: far}
spec:
  parentRefs: [{group: "", kind: Service, name: v1}]
  rules: [{backendRefs: [{name: v1, namespace: shop, port: 80}]}]
`

const (
	onWeb  = `"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]`
	toV1   = `"backendRefs": [{"name": "v1", "port": 80}]`
	toBoth = `"backendRefs": [{"name": "v1", "port": 80, "weight": 1}, {"name": "v2", "port": 80}]`
)

// rule is a route of one rule.
func rule(parts ...string) string {
	return fmt.Sprintf(`{"spec": {%s, "rules": [{%s}]}}`, onWeb, strings.Join(parts, ", "))
}

// filters of both kinds of route, and those of HTTPRoutes alone.
var (
	commonFilters = []string{
		`{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "1"}], "remove": ["c"]}}`,
		`{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "1"}], "remove": ["c"]}}`,
		`{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "v2", "port": 80}, "percent": 50}}`,
		`{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "v2", "port": 80}, "fraction": {"numerator": 1, "denominator": 10}}}`,
		`{"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "Magic", "name": "x"}}`,
	}
	httpFilters = []string{
		`{"type": "URLRewrite", "urlRewrite": {"hostname": "a.example", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/a"}}}`,
		`{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/a"}}}`,
		`{"type": "CORS", "cors": {"allowOrigins": ["https://a.example"], "allowMethods": ["GET"], "allowHeaders": ["a"], "exposeHeaders": ["b"]}}`,
		`{"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "v2", "port": 80}, "http": {"path": "/a", "allowedHeaders": ["a"], "allowedResponseHeaders": ["a"]}, "forwardBody": {"maxSize": 1}}}`,
		`{"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "backendRef": {"name": "v2", "port": 80}, "grpc": {"allowedHeaders": ["a"]}}}`,
	}
	redirects = []string{
		`{"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example", "port": 81, "statusCode": 301, "path": {"type": "ReplaceFullPath", "replaceFullPath": "/a"}}}`,
		`{"type": "RequestRedirect", "requestRedirect": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/a"}}}`,
	}
)

func bodies(typ objects.Type) []string {
	var match string
	filters := slices.Clone(commonFilters)
	switch typ.Kind {
	case gatewayapi.HTTPRouteKind:
		match = `"matches": [{"path": {"type": "PathPrefix", "value": "/a"}, "headers": [{"name": "a", "value": "1+"}], "queryParams": [{"name": "a", "value": "1+"}], "method": "GET"}]`
		filters = append(filters, httpFilters...)
	case gatewayapi.GRPCRouteKind:
		match = `"matches": [{"method": {"service": "a.b", "method": "c"}, "headers": [{"name": "a", "value": "1+"}]}]`
	case gatewayapi.ReferenceGrantKind:
		return []string{`{"spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "far"}], "to": [{"group": "", "kind": "Service"}]}}`}
	default:
		return nil // refused as a whole, see other_kinds
	}
	out := []string{rule(match, toBoth), rule(`"name": "r"`, toV1),
		rule(`"sessionPersistence": {"sessionName": "a", "absoluteTimeout": "1h", "type": "Cookie", "cookieConfig": {"lifetimeType": "Permanent"}}`, toV1)}
	if typ.Kind == gatewayapi.HTTPRouteKind {
		out = append(out, rule(`"timeouts": {"request": "10s", "backendRequest": "5s"}, "retry": {"attempts": 1, "codes": [503], "backoff": "1s"}`, toV1))
		for _, f := range redirects {
			out = append(out, rule(`"filters": [`+f+`]`), rule(`"backendRefs": [{"name": "v1", "port": 80, "filters": [`+f+`]}]`))
		}
	}
	for _, f := range filters {
		out = append(out, rule(`"filters": [`+f+`]`, toV1), rule(`"backendRefs": [{"name": "v1", "port": 80, "filters": [`+f+`]}]`))
	}
	return out
}

// samples are values that differ from those of the bodies.
var samples = []translatortest.Sample{
	translatortest.Of("parentRefs[0].group", "example.com"), translatortest.Of("parentRefs[0].kind", "Gateway"),
	translatortest.Of("parentRefs[0].namespace", "far", translatortest.Same{Value: "shop"}), translatortest.Of("parentRefs[0].name", "v1"),
	translatortest.Of("parentRefs[0].port", 7, 80), translatortest.Of("sectionName", "http-7", "http"),
	translatortest.Of("useDefaultGateways", "All"), translatortest.Of("hostnames[0]", "a.example", "*.example"),
	translatortest.Of("matches[0].path.type", "Exact", "RegularExpression"), translatortest.Of("headers[0].type", "RegularExpression", translatortest.Same{Value: "Exact"}),
	translatortest.Of("queryParams[0].type", "RegularExpression", translatortest.Same{Value: "Exact"}),
	translatortest.Of("matches[0].method.type", "RegularExpression", translatortest.Same{Value: "Exact"}),
	translatortest.Of("matches[0].method", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
	translatortest.Of("method.service", "x"), translatortest.Of("method.method", "x"),
	translatortest.Of("path.value", "/x", "/"), translatortest.Of("replaceFullPath", "/x"), translatortest.Of("replacePrefixMatch", "/x", "/"),
	translatortest.Of("filters[0].type", "Unheard"), translatortest.Of("path.type", "Unheard"),
	translatortest.Of("headers[0].value", "x+"), translatortest.Of("queryParams[0].value", "x+"),
	translatortest.Of("sessionPersistence.type", "Header", translatortest.Same{Value: "Cookie"}), translatortest.Of("lifetimeType", "Session"),
	translatortest.Of("absoluteTimeout", "2h"),
	translatortest.Of("timeouts.request", "20s", "0s"), translatortest.Of("timeouts.backendRequest", "1s", "0s"),
	translatortest.Of("backoff", "2s"), translatortest.Of("attempts", 7, 0), translatortest.Of("codes[0]", 500, 429),
	translatortest.Of("statusCode", 302, 303, 307, 308), translatortest.Of("scheme", "https", "http"),
	translatortest.Of("hostname", "x.example"), translatortest.Of("port", 7), translatortest.Of("weight", 7, 0),
	translatortest.Of("percent", 7, 0, 100), translatortest.Of("numerator", 7, 0), translatortest.Of("denominator", 7),
	translatortest.Of("allowOrigins[0]", "https://x.example", "*"), translatortest.Of("allowCredentials", true, translatortest.Same{Value: false}),
	translatortest.Of("allowMethods[0]", "PUT", "*"), translatortest.Of("allowHeaders[0]", "x", "*"), translatortest.Of("exposeHeaders[0]", "x", "*"),
	translatortest.Of("maxAge", 7, translatortest.Same{Value: 5}), translatortest.Of("maxSize", 7), translatortest.Of("protocol", "Unheard"),
	translatortest.Of("backendRef.namespace", "far", translatortest.Same{Value: "shop"}), translatortest.Of("backendRefs[0].namespace", "far", translatortest.Same{Value: "shop"}),
	translatortest.Of("backendRef.kind", "x", translatortest.Same{Value: "Service"}), translatortest.Of("backendRefs[0].kind", "x", translatortest.Same{Value: "Service"}),
	translatortest.Of("backendRef.group", "x", translatortest.Same{Value: ""}), translatortest.Of("backendRefs[0].group", "x", translatortest.Same{Value: ""}),
	translatortest.Of("backendRef.name", "v1"), translatortest.Of("backendRefs[0].name", "v2", "v9"),
	translatortest.Of("from[0].namespace", "near"), translatortest.Of("to[0].name", "v2", translatortest.Same{Value: "v1"}), translatortest.Of("from[0].kind", "GRPCRoute"),
}

// scope: what is counted.
var scope = translatortest.Scope{
	Excluded: func() map[string]string {
		out := map[string]string{}
		for k := range refused {
			out[k.Kind] = "not of services: refused as a whole"
		}
		for _, k := range []string{"HTTPRoute", "GRPCRoute"} {
			out[k+" spec.useDefaultGateways"] = "of Gateways"
		}
		return out
	}(),
	Floors: map[string]float64{"": 0.8},
}

// Every field of every version changes the plan or is named by a diagnostic.
func TestEveryField(t *testing.T) {
	fields := translatortest.Ledger{
		Make: strict, Types: newTranslator().Types(), Company: company, Bodies: bodies,
		Values: func(_ objects.Type, field string) []any { return translatortest.Values(samples, field) },
		Unused: func(_ objects.Type, field string) string {
			if field == "spec.rules[0].name" {
				return "a name; nothing refers to it"
			}
			return ""
		},
		Faults: []string{"invalid-object", "invalid-value", "no-matching-parent", "backend-not-found", "invalid-kind", "ref-not-permitted", "unsupported-parent"},
	}.Run(t)
	translatortest.Section(t, "README.md", "fields", fields.Table())
	fields.Reference(t, "../../docs/reference/gateway.md", "Gateway API", "go test ./translators/gateway -run TestEveryField -update", scope)
}
