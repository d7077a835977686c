// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/render"
)

// kernelFlow names what the kernel decided and keeps it.
func (a *agent) kernelFlow(f datapath.Flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := hubble.Flow{Time: f.Time, Node: a.opts.Node, Verdict: f.Verdict, Reason: f.Reason, Direction: f.Direction,
		Protocol: f.Protocol, Source: a.peer(f.Source), Destination: a.peer(f.Destination), Service: a.service(f.Protocol, f.Destination)}
	if f.Direction == datapath.Connect {
		out.Source, out.Upstream = hubble.Peer{Pod: f.Client}, f.Source
		out.Process = fmt.Sprintf("%s[%d]", f.Command, f.PID)
		a.heldToServices(&out)
	}
	if f.Rule != 0 {
		out.Rule = fmt.Sprintf("%016x", f.Rule)
		out.DecidedBy = texts(plan.RuleSources(a.pipe, out.Rule, a.guarded(f.Destination.Addr())))
	} else if slices.Contains(governs, f.Reason) || f.Reason == datapath.WouldProxy && f.Direction == datapath.ToPod {
		out.DecidedBy = a.pipe.Guards(a.guarded(f.Destination.Addr()))
	}
	out.Explain()
	a.flows.Add(out)
}

// governs are reasons that only pods have which something governs.
var governs = []string{hubble.ByPolicy, hubble.Unchecked, hubble.Fragment, "inbound"}

// heldToServices tells who has it that a pod gets nowhere but to services, of one that dialled
// something else: to the kernel it is an address without a backend.
func (a *agent) heldToServices(out *hubble.Flow) {
	w, _ := a.pipe.Get(translators.Workloads, out.Source.Pod).(*model.Workload)
	if w == nil {
		return
	}
	out.Source.Identity = w.Identity
	if out.Reason == hubble.NoBackend && out.Service == "" && plan.UnknownOf(a.pipe, w) == model.UnknownRefuse {
		out.Reason, out.DecidedBy = hubble.UnknownHost, texts(plan.UnknownSources(a.pipe, w, ""))
	}
}

// accessRecords names what Envoy answered and keeps it.
func (a *agent) accessRecords(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-a.alog.Records():
			a.accessFlow(r)
		}
	}
}

// deniedBy takes the rule's id from Envoy's details of an answer.
var deniedBy = regexp.MustCompile(`rbac_access_denied_matched_policy\[([0-9a-z]*)\]`)

// Envoy's details of an answer that the authority filter gave: the host is nobody's,
// and where it was asked for refuses such.
const unknownHost = "ext_authz_denied"

// unreached are the flags of connections that came to no backend.
var unreached = []string{"UF", "UH", "UO", "UT", "NC", "NR", "DF"}

func (a *agent) accessFlow(r accesslog.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := hubble.Flow{Time: r.Start, Node: a.opts.Node, Verdict: "forwarded", Direction: "proxy", Protocol: "TCP",
		Source: a.peer(r.Source), Destination: a.peer(r.Destination), Service: a.service("TCP", r.Destination),
		Cluster: r.Cluster, Upstream: r.Upstream, Rule: r.Route, DecidedBy: a.origin(r.Route)}
	if r.Identity != "" {
		out.Source.Identity = r.Identity
	}
	if words := strings.Join(r.Flags, ","); r.Connection {
		out.TCP = &hubble.TCP{Sent: r.RequestBytes, Received: r.ResponseBytes, ServerName: r.ServerName, Flags: words, Duration: r.Duration}
		if slices.ContainsFunc(r.Flags, func(f string) bool { return slices.Contains(unreached, f) }) {
			out.Verdict, out.Reason = "dropped", words
		}
	} else {
		out.HTTP = &hubble.HTTP{Method: r.Method, Authority: r.Authority, Path: r.Path, Status: r.Status, Flags: words, Duration: r.Duration}
		a.answered(&out, r)
	}
	out.Explain()
	a.flows.Add(out)
}

// Envoy's details of answers to requests that were too many, and that no route takes.
const (
	tooMany = "local_rate_limited"
	noRoute = "route_not_found"
)

