// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// sidecars lists the Sidecars by the namespace of their clients: those for some clients
// first, then the oldest. As in Istio: pilot/pkg/model/push_context.go, initSidecarScopes.
type sidecars struct {
	all    []*objects.Object
	root   string
	own    map[string][]*objects.Object
	shared *objects.Object // for clients that have none of their own
	egress map[*objects.Object][]egressListener
}

// egressListener is what is shown at a port, or at all others.
type egressListener struct {
	port  uint32 // 0: all others
	hosts []egressHost
}

// sidecars gives nil if there are none. What it came to last is remembered, which saves
// time and nothing else.
func (t *Translator) sidecars(r translators.Reader) *sidecars {
	all := r.List(sidecarKind, "")
	if len(all) == 0 {
		return nil
	}
	root := t.mesh(r).root
	if s := t.lastSidecars.Load(); s != nil && s.root == root && slices.Equal(s.all, all) {
		return s
	}
	s := newSidecars(all, root)
	t.lastSidecars.Store(s)
	return s
}

func newSidecars(all []*objects.Object, root string) *sidecars {
	s := &sidecars{all: all, root: root, own: map[string][]*objects.Object{}, egress: map[*objects.Object][]egressListener{}}
	for _, selects := range []bool{true, false} {
		for _, o := range all {
			if (sidecarSpec(o).GetWorkloadSelector() != nil) != selects || o.Invalid {
				continue
			}
			s.own[o.Namespace] = append(s.own[o.Namespace], o)
			s.egress[o] = egressListeners(sidecarSpec(o))
			if o.Namespace == s.root && !selects && s.shared == nil {
				s.shared = o
			}
		}
	}
	return s
}

// of is the Sidecar that a client has, nil if none. Of labels, the client is known to
// carry those that are given.
func (s *sidecars) of(cl client) *objects.Object {
	if s == nil {
		return nil
	}
	for _, o := range s.own[cl.namespace] {
		if carries(cl.labels, sidecarSpec(o).GetWorkloadSelector().GetLabels()) {
			return o
		}
	}
	return s.shared
}

// clients lists those of a namespace that Sidecars tell apart, the others last.
func (s *sidecars) clients(namespace string) []client {
	var out []client
	if s != nil {
		for _, o := range s.own[namespace] {
			if labels := sidecarSpec(o).GetWorkloadSelector().GetLabels(); len(labels) > 0 {
				out = append(out, client{namespace, labels})
			}
		}
	}
	return append(out, client{namespace: namespace})
}

func egressListeners(spec *networking.Sidecar) []egressListener {
	if len(spec.GetEgress()) == 0 {
		return []egressListener{{hosts: egressHosts([]string{"*/*"})}}
	}
	var out []egressListener
	for _, e := range spec.GetEgress() {
		if e.GetPort() == nil || e.GetPort().GetNumber() > 0 && intercepts(e) {
			out = append(out, egressListener{e.GetPort().GetNumber(), egressHosts(e.GetHosts())})
		}
	}
	return out
}

// egressHost is what an entry of a Sidecar's hosts shows, or hides.
type egressHost struct {
	namespace string // "*" is any, "." the client's
	name      string // may be a wildcard
	hides     bool
}

const (
	anyNamespace = "*"
	ownNamespace = "."
)

// egressHosts reads entries such as "ns/name", "./name", "*/name", "~/*" and "~ns/name".
// Names are taken as they stand.
func egressHosts(in []string) []egressHost {
	var out []egressHost
	for _, s := range in {
		ns, name, ok := strings.Cut(s, "/")
		if !ok {
			continue
		}
		h := egressHost{name: strings.ToLower(name)}
		if ns, h.hides = strings.CutPrefix(ns, "~"); h.hides && ns == "" {
			ns = anyNamespace
		}
		h.namespace = ns
		out = append(out, h)
	}
	return out
}

// view is what a client sees at a port.
type view struct {
	sidecar *objects.Object // nil: everything
	own     string          // namespace of the client
	hosts   []egressHost
	// nothing: no listener of the Sidecar is for the port.
	nothing bool
}

// view gives what a client sees at a port: what the first listener for the port shows, or
// else the one without a port.
func (s *sidecars) view(cl client, port uint16) view {
	o := s.of(cl)
	if o == nil {
		return view{}
	}
	for _, l := range s.egress[o] {
		if l.port == 0 || l.port == uint32(port) {
			return view{sidecar: o, own: cl.namespace, hosts: l.hosts}
		}
	}
	return view{sidecar: o, nothing: true}
}

// intercepts reports whether a listener takes what clients send to services' addresses,
// and not what they send to the listener itself.
func intercepts(e *networking.IstioEgressListener) bool {
	return e.GetBind() == "" && e.GetCaptureMode() != networking.CaptureMode_NONE && e.GetPort().GetProtocol() != "HTTP_PROXY"
}

// shows reports whether a host of a namespace is shown; overlap: though it is a wildcard
// that is not shown whole, as Istio does with the hosts of VirtualServices.
func (v view) shows(namespace, host string, overlap bool) bool {
	if v.sidecar == nil {
		return true
	}
	if v.nothing {
		return false
	}
	fits := func(h egressHost) bool {
		return h.namespace == namespace || h.namespace == anyNamespace || h.namespace == ownNamespace && namespace == v.own
	}
	if slices.ContainsFunc(v.hosts, func(h egressHost) bool { return h.hides && fits(h) && partOf(host, h.name) }) {
		return false
	}
	return slices.ContainsFunc(v.hosts, func(h egressHost) bool {
		return !h.hides && fits(h) && (partOf(host, h.name) || overlap && partOf(h.name, host))
	})
}

// partOf reports whether all names that a host stands for are those of another.
func partOf(host, of string) bool {
	if !isWildcard(host) {
		return covers(of, host)
	}
	return isWildcard(of) && strings.HasSuffix(host[1:], of[1:])
}

// unknown is what becomes of hosts that a client does not know; "" if its Sidecar does
// not say.
func (v view) unknown() model.Unknown {
	if v.sidecar == nil {
		return ""
	}
	p := sidecarSpec(v.sidecar).GetOutboundTrafficPolicy()
	switch {
	case p == nil:
		return ""
	case p.GetEgressProxy() != nil, p.GetMode() == networking.OutboundTrafficPolicy_REGISTRY_ONLY:
		return model.UnknownRefuse
	}
	return model.UnknownPass
}

// unknownFrom lists the clients for whom Sidecars say what becomes of hosts that nobody
// knows, those for some clients of a namespace first; nil if none says anything.
func (s *sidecars) unknownFrom(mesh model.Unknown) []model.UnknownFrom {
	if s == nil {
		return nil
	}
	var out []model.UnknownFrom
	said := false
	for _, ns := range append(slices.Sorted(maps.Keys(s.own)), "") {
		for _, cl := range s.clients(ns) {
			o := s.of(cl)
			if o == nil || ns != "" && o == s.shared && ns != s.root {
				continue // the last entry is about them
			}
			u := view{sidecar: o}.unknown()
			said = said || u != ""
			e := model.UnknownFrom{SourceNamespace: ns, SourceLabels: cl.labels, Unknown: cmp.Or(u, mesh)}
			if u != "" {
				e.Src = []model.Source{o.Source(Plane, "spec.outboundTrafficPolicy")}
			}
			out = append(out, e)
		}
	}
	if !said {
		return nil
	}
	for len(out) > 0 && out[len(out)-1].Unknown == mesh {
		out = out[:len(out)-1]
	}
	return out
}
