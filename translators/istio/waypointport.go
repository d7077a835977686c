// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.io/fairlead/model"
)

// podPorts turns ports of a service, which a waypoint sees, into those of its pods, which
// are seen here. ok is false if that cannot be said: a port has no number, leads to
// pods of another service, or to where one that is not meant leads too.
func (w *waypointReach) podPorts(in []uint16) (out []uint16, ok bool) {
	if w == nil || w.service == nil {
		return in, true
	}
	svc, _ := w.service.Value.(*corev1.Service)
	if svc == nil || len(w.pods) > 1 || w.outside != "" {
		return nil, len(in) == 0
	}
	var others []uint16
	for _, p := range svc.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		meant := slices.Contains(in, uint16(p.Port))
		n := p.TargetPort.IntVal
		switch {
		case p.TargetPort.Type == intstr.String && meant:
			return nil, false
		case p.TargetPort.Type == intstr.String:
			continue
		case n == 0:
			n = p.Port
		}
		if meant {
			out = append(out, uint16(n))
		} else {
			others = append(others, uint16(n))
		}
	}
	if slices.ContainsFunc(out, func(p uint16) bool { return slices.Contains(others, p) }) {
		return nil, false
	}
	slices.Sort(out)
	return slices.Compact(out), true
}

// atPods turns the ports of an operation into those of the pods. known is false if that
// cannot be said, and possible if the operation can match nothing.
func (w *waypointReach) atPods(op model.Operation) (out model.Operation, known, possible bool) {
	ports, ok := w.podPorts(op.Ports)
	not, okNot := w.podPorts(op.NotPorts)
	possible = len(op.Ports) == 0 || len(ports) > 0 || !ok
	op.Ports, op.NotPorts = ports, not
	return op, ok && okNot, possible
}
