// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// InboundListener is the name of the listener that takes connections for local
// pods from sources that no proxy of the mesh has checked.
const InboundListener = "in/http"

// inbound is what is judged at a local pod's port. Routes do not know addresses yet.
type inbound struct {
	Routes    []Route
	RateLimit *model.RateLimit
	Proxy     string
}

// podStage computes the rows of the node's own pods.
func (b *builder) podStage() incr.Stage {
	return incr.Stage{Name: "plan/pod",
		Keys: map[incr.Table]func(string, any) []string{workloads: b.local},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			w, _ := r.Get(workloads, key).(*model.Workload)
			g, _ := r.Get(Governance, key).(*Governed)
			if w == nil || g == nil {
				return nil
			}
			var out []incr.Row
			proxy := proxyOf(w)
			if proxy != "" {
				out = append(out, incr.Row{Table: Proxies, Key: proxy, Value: &Proxy{Name: proxy, Memory: w.Proxy.Memory}})
			}
			var listeners map[Mode]string
			if w.Capture {
				listeners = map[Mode]string{}
				for _, l := range outboundListeners(r, w) {
					listeners[l.Mode] = l.Name
					out = append(out, incr.Row{Table: Listeners, Key: l.Name, Value: l})
				}
			}
			for _, a := range w.Addresses {
				out = append(out, incr.Row{Table: Pods, Key: a.String(), Value: &Pod{Addr: a, Name: key, UID: w.UID, Set: g.ID, Listeners: listeners, Inbound: ownInbound(proxy),
					KnownOnly: r.Get(held, key) != nil, ProbePorts: w.ProbePorts, Observed: w.Observed}})
			}
			ports := g.Ports
			if g.ID != 0 {
				out = append(out, incr.Row{Table: sets, Key: fmt.Sprintf("%016x", g.ID), Value: g})
			} else {
				ports = sortedPorts(servedPorts(r, w))
			}
			return append(out, inboundScopes(w, g, ports)...)
		}}
}

// outboundListeners are the proxy ports of a captured pod, one for each mode: they
// know whose pod it is. One for HTTP is
// always there; the others come with the first service of their mode and go with the
// last.
func outboundListeners(r *incr.Reader, w *model.Workload) []*Listener {
	cl := clientOf(r, w)
	needed := []proxied{{Mode: HTTP}}
	for _, row := range r.All(modes) {
		if m := row.Value.(proxied); m.Mode != HTTP {
			needed = append(needed, m)
		}
	}
	out := make([]*Listener, len(needed))
	for i, m := range needed {
		l := &Listener{Mode: m.Mode, DetectTimeout: m.DetectTimeout, Identity: cl.Identity, Selects: cl.Selects, Class: cl.Class}
		l.Name = "out/" + string(l.Mode) + "/" + model.Hash(l)[:16]
		if l.Proxy = proxyOf(w); l.Proxy != "" {
			l.Name = ownName(l.Name, l.Proxy)
		}
		if l.Mode == TLS {
			for _, row := range r.All(serverNames) {
				l.ServerNames = append(l.ServerNames, row.Key)
			}
		}
		if l.Mode == AnyDetect || l.Mode == AnyOpaque {
			l.Ranges = rangesOf(r)
		}
		if l.Mode == AnyDetect {
			for _, row := range r.All(anyNames) {
				l.ServerNames = append(l.ServerNames, row.Key)
			}
		}
		l.Times = timesOf(r, l.Mode)
		l.Tunnels = tunnelsOf(r, l.Mode, l.Class)
		out[i] = l
	}
	return out
}

// inboundScopes leads connections for the pod's HTTP ports to their route table,
// which has the port's policy. It is the port's own and keeps its name: another policy
// changes a table in place, not the scope. Of a scope that changes while its table is
// being loaded, Envoy forgets the requests that wait, and a new table would have to be
// loaded first. Ports that nothing guards have one, too: connections outlive the policy
// that brought them to the proxy. So have ports that are opaque: another node's proxy may
// know earlier that they are read, and send requests to the listener. So have those of observed pods, for connections that came to
// the proxy before.
func inboundScopes(w *model.Workload, g *Governed, ports []GovernedPort) []incr.Row {
	if g.ID == 0 && len(ports) == 0 {
		return nil
	}
	proxy := proxyOf(w)
	in := cmp.Or(ownInbound(proxy), InboundListener)
	out := []incr.Row{{Table: Listeners, Key: in, Value: &Listener{Name: in, Mode: HTTP, Inbound: true, Proxy: proxy}}}
	for _, p := range ports {
		if !p.App.HasRequests() {
			p.App = model.AppDetect // as the client speaks
		}
		in := &inbound{Routes: g.inboundRoutes(w, p)}
		if said := g.inbound(p.Port); said != nil {
			in.RateLimit = said.RateLimit
		}
		if w.Observed {
			in = &inbound{Routes: g.observedRoutes(w, p)}
		}
		in.Proxy = proxy
		name := inboundTableName(w, p.Port)
		out = append(out, incr.Row{Table: inbounds, Key: name, Value: in})
		for _, a := range w.Addresses {
			dst := netip.AddrPortFrom(a, p.Port)
			key := InboundKey(dst)
			out = append(out, incr.Row{Table: Scopes, Key: key, Value: &Scope{Key: key, RouteTable: name, Proxy: proxy}})
		}
	}
	return out
}

