// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// podLabels are a pod's labels, each with its namespace.
func podLabels(_ string, v any) []string {
	o := v.(*objects.Object)
	out := make([]string, 0, len(o.Labels))
	for k, v := range o.Labels {
		out = append(out, labelValue(o.Namespace, k, v))
	}
	return out
}

func labelValue(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

// selection reads the pods of a namespace that a selector selects, by way of its
// first label.
func selection(r *incr.Reader, namespace string, selector map[string]string) []incr.Row {
	first := slices.Min(slices.Collect(maps.Keys(selector)))
	pods := r.Select(translators.Objects(objects.PodKind), podsByLabel, labelValue(namespace, first, selector[first]))
	return slices.DeleteFunc(pods, func(row incr.Row) bool {
		o := row.Value.(*objects.Object)
		return o.Invalid || !selected(selector, o)
	})
}

// sliceService is the service that a slice belongs to.
func sliceService(_ string, v any) []string {
	o := v.(*objects.Object)
	if s := o.Labels[discoveryv1.LabelServiceName]; s != "" {
		return []string{o.Namespace + "/" + s}
	}
	return nil
}

// endpoints finds who is behind a service: its EndpointSlices, or if it has none
// (manifests alone, no controller) the pods that it selects. What is invalid is not behind
// any; an invalid pod is a workload all the same, so that policies guard it.
func endpoints(r *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	v := o.Value.(*corev1.Service)
	if v.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	found := behind{service: v, ports: map[portKey]portEndpoints{}}
	slicesOf := slices.DeleteFunc(r.Select(translators.Objects(objects.EndpointSliceKind), slicesByService, o.Key()),
		func(row incr.Row) bool { return row.Value.(*objects.Object).Invalid })
	for _, row := range slicesOf {
		found.slice(row.Value.(*objects.Object), rep)
	}
	if len(v.Spec.Selector) > 0 {
		pods := selection(r, o.Namespace, v.Spec.Selector)
		for i := range v.Spec.Ports {
			if isRepeated(v, i) {
				continue
			}
			found.pods(pods, i, len(slicesOf) == 0, rep)
		}
	}
	if len(slicesOf) == 0 {
		noHints(v, rep)
	}
	e := &model.Endpoints{Namespace: o.Namespace, Service: o.Name, Local: isLocal(v)}
	for port, of := range found.ports {
		e.Ports = append(e.Ports, model.EndpointsPort{Port: port.number, Protocol: port.protocol,
			Backends: sortedEndpoints(of.ready), Unready: sortedEndpoints(of.unready)})
	}
	slices.SortFunc(e.Ports, func(a, b model.EndpointsPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	if len(e.Ports) == 0 {
		return nil
	}
	return []incr.Row{{Table: translators.Endpoints, Key: o.Key(), Value: e}}
}

func sortedEndpoints(in []model.Endpoint) []model.Endpoint {
	slices.SortFunc(in, func(a, b model.Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Node, b.Node),
			cmp.Compare(a.ForZones, b.ForZones), cmp.Compare(a.ForNodes, b.ForNodes))
	})
	// Of one that several slices have the first counts, which is one without hints.
	return slices.CompactFunc(in, func(a, b model.Endpoint) bool { return a.Addr == b.Addr && a.Port == b.Port })
}

// behind gathers the endpoints of each port of a service.
type behind struct {
	service *corev1.Service
	ports   map[portKey]portEndpoints
}

type portEndpoints struct{ ready, unready []model.Endpoint }

func (b behind) add(key portKey, e model.Endpoint, ready bool) {
	of := b.ports[key]
	if ready {
		of.ready = append(of.ready, e)
	} else {
		of.unready = append(of.unready, e)
	}
	b.ports[key] = of
}

type portKey struct {
	number   uint16
	protocol model.Protocol
}

// isRepeated reports whether an earlier port of a service has the number and the protocol
// of one, which does not count then.
func isRepeated(svc *corev1.Service, i int) bool {
	key, ok := keyOf(svc.Spec.Ports[i])
	return ok && slices.ContainsFunc(svc.Spec.Ports[:i], func(p corev1.ServicePort) bool {
		have, ok := keyOf(p)
		return ok && have == key
	})
}

func keyOf(p corev1.ServicePort) (portKey, bool) {
	proto, ok := protocol(p.Protocol)
	return portKey{uint16(p.Port), proto}, ok && p.Port > 0 && p.Port <= math.MaxUint16
}

// slice adds the endpoints of an EndpointSlice. Ports belong together by name.
func (b behind) slice(o *objects.Object, rep *report) {
	svc, v := b.service, o.Value.(*discoveryv1.EndpointSlice)
	of := &report{object: o}
	defer func() { rep.out = append(rep.out, of.out...) }()
	if v.AddressType == discoveryv1.AddressTypeFQDN {
		of.refused("addressType", "endpoint-names", "endpoints by DNS name are not resolved", "list addresses")
		return
	}
	for i, p := range v.Ports {
		field := fmt.Sprintf("ports[%d]", i)
		at := slices.IndexFunc(svc.Spec.Ports, func(s corev1.ServicePort) bool {
			name := ""
			if p.Name != nil {
				name = *p.Name
			}
			var proto corev1.Protocol
			if p.Protocol != nil {
				proto = *p.Protocol
			}
			return s.Name == name && cmp.Or(s.Protocol, corev1.ProtocolTCP) == cmp.Or(proto, corev1.ProtocolTCP)
		})
		if at < 0 {
			of.say(field, "unknown-port", model.Degrades, model.Approximated, "the service has no port of this name and protocol: nobody reaches it", "")
			continue
		}
		if isRepeated(svc, at) {
			continue
		}
		key, ok := keyOf(svc.Spec.Ports[at])
		if !ok {
			continue // reported at the service
		}
		if p.Port == nil || *p.Port < 1 || *p.Port > math.MaxUint16 {
			of.refused(field+".port", "bad-port", "a port number is needed", "")
			continue
		}
		b.addresses(v, key, uint16(*p.Port), of)
	}
}

func (b behind) addresses(v *discoveryv1.EndpointSlice, key portKey, port uint16, of *report) {
	for i, e := range v.Endpoints {
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready || b.service.Spec.PublishNotReadyAddresses
		at := model.Endpoint{Port: port}
		if isLocal(b.service) && e.NodeName != nil {
			at.Node = *e.NodeName
		}
		if h := e.Hints; h != nil && !isHeadless(b.service) {
			at.ForZones = hint(h.ForZones, func(z discoveryv1.ForZone) string { return z.Name })
			at.ForNodes = hint(h.ForNodes, func(n discoveryv1.ForNode) string { return n.Name })
		}
		for j, s := range e.Addresses {
			var ok bool
			if at.Addr, ok = address(s); ok {
				b.add(key, at, ready)
			} else {
				of.refused(fmt.Sprintf("endpoints[%d].addresses[%d]", i, j), "bad-address", fmt.Sprintf("%q is not an address", s), "")
			}
		}
	}
}

// hint writes whom an endpoint is for; "": nobody is named.
func hint[T any](in []T, name func(T) string) string {
	var names []string
	for _, v := range in {
		names = append(names, name(v))
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

// isHeadless reports whether a service has no address: its clients choose an endpoint by DNS,
// whatever it says of near ones.
func isHeadless(v *corev1.Service) bool {
	return v.Spec.ClusterIP == corev1.ClusterIPNone || slices.Contains(v.Spec.ClusterIPs, corev1.ClusterIPNone)
}

// isLocal reports whether clients of a node get its own endpoints alone.
func isLocal(v *corev1.Service) bool {
	p := v.Spec.InternalTrafficPolicy
	return p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal && !isHeadless(v)
}

// noHints reports, of a service without EndpointSlices, preferences for near endpoints: they
// come as hints in these, from who writes them.
func noHints(v *corev1.Service, rep *report) {
	say := func(field, said string) {
		rep.say(field, "locality", model.Degrades, model.Approximated,
			said+" is followed by the hints of EndpointSlices, and there are none here: all endpoints are used alike, but where Istio's plane owns the service", "")
	}
	if d := v.Spec.TrafficDistribution; d != nil {
		say("spec.trafficDistribution", *d)
	}
	for _, key := range []string{corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints} {
		if m := v.Annotations[key]; m != "" && !strings.EqualFold(m, "disabled") {
			say(`metadata.annotations["`+key+`"]`, m)
		}
	}
}

func selected(selector map[string]string, pod *objects.Object) bool {
	for k, v := range selector {
		if have, ok := pod.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// pods adds the selected pods' endpoints of one port of the service, and reports a
// named target port that none of them has.
func (b behind) pods(pods []incr.Row, i int, add bool, rep *report) {
	svc := b.service
	p := svc.Spec.Ports[i]
	key, ok := keyOf(p)
	if !ok {
		return
	}
	named := false
	for _, row := range pods {
		o := row.Value.(*objects.Object)
		pod := o.Value.(*corev1.Pod)
		port, ok := targetPort(p, pod)
		if !ok {
			continue
		}
		named = true
		if !add || finished(pod) {
			continue
		}
		at := model.Endpoint{Port: port}
		if isLocal(svc) {
			at.Node = pod.Spec.NodeName
		}
		for _, at.Addr = range podAddresses(pod) {
			b.add(key, at, ready(pod, svc.Spec.PublishNotReadyAddresses))
		}
	}
	if len(pods) > 0 && !named {
		rep.say(fmt.Sprintf("spec.ports[%d].targetPort", i), "unknown-target-port", model.Degrades, model.Approximated,
			fmt.Sprintf("none of the %d selected pods has a port named %q: nobody answers here", len(pods), p.TargetPort.StrVal),
			"name the container's port, or use its number")
	}
}

// targetPort is the pod's port that a service's port leads to.
func targetPort(p corev1.ServicePort, pod *corev1.Pod) (uint16, bool) {
	switch {
	case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
		return namedPort(pod, p.TargetPort.StrVal, cmp.Or(p.Protocol, corev1.ProtocolTCP))
	case p.TargetPort.IntVal == 0:
		return uint16(p.Port), true
	case p.TargetPort.IntVal < 0 || p.TargetPort.IntVal > math.MaxUint16:
		return 0, false
	}
	return uint16(p.TargetPort.IntVal), true
}

func namedPort(pod *corev1.Pod, name string, proto corev1.Protocol) (uint16, bool) {
	for _, c := range containers(pod) {
		for _, p := range c.Ports {
			if p.Name == name && cmp.Or(p.Protocol, corev1.ProtocolTCP) == proto && p.ContainerPort > 0 && p.ContainerPort <= math.MaxUint16 {
				return uint16(p.ContainerPort), true
			}
		}
	}
	return 0, false
}

// ready reports whether a pod that has not finished takes traffic; one whose status has no conditions
// was written by hand and does.
func ready(pod *corev1.Pod, unready bool) bool {
	if unready {
		return true
	}
	if pod.DeletionTimestamp != nil {
		return false
	}
	if len(pod.Status.Conditions) == 0 {
		return true
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
