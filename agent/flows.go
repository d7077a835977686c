// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/accesslog"
)

// kernelFlow names what the kernel decided and keeps it.
func (a *agent) kernelFlow(f datapath.Flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := hubble.Flow{Time: f.Time, Node: a.opts.Node, Verdict: f.Verdict, Reason: f.Reason, Direction: f.Direction,
		Protocol: f.Protocol, Source: a.peer(f.Source), Destination: a.peer(f.Destination), Service: a.service(f.Protocol, f.Destination)}
	if f.Direction == datapath.Connect {
		out.Source, out.Upstream = hubble.Peer{}, f.Source
		out.Process = fmt.Sprintf("%s[%d]", f.Command, f.PID)
	}
	if f.Rule != 0 {
		out.Rule = fmt.Sprintf("%016x", f.Rule)
		out.DecidedBy = a.origin(out.Rule)
	} else if f.Reason == "policy" || f.Reason == "inbound" {
		out.DecidedBy = a.guards(f.Destination.Addr())
	}
	a.flows.Add(out)
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

func (a *agent) accessFlow(r accesslog.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := hubble.Flow{Time: r.Start, Node: a.opts.Node, Verdict: "forwarded", Direction: "proxy", Protocol: "TCP",
		Source: a.peer(r.Source), Destination: a.peer(r.Destination), Service: a.service("TCP", r.Destination), Upstream: r.Upstream}
	if r.Connection {
		out.Reason = strings.Join(r.Flags, ",")
	} else {
		out.HTTP = &hubble.HTTP{Method: r.Method, Authority: r.Authority, Path: r.Path, Status: r.Status, Flags: strings.Join(r.Flags, ","), Duration: r.Duration}
	}
	if r.Identity != "" {
		out.Source.Identity = r.Identity
	}
	out.Rule = r.Route
	out.DecidedBy = a.origin(r.Route)
	if m := deniedBy.FindStringSubmatch(r.Details); m != nil {
		out.Verdict, out.Reason, out.Rule = "denied", "policy", m[1]
		if out.DecidedBy = a.origin(m[1]); m[1] == "none" {
			// No rule allowed it: name those that guard the destination.
			out.Rule = ""
			guarded := r.Upstream.Addr()
			if !guarded.IsValid() {
				guarded = r.Destination.Addr()
			}
			out.DecidedBy = a.guards(guarded)
		}
	} else if r.Status >= 500 {
		out.Reason = r.Details
	}
	a.flows.Add(out)
}

// peer names an address.
func (a *agent) peer(at netip.AddrPort) hubble.Peer {
	p := hubble.Peer{Addr: at}
	if w := a.pipe.WorkloadAt(at.Addr()); at.IsValid() && w != nil {
		p.Pod, p.Identity = w.Key(), w.Identity
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
	out := make([]string, len(o.Sources))
	for i, s := range o.Sources {
		out[i] = s.String()
	}
	return out
}

// guards tells which permissions guard an address: what denied where no rule
// matched.
func (a *agent) guards(at netip.Addr) []string {
	w := a.pipe.WorkloadAt(at)
	if w == nil {
		return nil
	}
	return a.pipe.Guards(w.Key())
}
