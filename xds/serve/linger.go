// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"
	"time"

	"fairlead.io/fairlead/xds"
)

// A cluster that no table needs stays with the client for Options.ClusterLinger: a
// request that waits for a retry, or in a delay, looks for its cluster when it goes on,
// and has none if that was taken with the routes by which it came.

// lingers reports whether the client has a cluster that nothing needs, for a while.
func (l *lazy) lingers(cluster string) bool { return l.idle.has(cluster) }

// sweep takes from the client the clusters that were not needed for long enough.
func (st *stream) sweep() {
	l := st.lazy
	if l == nil || !st.swept {
		return
	}
	sub := st.subs[xds.ClusterType]
	var removed []string
	for l.idle.len() > 0 {
		c := l.idle.oldest()
		has := sub != nil && !st.wants(sub, c.name) && sub.has[c.name] != nil && sub.has[c.name].sent != ""
		if has {
			if left := st.server.opts.ClusterLinger - time.Since(c.since); left > 0 {
				st.sweepIn(left)
				break
			}
			removed = append(removed, c.name)
		}
		l.idle.remove(c.name)
	}
	if len(removed) > 0 {
		slices.Sort(removed)
		st.respond(sub.typ, nil, removed)
	}
}

// sweepIn sweeps again later. One timer is enough: names queue in the order in which
// they are due.
func (st *stream) sweepIn(d time.Duration) {
	l := st.lazy
	if l.sweeper != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		s := st.server
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.sweeper == timer { // the client is here still
			l.sweeper = nil
			st.tidy()
		}
	})
	l.sweeper = timer
}

// withhold reports whether a client is not told that endpoints are gone, since their
// cluster lingers and may be used. It drops them with the cluster.
func (st *stream) withhold(sub *subscription, name string) bool {
	l := st.lazy
	if l == nil || sub.typ != xds.EndpointType || !l.lingers(name) || st.server.store[sub.typ][name] != nil {
		return false
	}
	l.withheld[name] = true
	return true
}

// tellWithheld tells the client what it was not told of the endpoints of clusters
// that are needed again.
func (st *stream) tellWithheld(clusters []string) {
	var names []string
	for _, n := range clusters {
		if st.lazy.withheld[n] {
			delete(st.lazy.withheld, n)
			names = append(names, n)
		}
	}
	if len(names) > 0 {
		st.changed(xds.EndpointType, names)
	}
}
