// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// judgeDestinationRule says what became of the fields. Subsets are read where a
// route names them.
func (t *Translator) judgeDestinationRule(r translators.Reader, o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	dr := destinationRuleSpec(o)
	if o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: requests to its subsets get 503", "repair it")
		return n.list
	}
	host := t.fullName(dr.GetHost(), o.Namespace)
	services := t.servicesOf(r, host)
	if len(services) == 0 {
		n.refused("spec.host", "unknown-host", model.Degrades, fmt.Sprintf("%s names no service: the rule has no effect", dr.GetHost()), hostAdvice(t, dr.GetHost()))
	}
	if dr.GetWorkloadSelector() != nil {
		n.refused("spec.workloadSelector", "unsupported-field", model.Degrades, "rules for some clients only are not supported: the rule has no effect", "")
		return n.list
	}
	t.judgeVisibility(n, dr, services)
	trafficPolicy(n, "spec.trafficPolicy", dr.GetTrafficPolicy())
	for i, s := range dr.GetSubsets() {
		field := at("spec.subsets", i)
		trafficPolicy(n, field+".trafficPolicy", s.GetTrafficPolicy())
		if same := t.earlierSubset(r, o, host, s.GetName()); same != nil {
			n.surprising(field+".name", "duplicate-subset",
				fmt.Sprintf("DestinationRule %s defines the subset already and is older", same.Key()), "name it differently")
		}
	}
	return n.list
}

// earlierSubset finds an older rule of the namespace, for the same host, that
// defines the subset.
func (t *Translator) earlierSubset(r translators.Reader, o *objects.Object, host, subset string) *objects.Object {
	index := host
	if isWildcard(host) {
		index = anyWildcard
	}
	for _, other := range r.Select(destinationRuleKind, byHost, index) {
		if other == o {
			return nil
		}
		spec := destinationRuleSpec(other)
		if other.Namespace != o.Namespace || spec.GetWorkloadSelector() != nil || t.fullName(spec.GetHost(), other.Namespace) != host {
			continue
		}
		if slices.ContainsFunc(spec.GetSubsets(), func(s *networking.Subset) bool { return s.GetName() == subset }) {
			return other
		}
	}
	return nil
}

// judgeVisibility says for whom the rule counts.
func (t *Translator) judgeVisibility(n *notes, dr *networking.DestinationRule, services []*model.Service) {
	if v := exported(dr.GetExportTo(), n.o.Namespace); !v.public {
		n.approximated("spec.exportTo", "rule-visibility", model.Degrades,
			"a route that is not for one namespace alone uses the rule for all clients of its service", "")
	}
	foreign := len(services) > 0 && n.o.Namespace != t.root &&
		!slices.ContainsFunc(services, func(s *model.Service) bool { return s.Namespace == n.o.Namespace })
	if foreign {
		n.approximated("spec.host", "foreign-rule", model.Degrades,
			"the service is in another namespace: the rule counts only for routes that are for clients of "+n.o.Namespace+" alone",
			"put the rule into the service's namespace, or set exportTo or sourceNamespace in the VirtualService")
	}
}

// trafficPolicy refuses what a policy asks for and notes what is so anyway.
func trafficPolicy(n *notes, field string, p *networking.TrafficPolicy) {
	for i, port := range p.GetPortLevelSettings() {
		field := at(field+".portLevelSettings", i)
		refuseSet(n, field, port, "port", "loadBalancer", "tls")
		loadBalancer(n, field+".loadBalancer", port.GetLoadBalancer())
		upstreamTLS(n, field+".tls", port.GetTls())
	}
	refuseSet(n, field, p, "portLevelSettings", "loadBalancer", "tls")
	loadBalancer(n, field+".loadBalancer", p.GetLoadBalancer())
	upstreamTLS(n, field+".tls", p.GetTls())
}

// refuseSet refuses every field of a message that is set, but for some.
func refuseSet(n *notes, field string, m proto.Message, but ...string) {
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if name := fd.JSONName(); !slices.Contains(but, name) {
			n.refused(field+"."+name, "unsupported-field", model.Degrades, "traffic policies are not supported: the field has no effect", "")
		}
		return true
	})
}

// loadBalancer accepts the default of both, and least request by its names.
func loadBalancer(n *notes, field string, lb *networking.LoadBalancerSettings) {
	if lb == nil {
		return
	}
	refuseSet(n, field, lb, "simple")
	switch lb.GetSimple() {
	case networking.LoadBalancerSettings_UNSPECIFIED, networking.LoadBalancerSettings_LEAST_REQUEST,
		networking.LoadBalancerSettings_LEAST_CONN: // deprecated, still read
	default:
		n.refused(field+".simple", "unsupported-field", model.Degrades,
			fmt.Sprintf("load balancing is LEAST_REQUEST; %s is not supported", lb.GetSimple()), "")
	}
}

// upstreamTLS accepts plaintext, which is what there is.
func upstreamTLS(n *notes, field string, tls *networking.ClientTLSSettings) {
	switch {
	case tls == nil:
	case tls.GetMode() == networking.ClientTLSSettings_ISTIO_MUTUAL:
		n.approximated(field+".mode", "identity-by-address", model.Degrades,
			"there is no mutual TLS yet: peers are known by their addresses, and nothing is encrypted", "")
	case tls.GetMode() != networking.ClientTLSSettings_DISABLE:
		n.refused(field+".mode", "unsupported-field", model.Degrades,
			fmt.Sprintf("TLS to the backend (%s) is not supported: what is sent is not encrypted", strings.ToLower(tls.GetMode().String())), "let the client use TLS")
	}
	if tls != nil {
		tls.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			if name := fd.JSONName(); name != "mode" {
				n.refused(field+"."+name, "unsupported-field", model.Degrades, "TLS to the backend is not supported: the field has no effect", "")
			}
			return true
		})
	}
}
