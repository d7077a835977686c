// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// company is what an object needs around it for its fields to matter: services, who is
// behind them, and clients. Its route groups have the matches that the samples name.
var company = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {tier: back}, ports: [{name: http, port: 80}, {name: http-seven, port: 7}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.0.0.2, selector: {tier: back}, ports: [{name: http, port: 80}, {name: http-seven, port: 7}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.0.0.3, selector: {tier: back}, ports: [{name: http, port: 80}, {name: http-seven, port: 7}]}
---
apiVersion: v1
kind: Service
metadata: {name: v9, namespace: shop}
spec: {clusterIP: 10.0.0.4, selector: {tier: back}, ports: [{name: http, port: 80}, {name: http-seven, port: 7}]}
` + people + `
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: other, namespace: shop}
spec: {matches: [{name: a, pathRegex: /a}, {name: b, pathRegex: /b}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: more, namespace: shop}
spec: {matches: [{name: a, pathRegex: /more}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: user, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: user, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: object}]
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: picky, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: picky, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: object, matches: [m]}]
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: l4, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: l4, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: TCPRoute, name: object}, {kind: UDPRoute, name: object}]
`

// people are pods: a server of each service account that the objects name, and clients.
var people = pod("shop", "api", 1) + pod("shop", "user", 2) + pod("shop", "l4", 3) + pod("shop", "v9", 4) + pod("v9", "client", 5) + pod("shop", "picky", 6)

func pod(namespace, account string, n int) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {tier: back}}
spec: {nodeName: n1, serviceAccountName: %[2]s, containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 7}]}]}
status: {podIP: 10.244.1.%[3]d, conditions: [{type: Ready, status: "True"}]}
`, namespace, account, n)
}

// bodies are valid objects, one per kind; the tests change one field of them.
var bodies = map[objects.Kind]string{
	trafficTarget: `{"destination": {"kind": "ServiceAccount", "name": "api", "namespace": "shop"},
		"sources": [{"kind": "ServiceAccount", "name": "client", "namespace": "shop"}],
		"rules": [{"kind": "HTTPRouteGroup", "name": "other", "matches": ["a"]}]}`,
	httpRouteGroup: `{"matches": [{"name": "m", "pathRegex": "/x", "methods": ["GET"]}]}`,
	tcpRoute:       `{"matches": {"name": "m", "ports": [1]}}`,
	udpRoute:       `{"matches": {"name": "m", "ports": [1]}}`,
	trafficSplit:   `{"service": "web", "backends": [{"service": "v1", "weight": 1}, {"service": "v2", "weight": 1}]}`,
}

// unused are fields that mean nothing by design.
func unused(_ objects.Type, field string) string {
	if strings.HasSuffix(field, "matches.name") { // of TCPRoute and UDPRoute, see tcp_matches_named
		return "rules mean a route's only match, whatever it is called"
	}
	return ""
}

// scope: what is counted, and how much of it is to be translated.
var scope = translatortest.Scope{
	Excluded: map[string]string{
		"IdentityBinding": "never released, and no part of the specification",
		"TrafficMetrics":  "an API for reading metrics, not configuration",
	},
	Floors: map[string]float64{"": 1},
}

// Every field of every version changes the plan or is named by a diagnostic.
func TestEveryField(t *testing.T) {
	fields := translatortest.Ledger{
		Make: newTranslator, Types: New(Options{}).Types(), Company: company, Bodies: body,
		Values: func(_ objects.Type, field string) []any { return translatortest.Values(samples, field) },
		Unused: unused,
		// Kinds that the specification does not have, routes that are not there, and who may
		// open the workloads of another namespace: nobody, see destination_of_another_namespace.
		Faults: []string{"invalid-object", "unsupported-kind", "unknown-route", "foreign-destination"},
	}.Run(t)
	translatortest.Section(t, "README.md", "fields", fields.Table())
	fields.Reference(t, "../../docs/reference/smi.md", "SMI", "go test ./translators/smi -run TestEveryField -update", scope)
}

// body is the valid object of a type, where its version has the fields; none of a kind
// that is refused as a whole, see unsupported_kinds.
func body(typ objects.Type) []string {
	b, ok := bodies[typ.Kind]
	switch top := reflect.TypeOf(typ.New()).Elem(); {
	case !ok:
		return nil
	case (typ.Kind == tcpRoute || typ.Kind == udpRoute) && typ.Version != "v1alpha4":
		return []string{"{}"}
	case typ.Kind == trafficSplit && (typ.Version == "v1alpha3" || typ.Version == "v1alpha4"):
		some := strings.Replace(b, `{`, `{"matches": [{"kind": "HTTPRouteGroup", "name": "other"}], `, 1)
		return []string{`{"spec": ` + b + `}`, `{"spec": ` + some + `}`}
	case hasField(top, "Spec"):
		return []string{`{"spec": ` + b + `}`}
	case typ.Kind == trafficTarget:
		return []string{strings.Replace(b, `"rules"`, `"specs"`, 1)}
	}
	return []string{b}
}

func hasField(t reflect.Type, name string) bool {
	_, ok := t.FieldByName(name)
	return ok
}

// samples are values that differ from those of the bodies.
var samples = []translatortest.Sample{
	translatortest.Of("kind", "Group", "TCPRoute"),
	translatortest.Of("port", 7), translatortest.Of("ports[0]", 7),
	translatortest.Of("weight", 7, 0),
	translatortest.Of("rules[0].name", "more", "v9"), translatortest.Of("specs[0].name", "more", "v9"), translatortest.Of("matches[0].name", "more", "v9"),
	translatortest.Of("methods[0]", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"),
	translatortest.Of("rules[0].matches[0]", "b"), translatortest.Of("specs[0].matches[0]", "b"),
	translatortest.Of("pathRegex", "/y", "/y.*", ".*", "/y/[a-z]+"),
	translatortest.Of("headers", map[string]any{"x": "y"}, map[string]any{"x": ".*"}, map[string]any{"host": "y"}),
	translatortest.Of("", "v9"),
}

// FuzzTranslate: whatever the objects, no panic, and what an invalid object asks
// for is never allowed.
func FuzzTranslate(f *testing.F) {
	f.Add(company)
	f.Add("apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: s}\nspec: {service: web, backends: [{service: a, weight: 1e30}, {service: a, weight: -1n}]}\n")
	f.Add("apiVersion: access.smi-spec.io/v1alpha2\nkind: TrafficTarget\nmetadata: {name: s}\nspec: {destination: {kind: ServiceAccount, name: a, port: 70000}, sources: [{kind: ServiceAccount, name: b}], rules: [{kind: TCPRoute, name: r}]}\n---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: r}\nspec: {matches: {ports: [1]}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Fuzzed(t, newTranslator, "", text)
		for _, r := range out.Store.Rows("object/" + "TrafficTarget.access.smi-spec.io") {
			o := r.Value.(*objects.Object)
			a := out.Authorization(o.Key())
			if o.Invalid && a != nil && len(a.Rules) > 0 {
				t.Errorf("the invalid %s allows %+v", o.Key(), a.Rules)
			}
		}
	})
}
