// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

func (t *Translator) namespace(_ *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	n := &model.Namespace{Name: o.Name, Owner: o.Annotations[OwnerKey], Src: o.Source(Plane, "")}
	n.Capture = CaptureMark(nil, o).On
	n.Observed = t.observed(o)
	word(o, ModeKey, rep, ModeObserve, ModeEnforce)
	if n.Observed {
		field := ""
		if o.Annotations[ModeKey] != "" {
			field = `metadata.annotations["` + ModeKey + `"]`
		}
		rep.say(field, "observed", model.Degrades, model.Translated,
			"what policies and routes come to for the pods of this namespace is told in flows, and not enforced", "annotate it "+ModeKey+": "+ModeEnforce+" to enforce it")
	}
	n.Proxy = ownProxy(o)
	reportProxy(o, rep)
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
	n.Exempt = t.exempt(o, rep)
	return []incr.Row{{Table: translators.Namespaces, Key: o.Name, Value: n}}
}

const (
	exemptSuffix = "-exempt-sources"
	exemptPlane  = "smi"
)

// exempt reads who needs no permission of SMI's at the namespace's pods. SMI alone has
// the setting: it can name service accounts and nobody else, where other planes have
// words for addresses in their policies, which are not always the namespace's owner's.
func (t *Translator) exempt(o *objects.Object, rep *report) []model.Exemption {
	for _, key := range slices.Sorted(maps.Keys(o.Annotations)) {
		plane, ok := strings.CutPrefix(strings.TrimSuffix(key, exemptSuffix), "fairlead.io/")
		if ok && strings.HasSuffix(key, exemptSuffix) && plane != exemptPlane {
			rep.refused(`metadata.annotations["`+key+`"]`, "unknown-setting", "nobody is exempt by it: there is no such setting but "+ExemptKey,
				"allow them by a policy of that control plane")
		}
	}
	list, ok := o.Annotations[ExemptKey]
	if !ok {
		return nil
	}
	field := `metadata.annotations["` + ExemptKey + `"]`
	var from []model.Peer
	var named []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		p, err := t.source(item)
		if err != nil {
			rep.say(field, "bad-source", model.Narrows, model.Refused, fmt.Sprintf("%q is not a source: %v", item, err),
				"write namespace/NAME, serviceaccount/NAMESPACE/NAME, an address or a range of addresses; the others are exempt")
			continue
		}
		from, named = append(from, p), append(named, item)
	}
	if len(from) == 0 {
		return nil
	}
	effect, who := model.Degrades, strings.Join(named, ", ")
	if slices.ContainsFunc(from, func(p model.Peer) bool { return len(p.IPs) > 0 && p.IPs[0].Bits() == 0 }) {
		effect = model.Widens
	}
	rep.say(field, "exempt-sources", effect, model.Translated, "as asked for, these need no permission of SMI at the namespace's pods: "+who, "")
	return []model.Exemption{{Plane: exemptPlane, From: model.SortContent(from), Src: []model.Source{o.Source(Plane, field)}}}
}

var nameOfObject = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// source reads an item of ExemptKey.
func (t *Translator) source(item string) (model.Peer, error) {
	kind, rest, _ := strings.Cut(item, "/")
	switch kind {
	case "namespace":
		if !nameOfObject.MatchString(rest) {
			return model.Peer{}, fmt.Errorf("%q is not a namespace's name", rest)
		}
		all := strings.TrimSuffix(model.SPIFFE(t.trustDomain, rest, "x"), "x")
		return model.Peer{Identities: []model.StringMatch{{Kind: model.Prefix, Value: all}}}, nil
	case "serviceaccount":
		ns, name, _ := strings.Cut(rest, "/")
		if !nameOfObject.MatchString(ns) || !nameOfObject.MatchString(name) {
			return model.Peer{}, fmt.Errorf("%q is not NAMESPACE/NAME", rest)
		}
		return model.Peer{Identities: []model.StringMatch{{Kind: model.Exact, Value: model.SPIFFE(t.trustDomain, ns, name)}}}, nil
	}
	if a, ok := address(item); ok {
		return model.Peer{IPs: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}}, nil
	}
	p, err := netip.ParsePrefix(item)
	if err != nil {
		return model.Peer{}, errors.New("it is neither an account nor an address")
	}
	if p.Addr().Is4In6() {
		return model.Peer{}, errors.New("it is an IPv4 range written as IPv6")
	}
	return model.Peer{IPs: []netip.Prefix{p.Masked()}}, nil
}

// observed reports whether what is in a namespace is only observed. One whose object says
// something that is no mode is not: what was meant to guard guards. nil: the namespace's
// object is not there.
func (t *Translator) observed(ns *objects.Object) bool {
	v := ""
	if ns != nil {
		v = ns.Annotations[ModeKey]
	}
	return !t.enforce && (v == ModeObserve || v == "" && t.observe)
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
