// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"maps"
	"slices"
	"time"

	"fairlead.io/fairlead/xds"
)

// warmFor is how long a client has to ask for what clients before it used: as long
// as Envoy waits for its first resources.
const warmFor = 15 * time.Second

// InUse lists the route tables that clients of a lazy server ask for, and those that
// clients before them did, until there was one that could have asked; sorted. The
// next client is told to ask for these at once.
func (s *Server) InUse() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse()
}

func (s *Server) inUse() []string {
	all := maps.Clone(s.restored)
	for st := range s.streams {
		if st.lazy == nil {
			continue
		}
		for n := range st.lazy.names {
			all[n] = true
		}
		for n := range st.lazy.warm {
			all[n] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Clusters lists the clusters that a route table refers to, sorted.
func (s *Server) Clusters(table string) []string {
	s.mu.Lock()
	r, _ := s.given(s.store[xds.RouteType][table])
	s.mu.Unlock()
	return clustersOf(r)
}

// Evict takes route tables, and the clusters that only they need, from the clients
// of a lazy server, until they are used again. Requests that come meanwhile wait for
// the table; those under way end as they began. Tables that a client is just about to
// get stay, and those that no scope leads to.
func (s *Server) Evict(tables ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tables {
		delete(s.restored, t)
	}
	for st := range s.streams {
		if st.lazy != nil {
			st.evict(tables)
		}
	}
	s.settleAll()
	s.used()
}

func (st *stream) evict(tables []string) {
	l := st.lazy
	var scopes []string
	for _, t := range tables {
		if w := l.warm[t]; w != nil {
			l.release(w, nil)
			delete(l.warm, t)
		}
		leads, v := st.server.leads[t], l.variants[t]
		name := alias(t, v.n)
		if len(leads) == 0 || l.tables[name] == nil && !v.eager || st.loading(name) {
			continue
		}
		for v.eager = false; l.tables[alias(t, v.n)] != nil; {
			v.n++
		}
		l.vary(t, v)
		scopes = append(scopes, slices.Collect(maps.Keys(leads))...)
	}
	slices.Sort(scopes)
	st.changed(xds.ScopeType, scopes)
	st.tidy()
}

// warm has a new client use what others do.
func (st *stream) warm(tables []string) {
	for _, n := range tables {
		t := &table{}
		st.lazy.warm[n] = t
		r, _ := st.server.given(st.server.store[xds.RouteType][n])
		st.lazy.hold(t, clustersOf(r))
	}
}

// cool ends the time in which a client asks for what it is to be warmed with. What
// it did not ask for is not in use.
func (st *stream) cool() {
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, here := s.streams[st]; !here {
		return
	}
	for _, t := range st.lazy.warm {
		st.lazy.release(t, nil)
	}
	clear(st.lazy.warm)
	clear(s.restored)
	st.tidy()
	s.used()
}

// leave ends a client's use. What the last one had is in use until there is another.
func (st *stream) leave() {
	l := st.lazy
	if l == nil {
		return
	}
	for n, t := range l.tables {
		l.ready(n, t)
	}
	if l.sweeper != nil {
		l.sweeper.Stop()
		l.sweeper = nil
	}
	if s := st.server; len(s.streams) == 0 {
		for n := range l.names {
			s.restored[n] = true
		}
		for n := range l.warm {
			s.restored[n] = true
		}
	}
	st.server.used()
}

func (s *Server) used() {
	if s.opts.OnUse != nil {
		s.opts.OnUse()
	}
}

// lead notes that a scope leads to another table than before; "" is none.
func (s *Server) lead(scope, before, now string) {
	if !s.opts.Lazy || before == now {
		return
	}
	if before != "" {
		delete(s.leads[before], scope)
		if len(s.leads[before]) == 0 {
			delete(s.leads, before)
			for st := range s.streams { // they drop the table by themselves
				delete(st.lazy.variants, before)
			}
		}
	}
	if now != "" {
		if s.leads[now] == nil {
			s.leads[now] = map[string]bool{}
		}
		s.leads[now][scope] = true
	}
}
