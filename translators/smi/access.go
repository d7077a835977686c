// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"fmt"
	"math"
	"slices"
	"strings"

	access1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/access/v1alpha1"
	access2 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/access/v1alpha2"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// target is a TrafficTarget, whatever its version.
type target struct {
	destination subject
	port        int // of the destination; 0 = not given
	sources     []subject
	rules       []rule
}

// subject names a service account; field is where.
type subject struct {
	kind, name, namespace string
	port                  int // v1alpha1 sources only
	field                 string
}

// rule refers to a route of some kind.
type rule struct {
	kind, name string
	matches    []string
	field      string
}

func targetOf(o *objects.Object) target {
	var t target
	switch v := o.Value.(type) {
	case *access1.TrafficTarget:
		t.destination = subject{v.Destination.Kind, v.Destination.Name, v.Destination.Namespace, 0, "destination"}
		t.port = v.Destination.Port
		for i, s := range v.Sources {
			t.sources = append(t.sources, subject{s.Kind, s.Name, s.Namespace, s.Port, fmt.Sprintf("sources[%d]", i)})
		}
		for i, r := range v.Specs {
			t.rules = append(t.rules, rule{r.Kind, r.Name, r.Matches, fmt.Sprintf("specs[%d]", i)})
		}
	case *access2.TrafficTarget:
		t.destination = subject{v.Spec.Destination.Kind, v.Spec.Destination.Name, v.Spec.Destination.Namespace, 0, "spec.destination"}
		t.port = given(v.Spec.Destination.Port)
		for i, s := range v.Spec.Sources {
			t.sources = append(t.sources, subject{s.Kind, s.Name, s.Namespace, given(s.Port), fmt.Sprintf("spec.sources[%d]", i)})
		}
		for i, r := range v.Spec.Rules {
			t.rules = append(t.rules, rule{r.Kind, r.Name, r.Matches, fmt.Sprintf("spec.rules[%d]", i)})
		}
	case *TrafficTarget:
		t.destination = subject{v.Spec.Destination.Kind, v.Spec.Destination.Name, v.Spec.Destination.Namespace, 0, "spec.destination"}
		t.port = given(v.Spec.Destination.Port)
		for i, s := range v.Spec.Sources {
			t.sources = append(t.sources, subject{s.Kind, s.Name, s.Namespace, 0, fmt.Sprintf("spec.sources[%d]", i)})
		}
		for i, r := range v.Spec.Rules {
			t.rules = append(t.rules, rule{r.Kind, r.Name, r.Matches, fmt.Sprintf("spec.rules[%d]", i)})
		}
	}
	return t
}

// given reads an optional port. A written 0 is no port, and must not look like one
// that was left out.
func given[T ~int](p *T) int {
	switch {
	case p == nil:
		return 0
	case *p == 0:
		return -1
	}
	return int(*p)
}

const serviceAccount = "ServiceAccount"

func (t target) validate(o *objects.Object, rep *report) {
	d := t.destination
	if d.kind != serviceAccount {
		unsupportedReference(o, d.field+".kind", d.kind, serviceAccount, model.Narrows, rep)
	}
	if d.name == "" {
		rep.refused(o, d.field+".name", "no-destination", model.Widens, "a destination needs a name: this target guards nobody", "")
	}
	if d.namespace != "" && d.namespace != o.Namespace {
		rep.refused(o, d.field+".namespace", "foreign-destination", model.Narrows,
			"a target of one namespace cannot open the workloads of another, nor guard them", "put the target into namespace "+d.namespace)
	}
	if t.port != 0 && !validPort(t.port) {
		rep.refused(o, d.field+".port", "bad-port", model.Narrows, fmt.Sprintf("the port is not between 1 and %d", math.MaxUint16), "")
	}
}

// policy translates one TrafficTarget. What it cannot say allows nothing.
func (t *Translator) policy(r translators.Reader, k translators.Key) translators.Result {
	o := r.Get(trafficTarget, k.Namespace, k.Name)
	if o == nil {
		return translators.Result{}
	}
	tt := targetOf(o)
	d := tt.destination
	if d.name == "" || (d.namespace != "" && d.namespace != o.Namespace) {
		return translators.Result{} // selects nobody; Validate says why
	}
	// One of another kind allows nothing; who may have been meant stays guarded.
	rep := &report{}
	a := &model.Authorization{Target: model.Target{Namespace: o.Namespace, ServiceAccount: d.name}, Src: []model.Source{o.Source(Plane, "")}}
	if !o.Invalid && d.kind == serviceAccount {
		if d.namespace == "" {
			ownNamespace(o, d, rep)
		}
		if tt.port != 0 && o.Version == "v1alpha3" {
			rep.say(o, d.field+".port", "port-of-older-version", model.Narrows, model.Translated,
				"v1alpha3 has no port here; the target is restricted to it as in v1alpha2", "give ports in a TCPRoute")
		}
		if from := t.peers(o, tt.sources, rep); len(from) > 0 {
			a.Rules = allowed(r, o, tt, from, rep)
		}
	}
	return translators.Result{Authorizations: map[string]*model.Authorization{o.Key(): a}, Diagnostics: rep.out}
}

