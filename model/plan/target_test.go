// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func TestTargets(t *testing.T) {
	v1, other := map[string]string{"v": "1"}, map[string]string{"v": "3"}
	for name, c := range map[string]struct {
		target model.Target
		want   []string
	}{
		"everything":           {model.Target{}, []string{"client", "web-1", "web-2"}},
		"a namespace":          {model.Target{Namespace: "shop"}, []string{"client", "web-1", "web-2"}},
		"another namespace":    {model.Target{Namespace: "till"}, nil},
		"a workload":           {model.Target{Namespace: "shop", Workload: "web-1"}, []string{"web-1"}},
		"of another namespace": {model.Target{Namespace: "till", Workload: "web-1"}, nil},
		"and its labels":       {model.Target{Namespace: "shop", Workload: "web-1", Labels: other}, nil},
		"of any namespace":     {model.Target{Workload: "web-2"}, []string{"web-2"}},
		"by a label":           {model.Target{Namespace: "shop", Labels: v1}, []string{"web-1"}},
		"of any namespace's":   {model.Target{Labels: v1}, []string{"web-1"}},
		"by two labels":        {model.Target{Namespace: "shop", Labels: map[string]string{"app": "web", "v": "2"}}, []string{"web-2"}},
		"by one too many":      {model.Target{Namespace: "shop", Labels: map[string]string{"app": "web", "v": "2", "w": ""}}, nil},
		"but one":              {model.Target{Namespace: "shop", Except: []model.Target{{Workload: "web-1"}}}, []string{"client", "web-2"}},
		"but some": {model.Target{Namespace: "shop", Except: []model.Target{
			{Labels: v1}, {Namespace: "till"}, {Namespace: "shop", ServiceAccount: "client"},
		}}, []string{"web-2"}},
		"but all": {model.Target{Namespace: "shop", Except: []model.Target{{}}}, nil},
		"an exception of an exception": {model.Target{Namespace: "shop", Except: []model.Target{
			{Namespace: "shop", Except: []model.Target{{Labels: v1}}},
		}}, []string{"web-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(append(world(), allow("a", c.target, from("client")))...)
			var got []string
			for _, r := range s.Rows(plan.Governance) {
				if r.Value.(*plan.Governed).ID != 0 {
					got = append(got, r.Key[len("shop/"):])
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("selects %v, want %v", got, c.want)
			}
		})
	}
}

// Of a policy for one pod the other pods of its namespace know nothing.
func TestPolicyOfOneWorkloadConcernsNoOther(t *testing.T) {
	const pods = 200
	rows := []input{node("n1", "10.240.0.1")}
	for i := range pods {
		name := fmt.Sprintf("p-%d", i)
		rows = append(rows, pod(name, "n2", fmt.Sprintf("10.244.2.%d", i), "web", nil),
			allow(name, model.Target{Namespace: "shop", Workload: name}, from(name)))
	}
	s := store(rows...)
	changed := allow("p-7", model.Target{Namespace: "shop", Workload: "p-7"}, from("other"))
	s.Set(changed.table, changed.key, changed.value)
	before := s.Computed()["plan/govern"]
	s.Run()
	if n := s.Computed()["plan/govern"] - before; n != 1 {
		t.Errorf("the policies of %d workloads were put together, want 1", n)
	}
}

// Nor of one for those with a label that they do not carry, whatever labels others ask for.
func TestPolicyByLabelsConcernsThoseWhoCarryThem(t *testing.T) {
	const pods = 200
	rows := []input{node("n1", "10.240.0.1")}
	target := func(i int) model.Target {
		switch i % 3 {
		case 0:
			return model.Target{Namespace: "shop", Labels: map[string]string{"app": fmt.Sprint(i), "tier": "web"}}
		case 1:
			return model.Target{Namespace: "shop", Labels: map[string]string{"name": fmt.Sprint(i)}}
		}
		return model.Target{Labels: map[string]string{"app": fmt.Sprint(i)}}
	}
	for i := range pods {
		name := fmt.Sprintf("p-%d", i)
		rows = append(rows, pod(name, "n2", fmt.Sprintf("10.244.2.%d", i), "web", map[string]string{"app": fmt.Sprint(i), "name": fmt.Sprint(i), "tier": "web"}),
			allow(name, target(i), from(name)))
	}
	s := store(rows...)
	for i := range pods {
		key := fmt.Sprintf("shop/p-%d", i)
		if g, _ := s.Get(plan.Governance, key).(*plan.Governed); g == nil || len(g.Allow) != 1 || len(g.Allow[0]) != 1 {
			t.Fatalf("%s is governed by %+v, want by one rule", key, g)
		}
	}
	for i := 6; i < 9; i++ {
		changed := allow(fmt.Sprintf("p-%d", i), target(i), from("other"))
		s.Set(changed.table, changed.key, changed.value)
		before := s.Computed()["plan/govern"]
		s.Run()
		if n := s.Computed()["plan/govern"] - before; n != 1 {
			t.Errorf("the policies of %d workloads were put together, want 1", n)
		}
	}
}
