// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// sender is somebody who may send, as one side's kernel and proxies know him.
type sender struct {
	name     string
	identity string
	addr     netip.Addr
}

// anybodyElse is who has an address that nobody is known to have.
const anybodyElse = "anybody else"

// permissions compares what may come in to the workloads that both sides have.
func (r *Report) permissions(before, after Tables, in func(string) bool) {
	type group struct{ old, new uint64 }
	groups := map[group][]*model.Workload{}
	var order []group
	for _, row := range after.Rows(translators.Workloads) {
		w := row.Value.(*model.Workload)
		if w.HostNetwork || !in(w.Namespace) || before.Get(translators.Workloads, row.Key) == nil {
			continue
		}
		g := group{governed(before, row.Key).ID, governed(after, row.Key).ID}
		if g.old == g.new {
			continue
		}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], w)
	}
	everybody := senders(before, after)
	for _, g := range order {
		r.workloads(before, after, groups[g], everybody)
	}
}

func governed(t Tables, key string) *plan.Governed {
	if g, ok := t.Get(plan.Governance, key).(*plan.Governed); ok {
		return g
	}
	return &plan.Governed{}
}

// senders are an address of each identity, one in each range that a policy names, and
// one that nobody has.
func senders(sides ...Tables) []sender {
	seen := map[string]bool{}
	var out []sender
	add := func(s sender) {
		if s.addr.IsValid() && !seen[s.name] {
			seen[s.name] = true
			out = append(out, s)
		}
	}
	for _, t := range sides {
		for _, row := range t.Rows(translators.Workloads) {
			if w := row.Value.(*model.Workload); w.Identity != "" && !w.HostNetwork && len(w.Addresses) > 0 {
				add(sender{w.Identity, w.Identity, w.Addresses[0]})
			}
		}
		for _, row := range t.Rows(plan.Prefixes) {
			if p := row.Value.(*plan.Prefix); !p.Unassigned && p.Prefix.Bits() > 0 {
				add(sender{name: p.Prefix.String(), addr: p.Prefix.Addr()})
			}
		}
	}
	slices.SortFunc(out, func(a, b sender) int { return compareStrings(a.name, b.name) })
	return append(out, sender{name: anybodyElse, addr: netip.MustParseAddr("192.0.2.254")})
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// finding is what differs at a port for one who sends.
type finding struct {
	effect   model.Effect
	example  string
	old, new verdict
}

// workloads compares workloads that have one policy set on each side.
func (r *Report) workloads(before, after Tables, ws []*model.Workload, everybody []sender) {
	w := ws[0]
	a, b := governed(before, w.Key()), governed(after, w.Key())
	names := make([]string, len(ws))
	for i := range ws {
		names[i] = ws[i].Key()
	}
	for _, port := range ports(a, b) {
		type key struct {
			effect            model.Effect
			example, old, new string
		}
		at := map[key]int{}
		for _, s := range everybody {
			for _, f := range r.compare(before, after, w, port, s) {
				k := key{f.effect, f.example, f.old.word, f.new.word}
				i, ok := at[k]
				if !ok {
					i = len(r.Permissions)
					at[k] = i
					r.Permissions = append(r.Permissions, PermissionChange{Effect: f.effect, Workloads: names, Port: port.Port, Example: f.example,
						Old: f.old.word, New: f.new.word})
				}
				p := &r.Permissions[i]
				p.From = append(p.From, s.name)
				p.OldSources = sortedSources(slices.Concat(p.OldSources, f.old.by))
				p.NewSources = sortedSources(slices.Concat(p.NewSources, f.new.by))
			}
		}
	}
}

// ports are those that either side tells apart, and 0 for all others.
func ports(a, b *plan.Governed) []plan.GovernedPort {
	var out []plan.GovernedPort
	for _, p := range slices.Concat(a.Ports, b.Ports) {
		i := slices.IndexFunc(out, func(o plan.GovernedPort) bool { return o.Port == p.Port })
		switch {
		case i < 0:
			out = append(out, plan.GovernedPort{Port: p.Port, App: p.App})
		case p.App.HasRequests():
			out[i].App = p.App
		}
	}
	slices.SortFunc(out, func(x, y plan.GovernedPort) int { return int(x.Port) - int(y.Port) })
	return append(out, plan.GovernedPort{})
}

// compare finds what one sender may do on one side alone: connections where that alone
// decides, else requests that the rules of both sides tell apart.
func (r *Report) compare(before, after Tables, w *model.Workload, port plan.GovernedPort, s sender) []finding {
	a, b := side{before, w, port, s}, side{after, w, port, s}
	x, y := a.connection(), b.connection()
	if !x.depends && !y.depends {
		r.Asked++
		if x.allowed == y.allowed {
			return nil
		}
		return []finding{{effect(y.allowed), "", x, y}}
	}
	var out []finding
	seen := map[string]bool{} // what decided, already told
	for _, q := range distinct(slices.Concat(a.requests(), b.requests())) {
		r.Asked++
		x, y := a.request(q), b.request(q)
		e := effect(y.allowed)
		by := fmt.Sprint(e, x.by, y.by)
		if x.allowed == y.allowed || seen[by] {
			continue
		}
		seen[by] = true
		out = append(out, finding{e, example(&q), x, y})
	}
	return out
}

func effect(allowed bool) model.Effect {
	if allowed {
		return model.Widens
	}
	return model.Narrows
}

// side is one sender at one port on one side.
type side struct {
	t    Tables
	w    *model.Workload
	port plan.GovernedPort
	s    sender
}

// verdict is what becomes of something.
type verdict struct {
	allowed, depends bool
	word             string
	by               []model.Source
}

func (s side) governed() *plan.Governed { return governed(s.t, s.w.Key()) }

// connection is what the kernel says.
func (s side) connection() verdict {
	g := s.governed()
	action, rule := g.Verdict(s.class(), s.port.Port, model.TCP)
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

func (s side) class() *plan.Class {
	id := uint64(0)
	if a, ok := s.t.Get(plan.Addresses, s.s.addr.String()).(*plan.Address); ok {
		id = a.Class
	} else {
		best := -1
		for _, row := range s.t.Rows(plan.Prefixes) {
			if p := row.Value.(*plan.Prefix); p.Prefix.Contains(s.s.addr) && p.Prefix.Bits() > best {
				best, id = p.Prefix.Bits(), p.Class
			}
		}
	}
	if c, ok := s.t.Get(plan.Classes, fmt.Sprintf("%016x", id)).(*plan.Class); ok {
		return c
	}
	return &plan.Class{}
}

// requests are those that the side's rules and routes tell apart.
func (s side) requests() []plan.Request {
	g := s.governed()
	out := ofRules(g.Deny)
	for _, group := range g.Allow {
		out = append(out, ofRules(group)...)
	}
	for _, route := range g.InboundRoutes(s.w, s.port.Port) {
		out = append(out, requests(route.Match)...)
	}
	return out
}

// request is what becomes of a request.
func (s side) request(q plan.Request) verdict {
	c := s.connection()
	if !c.depends {
		return c
	}
	q.Client = plan.Client{Identity: s.s.identity, Addr: s.s.addr}
	g := s.governed()
	policy := g.Policy(s.port.Port)
	if g.OnlyInbound(s.port.Port) {
		routes := g.InboundRoutes(s.w, s.port.Port)
		i := slices.IndexFunc(routes, func(r plan.Route) bool { return plan.MatchesRequest(r.Match, &q) })
		if i < 0 {
			return verdict{word: fmt.Sprintf("%d, no route", http.StatusNotFound), by: g.Src}
		}
		policy = routes[i].Policy
	}
	d := policy.Judge(&q)
	v := verdict{allowed: !d.Denied, word: "allowed"}
	if d.Denied {
		v.word, v.by = "denied", g.Src
	}
	if d.Rule != nil {
		v.by = plan.RuleSources(s.t, plan.RuleName(*d.Rule), s.w.Key())
	}
	return v
}