func ownNamespace(o *objects.Object, s subject, rep *report) {
	rep.say(o, s.field+".namespace", "namespace-omitted", model.Cosmetic, model.Approximated,
		fmt.Sprintf("no namespace is given: %s is taken, the target's own", o.Namespace), "write namespace: "+o.Namespace)
}

// peers gives the identities of the sources, as one peer; none if nobody is meant.
func (t *Translator) peers(o *objects.Object, sources []subject, rep *report) []model.Peer {
	var ids []model.StringMatch
	for _, s := range sources {
		switch {
		case s.kind != serviceAccount:
			unsupportedReference(o, s.field+".kind", s.kind, serviceAccount, model.Narrows, rep)
			continue
		case s.name == "":
			rep.refused(o, s.field+".name", "no-source", model.Narrows, "a source needs a name: this one is nobody", "")
			continue
		}
		if s.port != 0 {
			rep.say(o, s.field+".port", "source-port", model.Cosmetic, model.Translated, "the port of a source has no meaning", "remove it")
		}
		ns := s.namespace
		if ns == "" {
			ns = o.Namespace
			ownNamespace(o, s, rep)
		}
		ids = append(ids, model.StringMatch{Kind: model.Exact, Value: model.SPIFFE(t.trustDomain, ns, s.name)})
	}
	if len(ids) == 0 {
		if len(sources) == 0 {
			rep.refused(o, fieldOf(o, "sources"), "no-sources", model.Narrows, "no sources are given: nobody is allowed", "name the callers")
		}
		return nil
	}
	return []model.Peer{{Identities: model.SortContent(ids)}}
}

// fieldOf is where a list of the target stands in its version.
func fieldOf(o *objects.Object, list string) string {
	if o.Version != "v1alpha1" {
		return "spec." + list
	}
	if list == "rules" {
		return "specs"
	}
	return list
}

// allowed gives what the rules allow. Ports of TCPRoutes restrict the HTTP routes
// of the same target; where there are no HTTP routes, they are allowed themselves.
func allowed(r translators.Reader, o *objects.Object, t target, from []model.Peer, rep *report) []model.AuthRule {
	var out []model.AuthRule
	var tcp portSet
	hasTCP, hasHTTP := false, false
	for _, ru := range t.rules {
		hasTCP = hasTCP || ru.kind == tcpRoute.Kind
		hasHTTP = hasHTTP || ru.kind == httpRouteGroup.Kind
	}
	add := func(ops []model.Operation, src ...model.Source) {
		if ops = model.SortContent(ops); len(ops) > 0 {
			out = append(out, model.AuthRule{From: from, To: ops, Src: src})
		}
	}
	var tcpSources []model.Source
	for _, ru := range t.rules {
		if ru.kind != tcpRoute.Kind && ru.kind != udpRoute.Kind {
			continue
		}
		unusedMatches(o, ru, rep)
		route := find(r, o, ru, objects.Kind{Group: tcpRoute.Group, Kind: ru.kind}, rep)
		if route == nil {
			continue
		}
		src := []model.Source{o.Source(Plane, ru.field), route.Source(Plane, "spec.matches.ports")}
		if ru.kind == tcpRoute.Kind {
			tcp.add(portsOf(route))
			tcpSources = append(tcpSources, src...)
			continue
		}
		var udp portSet
		udp.add(portsOf(route))
		if udp = udp.within(t.port); !udp.empty() {
			add([]model.Operation{{Protocol: model.UDP, Ports: udp.ports}}, src...)
		} else {
			portExcludes(o, t, ru.field, rep)
		}
	}
	if !hasTCP {
		tcp = portSet{all: true}
	}
	if !tcp.empty() {
		if tcp = tcp.within(t.port); tcp.empty() {
			portExcludes(o, t, t.destination.field+".port", rep)
		}
	}
	switch {
	case hasHTTP:
		for _, ru := range t.rules {
			if ru.kind == httpRouteGroup.Kind {
				httpRule(r, o, ru, tcp, add, rep)
			}
		}
	case hasTCP && !tcp.empty():
		add([]model.Operation{{Protocol: model.TCP, Ports: tcp.ports}}, tcpSources...)
	}
	unsupportedRules(o, t, rep)
	return sortRules(out)
}

