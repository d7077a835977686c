// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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
			"no valid version is known: where no valid one serves, HTTP ports of its own namespace answer 500, those of others only to clients that it alone is for", "repair it")
		return n.list
	}
	for i, g := range vs.GetGateways() {
		if g != meshGateway {
			n.refused(at("spec.gateways", i), "unsupported-gateway", model.Narrows, "gateways are not served: nothing is routed at "+g, "")
		}
	}
	if len(vs.GetHosts()) == 0 {
		if len(t.delegating(r, o)) == 0 {
			n.surprising("spec", "unused-delegate", "it has no hosts, and no VirtualService delegates to it: its routes apply nowhere", "")
		}
		return n.list // what became of it is said with those that delegate
	}
	v := exported(orDefault(vs.GetExportTo(), t.mesh(r).virtualServices), o.Namespace)
	if !v.public && len(v.namespaces) == 0 {
		n.surprising("spec.exportTo", "exported-to-nobody", "no namespace sees these routes", "")
	}
	if !onMesh(vs) {
		return n.list // nothing of it applies
	}
	ports := t.judgeHosts(r, n, vs)
	judgeUnusedRules(n, vs, ports)
	clients := []string{""}
	if !v.public && len(v.namespaces) > 0 {
		clients = v.namespaces
	}
	delegates := map[*objects.Object]*notes{}
	addresses := ports.addresses
	each := func(ports []uint16, judge func(*httpTranslation)) {
		anyPort := len(ports) == 0
		if anyPort {
			ports = []uint16{defaultPort}
		}
		for _, port := range ports {
			for _, client := range clients {
				judge(&httpTranslation{t: t, r: r, n: n, port: port, anyPort: anyPort, client: client, addresses: addresses, delegates: delegates})
			}
		}
	}
	each(ports.http, func(h *httpTranslation) { h.routes(vs) })
	each(ports.tcp, func(h *httpTranslation) { h.tcpRoutes(vs) })
	each(ports.tls, func(h *httpTranslation) { h.tlsRoutes(vs) })
	for _, d := range delegates {
		n.list = append(n.list, d.list...)
	}
	return n.list
}

// steered lists the ports of the services that a VirtualService names, by the kind of
// its routes that apply there.
type steered struct {
	http, tcp, tls []uint16
	services       bool // there are services
	addresses      []netip.Prefix
	external       bool // there are hosts without service that are served
}

// judgeHosts finds those ports and notes hosts that name no service, and ports where
// routes do not apply that their author may have thought to apply.
func (t *Translator) judgeHosts(r translators.Reader, n *notes, vs *networking.VirtualService) steered {
	var out steered
	external := t.externalPorts(r, vs, n.o.Namespace)
	for i, host := range vs.GetHosts() {
		field := at("spec.hosts", i)
		services := t.servicesOf(r, t.fullName(host, n.o.Namespace))
		if len(services) == 0 {
			t.judgeExternalHost(r, n, field, host, vs, external)
			out.external = out.external || t.routable(t.fullName(host, n.o.Namespace))
			continue
		}
		out.services = true
		for _, svc := range services {
			out.addresses = append(out.addresses, addressesOf(svc)...)
			for _, p := range svc.Ports {
				if p.Protocol != model.TCP {
					continue
				}
				switch {
				case p.App.IsHTTP():
					out.http = append(out.http, p.Port)
				case p.App == model.AppTLS:
					out.tls = append(out.tls, p.Port)
				case detected(p):
					out.http, out.tcp = append(out.http, p.Port), append(out.tcp, p.Port)
				default:
					out.tcp = append(out.tcp, p.Port)
				}
				if p.App == model.AppUndeclared && !detected(p) && len(vs.GetHttp()) > 0 {
					n.refused(field, "undeclared-protocol", model.Degrades,
						fmt.Sprintf("port %d of service %s does not say what it speaks, and servers speak first at this number: it is taken for opaque, as in Istio, and the http routes do not apply", p.Port, svc.Key()),
						"set appProtocol on the port, or a name that begins with http")
				}
				if detected(p) && len(vs.GetHttp()) == 0 && len(vs.GetTcp()) > 0 {
					n.approximated("spec.tcp", "undeclared-protocol", model.Degrades,
						fmt.Sprintf("port %d of service %s does not say what it speaks: the routes hold for everything that is sent there; Istio sends what it takes for HTTP to the service itself", p.Port, svc.Key()),
						"give the port a name that begins with tcp, or the VirtualService http routes")
				}
			}
			if sharesOut(vs) {
				judgeHeadless(r, n, field, svc)
			}
		}
	}
	if out.external {
		out.http = append(out.http, external...)
	}
	for _, list := range []*[]uint16{&out.http, &out.tcp, &out.tls} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return out
}

