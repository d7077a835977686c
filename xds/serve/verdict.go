// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"

	"fairlead.io/fairlead/xds"
)

// Clients need not agree: while one Envoy takes over from another of a different
// version, what the one rejects the other may serve. So each is given the newest
// version that it has not rejected itself. What nobody who is connected takes is not
// tried with those that come later.

// verdict is a client's rejection of a version.
type verdict struct {
	by      *stream // nil: it is gone
	client  string
	version string
	detail  string
}

// source is where what a client has under a name is from.
type source uint8

const (
	wanted   source = iota // it was set
	older                  // it was set before what is rejected
	rejected               // it stands in for what is rejected
	missing                // it stands in for what nobody set
)

// standsIn reports whether nobody set it.
func (s source) standsIn() bool { return s >= rejected }

// versions are those that a client may be given, the newest first; some are nil.
func (e *entry) versions() []*xds.Resource {
	return []*xds.Resource{e.want, e.previous, e.good, e.before}
}

func (e *entry) knows(version string) bool {
	return slices.ContainsFunc(e.versions(), func(r *xds.Resource) bool { return r != nil && r.Version == version })
}

// verdict is a client's on a version; nil: it has not rejected it.
func (e *entry) verdict(st *stream, version string) *verdict {
	i := slices.IndexFunc(e.verdicts, func(v verdict) bool { return v.by == st && v.version == version })
	if i < 0 {
		return nil
	}
	return &e.verdicts[i]
}

// refused reports whether somebody rejected a version and no client that is connected
// has accepted it, or may do so yet.
func (s *Server) refused(e *entry, version string) bool {
	if !slices.ContainsFunc(e.verdicts, func(v verdict) bool { return v.version == version }) {
		return false
	}
	for st := range s.streams {
		if accepted, underWay := st.holds(e, version); accepted || underWay {
			return false
		}
	}
	return true
}

// refuses reports whether a client is not to be given a version.
func (st *stream) refuses(e *entry, version string) bool {
	return len(e.verdicts) > 0 && (e.verdict(st, version) != nil || st.server.refused(e, version))
}

// holds reports whether a client has accepted a version and still has it, and whether
// it is on its way there.
func (st *stream) holds(e *entry, version string) (accepted, underWay bool) {
	k := keyOf(e.want)
	sub := st.subs[k.typ]
	if sub == nil || e.verdict(st, version) != nil {
		return false, false
	}
	is := func(r *xds.Resource) bool { return r != nil && keyOf(r) == k && r.Version == version }
	for _, n := range st.namesOf(k.typ, []string{k.name}) {
		if has := sub.has[n]; has != nil {
			accepted = accepted || is(has.ackedOf)
			underWay = underWay || has.open && is(has.of)
		}
	}
	return accepted, underWay
}

// given is what a client is to have of an entry, which may be nil, under a name; nil if
// there is nothing.
func (st *stream) given(e *entry, name string) (*xds.Resource, source) {
	if e == nil || len(e.verdicts) == 0 { // the usual case
		return st.server.given(e)
	}
	for _, r := range e.versions() {
		if r != nil && !st.refuses(e, r.Version) {
			return r, sourceOf(e, r)
		}
	}
	// It has seen more versions than are kept.
	if sub := st.subs[e.want.Type]; sub != nil && sub.has[name] != nil {
		if own := sub.has[name].ackedOf; own != nil && keyOf(own) == keyOf(e.want) && !st.refuses(e, own.Version) {
			return own, older
		}
	}
	return st.server.standInFor(e), rejected
}

// given is what a client that comes now is to have.
func (s *Server) given(e *entry) (*xds.Resource, source) {
	switch {
	case e == nil:
		return nil, wanted
	case len(e.verdicts) == 0:
		return e.want, wanted
	}
	for _, r := range e.versions() {
		if r != nil && !s.refused(e, r.Version) {
			return r, sourceOf(e, r)
		}
	}
	return s.standInFor(e), rejected
}

func sourceOf(e *entry, r *xds.Resource) source {
	if r == e.want {
		return wanted
	}
	return older
}

func (s *Server) standInFor(e *entry) *xds.Resource {
	if e.standIn == nil {
		e.standIn = s.standIn(keyOf(e.want))
	}
	return e.standIn
}

// accepted notes that a client has what was set at some time.
func (s *Server) accepted(r *xds.Resource, from source) {
	e := s.entry(keyOf(r))
	if e == nil || from.standsIn() {
		return
	}
	e.pardon(r.Version)
	s.prune(e)
	switch {
	case e.good != nil && e.good.Version == r.Version:
		return
	case r.Version == e.want.Version && from == wanted || r == e.previous:
		e.previous = nil
	case from == older && e.good != nil: // it is older than good
		return
	}
	if e.good != nil && !s.refused(e, e.good.Version) {
		e.before = e.good
	}
	e.good = r
	s.prune(e)
}

