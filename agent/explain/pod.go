// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Pod is what becomes of what a pod sends and receives.
type Pod struct {
	Name      string       `json:"name"` // ns/name
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"`
	Identity  string       `json:"identity"`
	// Member: of a mesh; else it has its identity by its address alone.
	Member bool         `json:"member"`
	Source model.Source `json:"source"`
	// Captured pods' connections to services are taken to the proxy where it routes.
	Captured bool `json:"captured"`
	// Observed: none of it is done; it is told what would be. Mode says who wants it so; nil:
	// whoever started the agent.
	Observed bool          `json:"observed,omitempty"`
	Mode     *model.Source `json:"mode,omitempty"`
	Why      string        `json:"why"` // it is captured or not
	By       *model.Source `json:"by,omitempty"`
	// Local says that the pod is on the node whose plan this is; Listeners and the
	// route tables of Ports are there of local pods alone.
	Local     bool                 `json:"local"`
	Listeners map[plan.Mode]string `json:"listeners,omitempty"` // that take what it sends, by mode
	// Policy is what governs it, over all ports; nil: nobody does, and everything may
	// come in. GovernedBy are the objects that say so, also where no rule matches.
	Policy     *Policy        `json:"policy,omitempty"`
	GovernedBy []model.Source `json:"governedBy,omitempty"`
	Ports      []PodPort      `json:"ports,omitempty"` // that policies or services tell apart
	// ProbePorts are always open to the node's own probes.
	ProbePorts []uint16 `json:"probePorts,omitempty"`
}

// PodPort is one port of a pod.
type PodPort struct {
	Port uint16    `json:"port"`
	App  model.App `json:"app,omitempty"` // "": opaque
	// Judged says who judges what comes in: "" nobody, "kernel" each connection by
	// its source, "proxy" requests, where it depends on them, "inbound" all requests, at
	// the pod's node.
	Judged     string `json:"judged,omitempty"`
	RouteTable string `json:"routeTable,omitempty"` // of what comes in past no proxy of the mesh
	// Inbound is there if all requests have to pass the node's inbound listener, whoever
	// judged them before.
	Inbound *Inbound `json:"inbound,omitempty"`
}

// Inbound is what is done with requests where they come in.
type Inbound struct {
	// Routes in order; no match: 404. None: all pass, as the pod's Policy says.
	Routes []InboundRoute `json:"routes,omitempty"`
	// RateLimit counts what routes and permissions let in, but for what is redirected.
	RateLimit *model.RateLimit `json:"rateLimit,omitempty"`
	Sources   []model.Source   `json:"sources"`
}

// InboundRoute is a route; Allow comes on top of the pod's Policy.
type InboundRoute struct {
	Match           model.RouteMatch `json:"match"`
	Allow           []Rule           `json:"allow"`
	Redirect        *model.Redirect  `json:"redirect,omitempty"`
	RequestHeaders  model.HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders model.HeaderEdit `json:"responseHeaders,omitzero"`
	Sources         []model.Source   `json:"sources"`
}

func inboundOf(t *view, workload string, port uint16) *Inbound {
	in := plan.InboundOf(t, workload, port)
	if in == nil {
		return nil
	}
	out := &Inbound{RateLimit: in.RateLimit, Sources: in.Src}
	for i := range in.Routes {
		r := &in.Routes[i]
		allow := rules(t, r.Allow, []string{workload})
		for j := range allow { // as it is judged it may have another id
			if len(allow[j].Sources) == 0 {
				allow[j].Sources = r.Allow[j].Src
			}
		}
		out.Routes = append(out.Routes, InboundRoute{Match: r.Match, Allow: allow, Redirect: r.Redirect,
			RequestHeaders: r.RequestHeaders, ResponseHeaders: r.ResponseHeaders, Sources: r.Src})
	}
	return out
}

// Who judges what comes in to a port.
const (
	byKernel  = "kernel"
	byProxy   = "proxy"
	byInbound = "inbound"
)

func pod(t *view, key string) *Pod {
	w, _ := t.Get(translators.Workloads, key).(*model.Workload)
	if w == nil {
		return nil
	}
	c := CaptureOf(t, w)
	out := &Pod{Name: key, Node: w.Node, Addresses: w.Addresses, Identity: w.Identity, Member: w.Member(), Source: w.Src,
		Captured: c.Captured, Why: c.Why, By: c.By, ProbePorts: w.ProbePorts}
	out.Observed = w.Observed
	if ns, _ := t.Get(translators.Namespaces, w.Namespace).(*model.Namespace); ns != nil && w.Observed {
		if o := translators.ObjectOf(t, ns.Src); o != nil && o.Annotations[kubernetes.ModeKey] != "" {
			s := o.Source(ns.Src.Plane, `metadata.annotations["`+kubernetes.ModeKey+`"]`)
			out.Mode = &s
		}
	}
	for _, a := range w.Addresses {
		if row, ok := t.Get(plan.Pods, a.String()).(*plan.Pod); ok && row.Name == key {
			out.Local, out.Listeners = true, row.Listeners
		}
	}
	g, _ := t.Get(plan.Governance, key).(*plan.Governed)
	if g == nil {
		return out
	}
	out.GovernedBy = g.Src
	out.Policy = policyOf(t, g.Deny, g.Allow, []string{key})
	for _, p := range g.Ports {
		port := PodPort{Port: p.Port, App: p.App, Inbound: inboundOf(t, key, p.Port)}
		switch at := g.Policy(p.Port); {
		case port.Inbound != nil:
			port.Judged = byInbound
		case at == nil:
		case p.App.HasRequests():
			port.Judged = byProxy
		default:
			port.Judged = byKernel
		}
		for _, a := range w.Addresses {
			if s, ok := t.Get(plan.Scopes, plan.InboundKey(netip.AddrPortFrom(a, p.Port))).(*plan.Scope); ok && p.App.HasRequests() {
				port.RouteTable = s.RouteTable
			}
		}
		out.Ports = append(out.Ports, port)
	}
	return out
}

// Capture is whether a pod's connections are taken to the proxy, and why.
type Capture struct {
	Captured bool          `json:"captured"`
	Why      string        `json:"why"`
	By       *model.Source `json:"by,omitempty"` // the mark that says so
}

// CaptureOf says it of a workload: by a mark of its own or of its namespace, unless
// something keeps it from being so.
func CaptureOf(t Tables, w *model.Workload) Capture {
	out := Capture{Captured: w.Capture}
	var ns *objects.Object
	if row, _ := t.Get(translators.Namespaces, w.Namespace).(*model.Namespace); row != nil {
		ns = translators.ObjectOf(t, row.Src)
	}
	m := kubernetes.CaptureMark(translators.ObjectOf(t, w.Src), ns)
	if m.Object != nil {
		s := m.Object.Source(w.Src.Plane, m.Field)
		out.By, out.Why = &s, "the pod's mark says so"
		if m.Object == ns {
			out.Why = "the namespace's mark says so"
		}
	}
	switch {
	case w.Sidecar:
		out.Why = "another mesh's proxy still takes its connections"
	case m.Object == nil:
		out.Why = "neither the pod nor its namespace is marked"
	case m.On && !out.Captured:
		out.Why = "it is in the node's network, and cannot be told from the node"
	}
	return out
}
