// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// page is text with indents; errors of the writer are kept for the end.
type page struct {
	w   io.Writer
	err error
}

func (p *page) line(indent int, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, strings.Repeat("  ", indent)+format+"\n", args...)
	}
}

func (p *page) sources(indent int, all []model.Source) {
	for _, s := range all {
		p.line(indent, "- %s", s)
	}
}

func printExplanation(w io.Writer, e *agent.Explanation) error {
	p := &page{w: w}
	for i := range e.Frontends {
		if i > 0 {
			p.line(0, "")
		}
		p.frontend(&e.Frontends[i], e.Live)
	}
	if e.Pod != nil {
		if len(e.Frontends) > 0 {
			p.line(0, "")
		}
		p.pod(e.Pod, e.Live)
	}
	if len(e.Diagnostics) > 0 {
		p.line(0, "")
	}
	for _, d := range e.Diagnostics {
		printDiagnostic(w, d)
	}
	if e.Live != nil {
		if p.err == nil {
			p.err = printRejected(w, e.Live.Rejected, time.Now())
		}
	}
	return p.err
}

func (p *page) frontend(f *explain.Frontend, live *agent.Live) {
	p.line(0, "%s %s", f.Key, strings.TrimSpace(string(f.Protocol)+" "+string(f.App)))
	if len(f.Addresses) > 0 {
		p.line(1, "addresses: %s", joinWords(f.Addresses, ", ", netip.AddrPort.String))
	}
	if o := f.Owner; o != nil {
		p.line(1, "owner: %s: %s", o.Plane, o.Why)
		if len(o.Standby) > 0 {
			p.line(1, "standby: %s", strings.Join(o.Standby, ", "))
		}
	} else {
		p.line(1, "owner: no plane")
	}
	p.sources(2, f.Sources)
	p.line(1, "mode: %s: %s", f.Mode, f.Why)
	if r := f.Routing; r != nil {
		switch r.Basis {
		case model.ByAuthority:
			p.line(1, "routed by: authority: another host than its own leads to the frontend of that host; one that nobody knows: %s", unknownWord(r.Unknown))
			if len(r.Hosts) > 0 {
				p.line(2, "own hosts: %s", strings.Join(r.Hosts, ", "))
			}
		default:
			p.line(1, "routed by: destination: whatever host a request names")
		}
	}
	if len(f.Routes) > 0 {
		p.line(1, "routes:")
	}
	for i := range f.Routes {
		r := &f.Routes[i]
		p.line(2, "%d. %s -> %s", i+1, matchText(&r.Match), actionText(&r.Route, f.Backend))
		p.sources(3, r.Sources)
	}
	if len(f.Connections) > 0 {
		p.line(1, "connections:")
	}
	for _, c := range f.Connections {
		on := ""
		if c.Tunnel != nil {
			on = ", through its endpoints to " + c.Tunnel.String()
		}
		p.line(2, "%s%s", connectionText(c), on)
		p.sources(3, c.Sources)
	}
	if len(f.Clusters) > 0 {
		p.line(1, "clusters:")
	}
	for _, c := range families(f.Clusters) {
		p.cluster(c)
	}
	p.balanced(f)
	if live != nil && len(f.RouteTables) > 0 {
		p.line(1, "in use: %s", usedText(f, live))
	}
}

// balanced tells where the kernel leads whom.
func (p *page) balanced(f *explain.Frontend) {
	what := "balanced by the kernel:"
	switch {
	case f.Routed != nil:
		p.endpoints("routed by the kernel, for captured clients:", f.Routed)
		what = "for clients that are not captured:"
	case len(f.Balanced) == 0:
		return
	case f.Mode != plan.Kernel:
		what = "for clients that are not proxied:"
	}
	p.endpoints(what, f.Balanced)
}

func (p *page) endpoints(what string, all []explain.Endpoint) {
	p.line(1, "%s", what)
	for _, e := range all {
		p.line(2, "%s", endpointText(e))
	}
	if len(all) == 0 {
		p.line(2, "nobody: connections are refused")
	}
}

func unknownWord(u model.Unknown) string {
	if u == model.UnknownRefuse {
		return "refused with 502"
	}
	return "passed on to where it was going"
}

func usedText(f *explain.Frontend, live *agent.Live) string {
	if live.InUseError != "" {
		return "not known: " + live.InUseError
	}
	var used []string
	for _, n := range f.RouteTables {
		if slices.Contains(live.InUse, n) {
			used = append(used, n)
		}
	}
	if len(used) == 0 {
		return "no: Envoy has not asked for its routes"
	}
	return "yes: Envoy has " + strings.Join(used, ", ")
}

// families puts clusters together that differ in the family of their addresses alone.
func families(all []explain.Cluster) []explain.Cluster {
	at := map[string]int{}
	var out []explain.Cluster
	for _, c := range all {
		if i, ok := at[strings.TrimSuffix(c.Name, "@6")]; ok && string(model.Bytes(out[i].Policy)) == string(model.Bytes(c.Policy)) {
			for _, e := range c.Endpoints {
				if !slices.Contains(out[i].Endpoints, e) { // those by name are of both
					out[i].Endpoints = append(out[i].Endpoints, e)
				}
			}
			continue
		}
		at[c.Name] = len(out)
		out = append(out, c)
	}
	return out
}

