// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// stream is a route of connections by one of the server names that it is for. The name
// that a client says stands in a request's place for its host.
type stream struct {
	at   int // index of the route
	name string
	term term
}

// connections compares what becomes of what is not read as requests.
func (r *Report) connections(key string, a, b *frontend) {
	if len(a.Connections)+len(b.Connections) == 0 {
		return
	}
	s := &search{}
	x, y := streams(a.Connections), streams(b.Connections)
	s.list(termsOf(x)...)
	s.split = len(s.lists)
	s.list(termsOf(y)...)
	asked, all := s.requests()
	r.Asked += len(asked)
	told := map[[2]int]bool{}
	for _, q := range asked {
		i, j := takenBy(x, &q), takenBy(y, &q)
		old, from := connectionWord(a, i)
		new, to := connectionWord(b, j)
		rc := RouteChange{Frontend: key, For: clientWord(q.Client), Example: "connections"}
		if old != new {
			rc.Changes = append(rc.Changes, Change{"backends", old, new})
		}
		if i >= 0 && j >= 0 {
			x, y := a.Connections[i].Backends, b.Connections[j].Backends
			if old, new := policiesWord(x), policiesWord(y); old != new {
				rc.Changes = append(rc.Changes, Change{"traffic policy", old, new})
			}
			old, new := policySources(x, y)
			from, to = append(from, old...), append(to, new...)
		}
		if len(rc.Changes) == 0 || told[[2]int{i, j}] {
			continue
		}
		told[[2]int{i, j}] = true
		rc.OldSources, rc.NewSources = sortedSources(from), sortedSources(to)
		if q.Authority != "" {
			rc.Example += " for " + q.Authority
		}
		r.Routes = append(r.Routes, rc)
	}
	if why := s.uncertain(all); why != "" && len(told) == 0 {
		r.Routes = append(r.Routes, uncertainRoutes(key, "connections", why, a, b))
	}
}

// streams are the routes in the order in which they are tried: by the server name, the
// closest first, then as they stand.
func streams(in []model.ConnectionRoute) []stream {
	var out []stream
	for i, c := range in {
		client := ofMatch(model.RouteMatch{SourceNamespace: c.SourceNamespace, SourceLabels: c.SourceLabels})
		if len(c.ServerNames) == 0 {
			out = append(out, stream{i, "", client})
		}
		for _, n := range c.ServerNames {
			m := model.StringMatch{Kind: model.Exact, Value: n}
			if suffix, wild := strings.CutPrefix(n, "*"); wild {
				m = model.StringMatch{Kind: model.Suffix, Value: suffix}
			}
			is := condition{"server-name", func(q *plan.Request) bool { return plan.Matches(m, q.Authority) }, []model.StringMatch{m}}
			out = append(out, stream{i, n, append(term{is}, client...)})
		}
	}
	rank := func(s stream) int {
		if s.name != "" && !strings.HasPrefix(s.name, "*") {
			return 1 << 20
		}
		return len(s.name)
	}
	slices.SortStableFunc(out, func(a, b stream) int { return cmp.Compare(rank(b), rank(a)) })
	return out
}

func termsOf(in []stream) []term {
	out := make([]term, len(in))
	for i := range in {
		out[i] = in[i].term
	}
	return out
}

// takenBy is the index of the route that takes a connection, -1 if none does.
func takenBy(in []stream, q *plan.Request) int {
	for _, s := range in {
		if !slices.ContainsFunc(s.term, func(c condition) bool { return !c.holds(q) }) {
			return s.at
		}
	}
	return -1
}

// connectionWord is where a frontend's route leads; of -1 that none does.
func connectionWord(f *frontend, i int) (string, []model.Source) {
	switch {
	case f.App.IsHTTP():
		return "closed: the port speaks HTTP alone", slices.Clone(f.src)
	case i < 0:
		return "closed", slices.Clone(f.src)
	}
	c := &f.Connections[i]
	if c.Original {
		return "where it was sent", slices.Clone(c.Src)
	}
	return backendsWord(c.Backends), slices.Clone(c.Src)
}
