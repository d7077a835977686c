// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

var update = flag.Bool("update", false, "rewrite the expected resources")

// TestGolden renders the rows of each testdata/*.txtar. A file's comment says what
// it is about; a section "cluster.json" holds a row, "cluster.want" what comes of
// it. The proxy's tests load all of them into a real Envoy.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range a.Files {
		if name, ok := strings.CutSuffix(f.Name, ".want"); ok {
			want[name] = string(f.Data)
		}
	}
	out := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		name, ok := strings.CutSuffix(f.Name, ".json")
		if !ok {
			continue
		}
		r, err := renderJSON(name, f.Data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := renderJSON(name, f.Data)
		if err != nil || r.Version != again.Version {
			t.Errorf("%s: rendered twice: %s and %s (%v)", name, r.Version, again.Version, err)
		}
		got := text(t, r)
		if got != want[name] && !*update {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want[name])
		}
		out.Files = append(out.Files, f, txtar.File{Name: name + ".want", Data: []byte(got)})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// renderJSON renders a row; the name up to a "-" says which kind it is.
func renderJSON(name string, data []byte) (xds.Resource, error) {
	kind, _, _ := strings.Cut(name, "-")
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	switch kind {
	case "cluster":
		var row plan.Cluster
		if err := dec.Decode(&row); err != nil {
			return xds.Resource{}, err
		}
		return render.Cluster(&row)
	case "endpoints":
		var row plan.ClusterEndpoints
		if err := dec.Decode(&row); err != nil {
			return xds.Resource{}, err
		}
		return render.Endpoints(&row)
	case "routes":
		var row plan.RouteTable
		if err := dec.Decode(&row); err != nil {
			return xds.Resource{}, err
		}
		return render.RouteTable(&row)
	case "scope":
		var row plan.Scope
		if err := dec.Decode(&row); err != nil {
			return xds.Resource{}, err
		}
		return render.Scope(&row)
	case "listener":
		var row plan.Listener
		if err := dec.Decode(&row); err != nil {
			return xds.Resource{}, err
		}
		return render.Listener(&row, 15100)
	}
	return xds.Resource{}, fmt.Errorf("%s: no such row", name)
}

// text is a resource for people.
func text(t *testing.T, r xds.Resource) string {
	t.Helper()
	m, err := (&anypb.Any{TypeUrl: r.Type, Value: r.Body}).UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil { // protojson varies its white space
		t.Fatal(err)
	}
	return out.String() + "\n"
}
