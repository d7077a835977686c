// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"fmt"
	"slices"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
)

// Lazy clients ask for some clusters by name, when a connection comes that is to go
// there. Envoy does so once for each name and never lets go of it: what it is not
// given, or loses, costs each connection the time for which it waits at most. So each
// name is answered at once, if need be by a stand-in that closes what comes, and
// followed from then on: what the client gets under it is the first of its
// candidates that there is.

// maxStandIns is how many stand-ins for clusters a client is given: it may ask for any
// number of names, and what they led to may have vanished long ago. Of more, it has
// the latest. Each takes 20 kB of Envoy.
const maxStandIns = 500

// asked is a cluster that a client asked for by name.
type asked struct {
	candidates []string // the closest first
	gone       bool     // it has not even a stand-in
}

func (st *stream) ask(name string) {
	l := st.lazy
	l.idle.remove(name)
	if a := l.asked[name]; a != nil {
		l.standIns.remove(name) // and joins again: it is among the latest
		a.gone = false
		return
	}
	a := &asked{candidates: []string{name}}
	if f := st.server.opts.Candidates; f != nil {
		a.candidates = f(xds.ClusterType, name)
	}
	l.asked[name] = a
	for _, c := range a.candidates {
		l.askers[c] = append(l.askers[c], name)
	}
}

func (st *stream) unask(name string) {
	l := st.lazy
	a := l.asked[name]
	if a == nil {
		return
	}
	delete(l.asked, name)
	l.standIns.remove(name)
	for _, c := range a.candidates {
		l.askers[c] = slices.DeleteFunc(l.askers[c], func(n string) bool { return n == name })
		if len(l.askers[c]) == 0 {
			delete(l.askers, c)
		}
	}
	if l.uses[name] == 0 {
		l.idle.add(name)
	}
}

// meant is the stored cluster that a client means by a name; the name itself if there
// is none.
func (st *stream) meant(name string) string {
	if a := st.lazy.asked[name]; a != nil {
		for _, c := range a.candidates {
			if st.server.store[xds.ClusterType][c] != nil {
				return c
			}
		}
	}
	return name
}

// standFor keeps the number of stand-ins limited. It returns what is to be sent: the
// names, and those that lose their stand-in to them.
func (st *stream) standFor(names []string) []string {
	l := st.lazy
	for _, n := range names {
		a := l.asked[n]
		switch {
		case a == nil:
		case st.server.store[xds.ClusterType][st.meant(n)] != nil:
			l.standIns.remove(n)
			a.gone = false
		case !a.gone:
			l.standIns.add(n)
		}
	}
	var gone []string
	for l.standIns.len() > st.server.standIns {
		n := l.standIns.oldest().name
		l.standIns.remove(n)
		l.asked[n].gone = true
		gone = append(gone, n)
	}
	if gone == nil {
		return names
	}
	names = slices.Concat(names, gone)
	slices.Sort(names)
	return slices.Compact(names)
}

// shared reports whether the client may have other clusters with the same endpoints.
func (st *stream) shared(cluster string) bool {
	return st.lazy != nil && st.lazy.asked[cluster] != nil
}

// answeredAsked is answered for one name of a cluster that the client asked for.
func (st *stream) answeredAsked(sub *subscription, name string, k key, v string) bool {
	has := sub.has[name]
	switch {
	case v == "": // it has been sent what there is in its place
		return has == nil || !has.open && !sub.held
	case st.key(k.typ, name) != k:
		return true // a closer one serves
	}
	return sub.answered(name, v)
}

// settleName looks again at what waits for what a client may have under a name.
func (st *stream) settleName(typ, name string) {
	if st.lazy != nil && typ == xds.ClusterType {
		if a := st.lazy.asked[name]; a != nil {
			for _, c := range a.candidates {
				st.server.settle(key{typ, c})
			}
		}
	}
	st.server.settle(st.key(typ, name))
}

// calledVersion is the version of a cluster under another name. Two candidates never
// have the same.
func calledVersion(of *xds.Resource, version string) string { return version + "=" + of.Name }

// called is a cluster under another name. Its endpoints are those of its own.
func called(r *xds.Resource, name, version string) (*xds.Resource, error) {
	var m cluster.Cluster
	if err := proto.Unmarshal(r.Body, &m); err != nil {
		return nil, fmt.Errorf("read cluster %q: %w", r.Name, err)
	}
	m.Name = name
	if e := m.GetEdsClusterConfig(); e != nil && e.GetServiceName() == "" {
		e.ServiceName = r.Name
	}
	return remade(r, name, version, &m)
}
