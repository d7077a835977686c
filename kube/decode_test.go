// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// asServed gives the objects of an input as an API server would: with times of creation, and
// with what it and others write into them.
func asServed(t *testing.T, in objects.Input, reg *objects.Registry) []map[string]any {
	t.Helper()
	raws, _, _ := objects.Cut(in)
	var out []map[string]any
	for i, raw := range raws {
		var o map[string]any
		if yaml.Unmarshal(raw.Text, &o) != nil || !reg.Has(raw.Kind) || reg.Unread(raw.Kind) || !slices.Contains(reg.Versions(raw.Kind), raw.Version) {
			continue
		}
		meta, _ := o["metadata"].(map[string]any)
		if meta == nil || meta["creationTimestamp"] != nil {
			continue
		}
		meta["creationTimestamp"] = time.Date(2026, 1, 1, 0, i/60, i%60, 0, time.UTC).Format(time.RFC3339)
		if meta["uid"] == nil {
			meta["uid"] = fmt.Sprint("uid-", i)
		}
		out = append(out, o)
	}
	return out
}

// sourceless is what a pipeline came to, but for files and lines.
func sourceless(t *testing.T, p *pipeline.Pipeline) string {
	t.Helper()
	text := content(t, p)
	text = text[:strings.LastIndex(text[:strings.Index(text+"{\"source\"", "{\"source\"")], "\n")+1]
	var said []string
	for _, d := range p.Diagnostics() {
		d.Source.File, d.Source.Line = "", 0
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, string(b))
	}
	slices.Sort(said)
	return text + strings.Join(slices.Compact(said), "\n")
}

// An object means the same whether a file gives it or an API server, trimmed, in whatever
// order: over all cases that translators have.
func TestServedObjectsMeanWhatFilesMean(t *testing.T) {
	files, err := filepath.Glob("../translators/*/testdata/*.txtar")
	if err != nil || len(files) < 300 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	compared := 0
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pipeline.New(pipeline.Options{Node: "n1", Agents: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := pipeline.New(pipeline.Options{Node: "n1", Agents: true})
		if err != nil {
			t.Fatal(err)
		}
		var inputs []objects.Input
		var edits []objects.Edit
		for _, f := range ar.Files {
			if !strings.HasSuffix(f.Name, ".yaml") {
				continue
			}
			for _, o := range asServed(t, objects.Input{Name: f.Name, Data: f.Data}, want.Registry()) {
				text, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				inputs = append(inputs, objects.Input{Name: f.Name, Data: text})
				edits = append(edits, overAPI(t, want.Registry(), text))
			}
		}
		want.Replace(objects.Decode(want.Registry(), together(inputs)))
		slices.Reverse(edits) // the later of a name stands, and it stands in both
		slices.SortStableFunc(edits, func(a, b objects.Edit) int { return objects.CompareRefs(a.Ref, b.Ref) })
		edits = slices.CompactFunc(edits, func(a, b objects.Edit) bool { return a.Ref == b.Ref })
		for _, e := range edits {
			got.Apply([]objects.Edit{e})
		}
		compared += len(edits)
		if w, g := sourceless(t, want), sourceless(t, got); w != g && !strings.Contains(w, "duplicate-object") {
			t.Errorf("%s: from files\n%s\nfrom an API server\n%s", file, w, g)
		}
		for _, r := range got.Rows(translators.Services) {
			if s := r.Value.(*model.Service).Src; s.File != "" || s.Line != 0 || s.Name == "" {
				t.Errorf("%s: source %+v", file, s)
			}
		}
	}
	if compared < 1000 {
		t.Errorf("%d objects compared", compared)
	}
}

func together(inputs []objects.Input) objects.Input {
	var text strings.Builder
	for _, in := range inputs {
		text.WriteString("---\n")
		text.Write(in.Data)
		text.WriteString("\n")
	}
	return objects.Input{Name: "in.yaml", Data: []byte(text.String())}
}

// overAPI decodes an object as the cache's transform does.
func overAPI(t *testing.T, reg *objects.Registry, text []byte) objects.Edit {
	t.Helper()
	u := unstructuredOf(t, text)
	meta := u.Object["metadata"].(map[string]any)
	meta["resourceVersion"], meta["generation"] = "2", int64(3)
	meta["managedFields"] = []any{map[string]any{"manager": "kubectl"}}
	gvk := u.GroupVersionKind()
	typ, ok := reg.Served(objects.Kind{Group: gvk.Group, Kind: gvk.Kind}, []string{gvk.Version})
	if !ok {
		t.Fatalf("%s is not read", gvk)
	}
	h, err := decode(served{typ: typ}, false)(u)
	if err != nil {
		t.Fatal(err)
	}
	again, err := decode(served{typ: typ}, false)(h) // caches do that
	if err != nil || again != h {
		t.Fatal("decoded twice")
	}
	return h.(*held).edit
}

func unstructuredOf(t testing.TB, text []byte) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return u
}
