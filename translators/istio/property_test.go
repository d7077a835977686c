// SPDX-License-Identifier: Apache-2.0

package istio

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
	"fairlead.io/fairlead/translators/host"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// mesh is a host with this plane alone.
type mesh struct {
	store *incr.Store
	host  *host.Host
}

func newMesh() mesh {
	s := incr.New()
	return mesh{s, host.New(s, kubernetes.New(kubernetes.Options{}), newTranslator())}
}

// manifests reads the inputs of the cases.
func manifests(t testing.TB) []objects.Input {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []objects.Input
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(b).Files {
			if strings.HasSuffix(f.Name, ".yaml") {
				out = append(out, objects.Input{Name: file, Data: f.Data})
			}
		}
	}
	return out
}

func TestProperties(t *testing.T) { translatortest.Properties(t, "testdata", newTranslator) }

// FuzzTranslate looks for panics, and for rows that a later stage cannot take.
func FuzzTranslate(f *testing.F) {
	for _, in := range manifests(f) {
		f.Add(in.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out := translatortest.Fuzzed(t, newTranslator, world, string(data))
		for _, r := range out.Store.Rows(translators.Routes(Plane)) {
			checkFrontend(t, r.Value.(*model.Frontend))
		}
		for _, r := range out.Store.Rows(translators.Authz(Plane)) {
			for _, rule := range r.Value.(*model.Authorization).Rules {
				if string(model.Bytes(rule)) != string(model.Bytes(rule.Canonical())) {
					t.Errorf("not canonical: %s", model.Bytes(rule))
				}
			}
		}
	})
}

func checkFrontend(t *testing.T, f *model.Frontend) {
	if !f.Invalid && len(f.Routes)+len(f.Backends)+len(f.Connections) == 0 {
		t.Errorf("%s: neither routes nor backends", f.Key())
	}
	if (f.App == model.AppDetect) != (f.Host == "" && len(f.Connections) > 0 && (f.Invalid || len(f.Routes) > 0)) {
		t.Errorf("%s: %s with %d routes and %d connections", f.Key(), f.App, len(f.Routes), len(f.Connections))
	}
	if (f.Host == "") == (f.Service == "") || strings.Contains(strings.TrimPrefix(f.Host, "*."), "*") {
		t.Errorf("%s: neither a service nor a host", f.Key())
	}
	backends := f.Backends
	for _, c := range f.Connections {
		backends = append(backends, c.Backends...)
	}
	for _, r := range f.Routes {
		if (len(r.Backends) == 0) == (r.Direct == nil && r.Redirect == nil && !r.Original) {
			t.Errorf("%s: a route needs backends or an answer: %s", f.Key(), model.Bytes(r))
		}
		if r.Timeout < 0 || r.Retry != nil && r.Retry.Attempts == 0 {
			t.Errorf("%s: timeout or retries: %s", f.Key(), model.Bytes(r))
		}
		if p := r.Match.Path; p != nil && p.Kind == model.Regex {
			if _, err := model.NormalizeRegex(p.Value); err != nil {
				t.Errorf("%s: %v", f.Key(), err)
			}
		}
		backends = append(backends, r.Backends...)
	}
	for _, b := range backends {
		if b.Weight == 0 || b.Port == 0 {
			t.Errorf("%s: backend %s", f.Key(), model.Bytes(b))
		}
	}
}

// BenchmarkEdit compares one edited VirtualService among many with all of them.
func BenchmarkEdit(b *testing.B) {
	const n = 1000
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%d, namespace: shop}
spec: {hosts: [s%d], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: s%d}}]}, {route: [{destination: {host: s%d}}]}]}
`, i, i, i, i, (i+1)%n)
	}
	batch := objects.Decode(newMesh().host.Registry(), objects.Input{Name: "in.yaml", Data: []byte(text.String())})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			m := newMesh()
			m.host.Replace(batch)
			m.store.Run()
		}
	})
	b.Run("one", func(b *testing.B) {
		m := newMesh()
		m.host.Replace(batch)
		m.store.Run()
		versions := [2]*objects.Object{}
		for i := range versions {
			versions[i] = objects.Decode(m.host.Registry(), objects.Input{Name: "edit.yaml", Data: fmt.Appendf(nil, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s7, namespace: shop}
spec: {hosts: [s7], http: [{timeout: %ds, route: [{destination: {host: s7}}]}]}
`, i+1)}).Objects[0]
		}
		for i := 0; b.Loop(); i++ {
			m.host.Set(versions[i%2])
			m.store.Run()
		}
	})
}
