// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// permissions compares what may come in to the workloads that both sides have.
func (r *Report) permissions(before, after Tables, in func(string) bool) {
	type group struct{ old, new string }
	groups := map[group][]*model.Workload{}
	var order []group
	for _, row := range after.Rows(translators.Workloads) {
		w := row.Value.(*model.Workload)
		if w.HostNetwork || !in(w.Namespace) || before.Get(translators.Workloads, row.Key) == nil {
			continue
		}
		g := group{contentOf(before, row.Key), contentOf(after, row.Key)}
		if g.old == g.new {
			continue
		}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], w)
	}
	if len(order) == 0 {
		return
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

// contentOf tells policy sets of workloads apart, with what is said of requests that come in
// and whether any of it is enforced.
func contentOf(t Tables, key string) string {
	g := governed(t, key)
	in := make([]plan.Inbound, len(g.Inbounds))
	for i, x := range g.Inbounds {
		in[i] = *x
		in[i].Src = nil
	}
	return fmt.Sprintf("%016x %s %t", g.ID, model.Hash(in), observed(t, key))
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
	workloads := make([]string, len(ws))
	for i := range ws {
		workloads[i] = ws[i].Key()
	}
	for _, port := range ports(a, b) {
		r.limits(workloads, port.Port, a, b)
		type key struct {
			effect            model.Effect
			example, old, new string
		}
		at := map[key]int{}
		for _, alike := range alikes(before, after, w, port, everybody) {
			for _, f := range r.compare(before, after, w, port, alike[0]) {
				k := key{f.effect, f.example, f.old.word, f.new.word}
				i, ok := at[k]
				if !ok {
					i = len(r.Permissions)
					at[k] = i
					r.Permissions = append(r.Permissions, PermissionChange{Effect: f.effect, Workloads: workloads, Port: port.Port, Example: f.example,
						Old: f.old.word, New: f.new.word})
				}
				p := &r.Permissions[i]
				for _, s := range alike {
					p.From = append(p.From, s.name)
				}
				p.OldSources = sortedSources(slices.Concat(p.OldSources, f.old.by))
				p.NewSources = sortedSources(slices.Concat(p.NewSources, f.new.by))
			}
		}
		for _, i := range at {
			p := &r.Permissions[i]
			if p.From = distinct(p.From); len(p.From) == len(names(everybody)) {
				p.From = []string{everybodyWord}
			}
		}
	}
}

// names are those of senders, each once.
func names(of []sender) []string {
	out := make([]string, len(of))
	for i := range of {
		out[i] = of[i].name
	}
	return distinct(out)
}

func distinct(names []string) []string {
	slices.SortFunc(names, compareNames)
	return slices.Compact(names)
}

// limits compares how much may come in.
func (r *Report) limits(workloads []string, port uint16, a, b *plan.Governed) {
	old, new := inboundAt(a, port), inboundAt(b, port)
	x, y := limitWord(old.RateLimit), limitWord(new.RateLimit)
	if x == y {
		return
	}
	r.Permissions = append(r.Permissions, PermissionChange{Effect: limitEffect(old.RateLimit, new.RateLimit), Workloads: workloads, Port: port,
		From: []string{everybodyWord}, Old: x, New: y, OldSources: sortedSources(old.Src), NewSources: sortedSources(new.Src)})
}

const everybodyWord = "everybody"

func inboundAt(g *plan.Governed, port uint16) *plan.Inbound {
	if i := slices.IndexFunc(g.Inbounds, func(in *plan.Inbound) bool { return in.Port == port }); i >= 0 {
		return g.Inbounds[i]
	}
	return &plan.Inbound{}
}

func limitWord(l *model.RateLimit) string {
	if l == nil {
		return "no limit"
	}
	return "requests per second: " + contentWord(l)
}

// limitEffect is Narrows if all get as little as before, or less.
func limitEffect(a, b *model.RateLimit) model.Effect {
	if b == nil {
		return model.Widens
	}
	less := func(old, new uint32) bool { return new != 0 && (old == 0 || new <= old) || old == 0 && new == 0 }
	if a == nil {
		a = &model.RateLimit{}
	}
	if less(a.Total, b.Total) && less(a.PerIdentity, b.PerIdentity) && model.Hash(a.Overrides) == model.Hash(b.Overrides) {
		return model.Narrows
	}
	return model.Widens
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

// alikes puts senders together that no rule of either side tells apart.
func alikes(before, after Tables, w *model.Workload, port plan.GovernedPort, everybody []sender) [][]sender {
	at := map[string]int{}
	var out [][]sender
	old := side{t: before, w: w, port: port}.lists()
	new := side{t: after, w: w, port: port}.lists()
	for _, s := range everybody {
		k := side{before, w, port, s, s.before}.meant(old) + "|" + side{after, w, port, s, s.after}.meant(new)
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], s)
	}
	return out
}

