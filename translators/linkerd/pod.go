// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// guard is what guards one pod.
type guard struct {
	t        *Translator
	r        translators.Reader
	rep      *report
	o        *objects.Object
	pod      *corev1.Pod
	settings settings
	servers  map[uint16]server // by the port that they are for
	// closed is a Server of which it could not be read for which port it is.
	closed *server
}

// pod translates what may come in for a pod. A pod that no Server selects and that lets
// everybody in by default is not governed.
func (t *Translator) pod(r translators.Reader, namespace, name string) translators.Result {
	o := r.Get(objects.PodKind, namespace, name)
	if o == nil {
		return translators.Result{}
	}
	pod, ok := o.Value.(*corev1.Pod)
	if !ok {
		return translators.Result{}
	}
	g := &guard{t: t, r: r, rep: &report{}, o: o, pod: pod, servers: map[uint16]server{}}
	noteSettings(o, g.rep)
	g.settings = t.settingsOf(r, o, r.Get(objects.NamespaceKind, "", namespace), g.rep)
	if r.Workload(namespace, name) == nil {
		return translators.Result{Diagnostics: g.rep.sorted()} // not running, or ended
	}
	g.choose()
	var out translators.Result
	if g.governs() {
		out.Authorizations = map[string]*model.Authorization{o.Key(): g.authorization()}
		out.Inbounds = g.inbounds()
	}
	out.Diagnostics = g.rep.sorted()
	return out
}

// choose finds the Server of each port: the oldest of those that are for it.
func (g *guard) choose() {
	for _, o := range oldest(g.r, serverKind, g.o.Namespace) {
		s := serverOf(o)
		if !s.selects(g.o.Labels) {
			continue
		}
		ports, all := s.ports(g.pod)
		if all {
			g.closed = &s
			continue
		}
		for _, p := range ports {
			if first, ok := g.servers[p]; ok && first.o != o {
				g.rep.say(o, "spec.podSelector", "two-servers", model.Degrades, model.Translated,
					fmt.Sprintf("port %d of pods that it selects is that of Server %s, which is older: there this one has no effect, as in Linkerd", p, first.o.Key()),
					"let only one Server select a port")
				continue
			}
			g.servers[p] = s
		}
	}
}

// governs reports whether something is asked of clients of the pod.
func (g *guard) governs() bool {
	return len(g.servers) > 0 || g.closed != nil || !g.settings.policy.open() || len(g.settings.required) > 0
}

// authorization is everything that the pod lets in.
func (g *guard) authorization() *model.Authorization {
	a := &model.Authorization{Target: model.Target{Namespace: g.o.Namespace, Workload: g.o.Name}}
	var rules []model.AuthRule
	rules = append(rules, g.untouched()...)
	named := map[uint16]bool{}
	for _, p := range slices.Sorted(maps.Keys(g.servers)) {
		named[p] = true
		rules = append(rules, g.serverRules(g.servers[p], p)...)
		a.Src = append(a.Src, g.servers[p].o.Source(Plane, "spec"))
	}
	if g.closed != nil {
		a.Src = append(a.Src, g.closed.o.Source(Plane, "spec.port"))
	} else {
		rules = append(rules, g.defaultRules(named)...)
	}
	if g.settings.policySrc != nil {
		a.Src = append(a.Src, *g.settings.policySrc)
	}
	if len(a.Src) == 0 {
		a.Src = []model.Source{g.o.Source(Plane, "")}
	}
	a.Rules = canonical(rules)
	return a
}

