// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
)

// item is a change that somebody waits for.
type item struct {
	key
	version string // "" = deleted
	route   string // of a scope: the routes that it leads to
	scoped  bool   // of a listener: it leads to scopes
	wait    *waiter
	settled bool
}

type waiter struct {
	left    int
	changes []Change
	done    func(Outcome)
}

func (s *Server) item(c Change) *item {
	it := &item{key: key{c.Type, c.Name}}
	if c.Resource != nil {
		it.version = c.Resource.Version
		it.route = s.routeOf(c.Resource)
		it.scoped = c.Type == xds.ListenerType && usesScopes(c.Resource)
	}
	return it
}

// await calls done when all changes are settled, which may be now.
func (s *Server) await(changes []Change, done func(Outcome)) (cancel func()) {
	if done == nil {
		return func() {}
	}
	w := &waiter{left: len(changes) + 1, changes: changes, done: done}
	for _, c := range changes {
		it := s.item(c)
		it.wait = w
		if s.isSettled(it) {
			w.left--
			continue
		}
		s.waiting[it.key] = append(s.waiting[it.key], it)
		switch {
		case it.route != "":
			k := key{xds.RouteType, it.route}
			s.waiting[k] = append(s.waiting[k], it)
		case it.scoped:
			s.waiting[anyRoutes] = append(s.waiting[anyRoutes], it)
		}
	}
	s.finish(w) // the one that was added above: done is not called before all are known
	return func() {
		w.done = nil
		for _, c := range changes { // settling forgets who does not wait any more
			s.settle(key{c.Type, c.Name})
			if c.Resource != nil {
				s.settle(key{xds.RouteType, s.routeOf(c.Resource)})
			}
		}
		s.settle(anyRoutes)
	}
}

// Expect says that a client is about to connect: for this long, while there is
// none, changes count as not answered. Without it, what is set while nobody is
// connected is answered at once.
func (s *Server) Expect(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expect != nil {
		s.expect.Stop()
	}
	s.expected = true
	s.expect = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.expected = false
		s.settleAll()
	})
}

func (s *Server) finish(w *waiter) {
	if w.left--; w.left == 0 && w.done != nil {
		w.done(s.outcome(w.changes))
	}
}

// settle looks again at what waits for a key.
func (s *Server) settle(k key) {
	items := s.waiting[k]
	if len(items) == 0 {
		return
	}
	rest := items[:0]
	var ready []*waiter
	for _, it := range items {
		if !it.settled && it.wait.done != nil {
			if !s.isSettled(it) {
				rest = append(rest, it)
				continue
			}
			it.settled = true
			ready = append(ready, it.wait)
		}
	}
	if len(rest) == 0 {
		delete(s.waiting, k)
	} else {
		s.waiting[k] = rest
	}
	for _, w := range ready {
		s.finish(w)
	}
}

// anyRoutes is a key for what waits for any scope's or routes' answer.
var anyRoutes = key{typ: xds.RouteType}

// settleAll looks again at everything: a client left, or wants something else.
func (s *Server) settleAll() {
	for _, k := range slices.SortedFunc(maps.Keys(s.waiting), func(a, b key) int {
		return cmp.Or(compareTypes(a.typ, b.typ), strings.Compare(a.name, b.name))
	}) {
		s.settle(k)
	}
}

// isSettled reports whether every client has answered the change, or it was
// replaced by a later one.
func (s *Server) isSettled(it *item) bool {
	e := s.store[it.typ][it.name]
	switch {
	case it.version == "" && e != nil, it.version != "" && e == nil:
		return true // superseded
	case e != nil && (e.want.Version != it.version || s.refused(e, it.version)):
		return true
	}
	for st := range s.streams {
		if !st.settled(it) {
			return false
		}
	}
	return len(s.streams) > 0 || !s.expected
}

// routeOf is the name of the routes that a scope leads to. Without laziness only
// eager scopes count: a client has such a scope only when it has the routes.
func (s *Server) routeOf(r *xds.Resource) string {
	if r.Type != xds.ScopeType {
		return ""
	}
	var m route.ScopedRouteConfiguration
	if err := proto.Unmarshal(r.Body, &m); err != nil || m.GetOnDemand() && !s.opts.Lazy {
		return ""
	}
	return m.GetRouteConfigurationName()
}
