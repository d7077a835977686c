// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// workloadEntryName is the name of its workload; no pod can have it.
func workloadEntryName(o *objects.Object) string { return "workloadentry/" + o.Name }

// workloadEntry translates a machine that runs elsewhere: a member of the services that
// select it, and an identity that its address stands for.
func (t *Translator) workloadEntry(r translators.Reader, o *objects.Object) translators.Result {
	n := &notes{o: o}
	spec := workloadEntrySpec(o)
	if o.Invalid || spec == nil {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: the workload is not known, and no service reaches it", "repair it")
		return translators.Result{Diagnostics: n.list}
	}
	judgeMember(n, "spec", spec, true)
	judgeSelectingServices(r, n, spec)
	return translators.Result{
		Workloads:   []*model.Workload{t.outside(r, o, workloadEntryName(o), "spec", spec)},
		Diagnostics: n.list,
	}
}

// judgeSelectingServices notes Services of Kubernetes of which Istio has it be an endpoint.
func judgeSelectingServices(r translators.Reader, n *notes, spec *networking.WorkloadEntry) {
	for _, o := range r.List(objects.ServiceKind, n.o.Namespace) {
		selector := o.Value.(*corev1.Service).Spec.Selector
		if !o.Invalid && len(selector) > 0 && carries(spec.GetLabels(), selector) {
			n.refused("spec.labels", "selected-by-service", model.Narrows,
				fmt.Sprintf("Service %s selects it, and is served by its pods alone", o.Key()), "have a ServiceEntry select it, and send to that one")
		}
	}
}

// judgeMember says what becomes of the fields of a workload that is declared; resolved
// tells whether its address may be a name.
func judgeMember(n *notes, field string, w *networking.WorkloadEntry, resolved bool) {
	switch _, err := netip.ParseAddr(w.GetAddress()); {
	case err == nil:
	case strings.HasPrefix(w.GetAddress(), unixPrefix):
		n.refused(field+".address", "unsupported-address", model.Narrows, "sockets in a file system are those of a sidecar's own pod: nobody is reached here", "serve at a port")
	case !resolved:
		n.invalid(field+".address", "%q is no address", w.GetAddress())
	}
	if w.GetServiceAccount() != "" {
		n.approximated(field+".serviceAccount", "identity-by-address", model.Degrades,
			"there is no mutual TLS yet: who sends from the address has the identity, and nothing is encrypted", "")
	}
	if w.GetNetwork() != "" {
		n.refused(field+".network", "unsupported-field", model.Degrades, "there are no gateways between networks: the address is dialled as it stands", "make the address reachable")
	}
}

func validateWorkloadEntry(n *notes, field string, w *networking.WorkloadEntry) {
	if w == nil {
		return
	}
	unix := strings.HasPrefix(w.GetAddress(), unixPrefix)
	switch a := w.GetAddress(); {
	case a == "" && w.GetNetwork() == "":
		n.invalid(field+".address", "an address is needed")
	case a == "" || unix:
	default:
		if _, err := netip.ParseAddr(a); err != nil && (!hostPattern.MatchString(a) || isWildcard(a)) {
			n.invalid(field+".address", "%q is neither an address nor a name", a)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.GetPorts())) {
		if p := w.GetPorts()[name]; p == 0 || p > math.MaxUint16 {
			n.invalid(entry(field+".ports", name), "%d is not a port", p)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(w.GetLabels())) {
		if k == "" {
			n.invalid(field+".labels", "a label without a name")
		}
	}
	if w.GetLocality() != "" && slices.Contains(strings.Split(w.GetLocality(), "/"), "") {
		n.invalid(field+".locality", "%q is not REGION/ZONE/SUBZONE", w.GetLocality())
	}
	if sa := w.GetServiceAccount(); strings.ContainsAny(sa, "/ ") {
		n.invalid(field+".serviceAccount", "%q is no service account", sa)
	}
}
