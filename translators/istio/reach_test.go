// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
)

// Policies rest on the pods that nobody captures and that they are for, and on no others.
func TestPoliciesRestOnFewPods(t *testing.T) {
	m := newMesh()
	set := func(text string) int {
		for _, o := range objects.Decode(m.host.Registry(), objects.Input{Name: "in.yaml", Data: []byte(text)}).Objects {
			m.host.Set(o)
		}
		before := m.store.Computed()[Plane+"/translate"]
		m.store.Run()
		return m.store.Computed()[Plane+"/translate"] - before
	}
	pod := func(namespace, app, ip string) string {
		return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s, labels: {app: %s}}\nspec: {nodeName: n, containers: [{name: c}]}\nstatus: {podIP: %s}\n", app, namespace, app, ip)
	}
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: bare}\n")
	for _, namespace := range []string{"shop", "bare"} {
		for i := range 20 {
			fmt.Fprintf(&text, "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p%d, namespace: %s}\nspec: {action: DENY, selector: {matchLabels: {app: a%d}}, rules: [{}]}\n", i, namespace, i)
		}
	}
	set(text.String())
	for name, c := range map[string]struct {
		pod  string
		want int
	}{
		"captured":                 {pod("shop", "a1", "10.1.0.1"), 0},
		"not captured":             {pod("bare", "a1", "10.1.0.2"), 1},
		"not captured or selected": {pod("bare", "b", "10.1.0.3"), 0},
	} {
		if n := set(c.pod); n != c.want {
			t.Errorf("a pod that is %s: %d units computed, want %d", name, n, c.want)
		}
	}
}
