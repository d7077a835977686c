// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// side is one sender at one port on one side.
type side struct {
	t    Tables
	w    *model.Workload
	port plan.GovernedPort
	s    sender
	as   source
}

// verdict is what becomes of something.
type verdict struct {
	allowed, depends bool
	word             string
	by               []model.Source
}

func (s side) governed() *plan.Governed { return governed(s.t, s.w.Key()) }

// connection is what the kernel says.
func (s side) connection(proto model.Protocol) verdict {
	v := s.enforced(proto)
	if !v.allowed && observed(s.t, s.w.Key()) {
		return verdict{allowed: true, word: "allowed, observed", by: v.by}
	}
	return v
}

// observed reports whether what policy says of a workload is told, and not done.
func observed(t Tables, key string) bool {
	w, _ := t.Get(translators.Workloads, key).(*model.Workload)
	return w != nil && w.Observed
}

// enforced is what it says where it is enforced.
func (s side) enforced(proto model.Protocol) verdict {
	g := s.governed()
	action, rule := g.Verdict(s.as.class, s.port.Port, proto)
	by := g.Src
	if rule != 0 {
		by = plan.RuleSources(s.t, fmt.Sprintf("%016x", rule), s.w.Key())
	}
	switch action {
	case plan.Allow:
		if rule == 0 {
			by = nil
		}
		return verdict{allowed: true, word: "allowed", by: by}
	case plan.Check, plan.OnlyInbound:
		return verdict{depends: true, word: "depends on the request", by: by}
	}
	return verdict{word: "denied", by: by}
}

// meant tells senders apart by the kernel's verdict and by the rules, those of lists, that
// mean them.
func (s side) meant(lists [][]model.AuthRule) string {
	var b strings.Builder
	for _, p := range []model.Protocol{model.TCP, model.UDP} {
		v := s.connection(p)
		fmt.Fprintf(&b, "%t %t %v ", v.allowed, v.depends, v.by)
	}
	for _, list := range lists {
		for _, r := range list {
			fmt.Fprintf(&b, "%t ", s.means(r))
		}
	}
	return b.String()
}

// lists are the rules of the side, those of routes that come in too.
func (s side) lists() [][]model.AuthRule {
	policy := func(p *plan.Policy) [][]model.AuthRule {
		if p == nil {
			return nil
		}
		return append([][]model.AuthRule{p.Deny}, p.Allow...)
	}
	g := s.governed()
	out := policy(g.Policy(s.port.Port))
	if g.OnlyInbound(s.port.Port) {
		for _, route := range g.InboundRoutes(s.w, s.port.Port) {
			out = append(out, policy(route.Policy)...)
		}
	}
	return out
}

// means reports whether the rule is about the sender, whatever the request.
func (s side) means(r model.AuthRule) bool {
	rule := model.AuthRule{From: r.From}
	for _, c := range r.When {
		if c.Kind != model.OnHeader {
			rule.When = append(rule.When, c)
		}
	}
	return holds(rule)(&plan.Request{Client: s.as.client})
}

// rules adds what the side's rules and routes tell apart.
func (s side) rules(to *search) {
	g := s.governed()
	var routes []term
	if g.OnlyInbound(s.port.Port) {
		for _, route := range g.InboundRoutes(s.w, s.port.Port) {
			routes = append(routes, ofMatch(route.Match))
		}
	}
	to.list(routes...)
	for _, list := range s.lists() {
		var terms []term
		for _, r := range list {
			if s.means(r) {
				terms = append(terms, ofRule(r)...)
			}
		}
		to.list(terms...)
	}
}

// request is what becomes of a request.
func (s side) request(q plan.Request) verdict {
	c := s.connection(model.TCP)
	if !c.depends {
		return c
	}
	q.Client = s.as.client
	g := s.governed()
	policy := g.Policy(s.port.Port)
	done := "allowed"
	if g.OnlyInbound(s.port.Port) {
		routes := g.InboundRoutes(s.w, s.port.Port)
		i := slices.IndexFunc(routes, func(r plan.Route) bool { return plan.MatchesRequest(r.Match, &q) })
		if i < 0 {
			return verdict{word: fmt.Sprintf("%d, no route", http.StatusNotFound), by: g.Src}
		}
		policy, done = routes[i].Policy, arrivalWord(&routes[i])
	}
	d := policy.Judge(&q)
	v := verdict{allowed: !d.Denied, word: done}
	if d.Denied {
		v.word, v.by = "denied", g.Src
	}
	if d.Rule != nil {
		v.by = plan.RuleSources(s.t, plan.RuleName(*d.Rule), s.w.Key())
	}
	return v
}

// arrivalWord is what the destination does with a request that it lets in.
func arrivalWord(r *plan.Route) string {
	out := "allowed"
	if r.Redirect != nil {
		out = "redirect " + contentWord(r.Redirect)
	}
	if w := editWord(r.RequestHeaders); w != nothing {
		out += ", request headers " + w
	}
	if w := editWord(r.ResponseHeaders); w != nothing {
		out += ", response headers " + w
	}
	return out
}
