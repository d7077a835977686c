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

// clients lists those clients, of the ones that a route is for, that DestinationRules
// for its hosts tell apart, the base last. Each comes before those that it is a part of,
// so that routes in this order give every client what is meant for it. Beyond are rules
// that are not told apart everywhere.
func (t *Translator) clients(r translators.Reader, hosts []string, base client) (out []client, beyond []*objects.Object) {
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	for _, ns := range t.clientNamespaces(r, hosts, base) {
		selected, more := t.selections(r, hosts, client{ns, base.labels})
		beyond = append(beyond, more...)
		plain := client{ns, base.labels}
		out = append(out, selected...)
		if len(selected) > 0 || t.ruledApart(r, hosts, plain, base) {
			out = append(out, plain)
		}
	}
	if base.namespace == "" {
		out = append(out, base)
	}
	return out, beyond
}

// clientNamespaces lists the namespaces whose clients may have rules of their own; that
// of the base alone if it has one.
func (t *Translator) clientNamespaces(r translators.Reader, hosts []string, base client) []string {
	if base.namespace != "" {
		return []string{base.namespace}
	}
	var out []string
	for _, h := range hosts {
		for _, o := range t.rulesFor(r, h) {
			out = append(append(out, o.Namespace), t.ruleVisibility(r, o).namespaces...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ruledApart reports whether a client has other rules for some host than another one,
// or is the base itself.
func (t *Translator) ruledApart(r translators.Reader, hosts []string, a, base client) bool {
	return a.namespace == base.namespace || slices.ContainsFunc(hosts, func(h string) bool {
		return !t.rule(r, h, a).same(t.rule(r, h, base))
	})
}

func (m *ruled) same(other *ruled) bool {
	if m == nil || other == nil {
		return m == other
	}
	return slices.Equal(m.rules, other.rules)
}

// narrow restricts a match to a client.
func (cl client) narrow(m model.RouteMatch) model.RouteMatch {
	m.SourceNamespace, m.SourceLabels = cl.namespace, cl.labels
	return m
}

// narrowed is a route of connections for a client.
func (cl client) narrowed(r model.ConnectionRoute) model.ConnectionRoute {
	r.SourceNamespace, r.SourceLabels = cl.namespace, cl.labels
	return r
}

// carrying is the translation for clients that carry labels.
func (h *httpTranslation) carrying(labels map[string]string) *httpTranslation {
	out := *h
	out.labels = labels
	return &out
}

// clients are those that DestinationRules for some destinations tell apart.
func (h *httpTranslation) clients(base client, hosts []string) []client {
	out, beyond := h.t.clients(h.r, hosts, base)
	for _, o := range beyond {
		n := &notes{o: o}
		n.judgeBeyond(hosts)
		h.n.list = append(h.n.list, n.list...)
	}
	return out
}

// destinations are those of a route of requests.
func (h *httpTranslation) destinations(p *placedRoute) []string {
	var out []string
	add := func(name string, d *networking.Destination) {
		if part, _ := h.part(p, name); d != nil {
			out = append(out, part.destination(d))
		}
	}
	for _, d := range p.in.GetRoute() {
		add("route", d.GetDestination())
	}
	add("mirror", p.in.GetMirror())
	for _, m := range p.in.GetMirrors() {
		add("mirrors", m.GetDestination())
	}
	return out
}

// destination is the full name of a destination.
func (h *httpTranslation) destination(d *networking.Destination) string {
	return h.t.fullName(d.GetHost(), h.n.o.Namespace)
}

// shared shares the connections of a route among destinations: a route for each client
// that DestinationRules tell apart.
func (h *httpTranslation) shared(r model.ConnectionRoute, field string, in []*networking.RouteDestination) []model.ConnectionRoute {
	var hosts []string
	for _, d := range in {
		hosts = append(hosts, h.destination(d.GetDestination()))
	}
	var out []model.ConnectionRoute
	for _, cl := range h.clients(client{r.SourceNamespace, r.SourceLabels}, hosts) {
		n := cl.narrowed(r)
		of := h.carrying(cl.labels)
		of.connection, of.sharing = true, in
		n.Backends = of.shares(field, in, cl.namespace)
		of.judgeSplit(field, n.Backends)
		out = append(out, n)
	}
	return out
}

// judgeSplit says what is lost where connections are split: the endpoints of all backends
// are dealt with together.
func (h *httpTranslation) judgeSplit(field string, backends []model.Backend) {
	if len(backends) < 2 {
		return
	}
	first := backends[0].Policy
	for _, b := range backends {
		if p := b.Policy; model.Hash(p) != model.Hash(first) || p != nil && (p.Limits != model.Limits{} || p.Outlier != nil || p.Locality != nil) {
			h.n.approximated(field, "policy-of-split", model.Degrades,
				fmt.Sprintf("connections that are split have one traffic policy, that of %s/%s:%d, and it counts what all destinations do together; near endpoints are not preferred", backends[0].Namespace, backends[0].Service, backends[0].Port),
				"give the destinations the same policy, without limits")
			return
		}
	}
}

// clients are those of a namespace that DestinationRules for the service tell apart.
func (c *chain) clients(namespace string) []client {
	base := client{namespace: namespace}
	if c.svc == nil {
		return []client{base}
	}
	out, _ := c.t.clients(c.r, []string{c.t.fullNameOf(c.svc)}, base) // judgeDestinationRule tells of the others
	return out
}

// backend is the service itself, as a client sees it.
func (c *chain) backend(cl client, connection bool) model.Backend {
	svc := c.meant(cl.namespace)
	policy := backendPolicy{client: cl, rule: c.t.rule(c.r, c.t.fullNameOf(c.svc), cl), namespace: svc.Namespace, service: svc.Name, port: c.port,
		portNamed: true, connection: connection}
	if connection {
		policy.tunnel = policy.tunnelOf()
	}
	return model.Backend{Namespace: svc.Namespace, Service: svc.Name, Port: c.port, Weight: 1, Policy: c.t.policyOf(c.r, policy)}
}

// ruled reports whether there is a policy for what is sent to the service itself, so that
// it matters though no VirtualService says anything; the rules are then what it is from.
func (c *chain) ruled(connection bool) bool {
	if c.svc == nil {
		return false
	}
	found := false
	for _, cl := range c.clients("") {
		if c.meant(cl.namespace) == nil {
			continue
		}
		if p := c.backend(cl, connection).Policy; p == nil || connection && !p.NeedsProxy() {
			continue // connections are spread evenly anyway
		}
		found = true
		if rule := c.t.rule(c.r, c.t.fullNameOf(c.svc), cl); rule != nil {
			for _, o := range rule.rules {
				if src := o.Source(Plane, "spec"); !slices.Contains(c.src, src) {
					c.src = append(c.src, src)
				}
			}
		}
	}
	return found
}
