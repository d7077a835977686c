// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// TestLedger sets every field of the kinds that are translated, in company that
// makes it matter, and demands that the rows change or that a diagnostic names the
// field. With -update it writes the tables of README.md.
func TestLedger(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(readme)
	for _, k := range ledgerKinds {
		var rows []ledgerRow
		for _, l := range leaves(k.spec.ProtoReflect().Descriptor(), nil) {
			rows = append(rows, k.judge(t, l))
		}
		if share := k.translated(rows); share < k.floor {
			t.Errorf("%s: %.3f of the fields in scope are translated, want %.3f", k.kind, share, k.floor)
		}
		text = replaceTable(t, text, k.kind, table(rows))
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile("README.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(readme) {
		t.Error("the tables of README.md are out of date: run go test -run Ledger -update")
	}
}

// world is what the objects are about.
const world = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}, {name: tcp, port: 9000}, {name: tcp-b, port: 9001}, {name: tls, port: 9443}, {name: tls-b, port: 9444}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}, {name: tcp, port: 9000}, {name: tcp-b, port: 9001}, {name: tls, port: 9443}, {name: tls-b, port: 9444}]}
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
spec: {hosts: [web, api], http: [{route: [{destination: {host: web, subset: v1, port: {number: 80}}}]}]}
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
	// floor is the least share of the fields in scope that are translated, or have no effect
	// in Istio either; outOfScope are those about what is not served here.
	floor      float64
	outOfScope []string
}

// translated is the share of the fields in scope.
func (k *ledgerKind) translated(rows []ledgerRow) float64 {
	in, all := 0, 0
	for _, r := range rows {
		if slices.Contains(k.outOfScope, r.path) {
			continue
		}
		if all++; r.outcome == string(model.Translated) || r.outcome == "no effect" {
			in++
		}
	}
	return float64(in) / float64(all)
}

var ledgerKinds = []ledgerKind{
	{
		kind: "VirtualService", api: "networking.istio.io/v1", spec: &networking.VirtualService{}, world: world + rules + leafServices,
		floor: 0.97, outOfScope: []string{"gateways", "http.match.gateways", "tcp.match.gateways", "tls.match.gateways"},
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
			"http.route.weight": `3`, "http.mirror.host": `"api"`, "http.mirror.subset": `"v2"`, "http.mirror.port.number": `8080`,
			"http.mirrors.destination.host": `"api"`, "http.mirrors.destination.subset": `"v2"`, "http.mirrors.destination.port.number": `8080`,
			"http.redirect.scheme": `"https"`, "http.redirect.redirectCode": `308`, "http.redirect.port": `8443`, "http.redirect.derivePort": `"FROM_REQUEST_PORT"`,
			"http.delegate.name": `"leaf-b"`, "http.delegate.namespace": `"other"`, "http.fault.abort.httpStatus": `418`, "http.fault.abort.grpcStatus": `"ABORTED"`,
			"http.corsPolicy.allowMethods": `["GET"]`, "http.corsPolicy.allowOrigins.regex": `"https://(a|b)"`, "http.corsPolicy.unmatchedPreflights": `"IGNORE"`,
			"http.directResponse.status": `404`, "http.rewrite.uriRegexRewrite.match": `"/c"`, "http.retries.retryOn": `"reset,503"`,
			"http.retries.retryIgnorePreviousHosts": `false`, "http.retries.attempts": `5`,
			"tls.match.port": `9443`, "tls.match.gateways": `["gw"]`, "tls.match.destinationSubnets": `["192.0.2.0/24"]`, "tls.match.sniHosts": `["api.shop.svc.cluster.local"]`,
			"tls.route.destination.host": `"api"`, "tls.route.destination.subset": `"v2"`, "tls.route.destination.port.number": `9444`, "tls.route.weight": `3`,
			"tcp.match.port": `9000`, "tcp.match.gateways": `["gw"]`, "tcp.match.destinationSubnets": `["192.0.2.0/24"]`,
			"tcp.route.destination.host": `"api"`, "tcp.route.destination.subset": `"v2"`, "tcp.route.destination.port.number": `9001`, "tcp.route.weight": `3`,
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
			"outboundTrafficPolicy.mode": `"REGISTRY_ONLY"`, "egressProxy.host": `"api.shop.svc.cluster.local"`, "egressProxy.port.number": `8080`,
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
		kind: "AuthorizationPolicy", api: "security.istio.io/v1", spec: &security.AuthorizationPolicy{}, world: world,
		bases: map[string]string{
			"":           `{rules: [{}]}`,
			"action":     `{rules: [{}]}`,
			"provider":   `{action: CUSTOM, rules: [{}]}`,
			"rules.to":   `{rules: [{to: [{operation: {ports: ["80"]}}]}]}`,
			"rules.when": `{rules: [{when: [{key: source.ip, values: ["10.0.0.1"]}]}]}`,
		},
		values: map[string]string{
			"action": `"DENY"`, "rules.from.source.serviceAccounts": `["shop/a"]`, "rules.from.source.notServiceAccounts": `["shop/a"]`,
			"rules.from.source.ipBlocks": `["10.1.0.0/16"]`, "rules.from.source.notIpBlocks": `["10.1.0.0/16"]`,
			"rules.from.source.remoteIpBlocks": `["10.1.0.0/16"]`, "rules.from.source.notRemoteIpBlocks": `["10.1.0.0/16"]`,
			"rules.to.operation.ports": `["8080"]`, "rules.to.operation.notPorts": `["8080"]`,
			"rules.when.key": `"destination.ip"`, "rules.when.values": `["10.2.0.0/16"]`, "rules.when.notValues": `["10.2.0.0/16"]`,
			"targetRefs.kind": `"Service"`,
		},
	},
}