// sharesOut reports whether some route has more than a service as a whole to choose from.
func sharesOut(vs *networking.VirtualService) bool {
	several := func(n int, destinations func(int) *networking.Destination) bool {
		return n > 1 || n == 1 && destinations(0).GetSubset() != ""
	}
	return slices.ContainsFunc(vs.GetHttp(), func(h *networking.HTTPRoute) bool {
		return several(len(h.GetRoute()), func(i int) *networking.Destination { return h.GetRoute()[i].GetDestination() })
	}) || slices.ContainsFunc(vs.GetTcp(), func(h *networking.TCPRoute) bool {
		return several(len(h.GetRoute()), func(i int) *networking.Destination { return h.GetRoute()[i].GetDestination() })
	}) || slices.ContainsFunc(vs.GetTls(), func(h *networking.TLSRoute) bool {
		return several(len(h.GetRoute()), func(i int) *networking.Destination { return h.GetRoute()[i].GetDestination() })
	})
}

// judgeHeadless notes what is different where clients dial the pods.
func judgeHeadless(r translators.Reader, n *notes, field string, svc *model.Service) {
	if !isHeadless(r, svc) {
		return
	}
	n.approximated(field, "headless-service", model.Degrades,
		fmt.Sprintf("service %s is headless: what is sent to its pods goes to the one that the client has dialled, but a share of requests, and a subset, to any of them; in Istio those, too, go to the one dialled", svc.Key()), "")
}

func isHeadless(r translators.Reader, svc *model.Service) bool {
	o := r.Get(objects.ServiceKind, svc.Namespace, svc.Name)
	return o != nil && o.Value.(*corev1.Service).Spec.ClusterIP == corev1.ClusterIPNone
}

// judgeUnusedRules notes routes of a kind that no port of the services has.
func judgeUnusedRules(n *notes, vs *networking.VirtualService, ports steered) {
	if !ports.services {
		if len(vs.GetTcp())+len(vs.GetTls()) > 0 && len(vs.GetHttp()) > 0 {
			n.surprising("spec", "no-such-port", "the hosts have no service: of the routes, those of http alone apply", "")
		}
		return
	}
	for _, rules := range []struct {
		field, kind string
		rules       int
		ports       []uint16
	}{
		{"spec.http", "HTTP", len(vs.GetHttp()), ports.http},
		{"spec.tcp", "opaque", len(vs.GetTcp()), ports.tcp},
		{"spec.tls", "TLS", len(vs.GetTls()), ports.tls},
	} {
		if rules.rules > 0 && len(rules.ports) == 0 {
			n.surprising(rules.field, "no-such-port", fmt.Sprintf("the services have no %s port: these routes apply nowhere", rules.kind), "")
		}
	}
}

// portList is "at port 80" or "at ports 80, 81".
func portList(ports []uint16) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = strconv.Itoa(int(p))
	}
	if len(words) == 1 {
		return "at port " + words[0]
	}
	return "at ports " + strings.Join(words, ", ")
}

// servicesOf lists the services that a host names, of Kubernetes and declared.
func (t *Translator) servicesOf(r translators.Reader, host string) []*model.Service {
	var out []*model.Service
	if svc := t.kubernetesService(r, host); svc != nil {
		return []*model.Service{svc}
	}
	for _, d := range t.declarations(r, host) {
		out = append(out, d.svc)
	}
	if !isWildcard(host) {
		return out
	}
	for _, o := range r.List(objects.ServiceKind, "") {
		if !covers(host, t.serviceName(o.Namespace, o.Name)) {
			continue
		}
		if svc := r.Service(o.Namespace, o.Name); svc != nil {
			out = append(out, svc)
		}
	}
	var seen []string
	for _, o := range r.List(serviceEntryKind, "") {
		for _, h := range entryHosts(o) {
			if h == host || !covers(host, h) || slices.Contains(seen, h) {
				continue
			}
			seen = append(seen, h)
			for _, d := range t.declarations(r, h) {
				out = append(out, d.svc)
			}
		}
	}
	return out
}