// reject notes that a client did not accept what was set at some time.
func (st *stream) reject(r *xds.Resource, detail string) {
	s := st.server
	e := s.entry(keyOf(r))
	if e == nil || !e.knows(r.Version) || e.verdict(st, r.Version) != nil {
		return
	}
	if detail == "" {
		detail = "rejected without a reason"
	}
	s.log.Warn("resource rejected", "type", xds.Short(r.Type), "name", r.Name, "version", r.Version, "client", st.name, "detail", detail)
	e.pardon(r.Version)
	e.verdicts = append(e.verdicts, verdict{st, st.name, r.Version, detail})
	s.judged[keyOf(r)] = e
	s.tell(e)
	s.contest(e)
}

// pardon forgets who rejected a version and is gone: one who is here has judged it.
func (e *entry) pardon(version string) {
	e.verdicts = slices.DeleteFunc(e.verdicts, func(v verdict) bool { return v.by == nil && v.version == version })
}

// tell tells of what is wanted and refused, once.
func (s *Server) tell(e *entry) {
	if e != nil && !e.told && s.refused(e, e.want.Version) {
		e.told = true
		if s.opts.OnReject != nil {
			s.opts.OnReject(s.rejection(e))
		}
	}
}

// contest tells of what is wanted where some have rejected it and others have it.
func (s *Server) contest(e *entry) {
	if s.opts.OnContest == nil || e == nil || e.told || !e.isRejected() {
		return
	}
	if r := s.rejection(e); len(r.Accepted) > 0 {
		s.opts.OnContest(r)
	}
}

// prune forgets verdicts on versions that are not kept.
func (s *Server) prune(e *entry) {
	if e.verdicts == nil { // the usual case
		return
	}
	e.verdicts = slices.DeleteFunc(e.verdicts, func(v verdict) bool { return !e.knows(v.version) })
	if len(e.verdicts) == 0 {
		e.verdicts = nil
		delete(s.judged, keyOf(e.want))
	}
}

// forget takes a client that is gone from all verdicts. What it alone rejected stays
// refused, unless another one takes it.
func (s *Server) forget(st *stream) {
	for _, e := range s.judged {
		for i, v := range e.verdicts {
			if v.by == st {
				e.verdicts[i].by = nil
			}
		}
		for _, v := range slices.Clone(e.verdicts) {
			if v.by == nil && s.known(e, v.version) {
				e.pardon(v.version)
			}
		}
		if s.prune(e); len(e.verdicts) > 0 {
			s.inherit(e)
			s.tell(e)
		}
	}
}

// known reports whether a client that is here has accepted or rejected a version.
func (s *Server) known(e *entry, version string) bool {
	for st := range s.streams {
		if accepted, _ := st.holds(e, version); accepted || e.verdict(st, version) != nil {
			return true
		}
	}
	return false
}

// inherit keeps what clients have when those are gone that took a later version.
func (s *Server) inherit(e *entry) {
	for _, r := range e.versions() {
		if r != nil && !s.refused(e, r.Version) {
			return
		}
	}
	for st := range s.streams {
		for _, n := range st.namesOf(e.want.Type, []string{e.want.Name}) {
			r, from := st.given(e, n)
			if r != nil && from == older {
				e.good, e.before = r, nil
				s.prune(e)
				return
			}
		}
	}
}

// isRejected reports whether some client has rejected what is wanted.
func (e *entry) isRejected() bool {
	return slices.ContainsFunc(e.verdicts, func(v verdict) bool { return v.version == e.want.Version })
}

// rejection is that of what is wanted, which isRejected.
func (s *Server) rejection(e *entry) Rejection {
	r := Rejection{Type: e.want.Type, Name: e.want.Name, Version: e.want.Version}
	for _, v := range e.verdicts {
		if v.version == e.want.Version {
			r.Detail = v.detail
			r.Clients = append(r.Clients, v.client)
		}
	}
	slices.Sort(r.Clients)
	r.Clients = slices.Compact(r.Clients)
	for st := range s.streams {
		if accepted, _ := st.holds(e, e.want.Version); accepted {
			r.Accepted = append(r.Accepted, st.name)
		}
	}
	slices.Sort(r.Accepted)
	for _, k := range e.versions() {
		if k != nil && !slices.ContainsFunc(e.verdicts, func(v verdict) bool { return v.version == k.Version }) {
			r.Kept = k.Version
			break
		}
	}
	return r
}

// Contested lists the rejections by clients of a name (see Options.Client) of what other
// clients have accepted and have; sorted.
func (s *Server) Contested(client string) []Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Rejection
	for _, e := range s.judged {
		if !e.isRejected() {
			continue
		}
		if r := s.rejection(e); len(r.Accepted) > 0 && slices.Contains(r.Clients, client) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, compareRejections)
	return out
}