// answered tells what a request's answer says of who decided.
func (a *agent) answered(out *hubble.Flow, r accesslog.Record) {
	m := deniedBy.FindStringSubmatch(r.Details)
	if r.Would != nil {
		a.audited(out, r)
		return
	}
	in := plan.InboundOf(a.pipe, a.guarded(r.Destination.Addr()), r.Destination.Port())
	switch {
	case r.Details == tooMany:
		out.Verdict, out.Reason, out.Rule, out.DecidedBy = "denied", hubble.RateLimit, "", saidBy(in)
	case in != nil && r.Details == noRoute:
		out.Verdict, out.Reason, out.Rule, out.DecidedBy = "denied", hubble.NoRoute, "", saidBy(in)
	case m != nil && m[1] == "none" && in != nil:
		// Nor did the route that the request took.
		out.Verdict, out.Reason, out.Rule = "denied", hubble.ByPolicy, ""
		out.DecidedBy = append(a.pipe.Guards(a.judgedFor(r)), a.origin(r.Route)...)
	case m != nil && (m[1] == "none" || m[1] == render.AmbiguousPath):
		// No rule allowed it, or its path could be read as another: name those that guard the destination.
		out.Verdict, out.Reason, out.Rule, out.DecidedBy = "denied", hubble.ByPolicy, "", a.pipe.Guards(a.judgedFor(r))
	case m != nil:
		out.Verdict, out.Reason, out.Rule, out.DecidedBy = "denied", hubble.ByPolicy, m[1], texts(plan.RuleSources(a.pipe, m[1], a.judgedFor(r)))
	case r.Details == unknownHost:
		out.Verdict, out.Reason = "denied", hubble.UnknownHost
		if w := a.pipe.WorkloadAt(r.Source.Addr()); w != nil {
			out.DecidedBy = texts(plan.UnknownSources(a.pipe, w, out.Service))
		}
	case r.Status >= 500:
		out.Reason = r.Details
	}
}

// audited tells what a policy that is not enforced would have refused.
func (a *agent) audited(out *hubble.Flow, r accesslog.Record) {
	out.Verdict, out.Reason, out.Rule = datapath.Audited, hubble.ByPolicy, r.Would.Rule
	if r.Would.Rule == "" {
		out.DecidedBy = a.pipe.Guards(a.judgedFor(r))
		return
	}
	out.DecidedBy = texts(plan.RuleSources(a.pipe, r.Would.Rule, a.judgedFor(r)))
}

// saidBy names what a port's routes and limits came from.
func saidBy(in *plan.Inbound) []string {
	if in == nil {
		return nil
	}
	return texts(in.Src)
}

// peer names an address.
func (a *agent) peer(at netip.AddrPort) hubble.Peer {
	p := hubble.Peer{Addr: at}
	if w := a.pipe.WorkloadAt(at.Addr()); at.IsValid() && w != nil {
		p.Pod, p.Identity = w.Key(), w.Identity
	} else if slices.Contains(a.host.get(), at.Addr()) {
		p.Node = a.opts.Node
	}
	return p
}

// service names the service that has an address and port, "" if none has.
func (a *agent) service(protocol string, at netip.AddrPort) string {
	key := (&plan.Service{Addr: at.Addr(), Port: at.Port(), Protocol: model.Protocol(protocol)}).Key()
	if s, ok := a.pipe.Get(plan.Services, key).(*plan.Service); ok {
		return fmt.Sprintf("%s:%d", s.Name, s.Port)
	}
	return ""
}

// origin tells what the user wrote that an id came from.
func (a *agent) origin(id string) []string {
	o, ok := a.pipe.Get(plan.Origins, id).(*plan.Origin)
	if !ok {
		return nil
	}
	return texts(o.Sources)
}

func texts(in []model.Source) []string {
	var out []string
	for _, s := range in {
		out = append(out, s.String())
	}
	return out
}

// guarded is the workload (ns/name) that has an address, "" if none is known.
func (a *agent) guarded(at netip.Addr) string {
	if w := a.pipe.WorkloadAt(at); w != nil {
		return w.Key()
	}
	return ""
}

// judgedFor is the workload (ns/name) whose policy Envoy judged a request by: the
// endpoint, or else, as on the way in, the destination. Before an endpoint of a service
// was chosen it is any of the cluster's, which all obey one policy. "" if it is not known.
func (a *agent) judgedFor(r accesslog.Record) string {
	for _, at := range []netip.AddrPort{r.Upstream, r.Destination} {
		if w := a.guarded(at.Addr()); w != "" {
			return w
		}
	}
	e, _ := a.pipe.Get(plan.Endpoints, r.Cluster).(*plan.ClusterEndpoints)
	if e == nil {
		return ""
	}
	for _, b := range e.Backends {
		for _, at := range b.Addrs {
			if w := a.guarded(at.Addr()); w != "" {
				return w
			}
		}
	}
	return ""
}
