// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator { return New(Options{}) }

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }

func TestProperties(t *testing.T) { translatortest.Properties(t, "testdata", newTranslator) }

func TestNamesInTheDomain(t *testing.T) {
	tr := New(Options{Domain: "Corp.Example"}) // as an operator may write it; names of objects are lower case
	for name, want := range map[string]bool{
		"web": true, "web.shop": true, "web.shop.svc": true, "web.shop.svc.corp.example": true, "web.shop.svc.corp.example.": true,
		"web.other": false, "web.shop.svc.cluster.local": false, "": false,
	} {
		if short, ok := tr.localName(name, "shop"); ok != want || ok && short != "web" {
			t.Errorf("%q: %q, %v", name, short, ok)
		}
	}
}

// One bad object of each kind costs the others nothing.
func TestUnharmed(t *testing.T) {
	var good strings.Builder
	for i := range 100 {
		fmt.Fprintf(&good, `---
apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: shop}
spec: {clusterIP: 10.96.1.%d, ports: [{name: http, port: 80}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: s%d, namespace: shop}
spec: {service: s%d, backends: [{service: s%d, weight: 1}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: s%d, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: s%d, namespace: shop}
  sources: [{kind: ServiceAccount, name: client, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: read}]
`, i, i+1, i, i, (i+1)%100, i, i)
	}
	good.WriteString("---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {name: read, namespace: shop}\nspec: {matches: [{name: read, methods: [GET]}]}\n")
	var bad []string
	for _, typ := range New(Options{}).Types() {
		head := fmt.Sprintf("apiVersion: %s/%s\nkind: %s\nmetadata: {name: bad, namespace: shop}\n", typ.Kind.Group, typ.Version, typ.Kind.Kind)
		bad = append(bad, head+"spec: 7\n", head+"spec: {nosuch: [1]}\nmatches: 7\n", head+"spec: {destination: 7, matches: 7, service: [s1], backends: 7}\nspecs: {}\n")
	}
	translatortest.Unharmed(t, newTranslator, good.String(), bad...)
}
