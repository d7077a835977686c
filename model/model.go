// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
)

// Protocol is a transport protocol.
type Protocol string

const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// App is the application protocol of a port. Only declared protocols are proxied.
type App string

const (
	AppUndeclared App = ""     // nothing was said
	AppHTTP       App = "http" // HTTP/1.1, also WebSocket
	AppHTTP2      App = "http2"
	AppGRPC       App = "grpc"
	AppTCP        App = "tcp" // opaque
	AppTLS        App = "tls" // opaque, TLS by the application
	// AppDetect: nobody said, and its plane has the first bytes looked at: HTTP takes
	// a frontend's Routes, anything else its Connections.
	AppDetect App = "detect"
)

// IsHTTP reports whether the port speaks HTTP and nothing else.
func (a App) IsHTTP() bool { return a == AppHTTP || a == AppHTTP2 || a == AppGRPC }

// HasRequests reports whether a proxy can see requests of the port: it is HTTP, or
// found to be so connection by connection.
func (a App) HasRequests() bool { return a.IsHTTP() || a == AppDetect }

// Namespace carries what the plan needs to know about a namespace.
// Table "namespace", key: name.
type Namespace struct {
	Name    string `json:"name"`
	Owner   string `json:"owner,omitempty"` // plane that the user chose (fairlead.io/control-plane), "" if none
	Capture bool   `json:"capture,omitempty"`
	// Observed: what policy and capture come to for its workloads is told, and not done.
	Observed bool `json:"observed,omitempty"`
	// Proxy is the namespace's own on each node; nil: its workloads share the node's.
	Proxy *OwnProxy `json:"proxy,omitempty"`
	// DefaultDeny lists planes whose configured default for the namespace is to
	// deny what no policy of theirs allows; sorted.
	DefaultDeny []string `json:"defaultDeny,omitempty"`
	// Exempt are who needs no permission of a plane at the namespace's workloads, by
	// plane, each at most once; sorted. What a plane denies them stays denied.
	Exempt []Exemption `json:"exempt,omitempty"`
	// Mesh is the plane whose mark the namespace carries, "" if none: its defaults
	// hold for frontends that no plane routes.
	Mesh string `json:"mesh,omitempty"`
	// Choice overrides what the plane says for the namespace's frontends.
	Choice Choice `json:"choice,omitzero"`
	Src    Source `json:"-"`
}

// Exemption lets sources pass a plane's permissions.
type Exemption struct {
	Plane string   `json:"plane"`
	From  []Peer   `json:"from"`
	Src   []Source `json:"-"`
}

// Basis says by what a request to a frontend is routed.
type Basis string

const (
	ByDestination Basis = "destination" // the address that it goes to, whatever host it names
	// ByAuthority: a request that names another host than the frontend's own goes to
	// the frontend of that name and port, if there is one.
	ByAuthority Basis = "authority"
)

// Unknown says what becomes of a request that is routed by authority and names a
// host that nobody knows.
type Unknown string

const (
	UnknownPass   Unknown = "pass"   // on to the address that it goes to
	UnknownRefuse Unknown = "refuse" // answered with 502
)

// Choice is how a frontend treats hosts that are not its own; empty fields are open.
type Choice struct {
	Basis   Basis   `json:"basis,omitempty"`
	Unknown Unknown `json:"unknown,omitempty"` // ByAuthority only
}

// UnknownFrom is what becomes of hosts that nobody knows for some clients: those of a
// namespace ("": of any) that carry the labels.
type UnknownFrom struct {
	SourceNamespace string            `json:"sourceNamespace,omitempty"`
	SourceLabels    map[string]string `json:"sourceLabels,omitempty"`
	Unknown         Unknown           `json:"unknown"`
	Src             []Source          `json:"-"`
}

// Defaults are what a plane does with services that it says nothing about. Table
// "defaults", key: the plane.
type Defaults struct {
	Choice
	// UnknownFrom come before Unknown, the frontend's and the namespace's too; the first
	// that is about the client counts. One that refuses also closes connections to what is
	// no service's, whatever the Basis.
	UnknownFrom []UnknownFrom `json:"unknownFrom,omitempty"`
	// Retry is for requests to them; nil: none.
	Retry *Retry   `json:"retry,omitempty"`
	Src   []Source `json:"-"`
}

// Node is a machine that runs workloads. Table "node", key: name.
type Node struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// PodRanges are where its pods' addresses come from; sorted. An address in them
	// that no known pod has is a pod that is not known yet.
	PodRanges []netip.Prefix `json:"podRanges,omitempty"`
	// Managed says that a Fairlead agent runs there, so that its kernel keeps its
	// pods from using addresses and ports that are not theirs.
	Managed bool `json:"managed,omitempty"`
	// Behind says of a managed node that it may not have applied what is configured by
	// now: what its proxy has checked of a new connection does not count.
	Behind   bool     `json:"behind,omitempty"`
	Locality Locality `json:"locality,omitzero"`
	Src      Source   `json:"-"`
}

// Locality is where a node or a workload is, from wide to narrow; empty is unknown.
type Locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"subZone,omitempty"`
}
