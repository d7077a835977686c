// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// client is what the proxy knows of the local pods that it serves: one value for all
// that nothing tells apart.
type client struct {
	Class    string
	Identity string
	Selects  []string // sorted ids of predicates
}

// clientOf is that of a captured pod.
func clientOf(r *incr.Reader, w *model.Workload) *client {
	cl := &client{Identity: w.Identity}
	for _, row := range r.All(predicates) {
		if hasLabels(w.Labels, row.Value.(map[string]string)) {
			cl.Selects = append(cl.Selects, row.Key)
		}
	}
	cl.Class = model.Hash(cl)[:16]
	return cl
}

// satisfies reports whether the client is of a namespace ("" = any) and carries labels.
func (c *client) satisfies(namespace string, labels map[string]string) bool {
	if namespace != "" && identityNamespace(c.Identity) != namespace {
		return false
	}
	return len(labels) == 0 || slices.Contains(c.Selects, predicateID(labels))
}

// identityNamespace is the namespace of a SPIFFE id, "" if it has none.
func identityNamespace(id string) string {
	_, rest, _ := strings.Cut(id, "/ns/")
	ns, _, ok := strings.Cut(rest, "/sa/")
	if !ok {
		return ""
	}
	return ns
}

// clientStage lists the clients of the node's own pods.
func (b *builder) clientStage() incr.Stage {
	return incr.Stage{Name: "plan/client",
		Keys: map[incr.Table]func(string, any) []string{workloads: b.local},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			w, _ := r.Get(workloads, key).(*model.Workload)
			if w == nil || !w.Capture {
				return nil
			}
			cl := clientOf(r, w)
			return []incr.Row{{Table: clients, Key: cl.Class, Value: cl}, {Table: captured, Key: key, Value: true}}
		}}
}

// local is a key function for stages whose keys are the node's own pods.
func (b *builder) local(k string, v any) []string {
	if w := v.(*model.Workload); w.Node != b.node || w.HostNetwork {
		return nil
	}
	return []string{k}
}
