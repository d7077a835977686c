// SPDX-License-Identifier: Apache-2.0

// Package translatortest runs a translator's cases: txtar files in which every
// .yaml part is a manifest, and two parts say what must come of them:
//
//	-- model --        rows of the plane's own, as JSON
//	-- diagnostics --  one a line: file:line: Object field: outcome/effect code: message
//
// The comment before the first part says what the case is for. Tests that are run
// with -update rewrite the two parts.
package translatortest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/host"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

var update = flag.Bool("update", false, "rewrite the expected parts of the cases")

// Parts that say what is expected.
const (
	modelPart       = "model"
	diagnosticsPart = "diagnostics"
)

// Run runs every .txtar file of a folder with a translator that make returns.
// Diagnostics of the kubernetes translator are left out unless the case's manifests
// are for the plane "kubernetes" alone (make is nil).
func Run(t *testing.T, folder string, make func() translators.Translator) {
	files, err := filepath.Glob(filepath.Join(folder, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", folder, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runFile(t, file, make) })
	}
}

func runFile(t *testing.T, file string, make func() translators.Translator) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(ar.Comment)) == 0 {
		t.Error("the case does not say what it is for")
	}
	var inputs []objects.Input
	want := map[string]string{}
	for _, f := range ar.Files {
		if f.Name == modelPart || f.Name == diagnosticsPart {
			want[f.Name] = string(f.Data)
			continue
		}
		inputs = append(inputs, objects.Input{Name: f.Name, Data: f.Data})
	}
	out := Translate(make, inputs...)
	got := map[string]string{modelPart: out.Model(), diagnosticsPart: out.DiagnosticLines()}
	if *update {
		rewrite(t, file, ar, got)
		return
	}
	for _, part := range []string{modelPart, diagnosticsPart} {
		if d := cmp.Diff(want[part], got[part]); d != "" {
			t.Errorf("%s (-want +got):\n%s", part, d)
		}
	}
}

// rewrite puts the two parts behind the manifests.
func rewrite(t *testing.T, file string, ar *txtar.Archive, got map[string]string) {
	out := &txtar.Archive{Comment: ar.Comment}
	for _, f := range ar.Files {
		if _, ok := got[f.Name]; !ok {
			out.Files = append(out.Files, f)
		}
	}
	for _, part := range []string{modelPart, diagnosticsPart} {
		out.Files = append(out.Files, txtar.File{Name: part, Data: []byte(got[part])})
	}
	if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Output is what manifests came to.
type Output struct {
	Store *incr.Store
	Host  *host.Host
	plane string
}

// Translate runs manifests through the kubernetes translator and the plane's; make
// may be nil for the former alone.
func Translate(make func() translators.Translator, inputs ...objects.Input) Output {
	out := Output{Store: incr.New(), plane: kubernetes.Plane}
	var planes []translators.Translator
	if make != nil {
		planes = append(planes, make())
		out.plane = planes[0].Plane()
	}
	out.Host = host.New(out.Store, kubernetes.New(kubernetes.Options{}), planes...)
	out.Host.Replace(objects.Decode(out.Host.Registry(), inputs...))
	out.Store.Run()
	return out
}

// Rows lists the rows that the plane made.
func (o Output) Rows() []incr.Row {
	tables := []incr.Table{translators.Routes(o.plane), translators.Authz(o.plane), translators.Inbounds(o.plane)}
	if o.plane == kubernetes.Plane {
		tables = []incr.Table{translators.Namespaces, translators.Nodes, translators.Services, translators.Endpoints, translators.Workloads}
	}
	var rows []incr.Row
	for _, t := range tables {
		rows = append(rows, o.Store.Rows(t)...)
	}
	if o.plane == kubernetes.Plane {
		return rows
	}
	for _, t := range []incr.Table{translators.Services, translators.Endpoints, translators.Workloads} {
		for _, row := range o.Store.Rows(t) {
			if declared(row.Value) {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// declared reports whether a row of a shared table is a plane's; see translators.Result.
func declared(row any) bool {
	switch v := row.(type) {
	case *model.Service:
		return strings.Contains(v.Name, ".")
	case *model.Endpoints:
		return strings.Contains(v.Service, ".")
	case *model.Workload:
		return v.External
	}
	return false
}

// Authorization returns a row of the plane's authz table, nil if there is none.
func (o Output) Authorization(key string) *model.Authorization {
	a, _ := o.Store.Get(translators.Authz(o.plane), key).(*model.Authorization)
	return a
}

// Model prints the plane's rows: "table key", then the row as indented JSON.
func (o Output) Model() string {
	var b strings.Builder
	for _, r := range o.Rows() {
		var body bytes.Buffer
		if err := json.Indent(&body, model.Bytes(r.Value), "", "  "); err != nil {
			panic("translatortest: " + err.Error()) // model.Bytes gives JSON
		}
		fmt.Fprintf(&b, "%s %s %s\n", r.Table, r.Key, &body)
	}
	return b.String()
}

// Diagnostics lists those of the plane and of reading the manifests.
func (o Output) Diagnostics() []model.Diagnostic {
	var out []model.Diagnostic
	for _, d := range o.Host.Diagnostics() {
		if d.Source.Plane == o.plane || d.Source.Plane == "" {
			out = append(out, d)
		}
	}
	return out
}

// DiagnosticLines prints them, one a line.
func (o Output) DiagnosticLines() string {
	var b strings.Builder
	for _, d := range o.Diagnostics() {
		fmt.Fprintf(&b, "%s: %s/%s %s: %s\n", d.Source, d.Outcome, d.Effect, d.Code, d.Message)
	}
	return b.String()
}
