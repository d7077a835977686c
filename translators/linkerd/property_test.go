// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"math/rand/v2"
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

// print gives everything that the plane said.
func (m mesh) print() string {
	m.store.Run()
	var b strings.Builder
	for _, t := range []incr.Table{translators.Routes(Plane), translators.Authz(Plane), translators.Inbounds(Plane)} {
		for _, r := range m.store.Rows(t) {
			fmt.Fprintf(&b, "%s %s %s\n", r.Table, r.Key, model.Bytes(r.Value))
		}
	}
	for _, d := range m.host.Diagnostics() {
		fmt.Fprintf(&b, "%s %s %s\n", d.Source, d.Code, d.Message)
	}
	return b.String()
}

// manifests reads the inputs of the cases, and of the decision table.
func manifests(t testing.TB) []objects.Input {
	var out []objects.Input
	for _, glob := range []string{"testdata/*.txtar", "../../conformance/linkerd/cases/*.txtar"} {
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

// The order in which objects arrive has no meaning; their creation has.
func TestShuffled(t *testing.T) {
	for _, in := range manifests(t) {
		m := newMesh()
		batch := objects.Decode(m.host.Registry(), in)
		m.host.Replace(batch)
		want := m.print()
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 2 {
			rnd.Shuffle(len(batch.Objects), func(i, j int) { batch.Objects[i], batch.Objects[j] = batch.Objects[j], batch.Objects[i] })
			m := newMesh()
			m.host.Replace(batch)
			if d := cmp.Diff(want, m.print()); d != "" {
				t.Fatalf("%s (-in order +shuffled):\n%s", in.Name, d)
			}
		}
	}
}

// After any edits the result is that of a translation from scratch, and nothing is left
// when everything is gone.
func TestEdits(t *testing.T) {
	m := newMesh()
	var pool []*objects.Object
	for _, in := range manifests(t) {
		pool = append(pool, objects.Decode(m.host.Registry(), in).Objects...)
	}
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
		if step%20 != 0 {
			continue
		}
		fresh := newMesh()
		for _, o := range have {
			fresh.host.Set(o)
		}
		if d := cmp.Diff(fresh.print(), m.print()); d != "" {
			t.Fatalf("step %d (-from scratch +edited):\n%s", step, d)
		}
	}
	for ref := range have {
		m.host.Delete(ref)
	}
	if left := m.print(); left != "" {
		t.Errorf("left when everything is gone:\n%s", left)
	}
}

// An object of each kind that nobody can use changes nothing for the others.
func TestOneBadAmongOthers(t *testing.T) {
	good := newMesh()
	batch := objects.Decode(good.host.Registry(), objects.Input{Name: "company", Data: []byte(company)})
	good.host.Replace(batch)
	want := rowsOf(good)
	for _, typ := range theTranslator(t).Types() {
		if typ.Kind == objects.NamespaceKind || typ.Kind == serverKind {
			continue // a Server that cannot be read closes what it may be for: see server_invalid
		}
		text := fmt.Sprintf("apiVersion: %s/%s\nkind: %s\nmetadata: {name: bad, namespace: shop}\nspec: {nothing: of, the: kind}\n", typ.Kind.Group, typ.Version, typ.Kind.Kind)
		m := newMesh()
		m.host.Replace(objects.Decode(m.host.Registry(), objects.Input{Name: "company", Data: []byte(company)}, objects.Input{Name: "x", Data: []byte(text)}))
		if d := cmp.Diff(want, rowsOf(m)); d != "" {
			t.Errorf("%s %s (-without +with):\n%s", typ.Kind, typ.Version, d)
		}
	}
}

func rowsOf(m mesh) string {
	text := m.print()
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "route/") || strings.HasPrefix(line, "authz/") || strings.HasPrefix(line, "inbound/") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// FuzzTranslate: whatever the objects, no panic, and what an invalid object lets in is
// nobody.
func FuzzTranslate(f *testing.F) {
	for _, in := range manifests(f) {
		f.Add(string(in.Data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		out := translatortest.Translate(newTranslator, objects.Input{Name: "in.yaml", Data: []byte(text)})
		out.Model()
		out.DiagnosticLines()
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
