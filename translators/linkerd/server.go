// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// Protocols of a Server.
const (
	protocolUnknown = "unknown"
	protocolHTTP1   = "HTTP/1"
	protocolHTTP2   = "HTTP/2"
	protocolGRPC    = "gRPC"
	protocolOpaque  = "opaque"
	protocolTLS     = "TLS"
)

// protocols tells what a port speaks.
var protocols = map[string]model.App{protocolUnknown: model.AppDetect, protocolHTTP1: model.AppHTTP, protocolHTTP2: model.AppHTTP2,
	protocolGRPC: model.AppGRPC, protocolOpaque: model.AppTCP, protocolTLS: model.AppTLS}

// server is a Server, whatever its version.
type server struct {
	o        *objects.Object
	pods     *metav1.LabelSelector
	external *metav1.LabelSelector
	port     intstr.IntOrString
	protocol string
	access   accessPolicy
}

func serverOf(o *objects.Object) server {
	s := server{o: o, access: denyAll}
	switch v := o.Value.(type) {
	case *api.ServerBeta1:
		s.pods, s.port, s.protocol = v.Spec.PodSelector, v.Spec.Port, v.Spec.ProxyProtocol
	case *api.ServerBeta2:
		s.pods, s.external, s.port, s.protocol = v.Spec.PodSelector, v.Spec.ExternalWorkloadSelector, v.Spec.Port, v.Spec.ProxyProtocol
	case *api.Server:
		s.pods, s.external, s.port, s.protocol = v.Spec.PodSelector, v.Spec.ExternalWorkloadSelector, v.Spec.Port, v.Spec.ProxyProtocol
		s.access = cmp.Or(accessPolicy(v.Spec.AccessPolicy), denyAll)
	}
	s.protocol = cmp.Or(s.protocol, protocolUnknown)
	return s
}

// app is what the port speaks, by the Server.
func (s server) app() model.App { return protocols[s.protocol] }

// requests reports whether there are requests to be told apart.
func (s server) requests() bool { return s.app().HasRequests() }

// selects reports whether the Server is for pods with these labels. Of one without a
// valid version as much as could be read counts, and what could not selects all: they
// may have been meant.
func (s server) selects(set map[string]string) bool {
	if s.external != nil && s.pods == nil {
		return false
	}
	if s.pods == nil {
		return s.o.Invalid
	}
	sel, err := metav1.LabelSelectorAsSelector(s.pods)
	return err != nil || sel.Matches(labels.Set(set))
}

// ports are the pod's ports that the Server is for: a number, or all that have a name,
// as they are in the containers. all is true if that could not be read.
func (s server) ports(pod *corev1.Pod) (ports []uint16, all bool) {
	if s.port.Type == intstr.Int {
		if !validPort(int64(s.port.IntVal)) {
			return nil, true
		}
		return []uint16{uint16(s.port.IntVal)}, false
	}
	for _, c := range containers(pod) {
		for _, p := range c.Ports {
			if p.Name == s.port.StrVal && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && validPort(int64(p.ContainerPort)) {
				ports = append(ports, uint16(p.ContainerPort))
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), s.port.StrVal == ""
}

// validateServer judges a Server alone.
func validateServer(o *objects.Object, rep *report) {
	s := serverOf(o)
	const effect = model.Narrows
	selector(o, "spec.podSelector", s.pods, effect, rep)
	selector(o, "spec.externalWorkloadSelector", s.external, effect, rep)
	switch {
	case s.pods == nil && s.external == nil:
		rep.invalid(o, "spec.podSelector", effect, "a Server needs a selector: without one every pod of the namespace is denied what it may be for")
	case s.pods != nil && s.external != nil:
		rep.invalid(o, "spec.externalWorkloadSelector", effect, "a Server selects pods or external workloads, not both")
	case o.Version == "v1alpha1" && (len(s.pods.MatchLabels) > 0) == (len(s.pods.MatchExpressions) > 0):
		rep.invalid(o, "spec.podSelector", effect, "in v1alpha1 a selector has matchLabels or matchExpressions")
	}
	if s.port.Type == intstr.Int && !validPort(int64(s.port.IntVal)) || s.port.Type == intstr.String && s.port.StrVal == "" {
		rep.invalid(o, "spec.port", effect, "%s is not a port", s.port.String())
	}
	if _, ok := protocols[s.protocol]; !ok {
		rep.invalid(o, "spec.proxyProtocol", effect, "%q is not a protocol; use unknown, HTTP/1, HTTP/2, gRPC, opaque or TLS", s.protocol)
	}
	if !slices.Contains(accessPolicies, s.access) {
		rep.invalid(o, "spec.accessPolicy", effect, "%q is not a policy; use %s", s.access, policyWords())
	}
}

// selector judges a selector of labels.
func selector(o *objects.Object, field string, s *metav1.LabelSelector, effect model.Effect, rep *report) {
	if s == nil {
		return
	}
	for i, e := range s.MatchExpressions {
		if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: s.MatchExpressions[i : i+1]}); err != nil {
			rep.invalid(o, at(field+".matchExpressions", i), effect, "not a condition on the label %q: %s", e.Key, strings.TrimSpace(err.Error()))
		}
	}
	if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchLabels: s.MatchLabels}); err != nil {
		rep.invalid(o, field+".matchLabels", effect, "%s", err)
	}
}

// judgeServer tells what becomes of a Server's fields.
func (t *Translator) judgeServer(o *objects.Object, rep *report) {
	s := serverOf(o)
	if s.external != nil {
		rep.refused(o, "spec.externalWorkloadSelector", "external-workload", model.Degrades,
			"workloads outside the cluster are on no node of the mesh: nothing here guards them, their own proxies do", "select pods")
		return
	}
	notePolicy(o, "spec.accessPolicy", s.access, rep)
}