// field is a leaf and the way to it.
type field []protoreflect.FieldDescriptor

func (f field) path() string {
	names := make([]string, len(f))
	for i, fd := range f {
		names[i] = fd.JSONName()
	}
	return strings.Join(names, ".")
}

// leaves lists the fields without fields of their own.
func leaves(md protoreflect.MessageDescriptor, way field) []field {
	var out []field
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f := append(slices.Clone(way), fd)
		inner := fd.Message()
		if fd.IsMap() {
			inner = fd.MapValue().Message()
		}
		if inner == nil || strings.HasPrefix(string(inner.FullName()), "google.protobuf.") {
			out = append(out, f)
			continue
		}
		out = append(out, leaves(inner, f)...)
	}
	return out
}

// ledgerRow is what became of a field.
type ledgerRow struct{ path, outcome, reason string }

func (k *ledgerKind) judge(t *testing.T, f field) ledgerRow {
	path := f.path()
	if why, ok := k.silent[path]; ok {
		return ledgerRow{path, "no effect", why}
	}
	base := ""
	for p := range k.bases {
		if (path == p || strings.HasPrefix(path, p+".") || p == "") && len(p) >= len(base) {
			base = p
		}
	}
	without, with := k.tree(t, k.bases[base]), k.tree(t, k.bases[base])
	put(with, f, k.value(f))
	before, after := k.translate(t, without), k.translate(t, with)
	row := ledgerRow{path: path}
	for _, d := range after.Diagnostics() {
		if d.Code == "invalid-value" || d.Code == "invalid-object" || d.Source.Plane == "" {
			t.Errorf("%s %s: the test's value is invalid: %s", k.kind, path, d.Message)
		}
		if d.Source.Kind == k.kind && d.Source.Name == "it" && names(d.Source.Field, path) && !slices.Contains(before.Diagnostics(), d) {
			row.outcome, row.reason = string(d.Outcome), d.Message
		}
	}
	changed := before.Model() != after.Model()
	switch {
	case row.outcome == "" && changed:
		row.outcome = string(model.Translated)
	case row.outcome == "":
		t.Errorf("%s %s: set to %v, and nothing changed and nothing was said", k.kind, path, k.value(f))
	}
	return row
}

var index = regexp.MustCompile(`\[[^\]]*\]`)

// names reports whether a diagnostic's field is the path, above it or below it.
func names(diagnosed, path string) bool {
	got := strings.TrimPrefix(index.ReplaceAllString(diagnosed, ""), "spec.")
	return got != "spec" && (got == path || strings.HasPrefix(path, got+".") || strings.HasPrefix(got, path+"."))
}

