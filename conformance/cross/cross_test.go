// SPDX-License-Identifier: Apache-2.0

// Package cross tests that an intent means the same in every control plane that can
// say it: with all defaults spelled out, the plans are equal byte for byte. What each
// plane makes of the rest, when it is left to its own defaults, is told beside it.
package cross

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
)

var update = flag.Bool("update", false, "write what the defaults change into the cases")

// namespace is that of every intent.
const namespace = "shop"

// marks are the labels and annotations by which each mesh takes a namespace. Gateway API
// has none.
var marks = map[string]string{
	"istio":   "labels: {istio-injection: enabled}",
	"smi":     "labels: {openservicemesh.io/monitored-by: osm}",
	"linkerd": "annotations: {linkerd.io/inject: enabled}", "gateway": "labels: {fairlead.io/capture: enabled}",
}

// load plans what a plane says. Gateway API owns the namespace, because Linkerd reads its
// routes, too; the others are alone.
func load(t *testing.T, plane, node string, inputs ...objects.Input) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	b := objects.Decode(p.Registry(), inputs...)
	if plane == "gateway" {
		b = pipeline.Given(b, plane, namespace)
	}
	p.Replace(b)
	for _, d := range p.Diagnostics() {
		if d.IsError() {
			t.Errorf("%s: %s", d.Source, d.Message)
		}
	}
	return p
}

// dump is the node's plan, a row a line.
func dump(p *pipeline.Pipeline) string {
	var b strings.Builder
	for _, table := range plan.Tables() {
		for _, r := range p.Rows(table) {
			fmt.Fprintf(&b, "%s %s %s\n", table, r.Key, model.Bytes(r.Value))
		}
	}
	return b.String()
}

func base(t *testing.T) objects.Input {
	t.Helper()
	b, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return objects.Input{Name: "base.yaml", Data: b}
}

func cases(t *testing.T, run func(t *testing.T, path string, a *txtar.Archive)) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d intents, want 12 at least: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			run(t, file, a)
		})
	}
}

// spelled gives the manifests of an intent with every default spelled out, by plane, in
// the order of the file.
func spelled(t *testing.T, a *txtar.Archive) (planes []string, text map[string][]byte) {
	t.Helper()
	text = map[string][]byte{}
	for _, f := range a.Files {
		plane, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok || strings.Contains(plane, ".") {
			continue
		}
		if marks[plane] == "" {
			t.Fatalf("%s: there is no plane %s", f.Name, plane)
		}
		planes, text[plane] = append(planes, plane), f.Data
	}
	if len(planes) < 2 {
		t.Fatalf("planes %v: want two at least", planes)
	}
	return planes, text
}

func TestIntentsAreEqualAcrossPlanes(t *testing.T) {
	common := base(t)
	cases(t, func(t *testing.T, _ string, a *txtar.Archive) {
		planes, text := spelled(t, a)
		for _, node := range []string{"node-1", "node-2"} {
			first := ""
			for i, plane := range planes {
				got := dump(load(t, plane, node, common, objects.Input{Name: plane + ".yaml", Data: text[plane]}))
				if got == dump(load(t, plane, node, common)) {
					t.Errorf("%s changes nothing on %s", plane, node)
				}
				if i == 0 {
					first = got
				} else if d := cmp.Diff(first, got); d != "" {
					t.Errorf("%s: %s (-) and %s (+) differ:\n%s", node, planes[0], plane, d)
				}
			}
		}
	})
}

// unnamed is the base's namespace, which each plane marks as its own instead.
var unnamed = regexp.MustCompile(`(?m)^metadata: \{name: shop, .*\}$`)

// TestDefaults leaves the defaults to each plane: the namespace carries its mark and
// nothing else, and what need not be said is left out (PLANE.short.yaml). What then
// differs from the spelled-out form is the section "defaults".
func TestDefaults(t *testing.T) {
	common := base(t)
	cases(t, func(t *testing.T, path string, a *txtar.Archive) {
		planes, text := spelled(t, a)
		got := ""
		for _, plane := range planes {
			own := objects.Input{Name: common.Name, Data: unnamed.ReplaceAll(common.Data, []byte("metadata: {name: shop, "+marks[plane]+"}"))}
			short := text[plane]
			for _, f := range a.Files {
				if f.Name == plane+".short.yaml" {
					short = f.Data
				}
			}
			before := load(t, plane, "node-1", common, objects.Input{Name: plane + ".yaml", Data: text[plane]})
			after := load(t, plane, "node-1", own, objects.Input{Name: plane + ".yaml", Data: short})
			got += tell(plane, diff.Compare(before, after))
		}
		var want *txtar.File
		for i := range a.Files {
			if a.Files[i].Name == "defaults" {
				want = &a.Files[i]
			}
		}
		if want == nil {
			t.Fatal("there is no section defaults")
		}
		if *update {
			want.Data = []byte(got)
			if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(string(want.Data), got); d != "" {
			t.Error(d)
		}
	})
}

// tell writes what the defaults of a plane change.
func tell(plane string, r *diff.Report) string {
	if r.Empty() {
		return plane + ": nothing\n"
	}
	var b strings.Builder
	for _, c := range r.Routes {
		for _, x := range c.Changes {
			fmt.Fprintf(&b, "%s: %s: %s: %s -> %s\n", plane, strings.Join(strings.Fields(c.Frontend+" "+c.Example+" "+c.For), " "), x.What, x.Old, x.New)
		}
	}
	for _, p := range r.Permissions {
		fmt.Fprintf(&b, "%s: %s port %d %s: %s -> %s for %s\n", plane, strings.Join(p.Workloads, ","), p.Port, p.Example, p.Old, p.New, strings.Join(p.From, ", "))
	}
	return b.String()
}
