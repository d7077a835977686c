// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// An observed pod has the plan of any other; what differs is a flag, and policies in Envoy
// that refuse nobody.
func TestObservedPodsDifferByFlagsAlone(t *testing.T) {
	rule := from("client")
	rule.To = []model.Operation{{Paths: []model.StringMatch{{Kind: model.Exact, Value: "/ok"}}}}
	rows := append(world(), allow("p", web, rule))
	enforced := dump(store(rows...))
	observed := slices.Clone(rows)
	for i, in := range observed {
		if w, ok := in.value.(*model.Workload); ok && w.Labels["app"] == "web" {
			copied := *w
			copied.Observed = true
			observed[i].value = &copied
		}
	}
	s := store(observed...)
	differ := 0
	got := dump(s)
	if len(got) != len(enforced) {
		t.Fatalf("%d rows, want %d", len(got), len(enforced))
	}
	normal := strings.NewReplacer(`,"shadow":true`, "", `,"observed":true`, "")
	id := func(line string) string { // routes are named by their content
		if strings.HasPrefix(line, "plan/routetable in|") {
			line = line[:strings.Index(line, `"id":`)] + line[strings.Index(line, `"id":`)+len(`"id":"`)+64:]
		}
		return line
	}
	for i := range got {
		if got[i] != enforced[i] {
			differ++
			if a, b := normal.Replace(got[i]), enforced[i]; a != b && !strings.HasPrefix(a, "plan/routetable in|") && id(a) != id(b) {
				t.Errorf("observed\n\t%s\nenforced\n\t%s", got[i], enforced[i])
			}
		}
	}
	if p := s.Get(plan.Pods, "10.244.1.2").(*plan.Pod); !p.Observed || p.Set == 0 || differ == 0 {
		t.Errorf("pod %+v, %d rows differ", p, differ)
	}
	for _, table := range []string{"shop/web:80"} {
		for _, c := range s.Get(plan.RouteTables, table).(*plan.RouteTable).Routes[0].Clusters {
			if cl := s.Get(plan.Clusters, c.Name).(*plan.Cluster); cl.Policy == nil || !cl.Policy.Shadow || !cl.Checked || cl.Inbound {
				t.Errorf("cluster %+v", cl)
			}
		}
	}
	in := s.Get(plan.RouteTables, "in|shop/web-1:8080").(*plan.RouteTable)
	if len(in.Routes) != 1 || in.Routes[0].Policy == nil || !in.Routes[0].Policy.Shadow || in.Limit != nil {
		t.Errorf("requests that come in: %+v", in)
	}
}
