// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
)

// counted is a mesh; what it returns takes objects and says how many units were computed.
func counted(t *testing.T) func(text string) int {
	m := newMesh()
	return func(text string) int {
		t.Helper()
		d := objects.Decode(m.host.Registry(), objects.Input{Name: "in.yaml", Data: []byte(text)})
		for _, o := range d.Objects {
			m.host.Set(o)
		}
		before := m.store.Computed()[Plane+"/translate"]
		m.store.Run()
		return m.store.Computed()[Plane+"/translate"] - before
	}
}

// Policies that allow rest on the services with UDP, and on no others.
func TestPoliciesRestOnFewServices(t *testing.T) {
	set := counted(t)
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n")
	for i := range 20 {
		fmt.Fprintf(&text, "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p%d, namespace: shop}\nspec: {selector: {matchLabels: {app: a%d}}, rules: [{}]}\n", i, i)
	}
	set(text.String())
	for _, c := range []struct {
		protocol string
		want     int // policies, and the service's own routes
	}{{"TCP", 1}, {"UDP", 21}} {
		name := strings.ToLower(c.protocol)
		n := set(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\nspec: {selector: {app: a1}, clusterIP: 10.1.1.1, ports: [{name: some, port: 53, protocol: %s}]}\n", name, c.protocol))
		if n != c.want {
			t.Errorf("a service with %s: %d units computed, want %d", c.protocol, n, c.want)
		}
	}
}

// Policies rest on the pods that nobody captures and that they are for, and on no others.
func TestPoliciesRestOnFewPods(t *testing.T) {
	set := counted(t)
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
