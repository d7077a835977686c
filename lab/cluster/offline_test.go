// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

func decoded(text string) *objects.Batch {
	r := objects.NewRegistry(kubernetes.New(kubernetes.Options{}).Types()...)
	return Decode(r, []objects.Input{{Name: "in.yaml", Data: []byte(text)}}, nodes)
}

func deploymentOf(name string, replicas int) string {
	return fmt.Sprintf("---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: %[1]s}\nspec: {replicas: %[2]d, selector: {matchLabels: {a: %[1]s}}, "+
		"template: {metadata: {labels: {a: %[1]s}}, spec: {containers: [{name: c}]}}}\n", name, replicas)
}

func podsNamed(b *objects.Batch, prefix string) int {
	n := 0
	for _, o := range b.Objects {
		if o.Kind == objects.PodKind && strings.HasPrefix(o.Name, prefix) {
			n++
		}
	}
	return n
}

func messages(b *objects.Batch, code string) []string {
	var out []string
	for _, d := range b.Diagnostics {
		if d.Code == code {
			out = append(out, fmt.Sprintf("%d: %s", d.Source.Line, d.Message))
		}
	}
	return out
}

// Who asks for too many pods takes no place that others need, and is told.
func TestDecodeTooManyReplicas(t *testing.T) {
	b := decoded(deploymentOf("many", 1_000_000_000) + deploymentOf("web", 3) + deploymentOf("zoo", 2))
	if web, zoo := podsNamed(b, "web-"), podsNamed(b, "zoo-"); web != 3 || zoo != 2 {
		t.Errorf("%d pods of web, %d of zoo", web, zoo)
	}
	if n, all := podsNamed(b, "many-"), len(nodes)*(lastSlot-firstSlot+1); n != all-5 {
		t.Errorf("%d pods of many", n)
	}
	got := messages(b, NotPlaced)
	if len(got) != 2 || !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "in place of 1000000000") }) ||
		!slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "no address left") }) {
		t.Errorf("said %q", got)
	}
}

// What is wrong with a pod is said as where nothing is placed.
func TestDecodeSaysWhatIsWrongWithPods(t *testing.T) {
	const text = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: 7}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: odd}\nspec: {containers: [], nodeNam: x}\n"
	want := objects.Decode(objects.NewRegistry(kubernetes.New(kubernetes.Options{}).Types()...), objects.Input{Name: "in.yaml", Data: []byte(text)}).Diagnostics
	if got := decoded(text).Diagnostics; len(want) != 2 || !slices.Equal(got, want) {
		t.Errorf("said %v, want %v", got, want)
	}
}

// Nothing is added to manifests that have nodes, and what they lack is told.
func TestDecodeWithNodes(t *testing.T) {
	const service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {%s, ports: [{port: 80}]}\n"
	b := decoded("apiVersion: v1\nkind: Node\nmetadata: {name: n}\n" + deploymentOf("web", 3) + deploymentOf("none", 0) +
		fmt.Sprintf(service, "web", "selector: {a: web}") + fmt.Sprintf(service, "given", "clusterIP: 10.96.0.1") + fmt.Sprintf(service, "headless", "clusterIP: None"))
	if n := podsNamed(b, ""); n > 0 {
		t.Errorf("%d pods", n)
	}
	want := []string{"5: none of its pods is there, and none is made up where there are Node objects",
		"15: it has no cluster address, and none is made up where there are Node objects"}
	if got := messages(b, NotPlaced); !slices.Equal(got, want) {
		t.Errorf("said %q", got)
	}
	if slices.ContainsFunc(b.Diagnostics, model.Diagnostic.IsError) {
		t.Error("what is missing is no error")
	}
}

// A node that cannot be read is none.
func TestDecodeWithInvalidNode(t *testing.T) {
	b := decoded("apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: 7\n" + deploymentOf("web", 3))
	if n := podsNamed(b, "web-"); n != 3 || len(messages(b, "wrong-type")) != 1 {
		t.Errorf("%d pods, said %v", n, b.Diagnostics)
	}
}
