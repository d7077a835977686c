// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// declaration is what the ServiceEntries of one namespace declare under one host, put together
// as Istio does: the oldest stands, and others that differ in ports alone add theirs.
type declaration struct {
	namespace, host string
	parts           []*objects.Object // oldest first
	see             visibility
	svc             *model.Service
}

// entryHost is a host of a ServiceEntry as it is looked up. Unlike those of other kinds
// it is taken as it stands, also without a dot.
func entryHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

// entryName is the name of the service that is declared under a host. It has a dot, so
// that no service of Kubernetes has it.
func entryName(host string) string {
	if !strings.Contains(host, ".") {
		return host + "."
	}
	return host
}

// declarations are those of a host by namespace; that with the oldest part first.
func (t *Translator) declarations(r translators.Reader, host string) []*declaration {
	var out []*declaration
	seen := map[string]bool{}
	for _, o := range r.Select(serviceEntryKind, byHost, host) {
		if seen[o.Namespace] {
			continue
		}
		seen[o.Namespace] = true
		if e := t.declaration(r, o.Namespace, host); e != nil {
			out = append(out, e)
		}
	}
	return out
}

// declaration is that of a namespace and host, nil if there is none that is valid, or if
// Kubernetes has a service of that name.
func (t *Translator) declaration(r translators.Reader, namespace, host string) *declaration {
	if t.kubernetesService(r, host) != nil {
		return nil
	}
	var e *declaration
	for _, o := range r.Select(serviceEntryKind, byHost, host) {
		spec := serviceEntrySpec(o)
		switch {
		case o.Namespace != namespace || o.Invalid || !servable(spec):
		case e == nil:
			e = &declaration{namespace: namespace, host: host, parts: []*objects.Object{o},
				see: exported(saidOr(spec.GetExportTo(), t.mesh(r).services), namespace)}
		case mergeable(e.parts[0], o):
			e.parts = append(e.parts, o)
		}
	}
	if e == nil {
		return nil
	}
	e.svc = e.service()
	return e
}

// saidOr is what was said, or else the default.
func saidOr(said, byDefault []string) []string {
	if len(said) > 0 {
		return said
	}
	return byDefault
}

// servable reports whether anything of it can be served.
func servable(spec *networking.ServiceEntry) bool {
	return spec.GetResolution() != networking.ServiceEntry_DYNAMIC_DNS
}

// mergeable reports whether the ports of a younger ServiceEntry of the namespace are
// added to those of an older one, as in Istio.
func mergeable(a, b *objects.Object) bool {
	x, y := serviceEntrySpec(a), serviceEntrySpec(b)
	return x.GetResolution() == y.GetResolution() && maps.Equal(a.Labels, b.Labels) &&
		maps.Equal(x.GetWorkloadSelector().GetLabels(), y.GetWorkloadSelector().GetLabels()) &&
		equalSets(x.GetExportTo(), y.GetExportTo())
}

func equalSets(a, b []string) bool {
	sorted := func(in []string) []string { return slices.Compact(slices.Sorted(slices.Values(in))) }
	return slices.Equal(sorted(a), sorted(b))
}

// entryPort is a port of an entry and the ServiceEntry that it is of.
type entryPort struct {
	o    *objects.Object
	port *networking.ServicePort
}

// ports are those of the parts; of several of one number that of the oldest.
func (d *declaration) ports() []entryPort {
	var out []entryPort
	for _, o := range d.parts {
		for _, p := range serviceEntrySpec(o).GetPorts() {
			if !slices.ContainsFunc(out, func(have entryPort) bool { return have.port.GetNumber() == p.GetNumber() }) {
				out = append(out, entryPort{o, p})
			}
		}
	}
	return out
}

func (d *declaration) service() *model.Service {
	first := d.parts[0]
	s := &model.Service{Namespace: d.namespace, Name: entryName(d.host), MeshOnly: true,
		Resolution: resolution(serviceEntrySpec(first)), Src: first.Source(Plane, "spec")}
	if plainHost(d.host) {
		s.Hosts = []string{d.host}
	}
	for _, o := range d.parts {
		vips, ranges := entryAddresses(o, d.host)
		s.VIPs, s.Ranges = append(s.VIPs, vips...), append(s.Ranges, ranges...)
	}
	slices.SortFunc(s.VIPs, netip.Addr.Compare)
	s.VIPs = slices.Compact(s.VIPs)
	slices.SortFunc(s.Ranges, comparePrefixes)
	s.Ranges = slices.Compact(s.Ranges)
	s.Reach = model.ReachNamed
	if len(serviceEntrySpec(first).GetAddresses()) == 0 {
		s.Reach = model.ReachAnywhere
	}
	for _, p := range d.ports() {
		app, ok := entryApps[strings.ToLower(p.port.GetProtocol())]
		if !ok {
			continue
		}
		sp := model.ServicePort{Name: p.port.GetName(), Port: uint16(p.port.GetNumber()), Protocol: model.TCP, App: app}
		if s.Resolution == model.ResolveOriginal {
			sp.Target = uint16(p.port.GetTargetPort())
		}
		s.Ports = append(s.Ports, sp)
	}
	return s
}

