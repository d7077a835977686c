// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// OnlyInbound needs the request, from the inbound listener of the pod's own node and
// no other proxy: there it is routed and counted, too.
const OnlyInbound Action = "inbound"

// Inbound is what the planes say of requests for one port of a workload, put together.
type Inbound struct {
	Port      uint16
	App       model.App // AppUndeclared: as the services say
	Routes    []model.InboundRoute
	RateLimit *model.RateLimit
	Src       []model.Source
}

// decides reports whether requests have to pass the inbound listener, whoever judged
// them at their source.
func (i *Inbound) decides() bool { return i != nil && (len(i.Routes) > 0 || i.RateLimit != nil) }

func inboundTable(plane string) incr.Table { return incr.Table("inbound/" + plane) }

// byWorkload is the index of inbound rows by the workload (ns/name) that they are for.
const byWorkload = "workload"

func indexInbounds(s *incr.Store, plane string) {
	s.Index(inboundTable(plane), byWorkload, func(_ string, v any) []string {
		i := v.(*model.Inbound)
		return []string{i.Namespace + "/" + i.Workload}
	})
}

// inboundsOf puts together what the planes say of a workload's ports, sorted by port.
// The first plane that has routes for a port, or says what it speaks, is followed in
// that. Limits hold all.
func (b *builder) inboundsOf(r *incr.Reader, w *model.Workload) ([]*Inbound, []model.Diagnostic) {
	var out []*Inbound
	var found []model.Diagnostic
	for _, plane := range b.planes {
		for _, row := range r.Select(inboundTable(plane), byWorkload, w.Key()) {
			in := row.Value.(*model.Inbound)
			at := slices.IndexFunc(out, func(o *Inbound) bool { return o.Port == in.Port })
			if at < 0 {
				out = append(out, &Inbound{in.Port, in.App, in.Routes, in.RateLimit, in.Src})
				continue
			}
			o := out[at]
			if o.App == model.AppUndeclared {
				o.App = in.App
			}
			switch {
			case len(o.Routes) == 0:
				o.Routes = in.Routes
			case len(in.Routes) > 0:
				found = append(found, twoRoutes(in, o))
			}
			o.RateLimit = bothLimits(o.RateLimit, in.RateLimit)
			o.Src = slices.Concat(o.Src, in.Src)
		}
	}
	slices.SortFunc(out, func(a, b *Inbound) int { return cmp.Compare(a.Port, b.Port) })
	return out, found
}

func twoRoutes(in *model.Inbound, first *Inbound) model.Diagnostic {
	d := model.Diagnostic{Code: "inbound-routes-of-two-planes", Effect: model.Widens, Outcome: model.Refused,
		Message: fmt.Sprintf("two planes have routes for requests that come in at %s: those of %s are used, these are not", in.Key(), planeOf(first.Src)),
		Advice:  "leave the routes of one plane for the port"}
	if len(in.Src) > 0 {
		d.Source = in.Src[0]
	}
	return d
}

func planeOf(src []model.Source) string {
	if len(src) == 0 {
		return "the first"
	}
	return src[0].Plane
}

// notRequests says what becomes of the other connections to a port that is to be found
// out, where its requests have to pass the inbound listener.
func notRequests(w *model.Workload, in *Inbound) model.Diagnostic {
	d := model.Diagnostic{Source: w.Src, Code: "inbound-not-http", Effect: model.Narrows, Outcome: model.Approximated,
		Message: fmt.Sprintf("port %d of %s has routes or a rate limit for requests, and may speak anything: connections that are not HTTP are refused", in.Port, w.Key()),
		Advice:  "say what the port speaks"}
	if len(in.Src) > 0 {
		d.Source = in.Src[0]
	}
	return d
}

// inbound is what is said of a port, nil if nothing is.
func (g *Governed) inbound(port uint16) *Inbound {
	i := slices.IndexFunc(g.Inbounds, func(in *Inbound) bool { return in.Port == port })
	if i < 0 {
		return nil
	}
	return g.Inbounds[i]
}

// OnlyInbound reports whether requests for the port have to pass the inbound listener
// of the workload's node, whoever judged them before.
func (g *Governed) OnlyInbound(port uint16) bool {
	return slices.ContainsFunc(g.Ports, func(p GovernedPort) bool { return p.Port == port && p.Inbound })
}

