// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
)

// BenchmarkBuild is a lab of 400 pods behind 100 services.
func BenchmarkBuild(b *testing.B) {
	var in strings.Builder
	for i := range 100 {
		fmt.Fprintf(&in, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d%[1]d}\nspec: {replicas: 4, selector: {matchLabels: {a: d%[1]d}}, "+
			"template: {metadata: {labels: {a: d%[1]d}}, spec: {containers: [{name: c, image: fairlead/echo, ports: [{containerPort: 80}]}]}}}\n"+
			"---\napiVersion: v1\nkind: Service\nmetadata: {name: s%[1]d}\nspec: {selector: {a: d%[1]d}, ports: [{port: 80}]}\n", i)
	}
	raws, _, diags := objects.Cut(objects.Input{Name: "in.yaml", Data: []byte(in.String())})
	if len(diags) > 0 {
		b.Fatal(diags)
	}
	var docs []Doc
	for i, r := range raws {
		docs = append(docs, Doc{i + 1, r})
	}
	first := Build(docs, Options{Nodes: nodes}, State{})
	if len(first.Pods) != 400 {
		b.Fatalf("%d pods", len(first.Pods))
	}
	for b.Loop() {
		Build(docs, Options{Nodes: nodes, Old: first.Pods}, first.State)
	}
}
