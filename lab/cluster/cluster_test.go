// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/translators/objects"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

var nodes = []string{"node-1", "node-2"}

// Each case has one or several steps: objects "N.yaml" are the whole of what the
// user has at step N; "N.want" is what becomes of them, step on step. Files named
// in the archive's comment as "show: GLOB" are shown whole.
func TestBuild(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var state State
			var old []*Pod
			var out []txtar.File
			for _, f := range ar.Files {
				step, ok := strings.CutSuffix(f.Name, ".yaml")
				if !ok {
					continue
				}
				o := Options{Nodes: nodes, Old: old, Images: map[string]string{"app": "/bin/app --fast"}}
				c := Build(docs(t, f.Name, f.Data), o, state)
				state, old = c.State, c.Pods
				out = append(out, f, txtar.File{Name: step + ".want", Data: show(c, shown(ar.Comment))})
			}
			if *update {
				ar.Files = out
				if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(txtar.Format(ar)), string(txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: out}))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func docs(t *testing.T, name string, data []byte) []Doc {
	t.Helper()
	raws, _, diags := objects.Cut(objects.Input{Name: name, Data: data})
	if len(diags) > 0 {
		t.Fatalf("cut: %v", diags)
	}
	var out []Doc
	for i, r := range raws {
		out = append(out, Doc{i + 1, r})
	}
	return Latest(out)
}

func shown(comment []byte) []string {
	var out []string
	for line := range strings.Lines(string(comment)) {
		if glob, ok := strings.CutPrefix(strings.TrimSpace(line), "show: "); ok {
			out = append(out, glob)
		}
	}
	return out
}

func show(c *Cluster, globs []string) []byte {
	var s strings.Builder
	for _, p := range c.Pods {
		fmt.Fprintf(&s, "pod %s on %s %v as %s\n", p.Key(), p.Node, p.Addresses, p.ServiceAccount)
		for _, pr := range p.Programs {
			fmt.Fprintf(&s, "    %s: %s", pr.Container, pr.Runs)
			for _, part := range []any{pr.Shell, pr.Command, pr.Args, pr.Env, pr.Ports} {
				if v := reflect.ValueOf(part); v.Len() > 0 {
					fmt.Fprintf(&s, " %v", part)
				}
			}
			s.WriteByte('\n')
		}
	}
	for _, v := range c.Services {
		fmt.Fprintf(&s, "service %s %v %v\n", v.Key(), v.Addresses, v.Ports)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&s, "note %s\n", n)
	}
	for _, f := range c.Files {
		fmt.Fprintf(&s, "file %s\n", f.Name)
		for _, g := range globs {
			if ok, err := filepath.Match(g, f.Name); err == nil && ok {
				for line := range strings.Lines(string(f.Data)) {
					s.WriteString("    " + line)
				}
				if !strings.HasSuffix(string(f.Data), "\n") {
					s.WriteByte('\n')
				}
			}
		}
	}
	return []byte(s.String())
}

// A second Build with the state of the first changes nothing; nor does any other
// order in which maps are walked.
func TestBuildIsStable(t *testing.T) {
	data, err := os.ReadFile("testdata/bookinfo.txtar")
	if err != nil {
		t.Fatal(err)
	}
	in := docs(t, "in.yaml", txtar.Parse(data).Files[0].Data)
	first := Build(in, Options{Nodes: nodes}, State{})
	for range 20 {
		again := Build(in, Options{Nodes: nodes}, State{})
		more := Build(in, Options{Nodes: nodes, Old: first.Pods}, first.State)
		for _, c := range []*Cluster{again, more} {
			if d := cmp.Diff(asJSON(t, first), asJSON(t, c)); d != "" {
				t.Fatal(d)
			}
		}
	}
}

