// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// placedRoute is a route and where it stands. One that another VirtualService delegates
// to has parts of both.
type placedRoute struct {
	in    *networking.HTTPRoute
	n     *notes // about the object that it stands in
	field string
	// root is the route that delegates to it, nil if none; inherited are the parts that it
	// has from there, by name.
	root      *placedRoute
	inherited map[string]bool
	// broken: what is delegated to has no valid version.
	broken bool
}

// placed lists the routes of a VirtualService; in place of one that delegates, those that
// it delegates to.
func (h *httpTranslation) placed(vs *networking.VirtualService) []placedRoute {
	var out []placedRoute
	for i, in := range vs.GetHttp() {
		p := placedRoute{in: in, n: h.n, field: at("spec.http", i)}
		if in.GetDelegate() == nil {
			out = append(out, p)
		} else {
			out = append(out, h.delegated(&p)...)
		}
	}
	return out
}

// on is the translation with its notes about another object, whose namespace its names
// are then of.
func (h *httpTranslation) on(n *notes) *httpTranslation {
	if n == h.n {
		return h
	}
	c := *h
	c.n = n
	return &c
}

// part is the translation of one part of a route, and its field.
func (h *httpTranslation) part(p *placedRoute, name string) (*httpTranslation, string) {
	if p.inherited[name] {
		p = p.root
	}
	return h.on(p.n), p.field + "." + name
}

// match is where the i-th match stands. Of those that have conditions of both routes, it
// is the one of the route that is delegated to.
func (p *placedRoute) match(i int) (*notes, string) {
	if p.root == nil {
		return p.n, at(p.field+".match", i)
	}
	if p.inherited["match"] {
		return p.root.n, at(p.root.field+".match", i)
	}
	return p.n, p.field + ".match"
}

