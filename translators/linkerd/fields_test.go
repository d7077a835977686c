// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/model"
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

// unusedFields change nothing by design.
var unusedFields = []string{
	"ServiceProfile spec.routes[0].name",                 // a label of metrics, which nobody keeps by route
	"HTTPRoute spec.rules[0].name",                       // a name that nothing refers to
	"GRPCRoute spec.rules[0].name",                       // likewise
	"HTTPRoute spec.useDefaultGateways",                  // of gateways
	"GRPCRoute spec.useDefaultGateways",                  // likewise
	"ServerAuthorization spec.client.networks[0].except", // by its elements
}

// TestEveryField: every field of every version, set to another value, changes the rows or
// is named by a diagnostic.
func TestEveryField(t *testing.T) {
	table := fieldTable{}
	for _, typ := range theTranslator(t).Types() {
		body, ok := bodies[typ.Kind]
		if !ok {
			continue // refused as a whole, see unsupported_kinds
		}
		t.Run(typ.Kind.String()+" "+typ.Version, func(t *testing.T) {
			base := object(t, typ, body)
			want := output(t, base)
			for _, path := range leaves(reflect.TypeOf(typ.New()), nil, nil) {
				name := strings.TrimPrefix(strings.ReplaceAll(strings.Join(path, "."), ".[", "["), ".")
				if !strings.HasPrefix(name, "spec.") || slices.Contains(unusedFields, typ.Kind.Kind+" "+name) {
					continue
				}
				changed := object(t, typ, body)
				set(changed, path, sample(typ.Kind, name))
				beside(changed, path, name)
				got := output(t, changed)
				said := naming(got, changed, name)
				if got.Model() == want.Model() && said == nil {
					t.Errorf("%s: neither the rows change nor does a diagnostic name it\n%s", name, got.DiagnosticLines())
				}
				table.add(typ, name, got.Model() != want.Model(), said)
			}
		})
	}
	if t.Failed() {
		return
	}
	translatortest.Section(t, "README.md", "fields", table.String())
	if table.share() < 0.9 {
		t.Errorf("%.1f%% of the fields of Linkerd's own kinds are translated", 100*table.share())
	}
	t.Logf("%.1f%% of the fields of Linkerd's own kinds are translated", 100*table.share())
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

// naming returns the diagnostic that names a field, or what holds it; nil if there is
// none. One that says of an object that it is invalid as a whole names no field.
func naming(o translatortest.Output, obj map[string]any, field string) *model.Diagnostic {
	name := obj["metadata"].(map[string]any)["name"]
	var best *model.Diagnostic
	for _, d := range o.Diagnostics() {
		if d.Source.Name != name || d.Source.Field == "spec" || d.Source.Field == "" {
			continue
		}
		if d.Source.Field == field || strings.HasPrefix(field, d.Source.Field+"[") || strings.HasPrefix(field, d.Source.Field+".") {
			if best == nil || len(d.Source.Field) > len(best.Source.Field) {
				best = &d
			}
		}
	}
	return best
}

// fieldTable says what becomes of fields: kind, field -> versions and outcome.
type fieldTable struct {
	order []string
	rows  map[string][]string // "kind | field" -> versions
	what  map[string]string
}

func (f *fieldTable) add(typ objects.Type, name string, changes bool, said *model.Diagnostic) {
	key := "| " + typ.Kind.String() + " | " + strings.ReplaceAll(name, "[0]", "[]") + " | "
	if f.rows == nil {
		f.rows, f.what = map[string][]string{}, map[string]string{}
	}
	if f.rows[key] == nil {
		f.order = append(f.order, key)
	}
	f.rows[key] = append(f.rows[key], typ.Version)
	switch {
	case said != nil && said.Outcome != model.Translated && (!changes || said.Outcome == model.Approximated):
		f.what[key] = string(said.Outcome) + ": " + said.Message
	case f.what[key] == "":
		f.what[key] = "translated"
		if said != nil && !changes {
			f.what[key] = "translated: " + said.Message
		}
	}
}

// share is that of the fields of Linkerd's own kinds that are translated.
func (f *fieldTable) share() float64 {
	all, done := 0, 0
	for _, key := range f.order {
		if strings.Contains(key, "linkerd.io") {
			all++
			if strings.HasPrefix(f.what[key], "translated") {
				done++
			}
		}
	}
	return float64(done) / float64(all)
}

func (f *fieldTable) String() string {
	var b strings.Builder
	b.WriteString("| Kind | Field | Versions | Becomes |\n|---|---|---|---|\n")
	for _, key := range f.order {
		fmt.Fprintf(&b, "%s%s | %s |\n", key, strings.Join(f.rows[key], ", "), f.what[key])
	}
	return b.String()
}

// object puts a body into an object of the version: what the version does not have is
// left out.
func object(t *testing.T, typ objects.Type, body string) map[string]any {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal([]byte(body), &b); err != nil {
		t.Fatal(err)
	}
	name := "object"
	if typ.Kind == serviceProfileKind {
		name = "web.shop.svc.cluster.local"
	}
	if typ.Kind == httpRouteKind && slices.Contains([]string{"v1alpha1", "v1beta1"}, typ.Version) {
		delete(b["rules"].([]any)[0].(map[string]any), "backendRefs")
	}
	return map[string]any{"apiVersion": typ.Kind.Group + "/" + typ.Version, "kind": typ.Kind.Kind,
		"metadata": map[string]any{"name": name, "namespace": "shop"}, "spec": b}
}

func output(t *testing.T, o map[string]any) translatortest.Output {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return translatortest.Translate(newTranslator, objects.Input{Name: "company.yaml", Data: []byte(company)}, objects.Input{Name: "in.yaml", Data: b})
}

// leaves lists the paths of a type's fields that hold plain values; lists are entered by
// their first element, and a type within itself once.
func leaves(t reflect.Type, path []string, within []reflect.Type) [][]string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if u := reflect.PointerTo(t); u.Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return [][]string{slices.Clone(path)}
	}
	var out [][]string
	switch t.Kind() {
	case reflect.Struct:
		if n := len(slices.DeleteFunc(slices.Clone(within), func(w reflect.Type) bool { return w != t })); n > 1 {
			return nil
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[metav1.ObjectMeta]() {
				continue
			}
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			at := append(slices.Clone(path), name)
			if options == "inline" {
				at = path
			}
			out = append(out, leaves(f.Type, at, append(slices.Clone(within), t))...)
		}
		return out
	case reflect.Slice:
		return leaves(t.Elem(), append(slices.Clone(path), "[0]"), within)
	}
	return [][]string{slices.Clone(path)}
}