func (p *page) cluster(c explain.Cluster) {
	judged := "no policy on the way"
	switch {
	case c.Policy != nil:
		judged = "policy judged on the way"
	case c.Inbound:
		judged = "judged by the inbound listeners of the endpoints' nodes"
	case !c.Checked:
		judged = "policy, if any, judged at the endpoints"
	}
	p.line(2, "%s (%s, %s)", c.Backend, orDash(string(c.App)), judged)
	if c.Name != c.Backend {
		p.line(3, "in Envoy: %s", c.Name)
	}
	switch {
	case c.Original:
		p.line(3, "the address that the client has dialled")
	case len(c.Endpoints) == 0:
		p.line(3, "no endpoints")
	}
	for _, e := range c.Endpoints {
		p.line(3, "%s", endpointText(e))
	}
	p.policy(3, c.Policy)
}

func (p *page) policy(indent int, pol *explain.Policy) {
	if pol == nil {
		return
	}
	for _, r := range pol.Deny {
		p.rule(indent, "denied if", r)
	}
	for _, g := range pol.Allow {
		if len(g) == 0 {
			p.line(indent, "allowed: nothing")
		}
		for i, r := range g {
			word := "allowed if"
			if i > 0 {
				word = "or if"
			}
			p.rule(indent, word, r)
		}
	}
}

func (p *page) rule(indent int, word string, r explain.Rule) {
	p.line(indent, "%s %s (rule %s)", word, ruleText(r.AuthRule), r.ID)
	p.sources(indent+1, r.Sources)
}

func (p *page) pod(o *explain.Pod, live *agent.Live) {
	p.line(0, "pod %s on %s", o.Name, orDash(o.Node))
	p.sources(2, []model.Source{o.Source})
	p.line(1, "addresses: %s", joinWords(o.Addresses, ", ", netip.Addr.String))
	identity := o.Identity
	if !o.Member {
		identity += ", not a member of the mesh"
	}
	p.line(1, "identity: %s", identity)
	captured := "no"
	if o.Captured {
		captured = "yes"
	}
	p.line(1, "captured: %s: %s", captured, o.Why)
	if o.By != nil {
		p.sources(2, []model.Source{*o.By})
	}
	if o.Observed {
		p.line(1, "observed: not enforced: what is said below is told in flows, and not done")
		if o.Mode != nil {
			p.sources(2, []model.Source{*o.Mode})
		} else {
			p.line(2, "by default: its namespace does not say otherwise")
		}
	}
	if o.Captured && !o.Local {
		p.line(1, "listeners: those of its own node")
	}
	for _, m := range plan.Modes() {
		l := o.Listeners[m]
		if l == "" {
			continue
		}
		at := ""
		if live != nil {
			at = " at port " + fmt.Sprint(live.Ports[l])
			if live.Ports[l] == 0 {
				at = ", which Envoy has not acknowledged"
			}
		}
		p.line(1, "listener: %s: %s%s", m, l, at)
	}
	if o.Policy == nil {
		p.line(1, "policy: nobody governs it: everything may come in")
	} else {
		p.line(1, "policy:")
		p.policy(2, o.Policy)
		p.line(2, "governed by")
		p.sources(3, o.GovernedBy)
	}
	for _, port := range o.Ports {
		judged := "nothing is judged"
		switch port.Judged {
		case "kernel":
			judged = "the kernel judges each connection"
		case "proxy":
			judged = "the kernel judges what it can, a proxy the requests"
		case "inbound":
			judged = "all requests pass the node's inbound listener"
		}
		app := string(port.App)
		if app == "" {
			app = "opaque"
		}
		p.line(1, "port %d: %s: %s", port.Port, app, judged)
		p.inbound(2, port.Inbound)
	}
	if len(o.ProbePorts) > 0 {
		p.line(1, "open to the node's probes: %s", joinWords(o.ProbePorts, ", ", portText))
	}
}

func endpointText(e explain.Endpoint) string {
	s := e.Host
	if e.Addr.IsValid() {
		s = e.Addr.String()
	}
	if e.Pod != "" {
		s += " " + e.Pod
	}
	if e.Weight > 0 {
		s += fmt.Sprintf(" weight %d", e.Weight)
	}
	return s
}

func connectionText(c explain.Connection) string {
	s := "to " + c.To.String()
	switch {
	case c.ServerName != "":
		s += " for " + c.ServerName
	case strings.HasPrefix(c.Cluster, "tls|"):
		s += " for any other server name, or none"
	}
	if c.Client != "" {
		s += " from clients of class " + c.Client
		if len(c.Pods) > 0 {
			s += " (" + strings.Join(c.Pods, ", ") + ")"
		}
	}
	return s
}
