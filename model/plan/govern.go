// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// Governed is the policies that select a workload, put together: its policy set.
// Two workloads with equal content share the set.
type Governed struct {
	ID    uint64             `json:"-"`
	Deny  []model.AuthRule   `json:"deny,omitempty"`
	Allow [][]model.AuthRule `json:"allow,omitempty"` // a group for each plane that governs
	Ports []GovernedPort     `json:"ports,omitempty"` // sorted
	// Inbounds is what planes say of ports beyond who may come in; sorted by port. What
	// the kernel has to know of it is in Ports.
	Inbounds []*Inbound `json:"-"`
	// Src are the permissions that govern, and namespaces whose default is to deny:
	// what denied where no rule matched.
	Src []model.Source `json:"-"`
	// Sources are what each rule came from, by RuleName: of Deny and Allow, and of the
	// policies of ports where requests are judged. Equal rules share an id, but of equal
	// rules in other policies only those that select this workload count here.
	Sources map[string][]model.Source `json:"-"`
}

// GovernedPort is a port of the workload that policies tell apart.
type GovernedPort struct {
	Port uint16    `json:"port"`
	App  model.App `json:"app,omitempty"` // an HTTP protocol, or one to be found out; "" for opaque
	// Inbound: its requests have to pass the inbound listener, whoever judged them before.
	Inbound bool `json:"inbound,omitempty"`
}

// governStage finds the policy set of every workload, local or not: the remote
// ones' policies fold into this node's clusters.
func (b *builder) governStage() incr.Stage {
	return incr.Stage{Name: "plan/govern",
		Keys: map[incr.Table]func(string, any) []string{workloads: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			w, _ := r.Get(workloads, key).(*model.Workload)
			if w == nil {
				return nil
			}
			g, rows := b.govern(r, w)
			switch {
			case w.External:
				return governedElsewhere(w, g)
			case w.HostNetwork:
				return unguarded(w, g)
			}
			return append(rows, incr.Row{Table: Governance, Key: key, Value: g})
		}}
}

// unguarded reports that policies select a pod that nothing can guard: what comes to
// it is for the node, and its address is that of others.
func unguarded(w *model.Workload, g *Governed) []incr.Row {
	if g.ID == 0 {
		return nil
	}
	d := model.Diagnostic{Source: w.Src, Code: "host-network-unguarded", Effect: model.Degrades, Outcome: model.Approximated,
		Message: "policies select this pod, but it is in the node's network: nothing judges what comes to it, as in a mesh of sidecars",
		Advice:  "take it off the node's network, or guard it by the node's own firewall"}
	return []incr.Row{{Table: Diagnostics, Key: w.Key(), Value: []model.Diagnostic{d}}}
}

func (b *builder) govern(r *incr.Reader, w *model.Workload) (*Governed, []incr.Row) {
	g := &Governed{}
	var origins []incr.Row
	ns, _ := r.Get(namespaces, w.Namespace).(*model.Namespace)
	for _, plane := range b.planes {
		governs := ns != nil && slices.Contains(ns.DefaultDeny, plane)
		if governs {
			g.Src = append(g.Src, ns.Src)
		}
		var allow []model.AuthRule
		for _, a := range authorizations(r, plane, w) {
			rules := resolveDestination(a.Rules, w.Addresses, !a.Deny)
			origins = append(origins, ruleOrigins(rules)...)
			if a.Deny {
				g.Deny = append(g.Deny, rules...)
			} else {
				governs = true
				allow = append(allow, rules...)
				g.Src = append(g.Src, a.Src...)
			}
		}
		if governs {
			rules := exemptions(ns, plane)
			origins = append(origins, ruleOrigins(rules)...)
			allow = append(allow, rules...)
			g.Allow = append(g.Allow, sortRules(allow))
		}
	}
	if ns != nil && slices.ContainsFunc(ns.DefaultDeny, func(p string) bool { return !slices.Contains(b.planes, p) }) {
		g.Allow, g.Src = append(g.Allow, nil), append(g.Src, ns.Src) // a plane that is not there allows nothing; merge says so
	}
	g.Deny = sortRules(g.Deny)
	g.Allow = sortGroups(g.Allow)
	found := g.setPorts(b, r, w)
	if g.isOpen() {
		g.Ports = nil
		return g, found // nobody governs it
	}
	g.ID = model.ID(g)
	origins = append(origins, g.inboundOrigins(w)...)
	for _, p := range g.Ports {
		if pol := g.Policy(p.Port); p.App.HasRequests() && pol != nil {
			origins = append(origins, policyOrigins(pol)...)
		}
	}
	origins = unique(origins)
	g.Sources = make(map[string][]model.Source, len(origins))
	for _, row := range origins {
		g.Sources[row.Key] = row.Value.(*Origin).Sources
	}
	return g, append(origins, found...)
}

