// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

func namespace(_ *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	n := &model.Namespace{Name: o.Name, Owner: o.Annotations[OwnerKey], Src: o.Source(Plane, "")}
	on, said := capture(o, rep)
	n.Capture = on && said
	n.Mesh = mesh(o)
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

// mark is a label or annotation by which a mesh takes a namespace or a pod.
type mark struct {
	key     string
	on, off []string // values; "*" is any other
	plane   string   // whose mark it is; "" = Fairlead's own
}

// marks in the order in which they decide: Fairlead's own first, and of Istio's
// the injection label before the revision, as Istio has it.
var marks = []mark{
	{CaptureKey, []string{"enabled"}, []string{"disabled"}, ""},
	{"sidecar.istio.io/inject", []string{"true"}, []string{"false"}, istio},
	{"istio-injection", []string{"enabled"}, []string{"disabled"}, istio},
	{"istio.io/dataplane-mode", []string{"ambient"}, []string{"none"}, istio},
	{"istio.io/rev", []string{"*"}, nil, istio},
	{"linkerd.io/inject", []string{"enabled", "ingress"}, []string{"disabled"}, linkerd},
	{"openservicemesh.io/sidecar-injection", []string{"enabled", "yes", "true", "on"}, []string{"disabled", "no", "false", "off"}, smi},
	{"openservicemesh.io/monitored-by", []string{"*"}, nil, smi},
}

// Planes whose marks are known. Open Service Mesh reads SMI's objects.
const (
	istio   = "istio"
	linkerd = "linkerd"
	smi     = "smi"
)

// says tells what an object's value of a mark means, or that it is none.
func (m mark) says(v string) (on, known bool) {
	if slices.Contains(m.off, v) {
		return false, true
	}
	on = slices.Contains(m.on, v) || slices.Contains(m.on, "*")
	return on, on
}

// mesh is the plane whose mark takes a namespace, "" if none does. Each mesh's first
// mark decides for it, and the first mesh that takes the namespace has it.
func mesh(o *objects.Object) string {
	var out []string
	for _, m := range marks {
		for _, set := range []map[string]string{o.Labels, o.Annotations} {
			v, ok := set[m.key]
			if !ok || m.plane == "" || slices.Contains(out, m.plane) {
				continue
			}
			on, known := m.says(v)
			if on {
				return m.plane
			}
			if known {
				out = append(out, m.plane)
			}
		}
	}
	return ""
}

// capture reads the marks of a namespace or pod; said is false if it has none.
// Labels stand before annotations.
func capture(o *objects.Object, rep *report) (on, said bool) {
	for _, m := range marks {
		for i, set := range []map[string]string{o.Labels, o.Annotations} {
			v, ok := set[m.key]
			field := []string{"metadata.labels", "metadata.annotations"}[i] + `["` + m.key + `"]`
			if !ok {
				continue
			}
			on, known := m.says(v)
			if known {
				return on, true
			}
			rep.say(field, "unknown-value", model.Degrades, model.Refused,
				fmt.Sprintf("%q is not a value of %s", v, m.key), "use "+strings.Join(append(slices.Clone(m.on), m.off...), " or "))
		}
	}
	return false, false
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

func (t *Translator) node(_ *incr.Reader, o *objects.Object, rep *report) []incr.Row {
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
	case "":
		n.Managed = t.agents
	case "false":
	default:
		rep.refused(`metadata.annotations["`+AgentKey+`"]`, "unknown-value", fmt.Sprintf("%q is not a value of %s", v, AgentKey), "use true or false")
	}
	if s, ok := o.Annotations[GenerationKey]; ok {
		g, err := strconv.ParseInt(s, 10, 64)
		if err != nil || g < 0 {
			rep.refused(`metadata.annotations["`+GenerationKey+`"]`, "unknown-value", fmt.Sprintf("%q is not a generation", s), "")
		} else {
			n.Generation = g
		}
	}
	return []incr.Row{{Table: translators.Nodes, Key: o.Name, Value: n}}
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