// entryApps are the protocols of a ServiceEntry's ports; UDP is none that a proxy sees.
var entryApps = map[string]model.App{
	"": model.AppUndeclared, "http": model.AppHTTP, "http2": model.AppHTTP2, "grpc": model.AppGRPC, "grpc-web": model.AppGRPC,
	"https": model.AppTLS, "tls": model.AppTLS, "tcp": model.AppTCP, "mongo": model.AppTCP, "redis": model.AppTCP, "mysql": model.AppTCP,
}

func resolution(spec *networking.ServiceEntry) model.Resolution {
	switch spec.GetResolution() {
	case networking.ServiceEntry_STATIC:
		return model.ResolveEndpoints
	case networking.ServiceEntry_DNS:
		return model.ResolveDNS
	case networking.ServiceEntry_DNS_ROUND_ROBIN:
		return model.ResolveDNSFirst
	}
	return model.ResolveOriginal
}

// entryAddresses are those that the specification names, or if it names none those that
// Istio has allocated for the host.
func entryAddresses(o *objects.Object, host string) (vips []netip.Addr, ranges []netip.Prefix) {
	for _, a := range serviceEntrySpec(o).GetAddresses() {
		p, err := parsePrefix(a)
		switch {
		case err != nil:
		case p.IsSingleIP():
			vips = append(vips, p.Addr())
		default:
			ranges = append(ranges, p)
		}
	}
	if len(serviceEntrySpec(o).GetAddresses()) > 0 {
		return vips, ranges
	}
	for _, a := range serviceEntryAddresses(o) {
		if ip, err := netip.ParseAddr(a.GetValue()); err == nil && entryHost(a.GetHost()) == host {
			vips = append(vips, ip.Unmap())
		}
	}
	return vips, nil
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// entryHosts are the values under which ServiceEntries are found by host.
func entryHosts(o *objects.Object) []string {
	var out []string
	for _, h := range serviceEntrySpec(o).GetHosts() {
		out = append(out, entryHost(h))
	}
	return out
}

// entryKeys are the units that exist because of a ServiceEntry.
func entryKeys(o *objects.Object) []translators.Key {
	out := []translators.Key{{Kind: serviceEntryKey, Namespace: o.Namespace, Name: o.Name}}
	for _, h := range entryHosts(o) {
		out = append(out, translators.Key{Kind: entryKey, Namespace: o.Namespace, Name: h})
	}
	return out
}

// declared translates what the ServiceEntries of a namespace declare under a host.
func (t *Translator) declared(r translators.Reader, namespace, host string) translators.Result {
	var res translators.Result
	e := t.declaration(r, namespace, host)
	if e == nil {
		return res
	}
	all := t.declarations(r, host)
	svc := e.apart(all)
	res.Services = []*model.Service{svc}
	eps, workloads := t.entryEndpoints(r, e)
	if eps != nil {
		res.Endpoints = []*model.Endpoints{eps}
	}
	res.Workloads = workloads
	frontends, diags := t.frontends(r, svc)
	res.Frontends, res.Diagnostics = frontends, diags
	return res
}

// first is the entry that has the host's name and, where several have one, an address:
// that which most clients see.
func first(all []*declaration) *declaration {
	if i := slices.IndexFunc(all, func(d *declaration) bool { return d.see.public }); i >= 0 {
		return all[i]
	}
	return all[0]
}

// apart is the entry's service without what those of other namespaces have. Clients that
// see it all the same get to it by the routes of the first.
func (d *declaration) apart(all []*declaration) *model.Service {
	main := first(all)
	if main.namespace == d.namespace {
		return d.svc
	}
	s := *d.svc
	s.Reach = model.ReachAddresses
	s.VIPs = slices.DeleteFunc(slices.Clone(s.VIPs), func(a netip.Addr) bool { return slices.Contains(main.svc.VIPs, a) })
	s.Ranges = slices.DeleteFunc(slices.Clone(s.Ranges), func(p netip.Prefix) bool { return slices.Contains(main.svc.Ranges, p) })
	return &s
}
