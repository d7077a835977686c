// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const startupTaint = "fairlead.io/agent-not-ready"

// node has the startup taint between two others.
func node(name string) string {
	return "apiVersion: v1\nkind: Node\nmetadata: {name: " + name + "}\nspec: {taints: [{key: a, effect: NoSchedule}, {key: " + startupTaint +
		", effect: NoSchedule}, {key: " + startupTaint + ", effect: NoExecute}, {key: b, value: x, effect: NoExecute}]}"
}

func (r *rig) taintsOf(name string) string {
	var out []string
	spec, _ := r.Get("", "nodes", name)["spec"].(map[string]any)
	list, _ := spec["taints"].([]any)
	for _, e := range list {
		out = append(out, fmt.Sprint(e.(map[string]any)["key"]))
	}
	return strings.Join(out, " ")
}

// renew is what a node's agent says of itself.
func (r *rig) renew(name, uid string, notes ...string) {
	notes = append(notes, "fairlead.io/node-uid: "+uid)
	r.Apply(fmt.Sprintf("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: %s, namespace: fairlead-system, annotations: {%s}}\nspec: {holderIdentity: x, leaseDurationSeconds: 15, renewTime: %q}",
		name, strings.Join(notes, ", "), time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")))
}

func (r *rig) uidOf(name string) string {
	return fmt.Sprint(r.Get("", "nodes", name)["metadata"].(map[string]any)["uid"])
}

// A node loses the startup taint, and nothing else, when its agent is ready and its plugin
// in place: told by that agent, now, of that node.
func TestStartupTaint(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		const all, rest = "a " + startupTaint + " " + startupTaint + " b", "a b"
		guards := `fairlead.io/guards-starts: "true"`
		r.Apply(node("n1"))
		r.renew("n1", r.uidOf("n1"), guards) // by an agent that is gone
		p := r.start("one", "fairlead-system", func(o *Options) { o.StartupTaint = startupTaint })
		wait := func(what, node, want string) {
			t.Helper()
			r.after(10 * time.Second)
			if got := r.taintsOf(node); got != want {
				t.Errorf("%s: %s, want %s\n%s", what, got, want, p.log)
			}
		}
		wait("nobody renews it", "n1", all)
		r.renew("n1", r.uidOf("n1"))
		wait("the plugin is not there", "n1", all)
		r.renew("n1", r.uidOf("n1"), guards, "fairlead.io/behind: it lags")
		wait("it is behind", "n1", all)
		r.renew("n1", "another", guards)
		wait("another node of that name", "n1", all)
		r.renew("n1", r.uidOf("n1"), guards)
		wait("ready", "n1", rest)
		if w := r.after(5 * time.Minute); len(w) > 0 {
			t.Errorf("later: %v", w)
		}

		// One that joins is seen before nodes are looked through again.
		r.Apply("apiVersion: v1\nkind: Node\nmetadata: {name: n2}\nspec: {taints: [{key: " + startupTaint + ", effect: NoSchedule}]}")
		wait("it has no Lease", "n2", startupTaint)
		r.renew("n2", r.uidOf("n2"), guards)
		r.after(5 * time.Second)
		r.renew("n2", r.uidOf("n2"), guards)
		wait("ready", "n2", "")
		if spec := r.Get("", "nodes", "n2")["spec"].(map[string]any); spec["taints"] != nil {
			t.Errorf("left: %v", spec)
		}
	})
}

// Without the setting nothing is asked.
func TestNoStartupTaint(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node("n1"))
		r.start("one", "fairlead-system")
		for range 3 {
			r.renew("n1", r.uidOf("n1"), `fairlead.io/guards-starts: "true"`)
			if w := r.after(10 * time.Second); len(w) > 0 {
				t.Errorf("without the setting: %v", w)
			}
		}
	})
}
