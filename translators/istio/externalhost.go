// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// hostKeys are the hosts of a VirtualService that may turn out to have no service.
func (t *Translator) hostKeys(o *objects.Object) []translators.Key {
	spec := virtualServiceSpec(o)
	if !onMesh(spec) {
		return nil
	}
	var out []translators.Key
	for _, h := range spec.GetHosts() {
		if full := t.fullName(h, o.Namespace); t.routable(full) {
			out = append(out, translators.Key{Kind: hostKey, Name: full})
		}
	}
	return out
}

// routable reports whether the host can be one without service, by which requests are
// told. A name of the cluster's own is not: without its service nobody resolves it, and
// it is a slip, or the service comes later.
func (t *Translator) routable(host string) bool {
	return host != "*" && plainHost(host) && hostPattern.MatchString(host) && !strings.HasSuffix(host, ".svc."+t.domain)
}

// external translates the VirtualServices of a host that no service has. Requests get
// to it by their authority, at the ports of the other hosts that the VirtualService
// names, or else at port 80 alone: so does Istio.
func (t *Translator) external(r translators.Reader, host string) translators.Result {
	var res translators.Result
	if len(t.servicesOf(r, host)) > 0 {
		return res
	}
	byPort := map[uint16][]candidate{}
	for _, v := range t.naming(r, host) {
		if len(v.spec.GetHttp()) == 0 {
			continue
		}
		for _, p := range t.externalPorts(r, v.spec, v.o.Namespace) {
			byPort[p] = append(byPort[p], v)
		}
	}
	u, sidecars := &unused{}, t.sidecars(r)
	for _, port := range slices.Sorted(maps.Keys(byPort)) {
		cs := byPort[port]
		c := &chain{t: t, r: r, host: asRequested(host), at: cs[0].o.Namespace, port: port, unused: u, sidecars: sidecars}
		c.apart = c.toldApart(cs)
		if f := c.http(cs); f != nil {
			res.Frontends = append(res.Frontends, f)
		}
	}
	res.Diagnostics = u.diagnostics(host)
	return res
}

// asRequested writes a host as it stands in requests: an address of IPv6 in brackets.
func asRequested(host string) string {
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + a.String() + "]"
	}
	return host
}

// naming lists the VirtualServices that name the very host, oldest first: of several
// hosts that a request fits, the most specific has it.
func (t *Translator) naming(r translators.Reader, host string) []candidate {
	index := host
	if isWildcard(host) {
		index = anyWildcard
	}
	var out []candidate
	for _, o := range r.Select(virtualServiceKind, byHost, index) {
		c := t.candidate(r, o)
		c.host = host
		i := slices.IndexFunc(c.spec.GetHosts(), func(h string) bool { return t.fullName(h, o.Namespace) == host })
		if i < 0 || !onMesh(c.spec) {
			continue
		}
		c.field = at("spec.hosts", i)
		out = append(out, c)
	}
	return out
}

// httpPort is that of hosts without service, in a VirtualService without services.
const httpPort = 80

// externalPorts are the ports at which the hosts of a VirtualService that have no
// service are served.
func (t *Translator) externalPorts(r translators.Reader, vs *networking.VirtualService, namespace string) []uint16 {
	var out []uint16
	elsewhere := false
	for _, h := range vs.GetHosts() {
		for _, svc := range t.servicesOf(r, t.fullName(h, namespace)) {
			for _, p := range svc.Ports {
				switch {
				case p.Protocol != model.TCP:
				case p.App.IsHTTP():
					out = append(out, p.Port)
				case detected(p):
					elsewhere = true // one virtual host, that of the service
				}
			}
		}
	}
	if len(out) == 0 && !elsewhere {
		return []uint16{httpPort}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// judgeExternalHost says what becomes of a host without service.
func (t *Translator) judgeExternalHost(r translators.Reader, n *notes, field, host string, vs *networking.VirtualService, ports []uint16) {
	full := t.fullName(host, n.o.Namespace)
	switch namespace, name, ok := t.serviceOf(full + ".svc." + t.domain); {
	case !plainHost(full):
		n.refused(field, "unsupported-host", model.Degrades,
			full+" names no service, and its wildcard is no whole label, as in *.example.com: requests to it are not steered", "")
	case len(vs.GetHttp()) == 0 && len(vs.GetTls()) > 0:
		n.surprising(field, "host-without-service", full+" names no service: it stands for server names alone", "")
	case !t.routable(full) || len(vs.GetHttp()) == 0 || len(ports) == 0:
		n.refused(field, "unknown-host", model.Degrades, full+" names no service: requests to it are not steered", "")
	case ok && r.Service(namespace, name) != nil:
		n.approximated(field, "unknown-host", model.Degrades,
			full+" names no service: requests that name it are steered where the service of that short name does not take them", hostAdvice(t, host))
	default:
		n.surprising(field, "host-without-service", full+" names no service: requests that name it are steered "+portList(ports), "")
	}
}