// verdictAt judges a class at a port that policies tell apart.
func (g *Governed) verdictAt(c *Class, p GovernedPort, proto model.Protocol) (Action, uint64) {
	requests := p.App.HasRequests() && proto == model.TCP
	a, rule := g.verdict(c, p.Port, proto, requests)
	if requests && p.Inbound && (a == Allow || a == Check) {
		return OnlyInbound, 0
	}
	return a, rule
}

// inboundRoutes are the routes of a port: to where the client dialled, behind what
// guards the port and the route.
func (g *Governed) inboundRoutes(w *model.Workload, p GovernedPort) []Route {
	table := inboundTableName(w, p.Port)
	pass := Route{Original: true, App: p.App, Checked: true}
	in := g.inbound(p.Port)
	if in == nil || len(in.Routes) == 0 {
		pass.Policy = g.Policy(p.Port)
		pass.ID = inboundID(table, &pass)
		return []Route{pass}
	}
	out := make([]Route, len(in.Routes))
	for i := range in.Routes {
		from := &in.Routes[i]
		r := &out[i]
		if from.Redirect == nil {
			*r = pass
		}
		r.Match, r.Redirect = from.Match, from.Redirect
		r.RequestHeaders, r.ResponseHeaders = from.RequestHeaders, from.ResponseHeaders
		r.Policy = g.routePolicy(w, p.Port, from)
		r.ID = inboundID(table, r)
	}
	return out
}

// observedRoutes are those of an observed pod's port: requests go on, and it is told what
// policy says.
func (g *Governed) observedRoutes(w *model.Workload, p GovernedPort) []Route {
	pass := Route{Original: true, App: p.App, Checked: true, Policy: g.folded(w, p.Port).shadow()}
	pass.ID = inboundID(inboundTableName(w, p.Port), &pass)
	return []Route{pass}
}

// routePolicy is what guards one route: what guards the port, and its own rules.
func (g *Governed) routePolicy(w *model.Workload, port uint16, r *model.InboundRoute) *Policy {
	own := *g
	own.Allow = append(slices.Clone(g.Allow), sortRules(resolveDestination(r.Allow, w.Addresses, true)))
	return own.Policy(port)
}

// folded is what a proxy can judge of a port that does not know the port's routes: who
// may take none of them is not let in.
func (g *Governed) folded(w *model.Workload, port uint16) *Policy {
	in := g.inbound(port)
	if in == nil || len(in.Routes) == 0 {
		return g.Policy(port)
	}
	any := model.InboundRoute{}
	for _, r := range in.Routes {
		any.Allow = append(any.Allow, r.Allow...)
	}
	return g.routePolicy(w, port, &any)
}

// inboundID is a route's name: the same route of another port is another's.
func inboundID(table string, r *Route) string {
	return model.Hash(struct {
		Table string
		Route *Route
	}{table, r})
}

// inboundOrigins name what routes and their rules came from.
func (g *Governed) inboundOrigins(w *model.Workload) []incr.Row {
	var out []incr.Row
	for _, p := range g.Ports {
		in := g.inbound(p.Port)
		if !p.Inbound || len(in.Routes) == 0 {
			continue
		}
		for i, r := range g.inboundRoutes(w, p) {
			out = append(out, incr.Row{Table: Origins, Key: r.ID, Value: &Origin{ID: r.ID, Sources: in.Routes[i].Src}})
			if r.Policy != nil {
				out = append(out, policyOrigins(r.Policy)...)
			}
		}
	}
	return out
}

// inboundTableName is the name of the route table of a pod's port.
func inboundTableName(w *model.Workload, port uint16) string {
	return "in|" + model.FrontendKey(w.Namespace, w.Name, port)
}

// InboundOf is what the planes say of requests for a port of a workload (ns/name), nil if
// it decides nothing.
func InboundOf(t interface{ Get(incr.Table, string) any }, workload string, port uint16) *Inbound {
	g, _ := t.Get(Governance, workload).(*Governed)
	if g == nil || !g.OnlyInbound(port) {
		return nil
	}
	return g.inbound(port)
}
