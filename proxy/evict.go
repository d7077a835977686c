// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// tableServer is what knows the route tables that Envoys have.
type tableServer interface {
	// InUse lists the tables that some Envoy has asked for, sorted.
	InUse() []string
	// Clusters are those that a table's requests may go to.
	Clusters(table string) []string
	// Evict takes tables from all Envoys, until they ask again.
	Evict(tables ...string)
}

// evictor takes route tables from Envoy that were not used for a while. Their use
// is seen at the endpoints of their clusters; a table that no endpoint can show the
// use of (it redirects, or answers itself) goes at its age, and is back a few
// milliseconds after the next request. What is under way keeps a table.
type evictor struct {
	server tableServer
	after  time.Duration
	log    *slog.Logger
	now    func() time.Time

	// Of each Envoy that runs, by process: what its endpoints have seen.
	seen map[int]usage
	last map[string]time.Time // when a table was used, or first found in use
	gone []string             // evicted in the last round
}

func newEvictor(server tableServer, after time.Duration, log *slog.Logger) *evictor {
	return &evictor{server: server, after: after, log: log, now: time.Now,
		seen: map[int]usage{}, last: map[string]time.Time{}}
}

// round takes what all Envoys that run have seen, and evicts what was not used. It
// returns how many tables are gone since the round before: of those that it evicted
// then, some may have been asked for again, and some cannot be evicted.
func (e *evictor) round(all map[int]usage) int {
	used := map[string]bool{} // clusters
	for pid, clusters := range all {
		before, known := e.seen[pid]
		for name, hosts := range clusters {
			for addr, u := range hosts {
				// What an Envoy saw before it was looked at first has no known time.
				if u.active || known && u.total > before[name][addr].total {
					used[name] = true
				}
			}
		}
	}
	e.seen = all
	now := e.now()
	last := map[string]time.Time{}
	inUse := e.server.InUse()
	var idle []string
	for _, table := range inUse {
		at, known := e.last[table]
		if !known || slices.ContainsFunc(e.server.Clusters(table), func(c string) bool { return used[c] }) {
			at = now
		}
		if now.Sub(at) >= e.after {
			idle = append(idle, table)
		} else {
			last[table] = at
		}
	}
	gone := 0
	for _, table := range e.gone {
		if _, found := slices.BinarySearch(inUse, table); !found {
			gone++
		}
	}
	e.last, e.gone = last, idle
	if len(idle) > 0 {
		e.server.Evict(idle...)
		e.log.Debug("evicted", "tables", len(idle))
	}
	return gone
}

// ask asks all Envoys what their endpoints have seen. False: one of them did not
// say, and nothing may be evicted.
func (e *evictor) ask(ctx context.Context, envoys map[int]*admin) (map[int]usage, bool) {
	all := map[int]usage{}
	for pid, a := range envoys {
		clusters, err := a.usage(ctx)
		if err != nil {
			e.log.Debug("use of clusters not known", "pid", pid, "error", err)
			return nil, false
		}
		all[pid] = clusters
	}
	return all, len(all) > 0
}

// evict has evictor look around until ctx ends.
func (p *proxy) evict(ctx context.Context) {
	e := newEvictor(p.server, p.opts.EvictAfter, p.log)
	every := time.NewTicker(max(p.opts.EvictAfter/4, time.Millisecond))
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		asked, cancel := context.WithTimeout(ctx, askLimit)
		all, ok := e.ask(asked, p.envoys.admins())
		cancel()
		if !ok {
			continue
		}
		p.evicted.Add(uint64(e.round(all)))
	}
}

// admins are those of the Envoys that run, by process.
func (s *supervisor) admins() map[int]*admin {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[int]*admin{}
	for _, g := range s.gens {
		if g != nil {
			all[g.pid] = g.admin
		}
	}
	return all
}
