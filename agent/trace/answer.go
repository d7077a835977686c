// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/netip"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Answer is what becomes of a query.
type Answer struct {
	Query
	Source Source `json:"source"`
	// Destination is the address that is dialled; invalid: nobody is known to have the
	// host, and it may be any address that nobody here has.
	Destination netip.AddrPort `json:"destination,omitzero"`
	Service     string         `json:"service,omitempty"` // ns/name:port, of the address
	// Mode says who balances; see plan.Mode. "": the address is no service's that is
	// steered, and the connection goes there as it is.
	Mode plan.Mode `json:"mode,omitempty"`
	// Steps tell the way, in order.
	Steps []Step `json:"steps"`
	// Route is the one that the request takes; nil: there is none, or nothing is routed.
	Route *Route `json:"route,omitempty"`
	// Outcomes with their shares of the requests; they make 1.
	Outcomes []Outcome `json:"outcomes"`
}

// Source is who sends.
type Source struct {
	Pod      string     `json:"pod,omitempty"` // ns/name
	Node     string     `json:"node,omitempty"`
	Addr     netip.Addr `json:"addr,omitzero"`
	Identity string     `json:"identity,omitempty"`
	Captured bool       `json:"captured,omitempty"`
	Observed bool       `json:"observed,omitempty"` // it would be captured, and is only observed
	Member   bool       `json:"member,omitempty"`   // of a mesh; else it has its Identity by its address alone

	labels map[string]string
}

// Step is one thing that happens, and who wants it so.
type Step struct {
	What    string         `json:"what"`
	Sources []model.Source `json:"sources,omitempty"`
}

// Route is a route of a table.
type Route struct {
	Table   string         `json:"table"`
	Index   int            `json:"index"` // from 1
	ID      string         `json:"id"`
	Sources []model.Source `json:"sources,omitempty"`
}

// Verdict is how a request ends as far as the mesh is concerned.
type Verdict string

const (
	Reached  Verdict = "reached"  // one of the endpoints gets it
	Answered Verdict = "answered" // the mesh answers by itself; see Status
	Denied   Verdict = "denied"   // a policy refuses it; Status is what the client sees, 0: nothing
	Lost     Verdict = "lost"     // there is nobody to take it; Status as for Denied
)

// Outcome is one of the ways in which a request may end.
type Outcome struct {
	Share   float64 `json:"share"` // of the requests
	Verdict Verdict `json:"verdict"`
	Status  uint32  `json:"status,omitempty"`
	// GRPC is what who asks by gRPC is told; nil: what Status means there.
	GRPC *uint32 `json:"grpc,omitempty"`
	// Cluster leads to the endpoints; "": the kernel balances, or nothing leads.
	Cluster   string         `json:"cluster,omitempty"`
	Endpoints []Endpoint     `json:"endpoints,omitempty"` // one of which gets it
	Sent      *Sent          `json:"sent,omitempty"`      // how the request arrives there
	Tunnel    *model.Tunnel  `json:"tunnel,omitempty"`    // that the endpoint is asked for, of a connection
	Why       string         `json:"why"`
	By        []model.Source `json:"by,omitempty"` // what decided
}

// Endpoint is an address with the pod that has it.
type Endpoint struct {
	Addr   netip.AddrPort `json:"addr"`
	Host   string         `json:"host,omitempty"` // in place of Addr: a name that is resolved
	Pod    string         `json:"pod,omitempty"`
	Weight uint32         `json:"weight,omitempty"` // among those of its priority
	// Priority is 0 for those that are used first; others are used when those before fail.
	Priority uint32 `json:"priority,omitempty"`
}

// Sent is a request as an endpoint gets it.
type Sent struct {
	Authority string         `json:"authority"`
	Path      string         `json:"path"` // with its query
	Set       []model.Header `json:"set,omitempty"`
	Added     []model.Header `json:"added,omitempty"`
	Removed   []string       `json:"removed,omitempty"`
}