func (k *ledgerKind) tree(t *testing.T, base string) map[string]any {
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(base), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (k *ledgerKind) translate(t *testing.T, spec map[string]any) translatortest.Output {
	b, err := json.Marshal(map[string]any{"apiVersion": k.api, "kind": k.kind, "spec": spec,
		"metadata": map[string]any{"name": "it", "namespace": "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	return translatortest.Translate(newTranslator, objects.Input{Name: "world.yaml", Data: []byte(k.world)}, objects.Input{Name: "it.yaml", Data: b})
}

// value is what the field is set to.
func (k *ledgerKind) value(f field) any {
	last := f[len(f)-1]
	path := f.path()
	for p, v := range k.values {
		if path == p || strings.HasSuffix(path, "."+p) {
			var out any
			if err := json.Unmarshal([]byte(v), &out); err != nil {
				panic(err)
			}
			return out
		}
	}
	one := scalar(last)
	switch {
	case last.IsMap():
		return map[string]any{"a": scalar(last.MapValue())}
	case last.IsList():
		return []any{one}
	}
	return one
}

func scalar(fd protoreflect.FieldDescriptor) any {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return true
	case protoreflect.StringKind:
		return "x"
	case protoreflect.BytesKind:
		return "eA=="
	case protoreflect.EnumKind:
		v := fd.Enum().Values()
		return string(v.Get(v.Len() - 1).Name())
	case protoreflect.MessageKind:
		switch fd.Message().Name() {
		case "Duration":
			return "7s"
		case "BoolValue":
			return true
		}
	}
	return 7
}

// put sets a field in the first element of every list and the entry "x-a", or 8080, of
// every map on the way.
func put(tree map[string]any, f field, v any) {
	for _, fd := range f[:len(f)-1] {
		name := fd.JSONName()
		switch {
		case fd.IsList():
			list, _ := tree[name].([]any)
			if len(list) == 0 {
				list = []any{map[string]any{}}
			}
			tree[name] = list
			tree = list[0].(map[string]any)
		case fd.IsMap():
			key := "x-a"
			if fd.MapKey().Kind() == protoreflect.Uint32Kind {
				key = "8080"
			}
			tree = child(child(tree, name), key)
		default:
			tree = child(tree, name)
		}
	}
	last := f[len(f)-1]
	if od := last.ContainingOneof(); od != nil {
		for i := range od.Fields().Len() {
			delete(tree, od.Fields().Get(i).JSONName())
		}
	}
	tree[last.JSONName()] = v
}

func child(tree map[string]any, name string) map[string]any {
	c, ok := tree[name].(map[string]any)
	if !ok {
		c = map[string]any{}
		tree[name] = c
	}
	return c
}

// table joins fields of one parent that fare the same.
func table(rows []ledgerRow) string {
	var b strings.Builder
	b.WriteString("| Field | Becomes | What that means |\n|---|---|---|\n")
	for i := 0; i < len(rows); {
		prefix, n := rows[i].path, 1
		for parts := strings.Split(rows[i].path, "."); len(parts) > 1; {
			parts = parts[:len(parts)-1]
			p := strings.Join(parts, ".") + "."
			all := 0
			same := true
			for j := range rows {
				if strings.HasPrefix(rows[j].path, p) {
					all++
					same = same && j >= i && rows[j].outcome == rows[i].outcome && rows[j].reason == rows[i].reason
				}
			}
			if !same {
				break
			}
			if all > 1 {
				prefix, n = p+"*", all
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", prefix, rows[i].outcome, rows[i].reason)
		i += n
	}
	return b.String()
}

func replaceTable(t *testing.T, text, kind, table string) string {
	begin, end := "<!-- fields of "+kind+" -->\n", "<!-- end -->"
	i := strings.Index(text, begin)
	if i < 0 {
		t.Fatalf("README.md has no place for the fields of %s", kind)
	}
	i += len(begin)
	j := strings.Index(text[i:], end)
	return text[:i] + table + text[i+j:]
}
