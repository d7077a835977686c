// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

func namespace(_ *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	n := &model.Namespace{Name: o.Name, Owner: o.Annotations[OwnerKey], Src: o.Source(Plane, "")}
	n.Capture = CaptureMark(nil, o).On
	n.Mesh = meshOf(o)
	reportMarks(o, rep)
	n.Choice.Basis = model.Basis(word(o, RouteByKey, rep, string(model.ByDestination), string(model.ByAuthority)))
	n.Choice.Unknown = model.Unknown(word(o, UnknownHostKey, rep, string(model.UnknownPass), string(model.UnknownRefuse)))
	if list, ok := o.Annotations[DefaultDenyKey]; ok {
		for p := range strings.SplitSeq(list, ",") {
			if p = strings.TrimSpace(p); p != "" {
				n.DefaultDeny = append(n.DefaultDeny, p)
			}
		}
		slices.Sort(n.DefaultDeny)
		n.DefaultDeny = slices.Compact(n.DefaultDeny)
	}
	return []incr.Row{{Table: translators.Namespaces, Key: o.Name, Value: n}}
}

// word is the value of an annotation, "" if there is none or it is not one of the
// words that it may be.
func word(o *objects.Object, key string, rep *report, words ...string) string {
	v := o.Annotations[key]
	if v == "" || slices.Contains(words, v) {
		return v
	}
	rep.refused(`metadata.annotations["`+key+`"]`, "unknown-value", fmt.Sprintf("%q is not a value of %s", v, key), "use "+strings.Join(words, " or "))
	return ""
}

// podRanges reads podCIDRs, or podCIDR where an old object has that alone.
func podRanges(spec corev1.NodeSpec, rep *report) []netip.Prefix {
	texts, field := spec.PodCIDRs, "spec.podCIDRs[%d]"
	if len(texts) == 0 && spec.PodCIDR != "" {
		texts, field = []string{spec.PodCIDR}, "spec.podCIDR"
	}
	var out []netip.Prefix
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			at := field
			if strings.Contains(field, "%d") {
				at = fmt.Sprintf(field, i)
			}
			rep.refused(at, "bad-prefix", fmt.Sprintf("%q is not a range of addresses", text), "write it as 10.244.1.0/24")
			continue
		}
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(out)
}

func (t *Translator) node(r *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	v := o.Value.(*corev1.Node)
	n := &model.Node{Name: o.Name, Locality: nodeLocality(o.Labels), Src: o.Source(Plane, "")}
	for i, a := range v.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue // external addresses and names are not what its packets carry inside the cluster
		}
		field := fmt.Sprintf("status.addresses[%d].address", i)
		if ip, ok := address(a.Address); ok {
			n.Addresses = append(n.Addresses, ip)
		} else {
			rep.refused(field, "bad-address", fmt.Sprintf("%q is not an address", a.Address), "")
		}
	}
	n.Addresses = sortedAddrs(n.Addresses)
	n.PodRanges = podRanges(v.Spec, rep)
	switch v := o.Annotations[AgentKey]; v {
	case "true":
		n.Managed = true
	case "behind":
		n.Managed, n.Behind = true, true
	case "false":
	default:
		rep.refused(`metadata.annotations["`+AgentKey+`"]`, "unknown-value", fmt.Sprintf("%q is not a value of %s", v, AgentKey),
			"use true, behind or false, or leave it to what the node's agent says")
		fallthrough
	case "":
		n.Managed, n.Behind = t.agent(r, o)
	}
	return []incr.Row{{Table: translators.Nodes, Key: o.Name, Value: n}}
}

// agent tells whether an agent guards a node that does not say so itself, and whether what
// its proxy checks may be old.
func (t *Translator) agent(r *incr.Reader, node *objects.Object) (there, behind bool) {
	if t.self != "" && node.Name == t.self {
		return true, false
	}
	if t.leases == "" {
		return t.agents, false
	}
	lease, _ := r.Get(translators.Objects(objects.LeaseKind), t.leases+"/"+node.Name).(*objects.Object)
	if lease == nil {
		return t.agents, false
	}
	if of := lease.Annotations[NodeUIDKey]; of != string(node.Value.(*corev1.Node).UID) {
		return t.agents, false // it is about another machine, which had the name before
	}
	return true, lease.Annotations[BehindKey] != ""
}

// address parses an address without zone; v4-mapped ones become v4.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func sortedAddrs(in []netip.Addr) []netip.Addr {
	slices.SortFunc(in, netip.Addr.Compare)
	return slices.Compact(in)
}
