// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"slices"
	"strings"

	"fairlead.io/fairlead/translators/translatortest"
)

// samples are values that differ from those of the bodies.
var samples = []translatortest.Sample{
	translatortest.Of("matchLabels", map[string]any{"tier": "back"}),
	translatortest.Of("matchExpressions[0].key", "tier"),
	translatortest.Of("matchExpressions[0].operator", "DoesNotExist"),
	translatortest.Of("matchExpressions[0].values[0]", "back"),
	translatortest.Of("proxyProtocol", "opaque", "unknown", "HTTP/2", "gRPC", "TLS"),
	translatortest.Of("accessPolicy", "all-authenticated", "all-unauthenticated", "audit", "cluster-authenticated", "cluster-unauthenticated", translatortest.Same{Value: "deny"}),
	translatortest.Of("ServerPort", "seven"),
	translatortest.Of("cidr", "192.168.0.0/16", "0.0.0.0/0"),
	translatortest.Of("except[0]", "10.7.0.0/16"),
	translatortest.Of("unauthenticated", true, translatortest.Same{Value: false}),
	translatortest.Of("unauthenticatedTLS", true, translatortest.Same{Value: false}),
	translatortest.Of("identities[0]", "*.v9.serviceaccount.identity.linkerd.cluster.local", "client.v9.serviceaccount.identity.linkerd.cluster.local", "*"),
	translatortest.Of("targetRef.kind", "HTTPRoute", "Namespace"),
	translatortest.Of("targetRef.group", "v9"),
	translatortest.Of("targetRef.name", "grpc"),
	translatortest.Of("requiredAuthenticationRefs[0].kind", "Namespace"),
	translatortest.Of("requestsPerSecond", 7, 0),
	translatortest.Of("parentRefs[0].kind", "Gateway"),
	translatortest.Of("hostnames[0]", "v9.example"),
	translatortest.Of("path.type", "Exact", "RegularExpression"),
	translatortest.Of("path.value", "/v9", "/"),
	translatortest.Of("method.type", "RegularExpression"),
	translatortest.Of("matches[0].method", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
	translatortest.Of("headers[0].type", "RegularExpression"),
	translatortest.Of("queryParams[0].type", "RegularExpression"),
	translatortest.Of("statusCode", 301, 303, 307, 308),
	translatortest.Of("scheme", "https", "http"),
	translatortest.Of("replaceFullPath", "/v9"),
	translatortest.Of("replacePrefixMatch", "/v9", "/"),
	translatortest.Of("allowOrigins[0]", "https://v9.example"),
	translatortest.Of("allowMethods[0]", "PUT"),
	translatortest.Of("allowCredentials", true),
	translatortest.Of("maxAge", 7),
	translatortest.Of("percent", 7, 0, 100),
	translatortest.Of("numerator", 7, 0),
	translatortest.Of("denominator", 77),
	translatortest.Of("forwardBody.maxSize", 7),
	translatortest.Of("codes[0]", 503),
	translatortest.Of("attempts", 7),
	translatortest.Of("port", 7),
	translatortest.Of("weight", 7, 0),
	translatortest.Of("timeouts.request", "7s", translatortest.Same{Value: "0s"}),
	translatortest.Of("timeouts.backendRequest", "3s"),
	translatortest.Of("backoff", "7s"),
	translatortest.Of("Timeout", "7s"),
	translatortest.Of("timeout", "7s"),
	translatortest.Of("lifetimeType", "Permanent"),
	translatortest.Of("isFailure", true),
	translatortest.Of("isRetryable", false),
	translatortest.Of("retryRatio", 0.25, 0.0),
	translatortest.Of("minRetriesPerSecond", 7, 0),
	translatortest.Of("ttl", "7s"),
	translatortest.Of("authority", "v9.shop.svc.cluster.local:80"),
	translatortest.Of("opaquePorts[0]", "80"),
	translatortest.Of("pathRegex", "/v9"),
	translatortest.Of("status.min", 300),
	translatortest.Of("status.max", 400),
	translatortest.Of(".not", map[string]any{"method": "PUT"}),
	translatortest.Of("", "v9"),
}

// filterTypes are the types of filters by the field that each has.
var filterTypes = map[string]string{"requestHeaderModifier": "RequestHeaderModifier", "responseHeaderModifier": "ResponseHeaderModifier",
	"requestRedirect": "RequestRedirect", "requestMirror": "RequestMirror", "urlRewrite": "URLRewrite", "extensionRef": "ExtensionRef", "cors": "CORS", "externalAuth": "ExternalAuth"}

// beside sets what a field needs to have a meaning.
func beside(o map[string]any, path []string) {
	name := strings.ReplaceAll(strings.Join(path, "."), ".[", "[")
	put := func(v any, path ...string) { translatortest.Set(o, path, v) }
	parent := path[:len(path)-1]
	sibling := func(field string, v any) { translatortest.Set(o, append(slices.Clone(parent), field), v) }
	for i, p := range path {
		if p != "filters" || i+2 >= len(path) {
			continue
		}
		filter := path[:i+2]
		if typ, ok := filterTypes[path[i+2]]; ok {
			put(typ, append(slices.Clone(filter), "type")...)
		}
		at := func(p ...string) []string { return append(slices.Clone(filter), p...) }
		switch path[i+2] {
		case "type":
			put("URLRewrite", at("type")...)
			if strings.Contains(o["apiVersion"].(string), "linkerd") && !strings.Contains(name, "backendRefs") {
				put("ResponseHeaderModifier", at("type")...)
				put("v9", at("responseHeaderModifier", "remove", "[0]")...)
			} else {
				put("v9.example", at("urlRewrite", "hostname")...)
			}
		case "requestHeaderModifier", "responseHeaderModifier":
			if strings.HasSuffix(name, ".name") {
				sibling("value", "v")
			}
			if strings.HasSuffix(name, ".value") {
				sibling("name", "x-v9")
			}
		case "requestRedirect", "urlRewrite":
			switch {
			case strings.HasSuffix(name, "replaceFullPath"), strings.HasSuffix(name, "path.type"):
				put("ReplaceFullPath", at(path[i+2], "path", "type")...)
				put("/v9", at(path[i+2], "path", "replaceFullPath")...)
			case strings.HasSuffix(name, "replacePrefixMatch"):
				put("ReplacePrefixMatch", at(path[i+2], "path", "type")...)
			}
		case "requestMirror":
			put("v1", at("requestMirror", "backendRef", "name")...)
		}
	}
	switch {
	case strings.HasSuffix(name, "matchExpressions[0].key"):
		sibling("operator", "DoesNotExist")
	case strings.HasSuffix(name, "matchExpressions[0].operator"):
		sibling("key", "tier")
	case strings.HasSuffix(name, "matchExpressions[0].values[0]"):
		put("tier", append(slices.Clone(path[:len(path)-2]), "key")...)
		put("In", append(slices.Clone(path[:len(path)-2]), "operator")...)
	case strings.Contains(name, "server.selector"):
	case strings.HasSuffix(name, "serviceAccounts[0].namespace"), strings.HasSuffix(name, "Refs[0].namespace"):
	case strings.HasSuffix(name, "requiredAuthenticationRefs[0].group"):
	case strings.HasSuffix(name, "headers[0].name"), strings.HasSuffix(name, "queryParams[0].name"):
		sibling("value", "v")
	case strings.HasSuffix(name, "headers[0].value"), strings.HasSuffix(name, "queryParams[0].value"):
		sibling("name", "x-v9")
	case strings.HasSuffix(name, "headers[0].type"), strings.HasSuffix(name, "queryParams[0].type"):
		sibling("name", "x-v9")
		sibling("value", "a|b")
	case strings.HasSuffix(name, "method.type"):
		sibling("service", "a|b")
	case strings.HasSuffix(name, "status.min"):
		sibling("max", 400)
	case strings.HasSuffix(name, "status.max"):
		sibling("min", 300)
	case strings.HasSuffix(name, "isFailure"):
		put(400, append(slices.Clone(parent), "condition", "status", "min")...)
	}
	if strings.Contains(name, "responseClasses[0].condition") {
		i := slices.Index(path, "condition")
		for j, p := range path {
			if p == "responseClasses" {
				i = j
			}
		}
		put(true, append(slices.Clone(path[:i+2]), "isFailure")...)
	}
	if strings.Contains(name, "client.meshTLS.serviceAccounts") && strings.HasSuffix(name, "namespace") {
		sibling("name", "client")
	}
	if strings.Contains(name, "dstOverrides") && strings.HasSuffix(name, "authority") {
		sibling("weight", "1")
	}
	if strings.Contains(name, "server.selector") {
		delete(o["spec"].(map[string]any)["server"].(map[string]any), "name")
	}
	if name == "spec.client.unauthenticated" || name == "spec.client.meshTLS.unauthenticatedTLS" {
		return
	}
	if strings.HasPrefix(name, "spec.identities") {
		delete(o["spec"].(map[string]any), "identityRefs")
	}
	if strings.HasPrefix(name, "spec.externalWorkloadSelector") {
		delete(o["spec"].(map[string]any), "podSelector")
	}
	if strings.Contains(name, "podSelector.matchExpressions") && strings.HasSuffix(o["apiVersion"].(string), "v1alpha1") {
		delete(o["spec"].(map[string]any)["podSelector"].(map[string]any), "matchLabels")
	}
}
