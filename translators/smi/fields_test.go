// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// company is what an object needs around it for its fields to matter. Its route
// groups have the matches that the samples name.
const company = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: other, namespace: shop}
spec: {matches: [{name: a, pathRegex: /a}, {name: b, pathRegex: /b}]}
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
metadata: {name: l4, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: l4, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: TCPRoute, name: object}, {kind: UDPRoute, name: object}]
`

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

// unusedFields change nothing by design: a name that nothing refers to.
var unusedFields = []string{
	"TCPRoute spec.matches.name", "UDPRoute spec.matches.name", // rules mean the only match, see tcp_matches_named
	"HTTPRouteGroup matches[0].name", "HTTPRouteGroup spec.matches[0].name", // see rules_matches_some
}

// Every field of every version, set alone to another value, changes the rows or is
// named by a diagnostic.
func TestEveryField(t *testing.T) {
	table := translatortest.Ledger{
		Make: newTranslator, Types: New(Options{}).Types(), Company: company, Bodies: body, Sample: sample,
		Unused: func(typ objects.Type, field string) bool {
			return slices.Contains(unusedFields, typ.Kind.Kind+" "+field)
		},
	}.Run(t)
	translatortest.Section(t, "README.md", "fields", table)
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

// sample is a value for a field that differs from those of the bodies.
func sample(_ objects.Type, name string) any {
	switch {
	case strings.HasSuffix(name, "ort"), strings.HasSuffix(name, "orts[0]"):
		return 7
	case strings.HasSuffix(name, "weight"):
		return 7
	case strings.HasSuffix(name, "methods[0]"):
		return "PUT"
	case strings.HasSuffix(name, "rules[0].matches[0]"), strings.HasSuffix(name, "specs[0].matches[0]"):
		return "b"
	case strings.HasSuffix(name, "headers"):
		return map[string]any{"x": "y"}
	}
	return "v9"
}

// FuzzTranslate: whatever the objects, no panic, and what an invalid object asks
// for is never allowed.
func FuzzTranslate(f *testing.F) {
	f.Add(company)
	f.Add("apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: s}\nspec: {service: web, backends: [{service: a, weight: 1e30}, {service: a, weight: -1n}]}\n")
	f.Add("apiVersion: access.smi-spec.io/v1alpha2\nkind: TrafficTarget\nmetadata: {name: s}\nspec: {destination: {kind: ServiceAccount, name: a, port: 70000}, sources: [{kind: ServiceAccount, name: b}], rules: [{kind: TCPRoute, name: r}]}\n---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: r}\nspec: {matches: {ports: [1]}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Translate(newTranslator, objects.Input{Name: "in.yaml", Data: []byte(text)})
		out.Model()
		out.DiagnosticLines()
		for _, r := range out.Store.Rows("object/" + "TrafficTarget.access.smi-spec.io") {
			o := r.Value.(*objects.Object)
			a := out.Authorization(o.Key())
			if o.Invalid && a != nil && len(a.Rules) > 0 {
				t.Errorf("the invalid %s allows %+v", o.Key(), a.Rules)
			}
		}
	})
}
