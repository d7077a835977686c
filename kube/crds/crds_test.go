// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/kubetest"
)

func TestMain(m *testing.M) {
	kube.Prepare(&kube.Config{}) // whose logging is set up once, outside of any test's clock
	os.Exit(m.Run())
}

func definition(versions ...string) string {
	s := "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: trafficsplits.split.smi-spec.io}\nspec:\n  group: split.smi-spec.io\n  versions:\n"
	for _, v := range versions {
		s += "  - {name: " + v + ", served: true}\n"
	}
	return s
}

// try is Install of one definition, and what was written for it.
func try(t *testing.T, s *kubetest.Server, manifest string) (Result, []string) {
	t.Helper()
	before := len(s.Writes())
	results, err := Install(t.Context(), s.Config(), [][]byte{[]byte(manifest)})
	if err != nil || len(results) != 1 {
		t.Fatalf("%v, %v", results, err)
	}
	var wrote []string
	for _, w := range s.Writes()[before:] {
		wrote = append(wrote, w.Method)
	}
	return results[0], wrote
}

func get(s *kubetest.Server) map[string]any {
	return s.Get("apiextensions.k8s.io", "customresourcedefinitions", "trafficsplits.split.smi-spec.io")
}

func TestInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New(t)
		if r, wrote := try(t, s, definition("v1alpha1")); r.Outcome != Installed || !slices.Equal(wrote, []string{"POST"}) {
			t.Errorf("missing: %v, wrote %v", r, wrote)
		}
		if r, wrote := try(t, s, definition("v1alpha1")); r.Outcome != AsItWas || wrote != nil {
			t.Errorf("there: %v, wrote %v", r, wrote)
		}
		o := get(s)
		o["metadata"].(map[string]any)["labels"].(map[string]any)["team"] = "mesh"
		s.Put(o)
		r, wrote := try(t, s, definition("v1alpha2", "v1alpha1"))
		if r.Outcome != Updated || !slices.Equal(wrote, []string{"PUT"}) || !slices.Equal(r.Serves, []string{"v1alpha2", "v1alpha1"}) {
			t.Errorf("older: %v, wrote %v", r, wrote)
		}
		if got := get(s)["metadata"].(map[string]any)["labels"].(map[string]any)["team"]; got != "mesh" {
			t.Errorf("a label of the user's is %v", got)
		}
		if _, wrote := try(t, s, definition("v1alpha2", "v1alpha1")); wrote != nil {
			t.Errorf("brought up to date, and wrote %v", wrote)
		}
	})
}

func TestAnothersIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New(t)
		s.Apply(definition("v1alpha1"))
		before := get(s)
		r, wrote := try(t, s, definition("v1alpha2", "v1alpha1"))
		if r.Outcome != Adopted || wrote != nil || !slices.Equal(r.Serves, []string{"v1alpha1"}) || !slices.Equal(r.Lacks, []string{"v1alpha2"}) {
			t.Errorf("%v, wrote %v", r, wrote)
		}
		if !strings.Contains(r.String(), "it does not serve v1alpha2") {
			t.Errorf("it says %s", r)
		}
		if !reflect.DeepEqual(get(s), before) {
			t.Error("it was changed")
		}
	})
}