// compare finds what one sender may do on one side alone: connections where that alone
// decides, else requests that the rules of both sides tell apart; and datagrams.
func (r *Report) compare(before, after Tables, w *model.Workload, port plan.GovernedPort, s sender) []finding {
	a, b := side{before, w, port, s, s.before}, side{after, w, port, s, s.after}
	var out []finding
	x, y := a.connection(model.TCP), b.connection(model.TCP)
	switch {
	case x.depends || y.depends:
		out = r.ofRequests(a, b)
	case x.allowed != y.allowed:
		out = []finding{{effect(y.allowed), "", x, y}}
	}
	r.Asked += 2
	if port.Port != 0 && !takesDatagrams(w, port.Port, before, after) {
		return out
	}
	x, y = a.connection(model.UDP), b.connection(model.UDP)
	same := func(f finding) bool { return f.example == "" && f.effect == effect(y.allowed) }
	if x.allowed != y.allowed && !slices.ContainsFunc(out, same) {
		out = append(out, finding{effect(y.allowed), "datagrams", x, y})
	}
	return out
}

// takesDatagrams reports whether anybody says that UDP comes to a port of a workload.
func takesDatagrams(w *model.Workload, port uint16, sides ...Tables) bool {
	if slices.ContainsFunc(w.Ports, func(p model.WorkloadPort) bool { return p.Port == port && p.Protocol == model.UDP }) {
		return true
	}
	for _, t := range sides {
		for _, row := range t.Rows(translators.Endpoints) {
			for _, p := range row.Value.(*model.Endpoints).Ports {
				is := func(e model.Endpoint) bool { return e.Port == port && slices.Contains(w.Addresses, e.Addr) }
				if p.Protocol == model.UDP && slices.ContainsFunc(p.Backends, is) {
					return true
				}
			}
		}
	}
	return false
}

// ofRequests compares what becomes of requests.
func (r *Report) ofRequests(a, b side) []finding {
	s := &search{}
	a.rules(s)
	s.split = len(s.lists)
	b.rules(s)
	asked, all := s.requests()
	r.Asked += len(asked)
	var out []finding
	seen := map[string]bool{} // what decided, already told
	for _, q := range asked {
		x, y := a.request(q), b.request(q)
		if x.allowed && y.allowed && x.word != y.word {
			r.arrival(a, x, y, &q)
		}
		e := effect(y.allowed)
		by := fmt.Sprint(e, x.by, y.by)
		if x.allowed == y.allowed || seen[by] {
			continue
		}
		seen[by] = true
		out = append(out, finding{e, example(&q), x, y})
	}
	if why := s.uncertain(all); why != "" && len(out) == 0 {
		g, h := a.governed(), b.governed()
		out = append(out, finding{model.Widens, "", verdict{word: "as the rules say", by: g.Src},
			verdict{word: "as other rules say, and it is not known whether that is the same: " + why, by: h.Src}})
	}
	return out
}

// arrival tells of requests that both sides let in and do something else with.
func (r *Report) arrival(s side, x, y verdict, q *plan.Request) {
	c := RouteChange{Frontend: fmt.Sprintf("inbound %s:%d", s.w.Key(), s.port.Port), Example: example(q), Changes: []Change{{"answer", x.word, y.word}}}
	same := func(o RouteChange) bool { return o.Frontend == c.Frontend && o.Changes[0] == c.Changes[0] }
	if !slices.ContainsFunc(r.Routes, same) {
		c.OldSources, c.NewSources = sortedSources(x.by), sortedSources(y.by)
		r.Routes = append(r.Routes, c)
	}
}

func effect(allowed bool) model.Effect {
	if allowed {
		return model.Widens
	}
	return model.Narrows
}
