// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"fmt"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/host"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Node is the name of the node whose plan Planned is.
const Node = "n1"

// Stage is a node with a captured client and a server, for fields to have an effect on:
// manifests to stand before those of a test, which add services and policies of their
// own. All are of the namespace shop.
const Stage = `
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}, annotations: {fairlead.io/agent: "true"}}
status: {addresses: [{type: InternalIP, address: 10.240.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z2}, annotations: {fairlead.io/agent: "true"}}
status: {addresses: [{type: InternalIP, address: 10.240.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stage-client, namespace: shop, labels: {app: client, a: x, x: x, x-a: x, fairlead.io/capture: enabled}}
spec: {nodeName: n1, serviceAccountName: client, containers: [{name: c}]}
status: {podIP: 10.244.1.200, podIPs: [{ip: 10.244.1.200}], conditions: [{type: Ready, status: "True"}]}
`

// Planned runs manifests beside Stage through the kubernetes translator and the plane's,
// and plans Node.
func Planned(make func() translators.Translator, inputs ...objects.Input) Output {
	p := make()
	out := Output{Store: incr.New(), plane: p.Plane()}
	out.Host = host.New(out.Store, kubernetes.New(kubernetes.Options{}), p)
	merge.Register(out.Store, []string{out.plane})
	plan.Register(out.Store, Node, []string{out.plane})
	out.Host.Replace(objects.Decode(out.Host.Registry(), append([]objects.Input{{Name: "stage.yaml", Data: []byte(Stage)}}, inputs...)...))
	out.Store.Run()
	return out
}

// Plan prints the plan, a row a line; what Planned gives has one.
func (o Output) Plan() string {
	var b strings.Builder
	for _, t := range plan.Tables() {
		for _, r := range o.Store.Rows(t) {
			fmt.Fprintf(&b, "%s %s %s\n", t, r.Key, model.Bytes(r.Value))
		}
	}
	return b.String()
}
