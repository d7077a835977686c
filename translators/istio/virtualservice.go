// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// defaultPort stands in where a VirtualService names no service, so that its
// fields are judged all the same.
const defaultPort = 80

// judgeVirtualService says what became of the fields. Frontends are computed for
// each service by itself; here the same translation runs for its diagnostics.
func (t *Translator) judgeVirtualService(r translators.Reader, o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	vs := virtualServiceSpec(o)
	if o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows,
			"no valid version is known: where it would serve, HTTP ports answer 500", "repair it")
		return n.list
	}
	for i, g := range vs.GetGateways() {
		if g != meshGateway {
			n.refused(at("spec.gateways", i), "unsupported-gateway", model.Narrows, "gateways are not served: nothing is routed at "+g, "")
		}
	}
	if len(vs.GetHosts()) == 0 {
		n.refused("spec.hosts", "unsupported-delegate", model.Narrows,
			"a VirtualService without hosts is for delegation, which is not supported", "write its routes into the VirtualService that delegates to it")
		return n.list
	}
	for i := range vs.GetTls() {
		n.refused(at("spec.tls", i), "unsupported-field", model.Degrades,
			"TLS connections are not routed by server name: they go to the service that the client dialled", "")
	}
	v := exported(vs.GetExportTo(), o.Namespace)
	if !v.public && len(v.namespaces) == 0 {
		n.surprising("spec.exportTo", "exported-to-nobody", "no namespace sees these routes", "")
	}
	if !v.public && len(vs.GetTcp()) > 0 {
		n.refused("spec.exportTo", "unsupported-field", model.Degrades, "connections are not routed by the client's namespace: the tcp routes apply to nobody", "")
	}
	if !onMesh(vs) {
		return n.list // nothing of it applies
	}
	ports := t.judgeHosts(r, n, vs)
	anyPort := len(ports.http)+len(ports.tcp) == 0
	if anyPort {
		ports = steered{http: []uint16{defaultPort}, tcp: []uint16{defaultPort}}
	} else {
		judgeUnusedRules(n, vs, ports)
	}
	clients := []string{""}
	if !v.public && len(v.namespaces) > 0 {
		clients = v.namespaces
	}
	for _, port := range ports.http {
		for _, client := range clients {
			h := &httpTranslation{t: t, r: r, n: n, port: port, anyPort: anyPort, client: client}
			h.routes(vs)
		}
	}
	for _, port := range ports.tcp {
		h := &httpTranslation{t: t, r: r, n: n, port: port, anyPort: anyPort}
		h.tcpBackends(vs)
	}
	return n.list
}

// steered lists the ports of the services that a VirtualService names.
type steered struct {
	http, tcp  []uint16
	undeclared bool // some of tcp may be HTTP
}

// judgeHosts finds those ports and notes hosts that name no service, and ports whose
// protocol nobody declared.
func (t *Translator) judgeHosts(r translators.Reader, n *notes, vs *networking.VirtualService) steered {
	var out steered
	for i, host := range vs.GetHosts() {
		field := at("spec.hosts", i)
		services := t.servicesOf(r, t.fullName(host, n.o.Namespace))
		if len(services) == 0 {
			n.refused(field, "unknown-host", model.Degrades,
				fmt.Sprintf("%s names no service: requests to it are not steered", host), hostAdvice(t, host))
		}
		for _, svc := range services {
			if o := r.Get(objects.ServiceKind, svc.Namespace, svc.Name); o != nil && o.Value.(*corev1.Service).Spec.ClusterIP == corev1.ClusterIPNone {
				n.approximated(field, "headless-service", model.Degrades,
					fmt.Sprintf("service %s is headless: clients that dial an address of its pods are not steered", svc.Key()), "give the service an address")
			}
			for _, p := range svc.Ports {
				switch {
				case p.Protocol != model.TCP:
				case p.App.IsHTTP():
					out.http = append(out.http, p.Port)
				default:
					out.tcp = append(out.tcp, p.Port)
					out.undeclared = out.undeclared || p.App == model.AppUndeclared
					if p.App == model.AppUndeclared && len(vs.GetHttp()) > 0 {
						n.refused(field, "undeclared-protocol", model.Degrades,
							fmt.Sprintf("port %d of service %s does not say what it speaks: it is taken for opaque and the http routes do not apply", p.Port, svc.Key()),
							"set appProtocol on the port, or a name that begins with http")
					}
				}
			}
		}
	}
	slices.Sort(out.http)
	slices.Sort(out.tcp)
	out.http, out.tcp = slices.Compact(out.http), slices.Compact(out.tcp)
	return out
}

// judgeUnusedRules notes routes of a kind that no port of the services has.
func judgeUnusedRules(n *notes, vs *networking.VirtualService, ports steered) {
	if len(vs.GetHttp()) > 0 && len(ports.http) == 0 && !ports.undeclared {
		n.surprising("spec.http", "no-such-port", "the services have no HTTP port: the http routes apply nowhere", "")
	}
	if len(vs.GetTcp()) > 0 && len(ports.tcp) == 0 {
		n.surprising("spec.tcp", "no-such-port", "the services have HTTP ports only: the tcp routes apply nowhere", "")
	}
}

// servicesOf lists the services that a host names.
func (t *Translator) servicesOf(r translators.Reader, host string) []*model.Service {
	if !isWildcard(host) {
		namespace, name, ok := t.serviceOf(host)
		if svc := r.Service(namespace, name); ok && svc != nil {
			return []*model.Service{svc}
		}
		return nil
	}
	var out []*model.Service
	for _, o := range r.List(objects.ServiceKind, "") {
		if !covers(host, t.serviceName(o.Namespace, o.Name)) {
			continue
		}
		if svc := r.Service(o.Namespace, o.Name); svc != nil {
			out = append(out, svc)
		}
	}
	return out
}
