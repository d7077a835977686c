// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"maps"
	"slices"
	"time"

	"fairlead.io/fairlead/xds"
)

// clusterWait is how long a table waits for its clusters, unless options say
// otherwise. Envoy itself sets no limit to the time for which a request on demand waits
// for its routes: only the connection manager's idle time ends it.
const clusterWait = 5 * time.Second

// lazy is what a client of a lazy server uses: route tables, and by them clusters.
type lazy struct {
	tables   map[string]*table   // by the client's name
	names    map[string][]string // the client's names of a table
	variants map[string]variant  // form of a table's scopes, unless it is the zero one
	waiting  map[string]*table   // by the client's name: not sent yet
	warm     map[string]*table   // in use by clients before, and not asked for yet
	uses     map[string]int      // how many tables hold a cluster
	idle     *queue              // clusters that nothing needs any more
	sweeper  *time.Timer         // runs while some of them linger
	withheld map[string]bool     // endpoints that are gone, of clusters that linger
	putOff   map[string]bool     // scopes that are sent when their tables are there

	asked    map[string]*asked   // clusters that it asked for by name
	askers   map[string][]string // their names by candidate
	standIns *queue              // those that it has stand-ins for
}

func newLazy() *lazy {
	return &lazy{
		tables:   map[string]*table{},
		names:    map[string][]string{},
		variants: map[string]variant{},
		waiting:  map[string]*table{},
		warm:     map[string]*table{},
		uses:     map[string]int{},
		idle:     newQueue(),
		withheld: map[string]bool{},
		putOff:   map[string]bool{},
		asked:    map[string]*asked{},
		askers:   map[string][]string{},
		standIns: newQueue(),
	}
}

// table is a route table that a client asked for.
type table struct {
	// held are the clusters of the content that the client has, and of all that is
	// under way to it or waits to be.
	held []string
	next []string    // clusters of the content that it is to have
	wait *time.Timer // runs while it waits for them
	late bool        // it has waited long enough
}

// hold adds to the clusters that a table holds.
func (l *lazy) hold(t *table, clusters []string) {
	for _, c := range clusters {
		if !slices.Contains(t.held, c) {
			t.held = append(t.held, c)
			l.uses[c]++
			l.idle.remove(c)
		}
	}
}

// release takes from a table the clusters that are not among those to keep.
func (l *lazy) release(t *table, keep []string) {
	t.held = slices.DeleteFunc(t.held, func(c string) bool {
		if slices.Contains(keep, c) {
			return false
		}
		if l.uses[c]--; l.uses[c] == 0 {
			delete(l.uses, c)
			l.idle.add(c)
		}
		return true
	})
}

// begin starts a subscription.
func (st *stream) begin(sub *subscription) {
	if st.lazy == nil {
		return
	}
	for n := range sub.names {
		st.track(sub, n)
	}
	if sub.typ == xds.ScopeType {
		st.beginScopes(sub)
	}
}

// beginScopes finds the form of each scope: that in which the client has it, so
// that nothing is sent again, and for those in use that the client does not know
// yet, the one that has it ask before it opens its listeners.
func (st *stream) beginScopes(sub *subscription) {
	l := st.lazy
	known := map[string]bool{}
	for n, has := range sub.has {
		e := st.server.store[xds.ScopeType][n]
		v, ok := variantOf(has.sent)
		if e == nil || e.route == "" || !ok {
			continue
		}
		known[e.route] = true
		before := l.variants[e.route]
		l.vary(e.route, variant{n: max(v.n, before.n), eager: v.eager || before.eager})
	}
	for t := range l.warm {
		if !known[t] && len(st.server.leads[t]) > 0 {
			l.vary(t, variant{eager: true})
		}
	}
}

func (l *lazy) vary(table string, v variant) {
	if v == (variant{}) {
		delete(l.variants, table)
	} else {
		l.variants[table] = v
	}
}

// track notes that the client asks for something.
func (st *stream) track(sub *subscription, name string) {
	l := st.lazy
	if l != nil && sub.typ == xds.ClusterType {
		st.ask(name)
		return
	}
	if l == nil || sub.typ != xds.RouteType || l.tables[name] != nil {
		return
	}
	l.tables[name] = &table{}
	t := tableOf(name)
	l.names[t] = append(l.names[t], name)
	st.server.used()
}

// untrack notes that it does not want that any more.
func (st *stream) untrack(sub *subscription, name string) {
	l := st.lazy
	switch {
	case l == nil:
	case sub.typ == xds.ClusterType:
		st.unask(name)
	case sub.typ == xds.EndpointType:
		delete(l.withheld, name)
	case sub.typ == xds.RouteType && l.tables[name] != nil:
		t := l.tables[name]
		l.release(t, nil)
		l.ready(name, t)
		delete(l.tables, name)
		real := tableOf(name)
		l.names[real] = slices.DeleteFunc(l.names[real], func(n string) bool { return n == name })
		if len(l.names[real]) == 0 {
			delete(l.names, real)
		}
		st.server.used()
	}
}

// ready ends a table's wait.
func (l *lazy) ready(name string, t *table) {
	if t.wait != nil {
		t.wait.Stop()
	}
	t.wait, t.late = nil, false
	delete(l.waiting, name)
}

