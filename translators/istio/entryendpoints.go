// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// member is somebody behind an entry.
type member struct {
	spec     *networking.WorkloadEntry
	workload string // key of its row
	unready  bool
}

// entryEndpoints are who serves the ports of an entry, and those among them who are
// written down in the entry itself.
func (t *Translator) entryEndpoints(r translators.Reader, d *declaration) (*model.Endpoints, []*model.Workload) {
	out := &model.Endpoints{Namespace: d.namespace, Service: d.svc.Name}
	if d.svc.Resolution == model.ResolveOriginal {
		return nil, nil
	}
	var workloads []*model.Workload
	members := map[*objects.Object][]member{}
	for _, o := range d.parts {
		for i, w := range serviceEntrySpec(o).GetEndpoints() {
			row := t.outside(r, o, fmt.Sprintf("serviceentry/%s/%d", o.Name, i), at("spec.endpoints", i), w)
			workloads = append(workloads, row)
			members[o] = append(members[o], member{spec: w, workload: row.Key()})
		}
		members[o] = append(members[o], t.selected(r, o)...)
		if spec := serviceEntrySpec(o); len(spec.GetEndpoints()) == 0 && spec.GetWorkloadSelector() == nil {
			members[o] = append(members[o], member{spec: &networking.WorkloadEntry{Address: d.host}})
		}
	}
	for _, p := range d.ports() {
		if d.svc.Port(uint16(p.port.GetNumber())) == nil {
			continue
		}
		ep := model.EndpointsPort{Port: uint16(p.port.GetNumber()), Protocol: model.TCP}
		for _, m := range members[p.o] {
			e, ok := endpointOf(m, p.port, d.svc.Resolution)
			switch {
			case !ok:
			case m.unready:
				ep.Unready = append(ep.Unready, e)
			default:
				ep.Backends = append(ep.Backends, e)
			}
		}
		ep.Backends, ep.Unready = sortEndpoints(ep.Backends), sortEndpoints(ep.Unready)
		out.Ports = append(out.Ports, ep)
	}
	slices.SortFunc(out.Ports, func(a, b model.EndpointsPort) int { return cmp.Compare(a.Port, b.Port) })
	return out, workloads
}

func sortEndpoints(in []model.Endpoint) []model.Endpoint {
	slices.SortFunc(in, func(a, b model.Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Workload, b.Workload))
	})
	return slices.Compact(in)
}

// endpointOf is where a member serves a port: by its own word for the port's name, else
// the port's target, else its number.
func endpointOf(m member, p *networking.ServicePort, how model.Resolution) (model.Endpoint, bool) {
	port := cmp.Or(m.spec.GetPorts()[p.GetName()], p.GetTargetPort(), p.GetNumber())
	e := model.Endpoint{Port: uint16(port), Weight: m.spec.GetWeight(), Workload: m.workload}
	if a, err := netip.ParseAddr(m.spec.GetAddress()); err == nil {
		e.Addr = a.Unmap()
		return e, true
	}
	e.Host = entryHost(m.spec.GetAddress())
	return e, how != model.ResolveEndpoints && e.Host != "" && !strings.HasPrefix(e.Host, unixPrefix)
}

// unixPrefix begins addresses that are sockets of the proxy's own machine.
const unixPrefix = "unix:"

// selected are the pods and WorkloadEntries of the namespace that a ServiceEntry selects.
func (t *Translator) selected(r translators.Reader, o *objects.Object) []member {
	labels := serviceEntrySpec(o).GetWorkloadSelector().GetLabels()
	if serviceEntrySpec(o).GetWorkloadSelector() == nil {
		return nil
	}
	var out []member
	for _, w := range r.List(workloadEntryKind, o.Namespace) {
		spec := workloadEntrySpec(w)
		if !w.Invalid && spec != nil && contains(spec.GetLabels(), labels) {
			out = append(out, member{spec: spec, workload: w.Namespace + "/" + workloadEntryName(w)})
		}
	}
	for _, p := range r.List(objects.PodKind, o.Namespace) {
		pod, _ := p.Value.(*corev1.Pod)
		row := r.Workload(p.Namespace, p.Name)
		if pod == nil || row == nil || !contains(p.Labels, labels) {
			continue
		}
		for _, a := range row.Addresses {
			out = append(out, member{spec: &networking.WorkloadEntry{Address: a.String()}, unready: !isReady(pod)})
		}
	}
	return out
}

func contains(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return true
}

// isReady reports whether a pod takes traffic; one without conditions was written by
// hand and does.
func isReady(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return len(pod.Status.Conditions) == 0
}

// outside is the row of a workload that is declared and not a pod.
func (t *Translator) outside(r translators.Reader, o *objects.Object, name, field string, w *networking.WorkloadEntry) *model.Workload {
	out := &model.Workload{Namespace: o.Namespace, Name: name, External: true, Labels: w.GetLabels(), Locality: localityOf(w),
		Src: o.Source(Plane, field)}
	if a, err := netip.ParseAddr(w.GetAddress()); err == nil {
		out.Addresses = []netip.Addr{a.Unmap()}
	}
	if sa := w.GetServiceAccount(); sa != "" {
		out.Identity = model.SPIFFE(t.mesh(r).trustDomain, o.Namespace, sa)
	}
	return out
}

// localityLabel says where a workload is, if its locality does not.
const localityLabel = "istio-locality"

func localityOf(w *networking.WorkloadEntry) model.Locality {
	text := w.GetLocality()
	if text == "" { // labels can have no slashes
		text = strings.ReplaceAll(w.GetLabels()[localityLabel], ".", "/")
	}
	parts := append(strings.SplitN(text, "/", 3), "", "", "")
	return model.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}