// What another's definition drops is told by version and field; where it keeps what it does
// not name, nothing is dropped.
func TestWhatAnothersDrops(t *testing.T) {
	own, err := os.ReadFile("../../deploy/crds/access_traffictargets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	schema := func(root string) string {
		return "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: traffictargets.access.smi-spec.io}\nspec:\n  group: access.smi-spec.io\n  versions:\n" +
			"  - {name: v1alpha3, served: true, schema: {openAPIV3Schema: " + root + "}}\n" +
			"  - {name: v1alpha2, served: true, schema: {openAPIV3Schema: " + root + "}}\n"
	}
	const item = "{type: array, items: {type: object, properties: {kind: {type: string}, name: {type: string}, namespace: {type: string}}}}"
	const rules = "{type: array, items: {type: object, properties: {kind: {type: string}, name: {type: string}, matches: {type: array, items: {type: string}}}}}"
	spec := func(destination string) string {
		return "{type: object, properties: {destination: " + destination + ", sources: " + item + ", rules: " + rules + "}}"
	}
	const account = "{type: object, properties: {kind: {type: string}, name: {type: string}, namespace: {type: string}}}"
	for name, c := range map[string]struct {
		root string
		want []string
	}{
		"keeps all":                   {"{type: object, x-kubernetes-preserve-unknown-fields: true}", nil},
		"keeps what it does not name": {"{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}", nil},
		"of its own version":          {"{type: object, properties: {spec: " + spec("{type: object, x-kubernetes-preserve-unknown-fields: true}") + "}}", []string{"destination", "sources", "specs"}},
		"without the port":            {"{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: " + spec(account) + "}}", []string{"spec.destination.port"}},
		"without what is in lists": {"{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {rules: " + item + "}}}}",
			[]string{"spec.rules[].matches"}},
		"without anything": {"{type: object}", []string{"destination", "sources", "spec", "specs"}},
	} {
		s := kubetest.New(t)
		s.Apply(schema(c.root))
		for what, f := range map[string]func(context.Context, *kube.Config, [][]byte) ([]Result, error){"install": Install, "look": Look} {
			all, err := f(t.Context(), s.Config(), [][]byte{own})
			if err != nil || len(all) != 1 || all[0].Outcome != Adopted || !slices.Equal(all[0].Lacks, []string{"v1alpha1"}) {
				t.Fatalf("%s, %s: %+v, %v", name, what, all, err)
			}
			var want []Drop
			if c.want != nil {
				want = []Drop{{[]string{"v1alpha3", "v1alpha2"}, c.want}}
			}
			if !reflect.DeepEqual(all[0].Drops, want) {
				t.Errorf("%s, %s: drops %v, want %v", name, what, all[0].Drops, want)
			}
			if text := all[0].Problem(); want != nil && !strings.Contains(text, "of objects written or read as v1alpha3, v1alpha2 it drops "+strings.Join(c.want, ", ")+"; what these fields restrict") {
				t.Errorf("it says %s", text)
			}
		}
		if len(s.Writes()) > 0 {
			t.Errorf("%s: wrote %v", name, s.Writes())
		}
	}
}

// Our own drop nothing of themselves, and one that is not there is told without writing.
func TestLook(t *testing.T) {
	files, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all [][]byte
	s := kubetest.New(t)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	if got, err := Look(t.Context(), s.Config(), all); err != nil || len(got) != len(all) || got[0].Outcome != Missing || got[0].Problem() != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, b := range all {
		s.Apply(string(b)) // as another who has ours
	}
	got, err := Look(t.Context(), s.Config(), all)
	if err != nil || len(got) != len(all) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, r := range got {
		if r.Outcome != Adopted || r.Problem() != "" {
			t.Errorf("%s", r)
		}
	}
}

// One that is installed by another between our look and our write is adopted, too; and
// what is forbidden says what to do.
func TestOthersAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New(t)
		first := true
		s.Interrupt(func(r *http.Request) (int, bool) {
			if r.Method == http.MethodPost && first {
				first = false
				s.Apply(definition("v1alpha1"))
			}
			return 0, false
		})
		if r, _ := try(t, s, definition("v1alpha2")); r.Outcome != Adopted {
			t.Errorf("%v", r)
		}
		s.Interrupt(func(r *http.Request) (int, bool) { return 403, false })
		if _, err := Install(t.Context(), s.Config(), [][]byte{[]byte(definition("v1alpha2"))}); err == nil || !strings.Contains(err.Error(), "by a ClusterRole, or apply deploy/crds yourself") {
			t.Errorf("it says %v", err)
		}
	})
}