// sources are what a route was made of.
func (p *placedRoute) sources(m placedMatch) []model.Source {
	out := []model.Source{m.n.o.Source(Plane, m.field)}
	if p.root != nil {
		for _, s := range []model.Source{p.n.o.Source(Plane, p.field), p.root.n.o.Source(Plane, p.root.field)} {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// notesOn are the notes about a VirtualService that h's delegates to.
func (h *httpTranslation) notesOn(o *objects.Object) *notes {
	if n := h.delegates[o]; n != nil {
		return n
	}
	n := &notes{o: o}
	if h.delegates != nil {
		h.delegates[o] = n
	}
	return n
}

// delegated gives the routes that a route delegates to. Without them, the next route of
// its own VirtualService has the requests.
func (h *httpTranslation) delegated(root *placedRoute) []placedRoute {
	d := root.in.GetDelegate()
	namespace := d.GetNamespace()
	if namespace == "" {
		namespace = h.n.o.Namespace
	}
	key := namespace + "/" + d.GetName()
	skip := func(why, advice string) []placedRoute {
		h.n.surprising(root.field+".delegate", "missing-delegate", why+": the route applies nowhere, and the next ones have its requests", advice)
		return nil
	}
	o := h.r.Get(virtualServiceKind, namespace, d.GetName())
	spec := (*networking.VirtualService)(nil)
	if o != nil {
		spec = virtualServiceSpec(o)
	}
	switch {
	case o == nil:
		return skip("there is no VirtualService "+key, "")
	case o.Invalid:
		h.n.refused(root.field+".delegate", "invalid-object", model.Narrows,
			fmt.Sprintf("VirtualService %s has no valid version: the route answers %d", key, invalidStatus), "repair it")
		return []placedRoute{{in: root.in, n: root.n, field: root.field, broken: true}}
	case len(spec.GetHosts()) > 0:
		return skip("VirtualService "+key+" has hosts of its own, so that none can delegate to it", "take its hosts away")
	case !exported(orDefault(spec.GetExportTo(), h.t.mesh(h.r).virtualServices), namespace).to(h.n.o.Namespace):
		return skip("VirtualService "+key+" is not exported to "+h.n.o.Namespace, "")
	}
	n := h.notesOn(o)
	var out []placedRoute
	for i, in := range spec.GetHttp() {
		leaf := placedRoute{in: in, n: n, field: at("spec.http", i), root: root}
		if merged, ok := merge(root, leaf); ok {
			out = append(out, merged)
			continue
		}
		why := fmt.Sprintf("route %s of VirtualService %s asks for more than the route that delegates to it allows: it applies nowhere", leaf.field, key)
		h.n.surprising(root.field+".match", "delegate-conflict", why, "")
		n.surprising(leaf.field+".match", "delegate-conflict",
			fmt.Sprintf("it asks for more than %s of VirtualService %s, which delegates to it, allows: it applies nowhere", root.field, h.n.o.Key()),
			"let each match narrow one of those of the route that delegates")
	}
	return out
}

// merge completes a route by the one that delegates to it; ok is false if its matches do
// not narrow those.
func merge(root *placedRoute, leaf placedRoute) (out placedRoute, ok bool) {
	r, l := root.in, leaf.in
	c := &networking.HTTPRoute{
		Name: l.GetName(), Route: l.GetRoute(), Redirect: l.GetRedirect(), DirectResponse: l.GetDirectResponse(), Rewrite: l.GetRewrite(),
		Timeout: l.GetTimeout(), Retries: l.GetRetries(), Fault: l.GetFault(), Mirror: l.GetMirror(), Mirrors: l.GetMirrors(),
		MirrorPercent: l.GetMirrorPercent(), MirrorPercentage: l.GetMirrorPercentage(), CorsPolicy: l.GetCorsPolicy(), Headers: l.GetHeaders(),
	}
	leaf.in, leaf.inherited = c, map[string]bool{}
	inherit := func(name string, missing, given bool, take func()) {
		if missing && given {
			take()
			leaf.inherited[name] = true
		}
	}
	inherit("rewrite", l.GetRewrite() == nil, r.GetRewrite() != nil, func() { c.Rewrite = r.GetRewrite() })
	inherit("directResponse", l.GetDirectResponse() == nil, r.GetDirectResponse() != nil, func() { c.DirectResponse = r.GetDirectResponse() })
	inherit("timeout", l.GetTimeout() == nil, r.GetTimeout() != nil, func() { c.Timeout = r.GetTimeout() })
	inherit("retries", l.GetRetries() == nil, r.GetRetries() != nil, func() { c.Retries = r.GetRetries() })
	inherit("fault", l.GetFault() == nil, r.GetFault() != nil, func() { c.Fault = r.GetFault() })
	inherit("mirror", l.GetMirror() == nil, r.GetMirror() != nil, func() { c.Mirror = r.GetMirror() })
	inherit("mirrors", l.GetMirrors() == nil, r.GetMirrors() != nil, func() { c.Mirrors = r.GetMirrors() })
	inherit("mirrorPercent", l.GetMirrorPercent() == nil, r.GetMirrorPercent() != nil, func() { c.MirrorPercent = r.GetMirrorPercent() }) // deprecated, still read
	inherit("mirrorPercentage", l.GetMirrorPercentage() == nil, r.GetMirrorPercentage() != nil, func() { c.MirrorPercentage = r.GetMirrorPercentage() })
	inherit("corsPolicy", l.GetCorsPolicy() == nil, r.GetCorsPolicy() != nil, func() { c.CorsPolicy = r.GetCorsPolicy() })
	inherit("headers", l.GetHeaders() == nil, r.GetHeaders() != nil, func() { c.Headers = r.GetHeaders() })
	inherit("match", len(l.GetMatch()) == 0, len(r.GetMatch()) > 0, func() { c.Match = r.GetMatch() })
	if !leaf.inherited["match"] {
		c.Match, ok = mergeMatches(r.GetMatch(), l.GetMatch())
		return leaf, ok
	}
	return leaf, true
}

// delegating lists the VirtualServices that delegate to one.
func (t *Translator) delegating(r translators.Reader, o *objects.Object) []*objects.Object {
	return r.Select(virtualServiceKind, byDelegate, o.Key())
}

// byDelegate finds VirtualServices by the key of one that they delegate to.
const byDelegate = "delegate"

func delegateIndex(o *objects.Object) []string {
	var out []string
	for _, r := range virtualServiceSpec(o).GetHttp() {
		if d := r.GetDelegate(); d != nil {
			namespace := d.GetNamespace()
			if namespace == "" {
				namespace = o.Namespace
			}
			out = append(out, namespace+"/"+d.GetName())
		}
	}
	return out
}
