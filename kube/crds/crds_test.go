// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"net/http"
	"os"
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