// untouched are rules for what does not pass Linkerd's proxies: what is not TCP, and
// ports that they are told to leave alone.
func (g *guard) untouched() []model.AuthRule {
	udp := []model.Operation{{Protocol: model.UDP}}
	if ports := declaredPorts(g.pod, corev1.ProtocolUDP); len(ports) > 0 {
		udp = append(udp, model.Operation{Protocol: model.UDP, Ports: ports})
	}
	out := []model.AuthRule{{To: udp, Src: []model.Source{g.o.Source(Plane, "")}}}
	ports := slices.DeleteFunc(g.ports(g.settings.skipped), func(p uint16) bool {
		_, served := g.servers[p]
		return g.closed == nil && g.settings.policy.open() && !served && !g.settings.required.has(p) // open as it is
	})
	if len(ports) > 0 {
		out = append(out, model.AuthRule{To: []model.Operation{{Ports: ports}}, Src: append([]model.Source{g.o.Source(Plane, annotation(skipInboundKey))}, g.settings.src...)})
	}
	return out
}

// ports are those of a set; of one that is too large to be written out, those that the
// pod declares.
func (g *guard) ports(s portSet) []uint16 {
	if out, ok := s.list(); ok {
		return out
	}
	return slices.DeleteFunc(declaredPorts(g.pod, corev1.ProtocolTCP), func(p uint16) bool { return !s.has(p) })
}

// serverRules are what is let in at a port by its Server. Where its routes decide, any
// request passes here, to be found by a route, or by none.
func (g *guard) serverRules(s server, port uint16) []model.AuthRule {
	op := model.Operation{Ports: []uint16{port}}
	var out []model.AuthRule
	if s.o.Invalid {
		return nil
	}
	for _, grant := range g.t.serverGrants(g.r, s) {
		out = append(out, grant.rule(op))
	}
	if len(g.serverRoutes(s)) > 0 {
		request := op
		request.Paths = []model.StringMatch{{Kind: model.Present}}
		return append(out, model.AuthRule{To: []model.Operation{request}, Src: []model.Source{s.o.Source(Plane, "spec")}})
	}
	return append(out, g.probeRules(port)...)
}

// defaultRules are for the ports that no Server is for.
func (g *guard) defaultRules(named map[uint16]bool) []model.AuthRule {
	var src []model.Source
	if g.settings.policySrc != nil {
		src = append(src, *g.settings.policySrc)
	} else {
		src = append(src, g.o.Source(Plane, ""))
	}
	most, some, ports := g.required()
	ports = slices.DeleteFunc(ports, func(p uint16) bool { return named[p] })
	var out []model.AuthRule
	if c, ok := g.t.client(some); ok {
		for _, p := range ports {
			out = append(out, grant{c, slices.Concat(src, g.settings.src)}.rule(model.Operation{Ports: []uint16{p}}))
		}
	}
	except := slices.Concat(slices.Collect(maps.Keys(named)), ports)
	slices.Sort(except)
	if c, ok := g.t.client(most); ok {
		var to []model.Operation
		if len(except) > 0 {
			to = []model.Operation{{NotPorts: except}}
		}
		out = append(out, grant{c, src}.rule(to...))
	}
	for _, p := range g.probedPorts() {
		if !named[p] {
			out = append(out, g.probeRules(p)...)
		}
	}
	return out
}

// required are the default policies of most ports and of some, where clients need an
// identity at either. If there are too many of these, they are most: all but those that
// are not meant, so that none is open which should not be.
func (g *guard) required() (most, some accessPolicy, ports []uint16) {
	most, some = g.settings.policy, g.settings.policy.authenticated()
	if ports, ok := g.settings.required.list(); ok {
		return most, some, ports
	}
	return some, most, g.ports(g.settings.required.others())
}

// canonical puts rules in the order of their content; of equal rules one stays, with the
// sources of all.
func canonical(in []model.AuthRule) []model.AuthRule {
	for i := range in {
		in[i] = in[i].Canonical()
	}
	out := model.SortContent(in)
	for i := range out {
		for _, r := range in {
			if model.Hash(r) != model.Hash(out[i]) {
				continue
			}
			for _, s := range r.Src {
				if !slices.Contains(out[i].Src, s) {
					out[i].Src = append(slices.Clone(out[i].Src), s)
				}
			}
		}
	}
	return out
}
