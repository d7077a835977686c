// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/translators/objects"
)

// place gives every pod a node and addresses. Pods that have a place keep it; new
// ones go where fewest of their workload are, then where fewest pods are. Those
// that cannot be placed are dropped.
func (b *builder) place() {
	per := map[string]map[string]int{} // workload -> node -> pods
	total := map[string]int{}
	count := func(p *Pod) {
		w := p.Namespace + "/" + p.Workload
		if per[w] == nil {
			per[w] = map[string]int{}
		}
		per[w][p.Node]++
		total[p.Node]++
	}
	want := map[*Pod]string{}
	for _, p := range b.pods {
		want[p] = b.wanted(p)
		slot, ok := b.state.Pods[p.Key()]
		if ok && (want[p] == "" || want[p] == slot.Node) && slices.Contains(b.options.Nodes, slot.Node) && (slot.Number == 0) == p.HostNetwork {
			b.settle(p, slot)
			count(p)
		}
	}
	lost := map[*objects.Object]int{} // pods without an address, by what asks for them
	for _, p := range b.inTurn() {
		node := want[p]
		if node == "" && len(b.options.Nodes) > 0 {
			w := per[p.Namespace+"/"+p.Workload]
			node = slices.MinFunc(b.options.Nodes, func(x, y string) int {
				return cmp.Or(cmp.Compare(w[x], w[y]), cmp.Compare(total[x], total[y]))
			})
		}
		if !slices.Contains(b.options.Nodes, node) {
			b.lose(b.origin(p), "no pod %s: there is no node %q (there are %v)", p.Name, node, b.options.Nodes)
			continue
		}
		slot := Slot{Node: node}
		if !p.HostNetwork {
			var ok bool
			if slot.Number, ok = b.state.takeSlot(node); !ok {
				lost[b.origin(p)]++
				continue
			}
		}
		b.settle(p, slot)
		count(p)
	}
	for o, n := range lost {
		b.lose(o, "%d of its pods are not there: the nodes that they may run on have no address left", n)
	}
	b.pods = slices.DeleteFunc(b.pods, func(p *Pod) bool {
		if p.Node == "" {
			delete(b.asked, p.Key())
		}
		return p.Node == ""
	})
}

// inTurn are the pods without a place, in the order in which they get one: where there
// are more than addresses, the first of each workload, then the second of each, so that one
// with too many takes no place that others need.
func (b *builder) inTurn() []*Pod {
	rank, seen := map[*Pod]int{}, map[*objects.Object]int{}
	var out []*Pod
	for _, p := range b.pods {
		o := b.origin(p)
		rank[p] = seen[o]
		seen[o]++
		if p.Node == "" {
			out = append(out, p)
		}
	}
	if len(b.pods) > len(b.options.Nodes)*(lastSlot-firstSlot+1) {
		slices.SortStableFunc(out, func(x, y *Pod) int { return cmp.Compare(rank[x], rank[y]) })
	}
	return out
}

// origin is the object that a pod came of.
func (b *builder) origin(p *Pod) *objects.Object {
	return b.objects[slices.IndexFunc(b.objects, func(o *objects.Object) bool {
		return o.Place.File == p.File && o.Place.First == p.Line
	})]
}

// wanted is the node that the pod names, or "".
func (b *builder) wanted(p *Pod) string {
	node := p.Object.Spec.NodeName
	for _, k := range slices.Sorted(maps.Keys(p.Object.Spec.NodeSelector)) {
		switch v := p.Object.Spec.NodeSelector[k]; k {
		case corev1.LabelHostname:
			node = cmp.Or(node, v)
		case corev1.LabelOSStable, corev1.LabelArchStable: // that of this machine, whatever it says
		default:
			b.note(b.origin(p), "node selector %s=%s is not considered", k, v)
		}
	}
	return node
}

// settle puts the pod into its slot.
func (b *builder) settle(p *Pod, s Slot) {
	b.state.Pods[p.Key()] = s
	n := slices.Index(b.options.Nodes, s.Node) + 1
	p.Node, p.Addresses = s.Node, NodeAddresses(n)
	host := p.Addresses
	if !p.HostNetwork {
		p.Addresses = podAddresses(n, s.Number)
	}
	o := p.Object
	o.Spec.NodeName = p.Node
	o.Status = corev1.PodStatus{Phase: corev1.PodRunning, HostIP: host[0].String(), PodIP: p.Addresses[0].String()}
	for i := range p.Addresses {
		o.Status.HostIPs = append(o.Status.HostIPs, corev1.HostIP{IP: host[i].String()})
		o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: p.Addresses[i].String()})
	}
	p.resolveEnv()
}

// resolveEnv fills in what the containers' environment takes from the pod.
func (p *Pod) resolveEnv() {
	for i := range p.Programs {
		env := p.Programs[i].Env
		known := map[string]string{}
		for j := range env {
			if env[j].field != "" {
				env[j].Value = p.field(env[j].field)
			} else {
				env[j].Value = expandVars(env[j].Value, known)
			}
			known[env[j].Name] = env[j].Value
		}
		for j, a := range p.Programs[i].Args {
			p.Programs[i].Args[j] = expandVars(a, known)
		}
		for j, a := range p.Programs[i].Command {
			p.Programs[i].Command[j] = expandVars(a, known)
		}
	}
}

// field is a value of Kubernetes' downward API; "" if it has none here.
func (p *Pod) field(path string) string {
	switch path {
	case "metadata.name":
		return p.Name
	case "metadata.namespace":
		return p.Namespace
	case "spec.nodeName":
		return p.Node
	case "spec.serviceAccountName":
		return p.ServiceAccount
	case "status.podIP":
		return p.Addresses[0].String()
	case "status.podIPs":
		return joinAddrs(p.Addresses)
	case "status.hostIP":
		return p.Object.Status.HostIP
	}
	if key, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return p.Labels[strings.TrimSuffix(key, "']")]
	}
	if key, ok := strings.CutPrefix(path, "metadata.annotations['"); ok {
		return p.Object.Annotations[strings.TrimSuffix(key, "']")]
	}
	return ""
}

func joinAddrs(as []netip.Addr) string {
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = a.String()
	}
	return strings.Join(s, ",")
}
