// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// What a client gets of a service depends on what it sees: exportTo of the service and of
// VirtualServices, and its Sidecar. Clients that see the same share their routes.

// toldApart are the namespaces whose clients may not see what others see: the service, the
// VirtualServices that name it or what those send to; sorted.
func (c *chain) toldApart(all []candidate) []string {
	var out []string
	if c.svc != nil {
		out = c.t.clientsApart(c.r, c.svc)
	}
	for _, v := range all {
		for _, h := range destinationHosts(v.spec) {
			out = append(out, c.t.hostApart(c.r, c.t.fullName(h, v.o.Namespace))...)
		}
	}
	if c.sidecars != nil {
		out = append(out, c.sidecarsApart(all)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sidecarsApart are the namespaces whose clients see something else than those without a
// Sidecar of their own, or have to be told from such.
func (c *chain) sidecarsApart(all []candidate) []string {
	may := map[string]bool{}
	for ns := range c.sidecars.own {
		may[ns] = true
	}
	if c.sidecars.shared != nil { // "./*" is another namespace for each
		may[c.namespace()] = true
		for _, v := range all {
			may[v.o.Namespace] = true
		}
	}
	var out []string
	for ns := range may {
		if slices.ContainsFunc(c.sidecars.clients(ns), func(cl client) bool { return !c.sameView(all, cl, client{}) }) {
			out = append(out, ns)
		}
	}
	return out
}

// sameView reports whether Sidecars let two clients see the same of what concerns the
// frontend.
func (c *chain) sameView(all []candidate, a, b client) bool {
	va, vb := c.sidecars.view(a, c.port), c.sidecars.view(b, c.port)
	if c.svc != nil && c.inView(va, c.svc) != c.inView(vb, c.svc) || va.unknown() != vb.unknown() {
		return false
	}
	return !slices.ContainsFunc(all, func(v candidate) bool { return c.imported(va, v) != c.imported(vb, v) })
}

func (c *chain) inView(v view, svc *model.Service) bool {
	return v.shows(svc.Namespace, c.t.fullNameOf(svc), false)
}

// imported reports whether a VirtualService is in view: one host is enough, as in Istio.
func (c *chain) imported(v view, vs candidate) bool {
	return slices.ContainsFunc(vs.spec.GetHosts(), func(h string) bool {
		return v.shows(vs.o.Namespace, c.t.fullName(h, vs.o.Namespace), true)
	})
}

// audience lists those for whom there are routes of their own, then those of whatever
// namespace. Each comes before those that it is a part of.
func (c *chain) audience(all []candidate) []client {
	nearer := map[string]bool{}
	for _, v := range all {
		for _, ns := range v.see.namespaces {
			nearer[ns] = true
		}
	}
	for _, ns := range c.apart {
		nearer[ns] = true
	}
	var out []client
	for _, ns := range slices.Sorted(maps.Keys(nearer)) {
		out = append(out, c.sidecars.clients(ns)...)
	}
	return append(out, client{})
}

// seen are the VirtualServices that a client sees, in the order in which they count.
func (c *chain) seen(all []candidate, cl client) []candidate {
	out := visibleFrom(all, cl.namespace)
	if cl.namespace == "" {
		out = slices.DeleteFunc(out, func(v candidate) bool { return !v.see.public })
	}
	view := c.sidecars.view(cl, c.port)
	out = slices.DeleteFunc(out, func(v candidate) bool { return !c.imported(view, v) })
	if c.svc != nil && c.port != httpPort && c.hides(cl) {
		return nil // at other ports, VirtualServices count for services that are seen
	}
	return out
}

// hides reports whether a client does not know the service, or there is none.
func (c *chain) hides(cl client) bool {
	svc := c.meant(cl.namespace)
	if svc != nil && c.inView(c.sidecars.view(cl, c.port), svc) {
		return false
	}
	if svc != nil || c.svc != nil {
		c.hiding = true
	}
	if o := c.sidecars.of(cl); o != nil {
		c.from(o.Source(Plane, "spec.egress"))
	}
	return true
}

// meant is the service that exportTo lets clients of a namespace mean ("": of any that is
// not named by one); nil: none.
func (c *chain) meant(namespace string) *model.Service {
	switch {
	case c.svc == nil:
		return nil
	case namespace == "" && !c.t.isPublic(c.r, c.t.fullNameOf(c.svc)):
		return nil
	}
	return c.t.hostService(c.r, c.t.fullNameOf(c.svc), namespace)
}

// unknownTo is what becomes of what a client does not know.
func (c *chain) unknownTo(cl client) model.Unknown {
	if u := c.sidecars.view(cl, c.port).unknown(); u != "" {
		return u
	}
	return c.t.unknownHosts(c.r, c.namespace())
}

// within restricts the routes that are added to a client's labels; its namespace they
// have already.
func (c *chain) within(cl client, add func()) {
	before := len(c.routes)
	add()
	if len(cl.labels) == 0 {
		return
	}
	kept := c.routes[:before]
	for _, r := range c.routes[before:] {
		labels, ok := union(r.Match.SourceLabels, cl.labels)
		if r.Match.SourceLabels = labels; ok {
			kept = append(kept, r)
		}
	}
	c.routes = kept
}

// carriedBy restricts routes of connections to clients that carry labels.
func carriedBy(labels map[string]string, in []model.ConnectionRoute) []model.ConnectionRoute {
	if len(labels) == 0 {
		return in
	}
	var out []model.ConnectionRoute
	for _, r := range in {
		both, ok := union(r.SourceLabels, labels)
		if r.SourceLabels = both; ok {
			out = append(out, r)
		}
	}
	return out
}

// from notes what the frontend was made of.
func (c *chain) from(s model.Source) {
	if !slices.Contains(c.src, s) {
		c.src = append(c.src, s)
	}
}

// destinationHosts are those that a VirtualService sends to, as they are written.
func destinationHosts(vs *networking.VirtualService) []string {
	var out []string
	add := func(d *networking.Destination) {
		if d != nil {
			out = append(out, d.GetHost())
		}
	}
	for _, r := range vs.GetHttp() {
		for _, d := range r.GetRoute() {
			add(d.GetDestination())
		}
		add(r.GetMirror())
		for _, m := range r.GetMirrors() {
			add(m.GetDestination())
		}
	}
	for _, r := range vs.GetTcp() {
		for _, d := range r.GetRoute() {
			add(d.GetDestination())
		}
	}
	for _, r := range vs.GetTls() {
		for _, d := range r.GetRoute() {
			add(d.GetDestination())
		}
	}
	return out
}

// exportToAnnotation is Istio's annotation for the visibility of a service.
const exportToAnnotation = "networking.istio.io/exportTo"

// annotated is what a service of Kubernetes says of its visibility.
func annotated(o *objects.Object) []string {
	var out []string
	for _, ns := range strings.Split(o.Annotations[exportToAnnotation], ",") {
		if ns = strings.TrimSpace(ns); ns != "" {
			out = append(out, ns)
		}
	}
	return out
}
