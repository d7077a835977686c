// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", nil) }

// Whatever the objects: no panic, and no row that says what cannot be.
func FuzzTranslate(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(ar.Files[0].Data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Fuzzed(t, nil, "", text)
		for _, r := range out.Store.Rows(translators.Workloads) {
			w := r.Value.(*model.Workload)
			if len(w.Addresses) == 0 || w.Key() != r.Key || (w.HostNetwork && w.Capture) {
				t.Errorf("workload %+v", w)
			}
		}
		for _, r := range out.Store.Rows(translators.Services) {
			for _, p := range r.Value.(*model.Service).Ports {
				if p.Port == 0 || (p.Protocol != model.TCP && p.App != "") {
					t.Errorf("port %+v", p)
				}
			}
		}
		for _, r := range out.Store.Rows(translators.Endpoints) {
			for _, p := range r.Value.(*model.Endpoints).Ports {
				for _, b := range p.Backends {
					if b.Port == 0 || !b.Addr.IsValid() {
						t.Errorf("endpoint %+v of port %d", b, p.Port)
					}
				}
			}
		}
	})
}
