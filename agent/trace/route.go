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
	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds/render"
)

// listener is what a proxy port does with what the kernel hands it.
func (t *tracer) listener(s *plan.Service) {
	t.step(nil, "the kernel hands it to the node's proxy (mode %s)", s.Mode)
	switch {
	case s.Mode == plan.HTTP || s.Mode == plan.Any:
		if t.q.kind != httpRequest {
			t.end(Outcome{Verdict: Lost, Why: "the port speaks HTTP, and this does not: the proxy closes the connection"})
			return
		}
		t.requests(s)
	case (s.Mode == plan.Detect || s.Mode == plan.Detect2 || s.Mode == plan.Detect3 || s.Mode == plan.AnyDetect && s.Bits == 0) && t.q.kind == httpRequest:
		t.step(nil, "the first bytes are those of a request")
		t.requests(s)
	default:
		t.connection(s)
	}
}

// requests finds the routes of a request and takes one.
func (t *tracer) requests(s *plan.Service) {
	if _, ok := normalPath(t.q.path); !ok {
		t.end(Outcome{Verdict: Answered, Status: http.StatusBadRequest, Why: "the path has an escaped slash, which may be read in two ways"})
		return
	}
	key := plan.DestinationKey(t.out.Destination)
	if s.Mode == plan.Any || s.Mode == plan.AnyDetect {
		key = plan.AnyKey(t.q.port)
	}
	table := t.table(key)
	if table == nil {
		t.end(Outcome{Verdict: Lost, Status: http.StatusNotFound, Why: "the proxy has no routes for the destination"})
		return
	}
	if table.Elsewhere != nil && !takesHost(table, t.q.authority) {
		if table = t.elsewhere(table); table == nil {
			return
		}
	}
	q := t.asSent()
	for i := range table.Routes {
		if r := &table.Routes[i]; r.Takes(t, q) {
			t.route(table, i, r, q)
			return
		}
	}
	t.end(Outcome{Verdict: Answered, Status: http.StatusNotFound, Why: fmt.Sprintf("none of the %d routes of %s matches", len(table.Routes), table.Name)})
}

func (t *tracer) table(scope string) *plan.RouteTable {
	s, _ := t.Get(plan.Scopes, scope).(*plan.Scope)
	if s == nil {
		return nil
	}
	table, _ := t.Get(plan.RouteTables, s.RouteTable).(*plan.RouteTable)
	return table
}

// takesHost reports whether a host is one of a table's own, as Envoy's virtual hosts
// have it.
func takesHost(table *plan.RouteTable, authority string) bool {
	h := bareHost(authority)
	if h == "" {
		return len(table.Hosts) > 0 // of HTTP/1.0: for the address
	}
	return slices.ContainsFunc(table.Hosts, func(name string) bool {
		name = strings.ToLower(name)
		if suffix, wild := strings.CutPrefix(name, "*"); wild {
			return strings.HasSuffix(h, suffix) && len(h) > len(suffix)
		}
		return name == h
	})
}

// bareHost is an authority in lower case without port and trailing dot.
func bareHost(s string) string {
	s = strings.ToLower(s)
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		s = s[:i]
	}
	return strings.TrimSuffix(s, ".")
}

// unknown is what becomes of hosts that nobody knows for the client.
func (t *tracer) unknown(e *plan.Elsewhere) model.Unknown {
	for _, from := range e.From {
		r := plan.Route{Match: model.RouteMatch{SourceNamespace: from.SourceNamespace}, SourceSelects: from.SourceSelects}
		if r.Takes(t, t.asSent()) {
			return from.Unknown
		}
	}
	return e.Unknown
}