// inboundStage makes the route tables of local pods' ports: policies and limits with
// identities resolved to addresses.
func (b *builder) inboundStage() incr.Stage {
	return incr.Stage{Name: "plan/inbound",
		Keys: map[incr.Table]func(string, any) []string{inbounds: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			in, _ := r.Get(inbounds, key).(*inbound)
			if in == nil {
				return nil
			}
			routes := slices.Clone(in.Routes)
			for i := range routes {
				if routes[i].Policy == nil {
					continue
				}
				p := *routes[i].Policy
				p.Known, p.Members = knownIdentities(r, &p)
				routes[i].Policy = &p
			}
			return []incr.Row{{Table: RouteTables, Key: key, Value: &RouteTable{Name: key, Routes: routes, Limit: limitOf(r, in.RateLimit), Proxy: in.Proxy}}}
		}}
}

// knownIdentities lists the identities that the policy's matches could hold for by name,
// with their addresses, and those of all members of a mesh if some match is for these.
func knownIdentities(r *incr.Reader, p *Policy) (known []KnownIdentity, members []netip.Addr) {
	ms := identityMatches(p)
	names := slices.DeleteFunc(slices.Clone(ms), asksForMember)
	if len(names) > 0 {
		known = identitiesAt(r, func(id string) bool {
			return slices.ContainsFunc(names, func(m model.StringMatch) bool { return Matches(m, id) })
		})
	}
	if len(names) < len(ms) {
		members = membersAt(r)
	}
	return known, members
}

// membersAt lists the addresses of all members of a mesh; sorted.
func membersAt(r *incr.Reader) []netip.Addr {
	var out []netip.Addr
	for _, row := range r.All(workloads) {
		if w := row.Value.(*model.Workload); !w.HostNetwork && w.Identity != "" && w.Member() {
			out = append(out, ownAddresses(r, w)...)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func identityMatches(p *Policy) []model.StringMatch {
	var out []model.StringMatch
	for _, rules := range append([][]model.AuthRule{p.Deny}, p.Allow...) {
		for _, r := range rules {
			out = append(out, identitiesOf(r)...)
		}
	}
	return out
}

func identitiesOf(r model.AuthRule) []model.StringMatch {
	var out []model.StringMatch
	for _, f := range r.From {
		out = append(append(out, f.Identities...), f.NotIdentities...)
	}
	for _, c := range r.When {
		if c.Kind == model.OnIdentity {
			out = append(append(out, c.Values...), c.NotValues...)
		}
	}
	return out
}

// AsksForMember reports whether it matters to a rule that the source is a member of a mesh.
func AsksForMember(r model.AuthRule) bool { return slices.ContainsFunc(identitiesOf(r), asksForMember) }

func asksForMember(m model.StringMatch) bool { return m.Kind == model.Present }

// verdictStage spreads a policy set over the classes of sources. A row is written
// only where it differs from what the row that is tried after it says.
func (b *builder) verdictStage() incr.Stage {
	return incr.Stage{Name: "plan/verdict",
		Keys: map[incr.Table]func(string, any) []string{sets: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			g, _ := r.Get(sets, key).(*Governed)
			if g == nil {
				return nil
			}
			var out []incr.Row
			put := func(v Verdict) { out = append(out, incr.Row{Table: Verdicts, Key: v.Key(), Value: &v}) }
			classes := r.All(Classes)
			for _, p := range append([]GovernedPort{{}}, g.Ports...) {
				for _, proto := range protocols(p.Port) {
					rest, rule := g.verdictAt(&Class{}, p, proto)
					put(Verdict{Set: g.ID, Any: true, Port: p.Port, Proto: proto, Action: rest, Rule: rule})
					for _, row := range classes {
						c := row.Value.(*Class)
						if a, rule := g.verdictAt(c, p, proto); a != rest {
							put(Verdict{Set: g.ID, Class: c.ID, Port: p.Port, Proto: proto, Action: a, Rule: rule})
						}
					}
				}
			}
			return out
		}}
}

func protocols(port uint16) []model.Protocol {
	if port == 0 {
		return []model.Protocol{""}
	}
	return []model.Protocol{model.TCP, model.UDP}
}
