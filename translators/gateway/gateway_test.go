// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator { return New(Options{}) }

func strict() translators.Translator { return New(Options{RequireGrants: true}) }

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }

// Where grants are asked for, they are what lets a route name another namespace's services.
func TestCasesWithGrants(t *testing.T) { translatortest.Run(t, "testdata/grants", strict) }

func TestProperties(t *testing.T) {
	translatortest.Properties(t, "testdata", newTranslator)
	translatortest.Properties(t, "testdata/grants", strict)
}

// FuzzTranslate: whatever the objects, no panic, and a route never has a match or a
// status that Envoy would not take.
func FuzzTranslate(f *testing.F) {
	f.Add(company)
	for _, typ := range newTranslator().Types() {
		for _, b := range bodies(typ) {
			f.Add(company + "---\n" + `{"apiVersion": "` + typ.Kind.Group + "/" + typ.Version + `", "kind": "` + typ.Kind.Kind + `", "metadata": {"name": "x", "namespace": "shop"}, ` + b[1:])
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Fuzzed(t, strict, "", text)
		for _, row := range out.Rows() {
			fe, ok := row.Value.(*model.Frontend)
			if !ok {
				continue
			}
			for _, r := range fe.Routes {
				if p := r.Match.Path; p != nil && p.Kind != model.Regex && !strings.HasPrefix(p.Value, "/") {
					t.Errorf("%s: a path %+v", row.Key, *p)
				}
				for _, h := range append(r.Match.Headers, r.Match.Query...) {
					if h.Name == "" || strings.ContainsAny(h.Name, " :\n") {
						t.Errorf("%s: a header %q", row.Key, h.Name)
					}
				}
				if r.Redirect != nil && !slices.Contains([]uint32{301, 302, 303, 307, 308}, r.Redirect.Status) {
					t.Errorf("%s: a redirect with %d", row.Key, r.Redirect.Status)
				}
			}
		}
	})
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
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: s%d, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: s%d}], rules: [{backendRefs: [{name: s%d, port: 80}]}]}
`, i, i+1, i, i, (i+1)%100)
	}
	good.WriteString("---\napiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: shop}\nspec: {clusterIP: 10.96.2.1, ports: [{name: http, port: 80}]}\n")
	var bad []string
	for _, typ := range newTranslator().Types() {
		head := fmt.Sprintf("apiVersion: %s/%s\nkind: %s\nmetadata: {name: bad, namespace: shop}\n", typ.Kind.Group, typ.Version, typ.Kind.Kind)
		if _, whole := refused[typ.Kind]; whole {
			bad = append(bad, head+"spec: {}\n")
			continue
		}
		for _, spec := range []string{"spec: 7\n", "spec: {parentRefs: 7, rules: no}\n", "spec: {nosuch: [1]}\n",
			`spec: {parentRefs: [{group: "", kind: Service, name: own, port: 0}], rules: [{matches: [{path: 7}]}]}` + "\n"} {
			bad = append(bad, head+spec)
		}
	}
	translatortest.Unharmed(t, newTranslator, good.String(), bad...)
}