// elsewhere finds the table of a host that is not the frontend's own; nil if the
// request has ended.
func (t *tracer) elsewhere(from *plan.RouteTable) *plan.RouteTable {
	index := authority.NewIndex()
	for _, row := range t.Rows(plan.RouteTables) {
		if r, err := render.RouteTable(row.Value.(*plan.RouteTable)); err == nil {
			_ = index.Set(r) // what cannot be read is not there for the proxy, either
		}
	}
	for _, row := range t.Rows(plan.Scopes) {
		if r, err := render.Scope(row.Value.(*plan.Scope)); err == nil {
			_ = index.Set(r)
		}
	}
	dst := t.out.Destination
	if !dst.IsValid() {
		a := netip.IPv4Unspecified()
		if t.out.Source.Addr.Is6() {
			a = netip.IPv6Unspecified()
		}
		dst = netip.AddrPortFrom(a, t.q.port)
	}
	key, outcome := index.Resolve(authority.Query{Host: strings.TrimSuffix(t.q.authority, "."), Port: from.Elsewhere.Port, Unknown: t.unknown(from.Elsewhere),
		Destination: dst, Client: t.out.Source.Identity})
	switch outcome {
	case authority.Resolved:
		table := t.table(key)
		if table != nil {
			t.step(nil, "the request names %q, which is not a host of %s: the routes of %s are meant", t.q.authority, from.Name, table.Name)
			return table
		}
	case authority.Passed:
		t.step(nil, "nobody here has the host %q: the request goes on to where it was sent", t.q.authority)
		t.original(1, t.unchanged())
		return nil
	case authority.Unreachable:
		t.end(Outcome{Verdict: Lost, Status: http.StatusBadGateway, Why: fmt.Sprintf("%q has no address of the client's family", t.q.authority)})
		return nil
	}
	t.end(Outcome{Verdict: Answered, Status: http.StatusBadGateway, Why: fmt.Sprintf("nobody here has the host %q, and unknown hosts are refused", t.q.authority)})
	return nil
}

// original ends a share at the address that the client has dialled.
func (t *tracer) original(share float64, as *sending) {
	dst := t.out.Destination
	if !dst.IsValid() {
		t.end(Outcome{Share: share, Verdict: Reached, Sent: as.seen(), Why: "it goes on to where it was sent"})
		return
	}
	s, _ := t.Get(plan.Services, (&plan.Service{Addr: dst.Addr(), Port: dst.Port(), Protocol: model.TCP}).Key()).(*plan.Service)
	if s == nil || s.Direct {
		t.direct(share, []plan.KernelBackend{{Addr: dst, Weight: 1}}, "it goes on to where it was sent", as)
		return
	}
	if len(s.Backends) == 0 {
		t.end(Outcome{Share: share, Verdict: Lost, Status: http.StatusServiceUnavailable, Why: s.Name + " has no endpoints"})
		return
	}
	t.direct(share, s.Backends, "an endpoint of "+s.Name+", where it was sent", as)
}

// route is what becomes of a request on a route.
func (t *tracer) route(table *plan.RouteTable, i int, r *plan.Route, q *plan.Request) {
	sources := t.origin(r.ID)
	t.out.Route = &Route{Table: table.Name, Index: i + 1, ID: r.ID, Sources: sources}
	t.step(sources, "route %d of %s takes it", i+1, table.Name)
	share := t.filtered(r, q, sources)
	if share == 0 {
		return
	}
	sent := rewritten(r, q)
	switch {
	case r.Direct != nil:
		t.end(Outcome{Share: share, Verdict: Answered, Status: r.Direct.Status, Why: "the route answers by itself", By: sources})
	case r.Redirect != nil:
		t.end(Outcome{Share: share, Verdict: Answered, Status: r.Redirect.Status, Why: "the route redirects", By: sources})
	case r.Original:
		t.original(share, sent)
	case len(r.Clusters) == 0:
		t.end(Outcome{Share: share, Verdict: Lost, Status: http.StatusServiceUnavailable, Why: "the route leads nowhere", By: sources})
	default:
		total := uint64(0)
		for _, c := range r.Clusters {
			total += uint64(c.Weight)
		}
		for i := range r.Clusters {
			c := &r.Clusters[i]
			if c.Status != 0 {
				t.end(Outcome{Share: share * float64(c.Weight) / float64(total), Verdict: Lost, Status: c.Status, Why: "the backend is not valid", By: sources})
				continue
			}
			t.cluster(share*float64(c.Weight)/float64(total), c, sent.behind(c), sources)
		}
	}
}

