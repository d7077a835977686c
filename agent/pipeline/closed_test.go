// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"slices"
	"testing"

	"fairlead.io/fairlead/translators/objects"
)

// What is fail-closed follows from what governs, whether or not there are pods.
func TestClosed(t *testing.T) {
	const namespaces = `
apiVersion: v1
kind: Namespace
metadata: {name: denied, annotations: {fairlead.io/default-deny: istio}}
---
apiVersion: v1
kind: Namespace
metadata: {name: guarded}
---
apiVersion: v1
kind: Namespace
metadata: {name: open, labels: {istio-injection: enabled}}
`
	policy := func(namespace string) string {
		return `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: ` + namespace + `}
spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {namespaces: [x]}}]}]}
`
	}
	const known = `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
`
	const observed = `
---
apiVersion: v1
kind: Namespace
metadata: {name: watched, annotations: {fairlead.io/mode: observe, fairlead.io/default-deny: smi}, labels: {istio-injection: enabled}}
`
	const pod = `
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: unwritten}
spec: {nodeName: n1, containers: [{name: main, image: x}]}
status: {phase: Running, podIP: 10.1.0.1}
`
	for _, c := range []struct {
		what, text string
		want, open []string
		everywhere bool
	}{
		{"nothing", "", nil, nil, false},
		{"a default", namespaces, []string{"denied"}, []string{"guarded", "open"}, false},
		{"a policy", namespaces + policy("guarded"), []string{"denied", "guarded"}, []string{"open"}, false},
		{"a policy before its namespace", namespaces + policy("new"), []string{"denied", "new"}, []string{"guarded", "open"}, false},
		{"a policy of the mesh", namespaces + policy("istio-system"), []string{"denied"}, nil, true},
		{"services that are known", namespaces + known, []string{"denied", "open"}, []string{"guarded"}, false},
		{"a namespace that is observed", namespaces + observed + policy("watched") + known, []string{"denied", "open"}, []string{"guarded", "watched"}, false},
		{"pods whose namespace is not written down", namespaces + pod, []string{"denied"}, []string{"guarded", "open", "unwritten"}, false},
		{"one, and a policy of the mesh", namespaces + observed + policy("istio-system"), []string{"denied"}, []string{"watched"}, true},
	} {
		p, err := New(Options{Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		p.Load(objects.Input{Name: "all.yaml", Data: []byte(c.text)})
		if got, open, everywhere := p.Closed(); !slices.Equal(got, c.want) || !slices.Equal(open, c.open) || everywhere != c.everywhere {
			t.Errorf("%s: %v, everywhere %t but %v, want %v, %t and %v", c.what, got, everywhere, open, c.want, c.everywhere, c.open)
		}
	}
}