// prepare sends the clusters of route tables and returns those tables whose turn
// has come. The others follow when the client has answered.
func (st *stream) prepare(sub *subscription, names []string) []string {
	l := st.lazy
	var clusters, now []string
	for _, n := range names {
		t := l.tables[n]
		if t == nil {
			continue
		}
		t.next = nil
		if f := st.form(sub, n); f != nil {
			t.next = clustersOf(f.of)
		}
		l.hold(t, t.next)
		if real := tableOf(n); l.warm[real] != nil {
			l.release(l.warm[real], nil)
			delete(l.warm, real)
		}
		clusters = append(clusters, t.next...)
	}
	st.need(clusters)
	for _, n := range names {
		t := l.tables[n]
		switch {
		case t == nil:
		case t.late || st.hasClusters(t.next):
			if !sub.forced[n] && st.unchanged(sub, n) {
				l.release(t, t.next)
			}
			l.ready(n, t)
			now = append(now, n)
		case t.wait == nil:
			l.waiting[n] = t
			t.wait = time.AfterFunc(st.server.opts.ClusterWait, func() { st.giveUp(n, t) })
		}
	}
	return now
}

// need sends clusters that the client does not have.
func (st *stream) need(clusters []string) {
	if sub := st.subs[xds.ClusterType]; sub != nil && !sub.held && len(clusters) > 0 {
		slices.Sort(clusters)
		clusters = slices.Compact(clusters)
		st.send(sub, clusters, changes)
		st.resendEndpoints()
		st.tellWithheld(clusters)
	}
}

// unchanged reports whether the client has what it is to have, and nothing is under
// way.
func (st *stream) unchanged(sub *subscription, name string) bool {
	has := sub.has[name]
	f := st.form(sub, name)
	return has != nil && f != nil && !has.open && has.sent == f.version
}

// hasClusters reports whether the client has answered all clusters that there are
// for it.
func (st *stream) hasClusters(names []string) bool {
	s := st.server
	sub := st.subs[xds.ClusterType]
	if sub == nil {
		return st.grace || len(names) == 0
	}
	for _, n := range names {
		of, _ := st.given(s.store[xds.ClusterType][n], n)
		if of == nil || !st.wants(sub, n) {
			continue
		}
		has := sub.has[n]
		if sub.held || has == nil || has.open || has.of == nil || has.of.Version != of.Version {
			return false
		}
	}
	return true
}

// giveUp sends a table that has waited too long for its clusters.
func (st *stream) giveUp(name string, t *table) {
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.lazy.waiting[name] != t {
		return
	}
	s.log.Warn("routes sent before their clusters are answered", "name", tableOf(name), "client", st.node)
	t.late = true
	st.tidy()
}

// proceed sends tables whose wait is over.
func (st *stream) proceed() {
	if st.lazy == nil || len(st.lazy.waiting) == 0 {
		return
	}
	sub := st.subs[xds.RouteType]
	var names []string
	for n, t := range st.lazy.waiting {
		if t.late || st.hasClusters(t.next) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	st.send(sub, names, changes)
	for _, n := range names {
		st.server.settle(st.key(xds.RouteType, n)) // the client may have it
	}
}

// loading reports whether the client has asked for a table and not got it yet.
func (st *stream) loading(name string) bool {
	sub := st.subs[xds.RouteType]
	if sub == nil || st.lazy.tables[name] == nil {
		return false
	}
	has := sub.has[name]
	return st.lazy.waiting[name] != nil || has != nil && has.open && has.acked == ""
}

// putOff reports whether a scope must not be sent or removed now. Envoy forgets the
// requests that wait for the table of a scope when the scope changes: they hang.
func (st *stream) putOff(sub *subscription, scope string) bool {
	if st.lazy == nil || sub.typ != xds.ScopeType {
		return false
	}
	has := sub.has[scope]
	if has == nil || has.of == nil {
		return false
	}
	v, ok := variantOf(has.sent)
	if !ok || !st.loading(alias(st.server.routeOf(has.of), v.n)) {
		return false
	}
	st.lazy.putOff[scope] = true
	return true
}

// catchUp sends what was put off.
func (st *stream) catchUp() {
	if st.lazy == nil || len(st.lazy.putOff) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(st.lazy.putOff))
	clear(st.lazy.putOff)
	st.changed(xds.ScopeType, names)
}

// rest is called when the client has answered a resource. When nothing of a table
// is under way the client has one content, and the clusters of others may go.
func (st *stream) rest(sub *subscription, name string) {
	l := st.lazy
	if l == nil || sub.typ != xds.RouteType {
		return
	}
	t := l.tables[name]
	if t == nil || l.waiting[name] != nil {
		return
	}
	has := sub.has[name]
	switch {
	case has == nil:
		l.release(t, nil)
	case !has.open:
		keep := clustersOf(has.of)
		l.hold(t, keep)
		l.release(t, keep)
		st.need(keep)
	}
}

// orphans are what the client asks for by name and has, and nobody sets any more,
// though something leads there.
func (st *stream) orphans(sub *subscription) []string {
	var names []string
	for n := range sub.names {
		if has := sub.has[n]; st.server.entry(st.key(sub.typ, n)) == nil && (has == nil || has.from != missing) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// lazyHasScopes reports whether the client has answered all scopes, and the routes
// that it is to ask for before their use.
func (st *stream) lazyHasScopes() bool {
	if st.opened[phase(xds.ScopeType)] > 0 {
		return false
	}
	for table, v := range st.lazy.variants {
		if v.eager && !st.hasRoutes(table) {
			return false
		}
	}
	return true
}
