// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

// Properties checks what holds of any translator, on the manifests of its cases: the
// order in which objects arrive means nothing, what has been edited is as if it had
// always been so, and what has gone leaves nothing.
func Properties(t *testing.T, folder string, make func() translators.Translator) {
	inputs := manifests(t, folder)
	t.Run("shuffled", func(t *testing.T) { shuffled(t, inputs, make) })
	t.Run("edits", func(t *testing.T) { edits(t, inputs, make) })
}

// mesh is a host with one plane.
type mesh struct {
	store *incr.Store
	host  *host.Host
}

func newMesh(make func() translators.Translator) mesh {
	s := incr.New()
	return mesh{s, host.New(s, kubernetes.New(kubernetes.Options{}), make())}
}

// print gives everything that is known.
func (m mesh) print(plane string) string {
	m.store.Run()
	var b strings.Builder
	for _, table := range []incr.Table{translators.Routes(plane), translators.Authz(plane), translators.Inbounds(plane),
		translators.Services, translators.Endpoints, translators.Workloads} {
		for _, r := range m.store.Rows(table) {
			fmt.Fprintf(&b, "%s %s %s\n", r.Table, r.Key, model.Bytes(r.Value))
		}
	}
	for _, d := range m.host.Diagnostics() {
		fmt.Fprintf(&b, "%s %s %s\n", d.Source, d.Code, d.Message)
	}
	return b.String()
}

// manifests reads the inputs of the cases.
func manifests(t *testing.T, folder string) []objects.Input {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", folder, err)
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

func shuffled(t *testing.T, inputs []objects.Input, make func() translators.Translator) {
	plane := make().Plane()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, in := range inputs {
		m := newMesh(make)
		batch := objects.Decode(m.host.Registry(), in)
		m.host.Replace(batch)
		want := m.print(plane)
		for range 3 {
			rnd.Shuffle(len(batch.Objects), func(i, j int) { batch.Objects[i], batch.Objects[j] = batch.Objects[j], batch.Objects[i] })
			m := newMesh(make)
			m.host.Replace(batch)
			if d := cmp.Diff(want, m.print(plane)); d != "" {
				t.Fatalf("%s (-in order +shuffled):\n%s", in.Name, d)
			}
		}
	}
}

func edits(t *testing.T, inputs []objects.Input, make func() translators.Translator) {
	plane := make().Plane()
	m := newMesh(make)
	var pool []*objects.Object
	for _, in := range inputs {
		pool = append(pool, objects.Decode(m.host.Registry(), in).Objects...)
	}
	empty := newMesh(make).print(plane)
	rnd := rand.New(rand.NewPCG(3, 4))
	have := map[objects.Ref]*objects.Object{}
	for step := range 600 {
		o := pool[rnd.IntN(len(pool))]
		if _, ok := have[o.Ref()]; ok && rnd.IntN(3) == 0 {
			delete(have, o.Ref())
			m.host.Delete(o.Ref())
		} else {
			have[o.Ref()] = o
			m.host.Set(o)
		}
		if step%10 != 0 {
			continue
		}
		fresh := newMesh(make)
		for _, o := range have {
			fresh.host.Set(o)
		}
		if d := cmp.Diff(fresh.print(plane), m.print(plane)); d != "" {
			t.Fatalf("step %d (-from scratch +edited):\n%s", step, d)
		}
	}
	for ref := range have {
		m.host.Delete(ref)
	}
	if d := cmp.Diff(empty, m.print(plane)); d != "" {
		t.Errorf("everything has gone, and there is left (+):\n%s", d)
	}
}

// Unharmed checks that each of some bad objects, put beside good ones, changes no row that
// the good ones came to, is told to be wrong, and leaves nothing when it has gone.
func Unharmed(t *testing.T, make func() translators.Translator, good string, bad ...string) {
	t.Helper()
	out := Translate(make, objects.Input{Name: "good.yaml", Data: []byte(good)})
	before := out.Rows()
	if n := len(before); n < 100 {
		t.Fatalf("the good objects come to %d rows", n)
	}
	all := out.Model()
	for _, b := range bad {
		batch := objects.Decode(out.Host.Registry(), objects.Input{Name: "bad.yaml", Data: []byte(b)})
		for _, o := range batch.Objects {
			out.Host.Set(o)
		}
		out.Store.Run()
		if !slices.ContainsFunc(append(batch.Diagnostics, out.Host.Diagnostics()...), func(d model.Diagnostic) bool {
			return d.IsError() && d.Source.File == "bad.yaml"
		}) {
			t.Errorf("nothing is told to be wrong with\n%s", b)
		}
		for _, r := range before {
			if d := cmp.Diff(string(model.Bytes(r.Value)), string(model.Bytes(out.Store.Get(r.Table, r.Key)))); d != "" {
				t.Errorf("%s %s is changed by\n%s%s", r.Table, r.Key, b, d)
			}
		}
		for _, o := range batch.Objects {
			out.Host.Delete(o.Ref())
		}
		out.Store.Run()
		if d := cmp.Diff(all, out.Model()); d != "" {
			t.Errorf("left of\n%s%s", b, d)
		}
	}
}