// filtered takes away what faults abort and what CORS answers; the share that is left.
func (t *tracer) filtered(r *plan.Route, q *plan.Request, sources []model.Source) float64 {
	share := 1.0
	if f := r.Fault; f != nil {
		if f.Delay > 0 && f.DelayPerMillion > 0 {
			t.step(sources, "%s %% of the requests wait for %s", percent(f.DelayPerMillion), f.Delay)
		}
		if f.AbortPerMillion > 0 {
			aborted := min(1, float64(f.AbortPerMillion)/1e6)
			share -= aborted
			o := Outcome{Share: aborted, Verdict: Answered, Status: f.AbortStatus, Why: "a fault is injected", By: sources}
			if f.AbortStatus == 0 {
				o.Status, o.GRPC = http.StatusOK, &f.AbortGRPC
			}
			t.end(o)
		}
	}
	if r.CORS == nil || share == 0 || r.Direct != nil || r.Redirect != nil {
		return share
	}
	origin, asks := q.Header("origin")
	_, preflight := q.Header("access-control-request-method")
	if !asks || !preflight || q.Method != http.MethodOptions {
		return share
	}
	known := slices.ContainsFunc(r.CORS.Origins, func(m model.StringMatch) bool { return plan.Matches(m, "*") || plan.Matches(m, origin) })
	if known || r.CORS.AnswerAll {
		t.end(Outcome{Share: share, Verdict: Answered, Status: http.StatusOK, Why: "the browser's question is answered", By: sources})
		return 0
	}
	return share
}

func percent(perMillion uint32) string { return fmt.Sprintf("%g", float64(perMillion)/1e4) }

// cluster ends a share at a cluster's endpoints.
func (t *tracer) cluster(share float64, wc *plan.WeightedCluster, sent *sending, sources []model.Source) {
	c, _ := t.Get(plan.Clusters, wc.Name).(*plan.Cluster)
	eps, _ := t.Get(plan.Endpoints, wc.Name).(*plan.ClusterEndpoints)
	if c != nil && t.unlisted(share, c, sent) {
		return
	}
	if c == nil || eps == nil {
		t.end(Outcome{Share: share, Verdict: Lost, Status: http.StatusServiceUnavailable, Cluster: wc.Name, Why: t.backend(wc.Name) + " is not there", By: sources})
		return
	}
	to := targets(eps)
	switch {
	case len(to) == 0:
		t.end(Outcome{Share: share, Verdict: Lost, Status: http.StatusServiceUnavailable, Cluster: wc.Name, Why: t.backend(wc.Name) + " has no endpoints", By: sources})
	case c.Policy != nil:
		t.checked(t.judged(c.Policy, &sent.q, t.podsOf(to)...), share, wc.Name, to, sent)
	case c.Checked:
		t.checked(Outcome{Verdict: Reached}, share, wc.Name, to, sent)
	default:
		t.spread(share, to, "an endpoint of "+t.backend(wc.Name), sent)
	}
}

// checked ends a share at endpoints of a cluster, which has judged for them.
func (t *tracer) checked(o Outcome, share float64, cluster string, to []target, sent *sending) {
	o.Share, o.Cluster = share, cluster
	for _, e := range to {
		o.Endpoints = append(o.Endpoints, t.endpoint(e))
	}
	if o.Verdict == Reached {
		o.Sent = sent.seen()
		o.Why = strings.TrimSuffix("an endpoint of "+t.backend(cluster)+"; "+o.Why, "; ")
	}
	t.end(o)
}

// origin is what the user wrote that an id came from.
func (t *tracer) origin(id string) []model.Source {
	if o, ok := t.Get(plan.Origins, id).(*plan.Origin); ok {
		return o.Sources
	}
	return nil
}
