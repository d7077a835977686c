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

// samples by the end of a field's name, the first that fits.
var samples = []struct {
	end   string
	value any
}{
	{"parentRefs[0].group", "example.com"}, {"parentRefs[0].kind", "Gateway"}, {"parentRefs[0].namespace", "far"}, {"parentRefs[0].name", "v1"},
	{"sectionName", "http-7"}, {"useDefaultGateways", "All"}, {"hostnames[0]", "a.example"},
	{"matches[0].path.type", "Exact"}, {"headers[0].type", "RegularExpression"}, {"queryParams[0].type", "RegularExpression"},
	{"matches[0].method.type", "RegularExpression"}, {"matches[0].method", "PUT"}, {"method.service", "x"}, {"method.method", "x"},
	{"path.value", "/x"}, {"ReplaceFullPath", "/x"}, {"replaceFullPath", "/x"}, {"replacePrefixMatch", "/x"},
	{"filters[0].type", "Unheard"}, {"path.type", "Unheard"}, {"headers[0].value", "x+"}, {"queryParams[0].value", "x+"},
	{"sessionPersistence.type", "Header"}, {"lifetimeType", "Session"}, {"absoluteTimeout", "2h"},
	{"timeouts.request", "20s"}, {"timeouts.backendRequest", "1s"}, {"backoff", "2s"}, {"attempts", 7}, {"codes[0]", 500},
	{"statusCode", 308}, {"scheme", "https"}, {"hostname", "x.example"}, {"port", 7}, {"weight", 7}, {"percent", 7},
	{"numerator", 7}, {"denominator", 7}, {"allowOrigins[0]", "https://x.example"}, {"allowCredentials", true}, {"allowMethods[0]", "PUT"},
	{"maxAge", 7}, {"maxSize", 7}, {"protocol", "Unheard"}, {"backendRef.namespace", "far"}, {"backendRefs[0].namespace", "far"},
	{"backendRef.name", "v1"}, {"backendRefs[0].name", "v2"}, {"from[0].namespace", "near"}, {"to[0].name", "v2"},
}

func sample(_ objects.Type, field string) any {
	for _, s := range samples {
		if strings.HasSuffix(field, s.end) {
			return s.value
		}
	}
	return "x"
}

// Every field of every version, set alone to another value, changes the routes or is
// named by a diagnostic.
func TestEveryField(t *testing.T) {
	table := translatortest.Ledger{
		Make: strict, Types: newTranslator().Types(), Company: company, Bodies: bodies, Sample: sample,
		Unused: func(_ objects.Type, field string) bool {
			return field == "spec.rules[0].name" // nothing refers to it
		},
		Refusals: []string{"unsupported-filter", "header-session"},
	}.Run(t)
	translatortest.Section(t, "README.md", "fields", table)
}