// exemptions are the permissions of those who need none of a plane's.
func exemptions(ns *model.Namespace, plane string) []model.AuthRule {
	if ns == nil {
		return nil
	}
	var out []model.AuthRule
	for _, e := range ns.Exempt {
		if e.Plane == plane {
			out = append(out, model.AuthRule{From: e.From, Src: e.Src})
		}
	}
	return out
}

// isOpen reports whether everything may come in, by any way.
func (g *Governed) isOpen() bool {
	return len(g.Deny)+len(g.Allow) == 0 && !slices.ContainsFunc(g.Ports, func(p GovernedPort) bool { return p.Inbound })
}

// setPorts finds the ports, what they speak, and which of them have an only way in.
func (g *Governed) setPorts(b *builder, r *incr.Reader, w *model.Workload) []incr.Row {
	var found []model.Diagnostic
	g.Inbounds, found = b.inboundsOf(r, w)
	g.Ports = governedPorts(r, w, g)
	for i := range g.Ports {
		p := &g.Ports[i]
		in := g.inbound(p.Port)
		p.Inbound = p.App.HasRequests() && in.decides()
		if p.Inbound && p.App == model.AppDetect && !w.HostNetwork {
			found = append(found, notRequests(w, in))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return []incr.Row{{Table: Diagnostics, Key: w.Key(), Value: found}}
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return true
}

// identityAccount is the service account of a SPIFFE id.
func identityAccount(id string) string {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] == '/' {
			return id[i+1:]
		}
	}
	return id
}

// RuleID is the rule's name in RBAC policies, flows and Origins, and in hex its
// number in the kernel.
func RuleID(rule model.AuthRule) uint64 { return model.ID(rule) }

// RuleName is RuleID as it appears in names.
func RuleName(rule model.AuthRule) string { return fmt.Sprintf("%016x", RuleID(rule)) }

// RuleSources tells what a rule came from, of those that are written for the workloads
// (ns/name) that it is judged for; sorted. If they are not known, or it does not govern
// them, it is what some equal rule came from, for whomever.
func RuleSources(t interface{ Get(incr.Table, string) any }, rule string, workloads ...string) []model.Source {
	var out []model.Source
	for _, w := range workloads {
		if g, ok := t.Get(Governance, w).(*Governed); ok {
			out = append(out, g.Sources[rule]...)
		}
	}
	if len(out) == 0 {
		if o, ok := t.Get(Origins, rule).(*Origin); ok {
			return o.Sources
		}
	}
	slices.SortFunc(out, model.CompareSources)
	return slices.Compact(out)
}

func ruleOrigins(rules []model.AuthRule) []incr.Row {
	out := make([]incr.Row, 0, len(rules))
	for _, rule := range rules {
		id := RuleName(rule)
		out = append(out, incr.Row{Table: Origins, Key: id, Value: &Origin{ID: id, Sources: rule.Src}})
	}
	return out
}

// policyOrigins names the rules as they stand in a policy, resolved for a port.
func policyOrigins(p *Policy) []incr.Row {
	out := ruleOrigins(p.Deny)
	for _, g := range p.Allow {
		out = append(out, ruleOrigins(g)...)
	}
	return out
}