func unsupportedRules(o *objects.Object, t target, rep *report) {
	if len(t.rules) == 0 {
		rep.refused(o, fieldOf(o, "rules"), "no-rules", model.Narrows, "no rules are given: nothing is allowed", "refer to a route")
	}
	for _, ru := range t.rules {
		if !slices.Contains([]string{tcpRoute.Kind, udpRoute.Kind, httpRouteGroup.Kind}, ru.kind) {
			unsupportedReference(o, ru.field+".kind", ru.kind, "HTTPRouteGroup, TCPRoute or UDPRoute", model.Narrows, rep)
		}
	}
}

func portExcludes(o *objects.Object, t target, field string, rep *report) {
	rep.refused(o, field, "port-excluded", model.Narrows,
		fmt.Sprintf("port %d of the destination is not among the ports of the routes: nothing is allowed by them", t.port), "")
}

func unusedMatches(o *objects.Object, ru rule, rep *report) {
	if len(ru.matches) > 0 {
		rep.say(o, ru.field+".matches", "unused-matches", model.Cosmetic, model.Approximated,
			"a "+ru.kind+" has a single match, which is meant whatever name is given", "remove it")
	}
}

// find resolves a rule's route in the target's namespace; nil, with a diagnostic,
// if it cannot be used.
func find(r translators.Reader, o *objects.Object, ru rule, kind objects.Kind, rep *report) *objects.Object {
	route := r.Get(kind, o.Namespace, ru.name)
	switch {
	case route == nil:
		rep.refused(o, ru.field+".name", "unknown-route", model.Narrows,
			fmt.Sprintf("there is no %s %s/%s: this rule allows nothing", ru.kind, o.Namespace, ru.name), "")
		return nil
	case route.Invalid:
		rep.refused(o, ru.field+".name", "invalid-route", model.Narrows,
			fmt.Sprintf("%s %s/%s is invalid: this rule allows nothing", ru.kind, o.Namespace, ru.name), "repair it")
		return nil
	}
	return route
}

// httpRule adds what one reference to a route group allows.
func httpRule(r translators.Reader, o *objects.Object, ru rule, ports portSet, add func([]model.Operation, ...model.Source), rep *report) {
	group := find(r, o, ru, httpRouteGroup, rep)
	if group == nil {
		return
	}
	all := matchesOf(group)
	if len(all) == 0 {
		rep.refused(o, ru.field+".name", "empty-group", model.Narrows, "the route group has no matches: this rule allows nothing", "")
	}
	var ops []model.Operation
	src := []model.Source{o.Source(Plane, ru.field)}
	use := func(m match) {
		src = append(src, group.Source(Plane, m.field))
		if !ports.empty() {
			ops = append(ops, m.operation(ports.ports))
		}
	}
	for i, name := range ru.matches {
		at := slices.IndexFunc(all, func(m match) bool { return m.Name == name && name != "" })
		if at < 0 {
			rep.refused(o, fmt.Sprintf("%s.matches[%d]", ru.field, i), "unknown-match", model.Narrows,
				fmt.Sprintf("%s has no match named %q: nothing is allowed by it", ru.name, name), "use "+strings.Join(names(all), " or "))
			continue
		}
		use(all[at])
	}
	if ru.matches == nil {
		for _, m := range all {
			use(m)
		}
	} else if len(ru.matches) == 0 {
		rep.say(o, ru.field+".matches", "empty-matches", model.Cosmetic, model.Approximated,
			"an empty list means what none means: all matches of the group", "remove it")
		for _, m := range all {
			use(m)
		}
	}
	add(ops, src...)
}

func names(ms []match) []string {
	var out []string
	for _, m := range ms {
		if m.Name != "" {
			out = append(out, m.Name)
		}
	}
	return out
}

// sortRules puts rules in the order of their content and joins equal ones.
func sortRules(in []model.AuthRule) []model.AuthRule {
	out := model.SortContent(in)
	for i := range out {
		for _, r := range in {
			if string(model.Bytes(r)) == string(model.Bytes(out[i])) {
				for _, s := range r.Src {
					if !slices.Contains(out[i].Src, s) {
						out[i].Src = append(slices.Clone(out[i].Src), s)
					}
				}
			}
		}
	}
	return out
}
