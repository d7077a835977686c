// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// globalEgress is the namespace whose EgressNetworks are for those that have none of
// their own.
const globalEgress = "linkerd-egress"

// denies reports whether an EgressNetwork keeps pods from what it is about; one without a
// valid version may.
func denies(o *objects.Object) bool {
	v, ok := o.Value.(*api.EgressNetwork)
	return o.Invalid || !ok || !strings.EqualFold(v.Spec.TrafficPolicy, "Allow")
}

// egress is what becomes of what leaves the cluster, by the namespace of the client. What
// EgressNetworks are about is not told apart: where one of them denies, pods are held to
// services.
func (t *Translator) egress(r translators.Reader) []model.UnknownFrom {
	closed, src := map[string]bool{}, map[string][]model.Source{}
	for _, o := range r.List(egressNetworkKind, "") {
		closed[o.Namespace] = closed[o.Namespace] || denies(o)
		if denies(o) {
			src[o.Namespace] = append(src[o.Namespace], o.Source(Plane, "spec.trafficPolicy"))
		}
	}
	if !slices.Contains(slices.Collect(maps.Values(closed)), true) {
		return nil
	}
	var out []model.UnknownFrom
	for _, ns := range slices.Sorted(maps.Keys(closed)) {
		u := model.UnknownPass
		if closed[ns] {
			u = model.UnknownRefuse
		}
		out = append(out, model.UnknownFrom{SourceNamespace: ns, Unknown: u, Src: src[ns]})
	}
	if closed[globalEgress] {
		out = append(out, model.UnknownFrom{Unknown: model.UnknownRefuse, Src: src[globalEgress]})
	}
	return out
}

// judgeEgress tells what becomes of an EgressNetwork.
func judgeEgress(r translators.Reader, o *objects.Object, rep *report) {
	switch {
	case !denies(o): // passed on, as it is without one; of routes their parents tell
	case o.Namespace != globalEgress && !ours(r.Namespace(o.Namespace)):
		rep.refused(o, "spec.trafficPolicy", "egress-not-denied", model.Widens,
			"the namespace is not Linkerd's: what its pods send out of the cluster is passed on", "mark the namespace as Linkerd's, or deny it by a NetworkPolicy")
	default:
		rep.refused(o, "spec", "egress-closed", model.Narrows,
			"ranges and routes of what leaves the cluster are not told apart: the pods that this is for reach services, and nothing else, also no other pod at its own address", "deny it by a NetworkPolicy, and delete this")
	}
}
