// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/host"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// What agents say of themselves counts where the Node says nothing; the one that reads it
// is there.
func TestLeases(t *testing.T) {
	s := incr.New()
	h := host.New(s, kubernetes.New(kubernetes.Options{Leases: "fairlead-system", Self: "self"}))
	node := func(name, uid, agent string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s, uid: %q, annotations: {fairlead.io/agent: %q}}\n---\n", name, uid, agent)
	}
	lease := func(namespace, name, uid, behind string) string {
		return fmt.Sprintf("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: %s, namespace: %s, annotations: {fairlead.io/node-uid: %q, fairlead.io/behind: %q}}\n---\n", name, namespace, uid, behind)
	}
	leases := lease("fairlead-system", "current", "1", "") + lease("fairlead-system", "lagging", "2", "is too slow") + lease("fairlead-system", "renewed", "3", "") +
		lease("elsewhere", "bare", "5", "") + lease("fairlead-system", "without", "6", "") + lease("fairlead-system", "with", "7", "is too slow") + lease("fairlead-system", "self", "8", "is too slow")
	nodes := node("current", "1", "") + node("lagging", "2", "") + node("renewed", "4", "") + node("bare", "5", "") + node("without", "6", "false") + node("with", "7", "true") + node("self", "8", "")
	want := func(text string) {
		t.Helper()
		var got []string
		for _, r := range s.Rows(translators.Nodes) {
			n := r.Value.(*model.Node)
			got = append(got, fmt.Sprintf("%s %t %t", n.Name, n.Managed, n.Behind))
		}
		if strings.Join(got, ", ") != text {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), text)
		}
	}
	load := func(text string) {
		h.Replace(objects.Decode(h.Registry(), objects.Input{Name: "in.yaml", Data: []byte(text)}))
		s.Run()
	}
	load(nodes + leases)
	want("bare false false, current true false, lagging true true, renewed false false, self true false, with true false, without false false")
	load(nodes)
	want("bare false false, current false false, lagging false false, renewed false false, self true false, with true false, without false false")
}
