// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/translators/objects"
)

// samples are values for fields that differ from those of the bodies, by the end of the
// field's name; the first that fits counts.
var samples = []struct {
	end   string
	value any
}{
	{"matchLabels", map[string]any{"tier": "back"}},
	{"matchExpressions[0].key", "tier"},
	{"matchExpressions[0].operator", "DoesNotExist"},
	{"matchExpressions[0].values[0]", "back"},
	{"proxyProtocol", "opaque"},
	{"accessPolicy", "cluster-unauthenticated"},
	{"ServerPort", "seven"},
	{"cidr", "192.168.0.0/16"},
	{"except[0]", "10.7.0.0/16"},
	{"unauthenticated", true},
	{"unauthenticatedTLS", true},
	{"identities[0]", "*.v9.serviceaccount.identity.linkerd.cluster.local"},
	{"targetRef.kind", "HTTPRoute"},
	{"targetRef.group", "v9"},
	{"targetRef.name", "grpc"},
	{"requiredAuthenticationRefs[0].kind", "Namespace"},
	{"requestsPerSecond", 7},
	{"parentRefs[0].kind", "Gateway"},
	{"hostnames[0]", "v9.example"},
	{"path.type", "Exact"},
	{"path.value", "/v9"},
	{"method.type", "RegularExpression"},
	{"matches[0].method", "PUT"},
	{"headers[0].type", "RegularExpression"},
	{"queryParams[0].type", "RegularExpression"},
	{"statusCode", 301},
	{"scheme", "https"},
	{"replaceFullPath", "/v9"},
	{"replacePrefixMatch", "/v9"},
	{"allowOrigins[0]", "https://v9.example"},
	{"allowMethods[0]", "PUT"},
	{"allowCredentials", true},
	{"maxAge", 7},
	{"percent", 7},
	{"numerator", 7},
	{"denominator", 77},
	{"forwardBody.maxSize", 7},
	{"codes[0]", 503},
	{"attempts", 7},
	{"port", 7},
	{"weight", 7},
	{"timeouts.request", "7s"},
	{"timeouts.backendRequest", "3s"},
	{"backoff", "7s"},
	{"Timeout", "7s"},
	{"timeout", "7s"},
	{"lifetimeType", "Permanent"},
	{"isFailure", true},
	{"isRetryable", false},
	{"retryRatio", 0.25},
	{"minRetriesPerSecond", 7},
	{"ttl", "7s"},
	{"authority", "v9.shop.svc.cluster.local:80"},
	{"opaquePorts[0]", "80"},
	{"pathRegex", "/v9"},
	{"status.min", 300},
	{"status.max", 400},
	{".not", map[string]any{"method": "PUT"}},
}

func sample(k objects.Kind, name string) any {
	if k == serverKind && name == "spec.port" {
		return "seven"
	}
	for _, s := range samples {
		if !strings.HasSuffix(name, s.end) {
			continue
		}
		if strings.HasSuffix(name, "condition.not") && strings.Contains(name, "responseClasses") {
			continue
		}
		return s.value
	}
	return "v9"
}

// filterTypes are the types of filters by the field that each has.
var filterTypes = map[string]string{"requestHeaderModifier": "RequestHeaderModifier", "responseHeaderModifier": "ResponseHeaderModifier",
	"requestRedirect": "RequestRedirect", "requestMirror": "RequestMirror", "urlRewrite": "URLRewrite", "extensionRef": "ExtensionRef", "cors": "CORS", "externalAuth": "ExternalAuth"}

// beside sets what a field needs to have a meaning.
func beside(o map[string]any, path []string, name string) {
	put := func(v any, path ...string) { set(o, path, v) }
	parent := path[:len(path)-1]
	sibling := func(field string, v any) { set(o, append(slices.Clone(parent), field), v) }
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

// set writes a value at a path, making what is missing on the way.
func set(o map[string]any, path []string, v any) {
	var at any = o
	for i, p := range path {
		last := i == len(path)-1
		var next any
		if !last {
			next = map[string]any{}
			if strings.HasPrefix(path[i+1], "[") {
				next = []any{map[string]any{}}
			}
		} else {
			next = v
		}
		switch a := at.(type) {
		case map[string]any:
			if have, ok := a[p]; ok && !last {
				next = have
			}
			a[p] = next
		case []any:
			if !last {
				next = a[0]
			}
			a[0] = next
		default:
			panic(fmt.Sprintf("no way to %v", path))
		}
		at = next
	}
}
