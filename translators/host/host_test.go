// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
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
	"fairlead.io/fairlead/translators/istio"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/smi"
)

func newHost() (*incr.Store, *host.Host) {
	s := incr.New()
	i, err := istio.New(istio.Options{})
	if err != nil {
		panic(err) // the newest version is known
	}
	return s, host.New(s, kubernetes.New(kubernetes.Options{}), i, smi.New(smi.Options{}))
}

// pool is every object of the translators' cases, one list per name: its versions.
func pool(t *testing.T) [][]*objects.Object {
	t.Helper()
	_, h := newHost()
	versions := map[objects.Ref][]*objects.Object{}
	for _, folder := range []string{"istio", "smi", "kubernetes"} {
		files, err := filepath.Glob("../" + folder + "/testdata/*.txtar")
		if err != nil || len(files) == 0 {
			t.Fatalf("no cases of %s: %v", folder, err)
		}
		for _, file := range files {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range ar.Files {
				if !strings.HasSuffix(f.Name, ".yaml") {
					continue
				}
				b := objects.Decode(h.Registry(), objects.Input{Name: filepath.Base(file), Data: f.Data})
				for _, o := range b.Objects {
					versions[o.Ref()] = append(versions[o.Ref()], o)
				}
			}
		}
	}
	refs := slices.SortedFunc(maps.Keys(versions), func(a, b objects.Ref) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	var out [][]*objects.Object
	for _, r := range refs {
		out = append(out, versions[r])
	}
	return out
}

var derived = []incr.Table{translators.Namespaces, translators.Nodes, translators.Services, translators.Endpoints,
	translators.Workloads, translators.Routes(istio.Plane), translators.Authz(istio.Plane),
	translators.Routes(smi.Plane), translators.Authz(smi.Plane), translators.Diagnostics}

// dump prints every derived row with the sources that its bytes leave out.
func dump(s *incr.Store) []string {
	var out []string
	for _, t := range derived {
		for _, r := range s.Rows(t) {
			line := fmt.Sprintf("%s %s %s", t, r.Key, model.Bytes(r.Value))
			switch v := r.Value.(type) {
			case *model.Frontend:
				line += fmt.Sprint(v.Src)
				for _, rt := range v.Routes {
					line += fmt.Sprint(rt.Src)
				}
			case *model.Authorization:
				line += fmt.Sprint(v.Src)
				for _, ru := range v.Rules {
					line += fmt.Sprint(ru.Src)
				}
			}
			out = append(out, line)
		}
	}
	return out
}

func scratch(os map[objects.Ref]*objects.Object) []string {
	s, h := newHost()
	for _, o := range os {
		h.Set(o)
	}
	s.Run()
	return dump(s)
}

func TestShuffledInput(t *testing.T) {
	all := pool(t)
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		in := map[objects.Ref]*objects.Object{}
		for _, versions := range all {
			if r.IntN(3) > 0 {
				o := versions[r.IntN(len(versions))]
				in[o.Ref()] = o
			}
		}
		want := scratch(in) // in the random order of the map
		for range 3 {
			if d := cmp.Diff(want, scratch(in)); d != "" {
				t.Fatal(d)
			}
		}
	}
}

