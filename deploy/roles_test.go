// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/agent/pipeline"
)

type role struct {
	Kind     string
	Metadata struct{ Name string }
	Rules    []struct{ APIGroups, Resources, ResourceNames, Verbs []string }
}

// roles are those that the manifests give, by kind and name.
func roles(t *testing.T) map[string]role {
	t.Helper()
	b, err := os.ReadFile("fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]role{}
	for text := range strings.SplitSeq(string(b), "\n---\n") {
		var r role
		if err := yaml.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if strings.HasSuffix(r.Kind, "Role") {
			out[r.Kind+" "+r.Metadata.Name] = r
		}
	}
	return out
}

// plurals are those that are guessed wrong.
var plurals = map[string]string{"Gateway": "gateways", "TrafficMetrics": "trafficmetrics", "XMesh": "xmeshes"}

// What is read may be read, by agents and operators; and nothing else may be.
func TestRolesReadWhatIsRead(t *testing.T) {
	p, err := pipeline.New(pipeline.Options{Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	read := map[schema.GroupResource]bool{
		{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}: true, // by kube itself
	}
	for _, k := range p.Registry().Kinds() {
		if !p.Registry().Unread(k) {
			guess, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Group: k.Group, Version: "v1", Kind: k.Kind})
			read[schema.GroupResource{Group: k.Group, Resource: cmp.Or(plurals[k.Kind], guess.Resource)}] = true
		}
	}
	for _, name := range []string{"fairlead-agent", "fairlead-operator"} {
		may := map[schema.GroupResource]bool{}
		for _, rule := range roles(t)["ClusterRole "+name].Rules {
			if !slices.Contains(rule.Verbs, "watch") {
				continue
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					what := schema.GroupResource{Group: group, Resource: resource}
					may[what] = true
					if name == "fairlead-operator" && group == "events.k8s.io" {
						continue // it follows its own
					}
					if !read[what] {
						t.Errorf("%s may read %s, which is not read", name, what)
					}
					for _, verb := range rule.Verbs {
						if !slices.Contains([]string{"list", "watch"}, verb) {
							t.Errorf("%s may %s %s", name, verb, what)
						}
					}
				}
			}
		}
		for what := range read {
			if !may[what] {
				t.Errorf("%s may not read %s, which is read", name, what)
			}
		}
	}
}

// No role has a wildcard, reads Secrets or lets its holder become somebody else.
func TestRolesAreNarrow(t *testing.T) {
	all := roles(t)
	if len(all) != 4 {
		t.Errorf("%d roles, want 4", len(all))
	}
	for name, r := range all {
		for _, rule := range r.Rules {
			for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
				if slices.Contains([]string{"*", "secrets", "pods/exec", "serviceaccounts/token", "impersonate", "escalate", "bind"}, word) {
					t.Errorf("%s: %s", name, word)
				}
			}
		}
	}
}
