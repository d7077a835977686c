// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

func TestProperties(t *testing.T) { translatortest.Properties(t, "testdata", newTranslator) }

// One bad object of each kind costs the others nothing. A Server that cannot be read
// closes what it may be for, see server_invalid: it has a namespace of its own here.
func TestUnharmed(t *testing.T) {
	var good strings.Builder
	good.WriteString(company)
	for i := range 100 {
		fmt.Fprintf(&good, `---
apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: shop}
spec: {clusterIP: 10.96.1.%d, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p%d, namespace: shop, labels: {app: p%d}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.2.0.%d}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: p%d, namespace: shop}
spec: {podSelector: {matchLabels: {app: p%d}}, port: 8080, accessPolicy: all-authenticated}
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: s%d, namespace: shop}
spec: {parentRefs: [{group: core, kind: Service, name: s%d}], rules: [{backendRefs: [{name: v1, port: 80}]}]}
`, i, i+1, i, i, i+1, i, i, i, i)
	}
	var bad []string
	for _, typ := range theTranslator(t).Types() {
		if typ.Kind == objects.NamespaceKind {
			continue
		}
		namespace := "shop"
		if typ.Kind == serverKind {
			namespace = "spare"
		}
		head := fmt.Sprintf("apiVersion: %s/%s\nkind: %s\nmetadata: {name: bad, namespace: %s}\n", typ.Kind.Group, typ.Version, typ.Kind.Kind, namespace)
		bad = append(bad, head+"spec: 7\n", head+"spec: {nothing: of, the: kind}\n", head+"spec: {parentRefs: 7, rules: [7], targetRef: 7, routes: {}}\n")
	}
	translatortest.Unharmed(t, newTranslator, good.String(), bad...)
}

// manifests reads the inputs of the cases, and of the decision table.
func manifests(t testing.TB) []objects.Input {
	var out []objects.Input
	for _, glob := range []string{"testdata/*.txtar", "../../conformance/linkerd/*.txtar"} {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			t.Fatalf("no cases in %s: %v", glob, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range txtar.Parse(b).Files {
				if strings.HasSuffix(f.Name, ".yaml") {
					out = append(out, objects.Input{Name: file, Data: []byte(strings.ReplaceAll(string(f.Data), "$ns", "shop"))})
				}
			}
		}
	}
	return append(out, objects.Input{Name: "company", Data: []byte(company)})
}

// FuzzTranslate: whatever the objects, no panic, and what an invalid object lets in is
// nobody.
func FuzzTranslate(f *testing.F) {
	for _, in := range manifests(f) {
		f.Add(string(in.Data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Fuzzed(t, newTranslator, "", text)
		for _, r := range out.Rows() {
			a, ok := r.Value.(*model.Authorization)
			if !ok {
				continue
			}
			for _, rule := range a.Rules {
				for _, s := range rule.Src {
					if o := translators.ObjectOf(tables{out}, s); o != nil && o.Invalid && o.Kind != objects.PodKind {
						t.Errorf("the invalid %s lets in %+v", o.Key(), rule)
					}
				}
			}
		}
	})
}

// tables are those of an output, with what is read.
type tables struct{ translatortest.Output }

func (t tables) Get(table incr.Table, key string) any { return t.Store.Get(table, key) }

func (t tables) Registry() *objects.Registry { return t.Host.Registry() }
