// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// hostService is what a full name stands for to clients of a namespace ("": of whatever
// namespace): a service of Kubernetes, else what ServiceEntries declare under that very
// name; nil if they see none. Of the entries of several namespaces those that are private
// to the client's come first, then those that are exported to it by name, then those that
// everybody sees; the oldest among equals.
func (t *Translator) hostService(r translators.Reader, fqdn, client string) *model.Service {
	if svc := t.kubernetesService(r, fqdn); svc != nil && t.serviceVisibility(r, svc).shows(client) {
		return svc
	}
	entries := t.declarations(r, fqdn)
	if client == "" {
		if i := slices.IndexFunc(entries, func(e *declaration) bool { return e.see.public }); i >= 0 {
			return entries[i].svc
		}
	}
	for _, fits := range []func(*declaration) bool{
		func(e *declaration) bool { return e.see.private(client) },
		func(e *declaration) bool { return !e.see.public && e.see.shows(client) },
		func(e *declaration) bool { return e.see.public },
	} {
		if i := slices.IndexFunc(entries, fits); i >= 0 {
			return entries[i].svc
		}
	}
	return nil
}

// destinationService is what a destination of that full name stands for. To clients of its
// own namespace that is also what is exported to others alone: Istio's scope of such a
// client takes in the destinations of its VirtualServices without asking whom they are for.
func (t *Translator) destinationService(r translators.Reader, fqdn, client string) *model.Service {
	if svc := t.hostService(r, fqdn, client); svc != nil {
		return svc
	}
	if svc := t.kubernetesService(r, fqdn); svc != nil && svc.Namespace == client {
		return svc
	}
	for _, d := range t.declarations(r, fqdn) {
		if d.namespace == client {
			return d.svc
		}
	}
	return nil
}

// shows reports whether clients of a namespace see it; "" stands for some client.
func (v visibility) shows(client string) bool {
	return v.public || client == "" && len(v.namespaces) > 0 || slices.Contains(v.namespaces, client)
}

// kubernetesService is the service of Kubernetes with the full name, or nil.
func (t *Translator) kubernetesService(r translators.Reader, fqdn string) *model.Service {
	namespace, name, ok := t.serviceOf(fqdn)
	if !ok {
		return nil
	}
	return r.Service(namespace, name)
}

// serviceVisibility says who sees a service, of Kubernetes or declared.
func (t *Translator) serviceVisibility(r translators.Reader, svc *model.Service) visibility {
	if isDeclared(svc) {
		if d := t.declaration(r, svc.Namespace, declaredHost(svc)); d != nil {
			return d.see
		}
		return visibility{}
	}
	o := r.Get(objects.ServiceKind, svc.Namespace, svc.Name)
	if o == nil {
		return visibility{}
	}
	return exported(orDefault(annotated(o), t.mesh(r).services), svc.Namespace)
}

// isPublic reports whether everybody sees something under a full name.
func (t *Translator) isPublic(r translators.Reader, fqdn string) bool {
	if svc := t.kubernetesService(r, fqdn); svc != nil && t.serviceVisibility(r, svc).public {
		return true
	}
	return slices.ContainsFunc(t.declarations(r, fqdn), func(d *declaration) bool { return d.see.public })
}

// isDeclared reports whether a service is one of ServiceEntries.
func isDeclared(svc *model.Service) bool { return strings.Contains(svc.Name, ".") }

// declaredHost is the host under which a service is declared; see entryName.
func declaredHost(svc *model.Service) string { return strings.TrimSuffix(svc.Name, ".") }

// fullNameOf is the name by which VirtualServices and DestinationRules find a service.
func (t *Translator) fullNameOf(svc *model.Service) string {
	if isDeclared(svc) {
		return declaredHost(svc)
	}
	return t.serviceName(svc.Namespace, svc.Name)
}

// clientsApart are the namespaces whose clients may not see what others see under the
// name of a service; sorted.
func (t *Translator) clientsApart(r translators.Reader, svc *model.Service) []string {
	out := slices.Concat(t.serviceVisibility(r, svc).namespaces, t.hostApart(r, t.fullNameOf(svc)))
	slices.Sort(out)
	return slices.Compact(out)
}

// hostApart are those namespaces for a full name.
func (t *Translator) hostApart(r translators.Reader, fqdn string) []string {
	var out []string
	add := func(v visibility, own string) {
		if !v.public {
			out = append(append(out, v.namespaces...), own)
		}
	}
	if svc := t.kubernetesService(r, fqdn); svc != nil {
		add(t.serviceVisibility(r, svc), svc.Namespace)
	}
	for _, d := range t.declarations(r, fqdn) {
		add(d.see, d.namespace)
	}
	return out
}