func asJSON(t *testing.T, c *Cluster) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// After any sequence of edits no two pods share an address, nor two services.
func TestAddressesAreUnique(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var state State
	for step := range 200 {
		var in strings.Builder
		for i := range 6 {
			fmt.Fprintf(&in, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d%d}\nspec: {replicas: %d, selector: {matchLabels: {a: b}}, "+
				"template: {metadata: {labels: {a: b, v: v%d}}, spec: {containers: [{name: c, image: fairlead/echo}]}}}\n", i, r.IntN(20), r.IntN(3))
			if r.IntN(2) == 0 {
				fmt.Fprintf(&in, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {ports: [{port: 80}]}\n", i)
			}
		}
		c := Build(docs(t, "in.yaml", []byte(in.String())), Options{Nodes: nodes}, state)
		state = c.State
		seen := map[string]string{}
		for _, p := range c.Pods {
			for _, a := range p.Addresses {
				if prev := seen[a.String()]; prev != "" {
					t.Fatalf("step %d: %s has the address %s of %s", step, p.Key(), a, prev)
				}
				seen[a.String()] = p.Key()
			}
		}
		for _, s := range c.Services {
			for _, a := range s.Addresses {
				if prev := seen[a.String()]; prev != "" {
					t.Fatalf("step %d: %s has the address %s of %s", step, s.Key(), a, prev)
				}
				seen[a.String()] = s.Key()
			}
		}
	}
}

// What Offline gives reads without a complaint, and objects keep their lines. A broken
// document costs those beside it nothing.
func TestOffline(t *testing.T) {
	data, err := os.ReadFile("testdata/bookinfo.txtar")
	if err != nil {
		t.Fatal(err)
	}
	inputs := Offline([]objects.Input{{Name: "bookinfo.yaml", Data: slices.Concat(txtar.Parse(data).Files[0].Data, []byte("---\nc: [\n"))}, {Name: "bad.yaml", Data: []byte("a: [")}}, nodes)
	for _, name := range []string{"bookinfo.yaml", "bad.yaml"} {
		broken := slices.IndexFunc(inputs, func(i objects.Input) bool { return i.Name == name })
		if broken < 0 {
			t.Fatalf("what is broken in %s is gone, so that nobody says what is wrong with it", name)
		}
		if b := objects.Decode(objects.NewRegistry(), inputs[broken]); len(b.Objects) > 0 || len(b.Diagnostics) != 1 {
			t.Errorf("%s: %d objects, %v", name, len(b.Objects), b.Diagnostics)
		}
	}
	pods := 0
	for _, in := range inputs {
		if strings.HasPrefix(in.Name, "z.pod.") {
			pods++
		}
	}
	if pods != 4 {
		t.Errorf("%d pods", pods)
	}
}

// A typo in replicas fills the nodes and no more.
func TestManyReplicas(t *testing.T) {
	c := Build(docs(t, "in.yaml", []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 2000000000, "+
		"selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}}")), Options{Nodes: nodes}, State{})
	if want := len(nodes) * (lastSlot - firstSlot + 1); len(c.Pods) != want {
		t.Errorf("%d pods, want %d", len(c.Pods), want)
	}
	if s := fmt.Sprint(c.Notes); !strings.Contains(s, "in place of 2000000000") || !strings.Contains(s, "no address left") {
		t.Errorf("notes %.300s", s)
	}
}

// No manifest makes Build panic, place a pod twice, or write a file outside.
func FuzzBuild(f *testing.F) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range cases {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ar.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raws, _, _ := objects.Cut(objects.Input{Name: "in.yaml", Data: data})
		var in []Doc
		for i, r := range raws {
			in = append(in, Doc{i + 1, r})
		}
		in = Latest(in)
		first := Build(in, Options{Nodes: nodes}, State{})
		again := Build(in, Options{Nodes: nodes, Old: first.Pods}, first.State)
		if asJSON(t, first) != asJSON(t, again) {
			t.Error("a second Build changes something")
		}
		for _, f := range first.Files {
			if f.Name != filepath.Base(f.Name) || len(f.Name) > 250 {
				t.Errorf("file %q", f.Name)
			}
		}
		if none := Build(in, Options{}, State{}); len(none.Pods) > 0 {
			t.Error("pods without nodes")
		}
	})
}