// Random edits come to what a fresh start comes to, an idle run computes nothing,
// and when all objects are gone so is everything else.
func TestEditsEqualScratch(t *testing.T) {
	all := pool(t)
	r := rand.New(rand.NewPCG(5, 6))
	s, h := newHost()
	in := map[objects.Ref]*objects.Object{}
	for round := range 150 {
		for range 1 + r.IntN(8) {
			o := all[r.IntN(len(all))]
			next := o[r.IntN(len(o))]
			if r.IntN(4) == 0 {
				delete(in, next.Ref())
				h.Delete(next.Ref())
			} else {
				in[next.Ref()] = next
				h.Set(next)
			}
		}
		s.Run()
		if d := cmp.Diff(scratch(in), dump(s)); d != "" {
			t.Fatalf("round %d: (-scratch +live)\n%s", round, d)
		}
		computed := s.Computed()
		for _, o := range in {
			h.Set(o)
		}
		if ch := s.Run(); len(ch) > 0 || !maps.Equal(computed, s.Computed()) {
			t.Fatalf("round %d: an idle run changed %v", round, ch)
		}
	}
	for ref := range in {
		h.Delete(ref)
	}
	s.Run()
	if left := dump(s); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// An edited object costs what reads it.
func TestOneEditComputesItsReaders(t *testing.T) {
	s, h := newHost()
	text := func(weight int) []byte {
		var b strings.Builder
		for i := range 50 {
			fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: a}
spec: {clusterIP: 10.0.0.%d, selector: {app: s%d}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p%d, namespace: a, labels: {app: s%d}}
spec: {nodeName: n, containers: [{name: c}]}
status: {podIP: 10.1.0.%d}
---
`, i, i+1, i, i, i, i+1)
			if i > 0 {
				fmt.Fprintf(&b, "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: t%d, namespace: a}\nspec: {service: s%d, backends: [{service: s%d, weight: 1}, {service: s0, weight: %d}]}\n---\n",
					i, i, i-1, map[bool]int{true: weight, false: 5}[i == 7])
			}
		}
		return []byte(b.String())
	}
	load := func(weight int) map[string]int {
		before := s.Computed()
		h.Replace(objects.Decode(h.Registry(), objects.Input{Name: "a.yaml", Data: text(weight)}))
		s.Run()
		after := s.Computed()
		maps.DeleteFunc(after, func(k string, n int) bool { return n == before[k] })
		for k := range after {
			after[k] -= before[k]
		}
		return after
	}
	load(5)
	if d := cmp.Diff(map[string]int{}, load(5)); d != "" {
		t.Errorf("idle: %s", d)
	}
	// t8 asks whether its backend s7 is split itself: nested splits are reported.
	if d := cmp.Diff(map[string]int{"smi/validate": 1, "smi/translate": 2}, load(6)); d != "" {
		t.Errorf("one weight (-want +got):\n%s", d)
	}
}

// An invalid version does not replace a valid one, and says so with its place.
func TestReplaceKeepsLastGood(t *testing.T) {
	s, h := newHost()
	load := func(weights string) {
		h.Replace(objects.Decode(h.Registry(), objects.Input{Name: "a.yaml", Data: []byte(`apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: web}
spec: {service: web, backends: [{service: v1, weight: ` + weights + `}]}
`)}))
		s.Run()
	}
	load("1")
	if n := len(h.Diagnostics()); n > 0 {
		t.Fatalf("diagnostics %v", h.Diagnostics())
	}
	before := dump(s)
	load("0")
	var got []string
	for _, d := range h.Diagnostics() {
		got = append(got, fmt.Sprintf("%d %s", d.Source.Line, d.Code))
	}
	if d := cmp.Diff([]string{"11 last-good-kept", "14 zero-weights"}, got); d != "" {
		t.Error(d)
	}
	after := slices.DeleteFunc(dump(s), func(l string) bool { return strings.HasPrefix(l, string(translators.Diagnostics)) })
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("rows changed:\n%s", d)
	}
	load("1")
	if d := cmp.Diff(before, dump(s)); d != "" {
		t.Errorf("after the repair:\n%s", d)
	}
}

// What a plane says without being asked by an object is there from the first run on,
// and stays when all objects are gone.
func TestDefaultsNeedNoObjects(t *testing.T) {
	s, h := newHost()
	h.Replace(objects.Decode(h.Registry()))
	s.Run()
	for plane, want := range map[string]model.Basis{istio.Plane: model.ByAuthority, smi.Plane: model.ByDestination} {
		if d, _ := s.Get(translators.Defaults, plane).(*model.Defaults); d == nil || d.Basis != want {
			t.Errorf("%s: %+v", plane, d)
		}
	}
	if n := s.Len(translators.Defaults); n != 2 {
		t.Errorf("%d planes", n)
	}
	if ch := s.Run(); len(ch) > 0 {
		t.Errorf("an idle run changed %v", ch)
	}
}
