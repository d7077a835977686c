// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// gather adds an outcome of one endpoint to the last one, if they are alike.
func (t *tracer) gather(o Outcome, e Endpoint) {
	if n := len(t.out.Outcomes); n > 0 && alike(t.out.Outcomes[n-1], o) {
		t.out.Outcomes[n-1].Share += o.Share
		t.out.Outcomes[n-1].Endpoints = append(t.out.Outcomes[n-1].Endpoints, e)
		return
	}
	o.Endpoints = []Endpoint{e}
	t.end(o)
}

// reserve adds an outcome without a share of its own to one that is like it.
func (t *tracer) reserve(o Outcome, e Endpoint) {
	for i := range t.out.Outcomes {
		if alike(t.out.Outcomes[i], o) {
			t.out.Outcomes[i].Endpoints = append(t.out.Outcomes[i].Endpoints, e)
			return
		}
	}
	t.step(o.By, "if those that are preferred fail, %s at %s: %s", o.Verdict, e.Pod, o.Why)
}

// alike reports whether outcomes differ by their shares and endpoints alone.
func alike(a, b Outcome) bool {
	a.Share, a.Endpoints, b.Share, b.Endpoints = 0, nil, 0, nil
	return model.Hash(a) == model.Hash(b) && slices.Equal(a.By, b.By)
}

// arrive is what the destination's own node does with something that no proxy of the
// mesh has checked.
func (t *tracer) arrive(dst netip.AddrPort, as *sending) Outcome {
	w := t.pods[dst.Addr()]
	if w == nil || !w.Observed {
		return t.enforced(dst, as, w)
	}
	kept := *as
	o := t.enforced(dst, as, w)
	*as = kept // nothing is done to it on the way in
	return t.watched(o, w.Key())
}

// watched is what becomes of what comes to an observed workload.
func (t *tracer) watched(o Outcome, workload string) Outcome {
	if o.Verdict == Reached {
		return o
	}
	what := string(o.Verdict)
	if o.Status != 0 {
		what = fmt.Sprintf("%s with %d", what, o.Status)
	}
	return Outcome{Verdict: Reached, Why: fmt.Sprintf("%s is observed; enforced, it is %s: %s", workload, what, o.Why), By: o.By}
}

// enforced is what is done there where it is enforced.
func (t *tracer) enforced(dst netip.AddrPort, as *sending, w *model.Workload) Outcome {
	if w == nil {
		if p := t.prefix(dst.Addr()); p != nil && p.Unassigned {
			return Outcome{Verdict: Lost, Why: fmt.Sprintf("no pod is known to have %s", dst.Addr())}
		}
		return Outcome{Verdict: Reached}
	}
	g, _ := t.Get(plan.Governance, w.Key()).(*plan.Governed)
	if g == nil || g.ID == 0 {
		return Outcome{Verdict: Reached}
	}
	if t.out.Source.Node == w.Node && t.ofNode() && slices.Contains(w.ProbePorts, dst.Port()) {
		return Outcome{Verdict: Reached, Why: "a probe of the pod's own node"}
	}
	proto := model.TCP
	if t.q.kind == datagram {
		proto = model.UDP
	}
	action, rule := g.Verdict(t.class(t.out.Source.Addr), dst.Port(), proto)
	by := g.Src
	if rule != 0 {
		by = plan.RuleSources(t, fmt.Sprintf("%016x", rule), w.Key())
	}
	switch action {
	case plan.Allow:
		return Outcome{Verdict: Reached, By: ofRule(rule, by)}
	case plan.Check:
		if t.q.kind != httpRequest {
			return Outcome{Verdict: Denied, Why: "what is not a request cannot be judged as one", By: g.Src}
		}
		return t.judged(g.Policy(dst.Port()), &as.q, w.Key())
	case plan.OnlyInbound:
		if t.q.kind != httpRequest {
			return Outcome{Verdict: Denied, Why: "requests for the port are routed, and this is none", By: g.Src}
		}
		return t.inbound(w, g, dst.Port(), as)
	case plan.Refuse:
		if t.q.kind == httpRequest {
			return Outcome{Verdict: Denied, Status: http.StatusForbidden, Why: t.whyDenied(denialOf(g, rule), g.Allow), By: by}
		}
	}
	return Outcome{Verdict: Denied, Why: t.whyDenied(denialOf(g, rule), g.Allow), By: by}
}

// inbound is what the destination's own listener does with a request.
func (t *tracer) inbound(w *model.Workload, g *plan.Governed, port uint16, as *sending) Outcome {
	routes := g.InboundRoutes(w, port)
	for i := range routes {
		r := &routes[i]
		if !r.Takes(t, &as.q) {
			continue
		}
		sources := t.origin(r.ID)
		t.step(sources, "at %s, route %d of port %d takes it", w.Key(), i+1, port)
		o := t.judged(r.Policy, &as.q, w.Key())
		switch {
		case o.Verdict == Denied:
		case r.Redirect != nil:
			return Outcome{Verdict: Answered, Status: r.Redirect.Status, Why: "the destination redirects", By: sources}
		default:
			as.edit(r.RequestHeaders)
		}
		return o
	}
	return Outcome{Verdict: Answered, Status: http.StatusNotFound, Why: fmt.Sprintf("none of the routes of port %d of %s matches", port, w.Key()), By: g.Src}
}

