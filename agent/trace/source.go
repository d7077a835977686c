// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"maps"
	"net/netip"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// source finds out who sends.
func (t *tracer) source(q Query) error {
	if name, ok := strings.CutPrefix(q.From, "node/"); ok {
		n, _ := t.Get(translators.Nodes, name).(*model.Node)
		if n == nil {
			return queryError("there is no node %q; there are %s", name, strings.Join(keys(t, translators.Nodes), ", "))
		}
		t.from = n.Addresses
		t.out.Source = Source{Node: name, Addr: ofFamily(n.Addresses, q.V6)}
		return nil
	}
	if a, err := netip.ParseAddr(q.From); err == nil {
		if w := t.pods[a.Unmap()]; w != nil {
			return t.pod(w, q.V6)
		}
		t.from = []netip.Addr{a.Unmap()}
		t.out.Source = Source{Addr: a.Unmap()}
		return nil
	}
	w, err := Pod(t, q.From)
	if err != nil {
		return err
	}
	return t.pod(w, q.V6)
}

// Pod finds "namespace/pod"; or, by the name of a Deployment or another owner, the first of
// its pods, if nothing that matters tells them apart. The error is a QueryError.
func Pod(t Tables, name string) (*model.Workload, error) {
	ns, short, ok := strings.Cut(name, "/")
	if !ok || ns == "" || short == "" {
		return nil, queryError("source %q: want NAMESPACE/POD, node/NAME or an address%s", name, near(t, "", strings.Trim(name, "/")))
	}
	if w, ok := t.Get(translators.Workloads, name).(*model.Workload); ok {
		return w, nil
	}
	var first *model.Workload
	var different []string
	for _, row := range t.Rows(translators.Workloads) {
		w := row.Value.(*model.Workload)
		switch {
		case !strings.HasPrefix(row.Key, name+"-"):
		case first == nil:
			first, different = w, []string{row.Key}
		case !sameKind(w, first):
			different = append(different, row.Key)
		}
	}
	switch {
	case first == nil:
		return nil, queryError("there is no pod %s, and none of an owner of that name%s", name, near(t, ns, short))
	case len(different) > 1:
		return nil, queryError("%s may be %s, which differ in labels or identity: name one of them", name, strings.Join(different, " or "))
	}
	return first, nil
}

// ofEachPod are labels that controllers give each pod, or each version of a template.
var ofEachPod = []string{"pod-template-hash", "controller-revision-hash", "pod-template-generation",
	"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"}

// sameKind reports whether two pods may be of one owner.
func sameKind(a, b *model.Workload) bool {
	bare := func(in map[string]string) map[string]string {
		out := maps.Clone(in)
		for _, k := range ofEachPod {
			delete(out, k)
		}
		return out
	}
	return a.Identity == b.Identity && a.Capture == b.Capture && maps.Equal(bare(a.Labels), bare(b.Labels))
}

// near says which pods there are that may be meant: those with the name in theirs, or else
// any of the namespace. It is "" if there are none.
func near(t Tables, ns, name string) string {
	var all, named []string
	for _, row := range t.Rows(translators.Workloads) {
		w := row.Value.(*model.Workload)
		if ns != "" && w.Namespace != ns {
			continue
		}
		all = append(all, row.Key)
		if strings.Contains(w.Name, name) {
			named = append(named, row.Key)
		}
	}
	if len(named) > 0 {
		all = named
	}
	const most = 5
	switch {
	case len(all) == 0 || ns == "" && len(named) == 0:
		return ""
	case len(all) > most:
		all = append(all[:most], "others")
	}
	return "; there are " + strings.Join(all, ", ")
}

func (t *tracer) pod(w *model.Workload, v6 bool) error {
	t.from = w.Addresses
	t.out.Source = Source{Pod: w.Key(), Node: w.Node, Addr: ofFamily(w.Addresses, v6), Identity: w.Identity, labels: w.Labels}
	if w.HostNetwork { // who has the node's address is nobody in particular
		t.out.Source.Identity = ""
		return nil
	}
	t.out.Source.Captured, t.out.Source.Member = w.Capture, w.Member()
	if w.Observed && w.Capture {
		t.out.Source.Captured, t.out.Source.Observed = false, true
		return nil
	}
	if row, _ := t.Get(plan.Pods, t.out.Source.Addr.String()).(*plan.Pod); w.Capture && row == nil {
		return queryError("%s is on node %s: ask for the plan of that node", w.Key(), w.Node)
	}
	return nil
}

// ofFamily is the first address of a family, else the first.
func ofFamily(in []netip.Addr, v6 bool) netip.Addr {
	for _, a := range in {
		if a.Is6() == v6 {
			return a
		}
	}
	if len(in) > 0 {
		return in[0]
	}
	return netip.Addr{}
}

func keys(t Tables, of incr.Table) []string {
	var out []string
	for _, row := range t.Rows(of) {
		out = append(out, row.Key)
	}
	return out
}
