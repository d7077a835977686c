// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"maps"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func (r *Report) frontends(before, after Tables, in func(string) bool) {
	for _, key := range union(keysOf(before, in), keysOf(after, in)) {
		a, b := frontendOf(before, key), frontendOf(after, key)
		switch {
		case a == nil:
			r.Routes = append(r.Routes, RouteChange{Frontend: key, Changes: []Change{{"frontend", "not there", "there"}}, NewSources: sortedSources(b.src)})
		case b == nil:
			r.Routes = append(r.Routes, RouteChange{Frontend: key, Changes: []Change{{"frontend", "there", "not there"}}, OldSources: sortedSources(a.src)})
		case model.Hash(a) != model.Hash(b):
			r.frontend(key, a, b)
		}
	}
}

// frontend compares one that both sides have.
func (r *Report) frontend(key string, a, b *frontend) {
	var whole []Change
	add := func(what, old, new string) {
		if old != new {
			whole = append(whole, Change{what, orWord(old, "-"), orWord(new, "-")})
		}
	}
	add("balanced by", modeWord(a.Mode), modeWord(b.Mode))
	if modeWord(a.Mode) == modeWord(b.Mode) {
		add("taken for", appWord(a.App), appWord(b.App))
	}
	if a.App == model.AppDetect && b.App == model.AppDetect {
		add("first bytes awaited", awaitedWord(a.DetectTimeout), awaitedWord(b.DetectTimeout))
	}
	add("routed by", string(a.Basis), string(b.Basis))
	if a.Basis == b.Basis {
		add(unknownHosts, string(a.Unknown), string(b.Unknown))
	}
	if a.Invalid != b.Invalid {
		add("routes", validWord(a), validWord(b))
	}
	if len(whole) > 0 {
		r.Routes = append(r.Routes, RouteChange{Frontend: key, Changes: whole, OldSources: sortedSources(a.src), NewSources: sortedSources(b.src)})
	}
	if a.hasRequests() || b.hasRequests() {
		r.requests(key, a, b)
	}
	r.connections(key, a, b)
}

func modeWord(m plan.Mode) string {
	switch m {
	case plan.Kernel:
		return "the kernel, per connection"
	case plan.HTTP:
		return "the proxy, per request"
	case plan.Any:
		return "the proxy, at any address"
	case plan.TLS:
		return "the proxy, by server name"
	case plan.Opaque:
		return "the proxy, per connection"
	case plan.AnyDetect:
		return "the proxy, at any address, by the first bytes"
	case plan.AnyOpaque:
		return "the proxy, at any address, per connection"
	}
	return "the proxy, by the first bytes"
}

// appWord is as what something is read that is sent to a port.
func appWord(a model.App) string {
	switch {
	case a.IsHTTP():
		return "requests"
	case a == model.AppDetect:
		return "what its first bytes say"
	}
	return "connections"
}

func awaitedWord(d time.Duration) string {
	if d == 0 {
		return "for ever"
	}
	return d.String()
}

func validWord(f *frontend) string {
	if f.Invalid {
		return "invalid: 500"
	}
	return "valid"
}

func clientWord(c plan.Client) string {
	var words []string
	if c.Identity != "" {
		_, rest, _ := strings.Cut(c.Identity, "/ns/")
		ns, _, _ := strings.Cut(rest, "/")
		words = append(words, "of namespace "+ns)
	}
	if len(c.Labels) > 0 {
		var ls []string
		for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
			ls = append(ls, k+"="+c.Labels[k])
		}
		words = append(words, "with "+strings.Join(ls, ","))
	}
	if len(words) == 0 {
		return ""
	}
	return "clients " + strings.Join(words, " ")
}

// requests compares what both sides do with the requests that their matches tell apart.
// Of those that meet the same two routes one is told.
func (r *Report) requests(key string, a, b *frontend) {
	before, after := a.forRequests(), b.forRequests()
	s := &search{}
	s.list(ofRoutes(before)...)
	s.split = len(s.lists)
	s.list(ofRoutes(after)...)
	asked, all := s.requests()
	r.Asked += len(asked)
	told := map[[2]int]bool{}
	for _, q := range asked {
		x, y := taken(before, &q), taken(after, &q)
		if told[[2]int{x, y}] {
			continue
		}
		changes := a.requestChanges(b, routeAt(before, x), routeAt(after, y), &q)
		if len(changes) == 0 {
			continue
		}
		told[[2]int{x, y}] = true
		rc := RouteChange{Frontend: key, For: clientWord(q.Client), Changes: changes, OldSources: sourcesAt(a, before, x), NewSources: sourcesAt(b, after, y)}
		if x >= 0 && y >= 0 {
			old, new := policySources(before[x].Backends, after[y].Backends)
			rc.OldSources, rc.NewSources = sortedSources(append(rc.OldSources, old...)), sortedSources(append(rc.NewSources, new...))
		}
		if s.depends() {
			rc.Example = example(&q)
		}
		r.Routes = append(r.Routes, rc)
	}
	if why := s.uncertain(all); why != "" && len(told) == 0 {
		r.Routes = append(r.Routes, uncertainRoutes(key, "routes", why, a, b))
	}
}

// uncertainRoutes tells that routes are written otherwise, and why it is not known
// whether they do the same.
func uncertainRoutes(key, what, why string, a, b *frontend) RouteChange {
	return RouteChange{Frontend: key, Changes: []Change{{what, "written so", "written otherwise, and it is not known whether that is the same: " + why}},
		OldSources: sortedSources(a.src), NewSources: sortedSources(b.src)}
}

// forRequests are the routes that requests take: where none are read, those of
// connections, for clients that say no server name.
func (f *frontend) forRequests() []model.Route {
	if f.hasRequests() {
		return f.Routes
	}
	var out []model.Route
	for _, c := range f.Connections {
		if len(c.ServerNames) == 0 {
			out = append(out, model.Route{Match: model.RouteMatch{SourceNamespace: c.SourceNamespace, SourceLabels: c.SourceLabels},
				Backends: c.Backends, Original: c.Original, Src: c.Src})
		}
	}
	return out
}

// requestChanges lists how two frontends differ in what they do with a request, by the
// route that it takes on each; nil: none.
func (f *frontend) requestChanges(to *frontend, old, new *model.Route, q *plan.Request) []Change {
	if old == nil || new == nil {
		if x, y := f.endWord(old), to.endWord(new); x != y {
			return []Change{{"answer", x, y}}
		}
		return nil
	}
	if changes := actionChanges(old, new); len(changes) > 0 {
		return changes
	}
	return outcomeChanges(old, new, q)
}

// endWord is where requests of a route end.
func (f *frontend) endWord(r *model.Route) string {
	if r == nil && !f.hasRequests() {
		return "closed"
	}
	return endWord(r)
}

func ofRoutes(in []model.Route) []term {
	out := make([]term, len(in))
	for i := range in {
		out[i] = ofMatch(in[i].Match)
	}
	return out
}

// taken is the index of the route that takes a request, -1 if none does.
func taken(routes []model.Route, q *plan.Request) int {
	return slices.IndexFunc(routes, func(r model.Route) bool { return plan.MatchesRequest(r.Match, q) })
}

func routeAt(routes []model.Route, i int) *model.Route {
	if i < 0 {
		return nil
	}
	return &routes[i]
}

func sourcesAt(f *frontend, routes []model.Route, i int) []model.Source {
	if i < 0 {
		return sortedSources(f.src)
	}
	return sortedSources(routes[i].Src)
}
