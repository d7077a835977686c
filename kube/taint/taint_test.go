// SPDX-License-Identifier: Apache-2.0

package taint

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/kubetest"
)

// A node that changes meanwhile keeps what it got; package operator tests the rest.
func TestConflict(t *testing.T) {
	kube.Prepare(&kube.Config{}) // whose logging is set up once, outside of any test's clock
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New(t)
		const node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {taints: [{key: a, effect: NoSchedule}, {key: fairlead.io/starts, effect: NoSchedule}]}"
		s.Apply(node)
		r, err := New(Options{Config: s.Config(), Namespace: "fairlead-system", Key: "fairlead.io/starts"})
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.nodes.Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Apply(strings.Replace(node, "key: a,", "key: c,", 1))
		err = r.remove(t.Context(), n)
		if spec := fmt.Sprint(s.Get("", "nodes", "n1")["spec"]); err == nil || !strings.Contains(spec, "key:c") || !strings.Contains(spec, "fairlead.io/starts") {
			t.Errorf("%v: %s", err, spec)
		}
		synctest.Wait()
	})
}
