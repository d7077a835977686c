// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"slices"
	"strings"

	typev1beta1 "istio.io/api/type/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// Labels that lead what is sent to a service through a waypoint: those of the service, or
// else those of its namespace. As in Istio: pilot/pkg/serviceregistry/ambient/waypoints.go.
const (
	useWaypointLabel          = "istio.io/use-waypoint"
	useWaypointNamespaceLabel = "istio.io/use-waypoint-namespace"
	noWaypoint                = "none"
)

// waypointForLabel is that of a Gateway which says what the waypoint is for: services, if
// it does not say so, workloads, or all.
const waypointForLabel = "istio.io/waypoint-for"

// Istio's own waypoints: their class, and the label of what belongs to them.
const (
	waypointClass = "istio-waypoint"
	managedLabel  = "gateway.istio.io/managed"
)

// byWaypoint finds services, namespaces, ServiceEntries and pods by the key of the
// waypoint that their own labels name, all of them by anyWildcard.
const byWaypoint = "waypoint"

// ledKinds are those that byWaypoint finds, of which a waypoint is for the connections to.
var ledKinds = []objects.Kind{objects.ServiceKind, serviceEntryKind}

// ownWaypoint is the key of the waypoint that an object's own labels name, "" if none.
func ownWaypoint(o *objects.Object) string {
	name := o.Labels[useWaypointLabel]
	if name == "" || name == noWaypoint {
		return ""
	}
	ns := o.Namespace
	if o.Kind == objects.NamespaceKind {
		ns = o.Name
	}
	return cmp.Or(o.Labels[useWaypointNamespaceLabel], ns) + "/" + name
}

func waypointIndex(o *objects.Object) []string {
	if key := ownWaypoint(o); key != "" {
		return []string{key, anyWildcard}
	}
	return nil
}

// waypointOf is the key of the waypoint that a service or an entry is behind, "" if none.
func waypointOf(r translators.Reader, o *objects.Object) string {
	if _, managed := o.Labels[managedLabel]; managed {
		return ""
	}
	if _, said := o.Labels[useWaypointLabel]; said {
		return ownWaypoint(o)
	}
	if ns := r.Get(objects.NamespaceKind, "", o.Namespace); ns != nil {
		return ownWaypoint(ns)
	}
	return ""
}

// targetRef is a reference of a policy to what it is for, and where it is written.
type targetRef struct {
	field string
	*typev1beta1.PolicyTargetReference
}

// targeting is a policy that may name what it is for.
type targeting interface {
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}

func targetRefs(p targeting) []targetRef {
	var out []targetRef
	for i, ref := range p.GetTargetRefs() {
		out = append(out, targetRef{at("spec.targetRefs", i), ref})
	}
	if ref := p.GetTargetRef(); ref != nil {
		out = append(out, targetRef{"spec.targetRef", ref})
	}
	return out
}

// bySelector reports whether an object is about the workloads that it selects: it names
// nothing that it is for or, though only an invalid one can, has a selector beside.
func bySelector(o *objects.Object, p interface {
	targeting
	GetSelector() *typev1beta1.WorkloadSelector
}) bool {
	_, written := o.Place.Lines["spec.selector"]
	return o.Invalid && written || p.GetSelector() != nil || len(targetRefs(p)) == 0
}

// is reports whether it is a reference to that kind.
func (ref targetRef) is(group, kind string) bool {
	return ref.GetKind() == kind && (ref.GetGroup() == group || group == "" && ref.GetGroup() == "core")
}

// waypoints is the key of the waypoints that it names, "" if it names none.
func (ref targetRef) waypoints(root, namespace string) string {
	switch {
	case ref.is(gatewayapi.Group, "Gateway"):
		return namespace + "/" + ref.GetName()
	case ref.is(gatewayapi.Group, "GatewayClass") && namespace == root && ref.GetName() == waypointClass:
		return anyWildcard
	}
	return ""
}

// led lists what a reference is to and a waypoint is in front of: Services and
// ServiceEntries of Istio's, sorted.
func (t *Translator) led(r translators.Reader, namespace string, ref targetRef) []*objects.Object {
	for group, kind := range map[string]objects.Kind{"": objects.ServiceKind, networkingGroup: serviceEntryKind} {
		if !ref.is(group, kind.Kind) {
			continue
		}
		if o := r.Get(kind, namespace, ref.GetName()); o != nil && waypointOf(r, o) != "" {
			return []*objects.Object{o}
		}
		return nil
	}
	key := ref.waypoints(t.mesh(r).root, namespace)
	if key == "" {
		return nil
	}
	var out []*objects.Object
	for _, kind := range ledKinds {
		some := r.Select(kind, byWaypoint, key)
		for _, ns := range r.Select(objects.NamespaceKind, byWaypoint, key) {
			some = slices.Concat(some, r.List(kind, ns.Name))
		}
		for _, o := range some {
			if w := waypointOf(r, o); w != "" && (w == key || key == anyWildcard) && !slices.Contains(out, o) {
				out = append(out, o)
			}
		}
	}
	return out
}

// ledPods are those that a waypoint is in front of by labels of their own, and namespaces
// whose label puts a waypoint for workloads in front of all their pods.
func (t *Translator) ledPods(r translators.Reader, namespace string, ref targetRef) []*objects.Object {
	key := ref.waypoints(t.mesh(r).root, namespace)
	if key == "" {
		return nil
	}
	out := slices.Clone(r.Select(objects.PodKind, byWaypoint, key))
	for _, ns := range r.Select(objects.NamespaceKind, byWaypoint, key) {
		if isForWorkloads(r, ownWaypoint(ns)) {
			out = append(out, ns)
		}
	}
	return out
}

// isForWorkloads reports whether a waypoint judges what is sent to pods themselves.
func isForWorkloads(r translators.Reader, key string) bool {
	namespace, name, _ := strings.Cut(key, "/")
	o := r.Get(gatewayapi.GatewayKind, namespace, name)
	return o != nil && (o.Labels[waypointForLabel] == "workload" || o.Labels[waypointForLabel] == "all")
}

// selectorOfService is what a Service selects its pods by, nil if it selects none.
func selectorOfService(o *objects.Object) map[string]string {
	v, ok := o.Value.(*corev1.Service)
	if !ok || v == nil || v.Spec.Type == corev1.ServiceTypeExternalName || len(v.Spec.Selector) == 0 {
		return nil
	}
	return v.Spec.Selector
}

// byParentService finds routes of the Gateway API by the key of a Service that they are
// for.
const byParentService = "parent-service"

func parentServices(o *objects.Object) []string {
	route, _ := gatewayapi.Of(o)
	var out []string
	for _, p := range route.Parents {
		if p.IsService() {
			out = append(out, p.Namespace+"/"+p.Name)
		}
	}
	return out
}