// sortRules orders by content and drops repeats; the first of equal rules keeps
// its origin.
func sortRules(rules []model.AuthRule) []model.AuthRule {
	type keyed struct {
		key  string
		rule model.AuthRule
	}
	ks := make([]keyed, len(rules))
	for i, r := range rules {
		ks[i] = keyed{string(model.Bytes(r)), r}
	}
	slices.SortStableFunc(ks, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	out := make([]model.AuthRule, 0, len(ks))
	for i, k := range ks {
		if i == 0 || k.key != ks[i-1].key {
			out = append(out, k.rule)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// sortGroups orders the groups and drops repeats: two planes that allow the same
// are one demand.
func sortGroups(groups [][]model.AuthRule) [][]model.AuthRule {
	key := func(g []model.AuthRule) string { return string(model.Bytes(g)) }
	slices.SortStableFunc(groups, func(a, b []model.AuthRule) int { return cmp.Compare(key(a), key(b)) })
	return slices.CompactFunc(groups, func(a, b []model.AuthRule) bool { return key(a) == key(b) })
}

// resolveDestination judges conditions over the destination's address, which is
// known here: a condition that holds is dropped, a rule with one that fails is.
// In an Allow it must hold for every address of the workload, in a Deny for any.
func resolveDestination(rules []model.AuthRule, addrs []netip.Addr, allow bool) []model.AuthRule {
	out := make([]model.AuthRule, 0, len(rules))
next:
	for _, rule := range rules {
		var when []model.Condition
		for _, c := range rule.When {
			if c.Kind != model.OnDestinationIP {
				when = append(when, c)
				continue
			}
			if !destinationHolds(c, addrs, allow) {
				continue next
			}
		}
		rule.When = when
		out = append(out, rule)
	}
	return out
}

func destinationHolds(c model.Condition, addrs []netip.Addr, all bool) bool {
	holds := func(a netip.Addr) bool {
		contains := func(p netip.Prefix) bool { return p.Contains(a) }
		return (len(c.Prefixes) == 0 || slices.ContainsFunc(c.Prefixes, contains)) && !slices.ContainsFunc(c.NotPrefixes, contains)
	}
	if all {
		return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !holds(a) })
	}
	return slices.ContainsFunc(addrs, holds)
}

// governedPorts lists the ports that the workload serves, with what its services or
// its inbound rows say of them, and the ports that its rules name.
func governedPorts(r *incr.Reader, w *model.Workload, g *Governed) []GovernedPort {
	apps := map[uint16]model.App{}
	for _, p := range w.Ports {
		apps[p.Port] = ""
	}
	for _, p := range rulePorts(g) {
		apps[p] = ""
	}
	for port, app := range servedPorts(r, w) {
		apps[port] = app
	}
	for _, in := range g.Inbounds {
		app := in.App
		if app == model.AppUndeclared {
			app = apps[in.Port]
		}
		if !app.HasRequests() {
			app = ""
		}
		apps[in.Port] = app
	}
	return sortedPorts(apps)
}

func sortedPorts(apps map[uint16]model.App) []GovernedPort {
	out := make([]GovernedPort, 0, len(apps))
	for p, app := range apps {
		out = append(out, GovernedPort{Port: p, App: app})
	}
	slices.SortFunc(out, func(a, b GovernedPort) int { return cmp.Compare(a.Port, b.Port) })
	return out
}

// servedPorts maps the workload's TCP ports behind some service, ready or not, to the
// protocol that the service's owner gives them. If services differ, the smallest HTTP
// protocol by name stands, or else one that is to be found out: a port that anybody
// takes for HTTP is judged by request. What is not HTTP there is denied wherever
// policy asks for more than who it comes from.
func servedPorts(r *incr.Reader, w *model.Workload) map[uint16]model.App {
	out := map[uint16]model.App{}
	for _, a := range w.Addresses {
		for _, row := range r.Select(endpoints, "addr", a.String()) {
			eps := row.Value.(*model.Endpoints)
			for _, p := range eps.Ports {
				if p.Protocol != model.TCP {
					continue
				}
				for _, e := range slices.Concat(p.Backends, p.Unready) {
					// What is declared of an address says nothing about the pod that has it.
					if e.Addr != a || e.Workload != "" {
						continue
					}
					app := effectiveApp(r, eps.Namespace, eps.Service, p.Port)
					if !app.HasRequests() {
						app = ""
					}
					if had, ok := out[e.Port]; !ok || compareApps(app, had) < 0 {
						out[e.Port] = app
					}
				}
			}
		}
	}
	return out
}

// compareApps orders what services say of one port: HTTP protocols by name, then one
// that is to be found out, then none.
func compareApps(a, b model.App) int {
	rank := func(app model.App) int {
		switch {
		case app.IsHTTP():
			return 0
		case app.HasRequests():
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

// effectiveApp is the protocol of a service's port as its owner sees it.
func effectiveApp(r *incr.Reader, namespace, service string, port uint16) model.App {
	if f, ok := r.Get(merge.Frontends, model.FrontendKey(namespace, service, port)).(*model.Frontend); ok && f.App != "" {
		return f.App
	}
	if s, ok := r.Get(services, namespace+"/"+service).(*model.Service); ok {
		if p := s.Port(port); p != nil {
			return p.App
		}
	}
	return ""
}

func rulePorts(g *Governed) []uint16 {
	var out []uint16
	add := func(rules []model.AuthRule) {
		for _, r := range rules {
			for _, o := range r.To {
				out = append(append(out, o.Ports...), o.NotPorts...)
			}
			for _, c := range r.When {
				if c.Kind == model.OnDestinationPort {
					out = append(append(out, c.Ports...), c.NotPorts...)
				}
			}
		}
	}
	add(g.Deny)
	for _, a := range g.Allow {
		add(a)
	}
	return out
}
