// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// judgeSidecar says what became of the fields. What is shown is seen in the frontends.
func (t *Translator) judgeSidecar(r translators.Reader, o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	if o.Invalid {
		n.refused("spec", "invalid-object", model.Widens, "no valid version is known: it hides nothing", "repair it")
		return n.list
	}
	s := sidecarSpec(o)
	if first := t.earlierSidecar(r, o); first != nil {
		n.surprising("spec", "unused-sidecar", fmt.Sprintf("Sidecar %s is for the same clients and comes first: this one applies to none", first.Key()), "delete one of the two")
	}
	for i, e := range s.GetEgress() {
		t.judgeEgress(r, n, at("spec.egress", i), e)
	}
	for i, in := range s.GetIngress() {
		judgeIngress(n, at("spec.ingress", i), in)
	}
	if s.GetInboundConnectionPool() != nil {
		refusePool(n, "spec.inboundConnectionPool")
	}
	if d := s.GetOutboundTrafficPolicy().GetEgressProxy(); d != nil {
		refuseEgressProxy(n, "spec.outboundTrafficPolicy.egressProxy", d)
	}
	return n.list
}

func refuseEgressProxy(n *notes, field string, d *networking.Destination) {
	for name, set := range map[string]bool{"host": true, "subset": d.GetSubset() != "", "port": d.GetPort() != nil} {
		if set {
			n.refused(field+"."+name, "unsupported-field", model.Narrows,
				"there is no way by a proxy for hosts that nobody knows: requests that name one are answered with 502", "declare the hosts with a ServiceEntry and route them with a VirtualService")
		}
	}
}

// earlierSidecar is one that its clients have in its place.
func (t *Translator) earlierSidecar(r translators.Reader, o *objects.Object) *objects.Object {
	selector := sidecarSpec(o).GetWorkloadSelector()
	first := t.sidecars(r).of(client{o.Namespace, selector.GetLabels()})
	if first == o || first == nil || first.Namespace != o.Namespace || selector == nil && sidecarSpec(first).GetWorkloadSelector() != nil {
		return nil
	}
	return first
}

func (t *Translator) judgeEgress(r translators.Reader, n *notes, field string, e *networking.IstioEgressListener) {
	if e.GetPort() != nil && !intercepts(e) {
		for name, set := range map[string]bool{
			"bind": e.GetBind() != "", "captureMode": e.GetCaptureMode() == networking.CaptureMode_NONE, "port.protocol": e.GetPort().GetProtocol() == "HTTP_PROXY",
		} {
			if set {
				n.refused(field+"."+name, "unsupported-listener", model.Narrows,
					"clients are taken from where they send to; nothing listens for them elsewhere: this listener is not there", "send to the services' own addresses, and leave bind and captureMode out")
			}
		}
		return
	}
	for i, s := range e.GetHosts() {
		for _, h := range egressHosts([]string{s}) {
			t.judgeEgressHost(r, n, at(field+".hosts", i), h)
		}
	}
	if e.GetPort() != nil {
		t.judgeEgressProtocol(r, n, field, e)
	}
}

// judgeEgressHost notes names that stand for nothing: those are not completed.
func (t *Translator) judgeEgressHost(r translators.Reader, n *notes, field string, h egressHost) {
	if isWildcard(h.name) || len(t.servicesOf(r, h.name)) > 0 || len(r.Select(virtualServiceKind, byHost, h.name)) > 0 {
		return
	}
	advice := ""
	ns := h.namespace
	if ns == ownNamespace {
		ns = n.o.Namespace
	}
	if !strings.Contains(h.name, ".") && ns != anyNamespace {
		advice = "write " + ns + "/" + t.serviceName(ns, h.name)
	}
	n.surprising(field, "unknown-egress-host", h.name+" is neither the full name of a service nor a host of a VirtualService: the entry stands for nothing", advice)
}

// judgeEgressProtocol notes services that speak something else at a listener's port than
// it says.
func (t *Translator) judgeEgressProtocol(r translators.Reader, n *notes, field string, e *networking.IstioEgressListener) {
	says := appOf(e.GetPort().GetProtocol())
	v := view{sidecar: n.o, own: n.o.Namespace, hosts: egressHosts(e.GetHosts())}
	for _, o := range r.List(objects.ServiceKind, "") {
		svc := r.Service(o.Namespace, o.Name)
		if svc == nil || !v.shows(svc.Namespace, t.fullNameOf(svc), false) {
			continue
		}
		if p := svc.Port(uint16(e.GetPort().GetNumber())); p != nil && p.App != says && !(p.App.IsHTTP() && says.IsHTTP()) {
			n.approximated(field+".port.protocol", "listener-protocol", model.Degrades,
				fmt.Sprintf("service %s says itself what it speaks at the port, and is taken at its word", svc.Key()), "let the two agree")
			return
		}
	}
}

// appOf reads Istio's names of protocols.
func appOf(protocol string) model.App {
	switch p := strings.ToUpper(protocol); p {
	case "HTTP", "HTTP2", "GRPC", "GRPC-WEB":
		return model.AppHTTP
	case "HTTPS", "TLS":
		return model.AppTLS
	}
	return model.AppTCP
}

// judgeIngress notes what would be different in the pod. That a port is listed, or that
// another is not, changes nothing: both are reached.
func judgeIngress(n *notes, field string, in *networking.IstioIngressListener) {
	port := in.GetPort().GetNumber()
	if in.GetBind() != "" {
		n.refused(field+".bind", "unsupported-listener", model.Degrades, "nothing listens for the pod: connections come to the address that they are sent to", "")
	}
	if in.GetCaptureMode() == networking.CaptureMode_NONE {
		n.refused(field+".captureMode", "unsupported-listener", model.Degrades, "nothing listens for the pod: connections to the port itself are guarded", "")
	}
	same := []string{"", fmt.Sprintf("0.0.0.0:%d", port), fmt.Sprintf("[::]:%d", port), fmt.Sprintf(":%d", port)}
	if !slices.Contains(same, in.GetDefaultEndpoint()) {
		n.refused(field+".defaultEndpoint", "unsupported-field", model.Narrows,
			fmt.Sprintf("connections come to the pod's own address at port %d, and not to %s", port, in.GetDefaultEndpoint()), "let the application listen there, or write the port that it listens at as the Service's targetPort")
	}
	if in.GetTls() != nil {
		n.refused(field+".tls", "unsupported-field", model.Narrows, "TLS is not ended for the pod: what is encrypted comes to the application so", "let the application end it")
	}
	if in.GetConnectionPool() != nil {
		refusePool(n, field+".connectionPool")
	}
}

func refusePool(n *notes, field string) {
	n.refused(field, "unsupported-field", model.Degrades, "what comes in for a pod is not counted: the limits do not hold", "set them for the clients, with a DestinationRule")
}
