// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"testing"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// What Kubernetes itself says is everybody's, whichever planes read it too.
func TestAloneKeepsWhatIsEverybodys(t *testing.T) {
	const manifests = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: web, namespace: shop}
spec: {service: web, backends: [{service: web, weight: 1}]}
`
	p, err := New(Options{Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	batch := objects.Decode(p.Registry(), objects.Input{Name: "m.yaml", Data: []byte(manifests)})
	for _, c := range []struct {
		plane string
		kinds []string
	}{
		{"istio", []string{"Namespace", "VirtualService"}},
		{"smi", []string{"Namespace", "TrafficSplit"}},
		{"linkerd", []string{"Namespace"}},
		{"gateway", []string{"Namespace"}},
	} {
		got, err := Alone(batch, c.plane)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, o := range got.Objects {
			kinds = append(kinds, o.Kind.Kind)
			if o.Kind == objects.NamespaceKind && (o.Annotations[kubernetes.OwnerKey] != c.plane || o.Labels["istio-injection"] == "") {
				t.Errorf("%s: namespace with %v, %v", c.plane, o.Labels, o.Annotations)
			}
		}
		if len(kinds) != len(c.kinds) || kinds[0] != c.kinds[0] || kinds[len(kinds)-1] != c.kinds[len(c.kinds)-1] {
			t.Errorf("%s alone has %v, want %v", c.plane, kinds, c.kinds)
		}
	}
}