func ofRule(rule uint64, by []model.Source) []model.Source {
	if rule == 0 {
		return nil
	}
	return by
}

// denialOf is the Deny with an id, nil if there is none.
func denialOf(g *plan.Governed, id uint64) *model.AuthRule {
	i := slices.IndexFunc(g.Deny, func(r model.AuthRule) bool { return plan.RuleID(r) == id })
	if i < 0 {
		return nil
	}
	return &g.Deny[i]
}

// whyDenied says it of a Deny, or if that is nil of Allows none of which takes the source.
func (t *tracer) whyDenied(by *model.AuthRule, allows [][]model.AuthRule) string {
	s := t.out.Source
	outside := s.Identity != "" && !s.Member
	switch {
	case by != nil && outside && plan.AsksForMember(*by):
		return fmt.Sprintf("a rule denies it: %s is not a member of the mesh", s.Pod)
	case by != nil:
		return "a rule denies it"
	case outside && slices.ContainsFunc(slices.Concat(allows...), plan.AsksForMember):
		return fmt.Sprintf("no rule allows it: %s is not a member of the mesh", s.Pod)
	}
	return "no rule allows it"
}

// ofNode reports whether a process of a node sends.
func (t *tracer) ofNode() bool {
	return t.out.Source.Identity == "" && t.out.Source.Node != ""
}

// judged is what a policy says to a request.
func (t *tracer) judged(p *plan.Policy, q *plan.Request, workloads ...string) Outcome {
	d := p.Judge(q)
	o := Outcome{Verdict: Reached}
	if d.Rule != nil {
		o.By = plan.RuleSources(t, plan.RuleName(*d.Rule), workloads...)
	}
	if !d.Denied {
		return o
	}
	o.Verdict, o.Status, o.Why = Denied, http.StatusForbidden, t.whyDenied(d.Rule, p.Allow)
	if d.Rule == nil {
		o.By = t.governing(workloads)
	}
	if p.Shadow {
		return t.watched(o, strings.Join(workloads, ", "))
	}
	return o
}

// governing are the objects that make workloads deny what nothing allows.
func (t *tracer) governing(workloads []string) []model.Source {
	var out []model.Source
	for _, w := range workloads {
		if g, ok := t.Get(plan.Governance, w).(*plan.Governed); ok {
			out = append(out, g.Src...)
		}
	}
	slices.SortFunc(out, model.CompareSources)
	return slices.Compact(out)
}

// asSent is the request as its client sends it.
func (t *tracer) asSent() *plan.Request {
	path, _ := normalPath(t.q.path)
	return &plan.Request{Method: t.q.method, Scheme: t.scheme(), Authority: strings.TrimSuffix(t.q.authority, "."), Path: path, Query: t.q.query, Headers: t.q.headers,
		Client: plan.Client{Identity: t.out.Source.Identity, Member: t.out.Source.Member, Addr: t.out.Source.Addr, Labels: t.out.Source.labels}}
}

// scheme is what the client says that it came by, or else what it speaks.
func (t *tracer) scheme() string {
	for _, h := range t.q.headers {
		if h.Name == "x-forwarded-proto" && (h.Value == "http" || h.Value == "https") {
			return h.Value
		}
	}
	return t.q.scheme
}

// unchanged is what goes on where no route has a say.
func (t *tracer) unchanged() *sending {
	s := &sending{kind: t.q.kind}
	switch t.q.kind {
	case httpRequest:
		s.q = *t.asSent()
	case tlsConnection:
		s.q.Authority = t.serverName()
	}
	return s
}

// class is that of a source's address in the kernel.
func (t *tracer) class(a netip.Addr) *plan.Class {
	id := uint64(0)
	if row, ok := t.Get(plan.Addresses, a.String()).(*plan.Address); ok {
		id = row.Class
	} else if p := t.prefix(a); p != nil {
		id = p.Class
	}
	if c, ok := t.Get(plan.Classes, fmt.Sprintf("%016x", id)).(*plan.Class); ok {
		return c
	}
	return &plan.Class{}
}

// prefix is the longest row that contains an address.
func (t *tracer) prefix(a netip.Addr) *plan.Prefix {
	var best *plan.Prefix
	for _, row := range t.Rows(plan.Prefixes) {
		if p := row.Value.(*plan.Prefix); p.Prefix.Contains(a) && (best == nil || p.Prefix.Bits() > best.Prefix.Bits()) {
			best = p
		}
	}
	return best
}

// podsOf names the workloads of endpoints.
func (t *tracer) podsOf(endpoints []target) []string {
	var out []string
	for _, e := range endpoints {
		if w := t.pods[e.addr.Addr()]; w != nil {
			out = append(out, w.Key())
		}
	}
	return out
}
