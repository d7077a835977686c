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

// judgeServiceEntry says what became of the fields.
func (t *Translator) judgeServiceEntry(r translators.Reader, o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	s := serviceEntrySpec(o)
	if o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: the hosts are not known, and what is sent to them is sent as to any address", "repair it")
		return n.list
	}
	if !servable(s) {
		n.refused("spec.resolution", "unsupported-resolution", model.Narrows,
			"names are not looked up for each request: the hosts are not known, and what is sent to them is sent as to any address", "use resolution NONE, or DNS with whole names")
		return n.list
	}
	for i := range s.GetHosts() {
		t.judgeEntryHost(r, n, at("spec.hosts", i), entryHosts(o)[i])
	}
	for i, p := range s.GetPorts() {
		if strings.EqualFold(p.GetProtocol(), "udp") {
			n.surprising(at("spec.ports", i)+".protocol", "no-effect", "datagrams are not for proxies, neither in Istio nor here: the port has no effect", "")
		}
	}
	for i, host := range entryHosts(o) {
		t.judgeDetectedRange(r, n, i, host)
	}
	if len(s.GetSubjectAltNames()) > 0 {
		n.refused("spec.subjectAltNames", "unsupported-field", model.Degrades,
			"there is no TLS to backends yet: the names of their certificates are not looked at", "let the client use TLS")
	}
	if s.GetResolution() == networking.ServiceEntry_STATIC && len(s.GetEndpoints()) == 0 && s.GetWorkloadSelector() == nil {
		n.surprising("spec.endpoints", "no-endpoints", "resolution STATIC, and neither endpoints nor a workloadSelector: nobody serves it", "write who does")
	}
	for i, w := range s.GetEndpoints() {
		judgeMember(n, at("spec.endpoints", i), w, s.GetResolution() != networking.ServiceEntry_STATIC)
	}
	return n.list
}

// judgeEntryHost notes a host that others have, and one that nobody can ask for.
func (t *Translator) judgeEntryHost(r translators.Reader, n *notes, field, host string) {
	if svc := t.kubernetesService(r, host); svc != nil {
		n.refused(field, "duplicate-host", model.Degrades, fmt.Sprintf("%s is service %s of Kubernetes, which comes first: the entry has no effect", host, svc.Key()), "")
		return
	}
	d := t.declaration(r, n.o.Namespace, host)
	if d == nil {
		return
	}
	if !slices.Contains(d.parts, n.o) {
		n.surprising(field, "duplicate-host", fmt.Sprintf("ServiceEntry %s has the host already and is older; the two differ in more than ports, and Istio merges them no more than it is done here", d.parts[0].Key()), "put them together into one")
		return
	}
	if i := d.namesTwice(n.o); i >= 0 {
		n.surprising(at("spec.ports", i), "duplicate-host", fmt.Sprintf("ServiceEntry %s has the port already and is older", d.parts[0].Key()), "")
	}
	all := t.declarations(r, host)
	if main := first(all); main.namespace != d.namespace && d.see.public {
		n.surprising(field, "duplicate-host", fmt.Sprintf("ServiceEntry %s of another namespace has the host already and is older: it is served", main.parts[0].Key()), "")
	}
	if !plainHost(host) {
		n.refused(field, "unsupported-host", model.Degrades, fmt.Sprintf("the wildcard of %s is no whole label, as in *.example.com: it is got at by its addresses alone", host), "")
	}
	if !strings.Contains(host, ".") && d.svc.Reach == model.ReachAnywhere {
		n.approximated(field, "short-host", model.Narrows, fmt.Sprintf("%s has one label, which stands for a service of the client's namespace: it is not found by it", host), "give the entry an address, or write the name with a dot")
	}
}

// namesTwice is the index of a port of a part that an older part has, -1 if there is none.
func (d *declaration) namesTwice(o *objects.Object) int {
	return slices.IndexFunc(serviceEntrySpec(o).GetPorts(), func(p *networking.ServicePort) bool {
		return !slices.ContainsFunc(d.ports(), func(have entryPort) bool { return have.port == p })
	})
}

// judgeDetectedRange notes ports that do not say what they speak and have routes for
// requests, at ranges of addresses: there the first bytes are looked at for server names
// alone.
func (t *Translator) judgeDetectedRange(r translators.Reader, n *notes, i int, host string) {
	d := t.declaration(r, n.o.Namespace, host)
	if _, ranges := entryAddresses(n.o, host); d == nil || len(ranges) == 0 || !slices.Contains(d.parts, n.o) {
		return
	}
	for _, c := range t.candidates(r, host) {
		if len(c.spec.GetHttp()) == 0 {
			continue
		}
		for j, p := range serviceEntrySpec(n.o).GetPorts() {
			if p.GetProtocol() == "" && !slices.Contains(serverFirst, uint16(p.GetNumber())) {
				n.approximated(at("spec.ports", j)+".protocol", "undeclared-protocol", model.Degrades,
					fmt.Sprintf("at a range of addresses requests to a port that does not say what it speaks are not told from connections: they go where they were sent, without the http routes of VirtualService %s", c.o.Key()),
					"write the protocol, or single addresses in place of the range")
			}
		}
		return
	}
}
