// SPDX-License-Identifier: Apache-2.0

// Package plan computes one node's share of the configuration: keyed rows for the
// node's Envoy and for its kernel. It is pure: same tables, same rows, in any order.
//
// Rows are content: what they came from is in the Origin rows, keyed by the ids
// that appear in route names, RBAC policy names and kernel rule numbers.
package plan

import (
	"fmt"
	"net/netip"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// Tables of rows for Envoy, in the order in which they become ready; taken away
// in reverse. Row types are named in the comments.
const (
	Clusters    incr.Table = "plan/cluster"    // *Cluster, key Name
	Endpoints   incr.Table = "plan/endpoints"  // *ClusterEndpoints, key Cluster
	RouteTables incr.Table = "plan/routetable" // *RouteTable, key Name
	Scopes      incr.Table = "plan/scope"      // *Scope, key Destination
	Listeners   incr.Table = "plan/listener"   // *Listener, key Name
)

// Tables of rows for the kernel, in the order in which they are written.
const (
	Classes   incr.Table = "plan/class"   // *Class, key ID in hex (for people and tests; the kernel holds only its number)
	Addresses incr.Table = "plan/address" // *Address, key Addr
	Prefixes  incr.Table = "plan/prefix"  // *Prefix, key Prefix
	Verdicts  incr.Table = "plan/verdict" // *Verdict, key Key()
	Pods      incr.Table = "plan/pod"     // *Pod, key Addr
	Services  incr.Table = "plan/service" // *Service, key Key()
)

// Origins lead from ids back to what the user wrote.
const Origins incr.Table = "plan/origin" // *Origin, key ID

// Listener is a proxy port: clients of one identity that satisfy the same
// predicates share it. Its content hardly ever changes, because a changed
// listener drains its connections.
type Listener struct {
	Name string `json:"name"` // "out/http/<hash>" or "in/http"
	// Inbound listeners take connections for local pods from anywhere; they know
	// the source by its address alone.
	Inbound  bool     `json:"inbound,omitempty"`
	Identity string   `json:"identity,omitempty"` // SPIFFE id of the clients
	Selects  []string `json:"selects,omitempty"`  // sorted ids of predicates that they satisfy
}

// Scope leads requests for a destination to a route table.
type Scope struct {
	Destination netip.AddrPort `json:"destination"`
	RouteTable  string         `json:"routeTable"`
}

// RouteTable is the routes of one frontend, or of one local pod's port.
type RouteTable struct {
	Name   string  `json:"name"`
	Routes []Route `json:"routes"` // in order; no match: 404
}

// Route is one route with everything resolved to clusters. A route with neither
// Clusters, Direct nor Original answers 503.
type Route struct {
	ID    string           `json:"id"` // content hash; the route's name in Envoy, key of its Origin
	Match model.RouteMatch `json:"match"`
	// SourceSelects is the predicate that stands for Match.SourceLabels; the
	// listener's Selects must contain it. Match.SourceNamespace is matched against
	// the listener's Identity.
	SourceSelects string `json:"sourceSelects,omitempty"`

	Clusters []WeightedCluster `json:"clusters,omitempty"` // weights > 0
	Direct   *model.Direct     `json:"direct,omitempty"`
	// Original sends to the destination that the client had dialled (inbound).
	Original bool      `json:"original,omitempty"`
	App      model.App `json:"app,omitempty"` // of the original destination
	// Policy is judged before the request is routed (inbound listeners).
	Policy *Policy `json:"policy,omitempty"`

	RequestHeaders  model.HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders model.HeaderEdit `json:"responseHeaders,omitzero"`
	Rewrite         *model.Rewrite   `json:"rewrite,omitempty"`
	Mirrors         []Mirror         `json:"mirrors,omitempty"`
	Timeout         time.Duration    `json:"timeout,omitempty"`
	Retry           *model.Retry     `json:"retry,omitempty"`
}

// WeightedCluster is a share of a route.
type WeightedCluster struct {
	Name            string           `json:"name"`
	Weight          uint32           `json:"weight"`
	RequestHeaders  model.HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders model.HeaderEdit `json:"responseHeaders,omitzero"`
}

// Mirror copies a share of a route's requests to a cluster.
type Mirror struct {
	Cluster    string `json:"cluster"`
	PerMillion uint32 `json:"perMillion"`
}

// Cluster is a set of endpoints of one family that obey one policy. Name:
// "ns/svc:port" with "/<hash>" behind it where labels, and "~<hash>" where policies,
// make it a part of the service, and "@6" at the end for IPv6.
type Cluster struct {
	Name string    `json:"name"`
	App  model.App `json:"app"`
	// Policy is the destinations' policy, folded: judged in the cluster's upstream
	// filters, on the request as rewritten. Identities are compared with the
	// listener's. nil: nothing to check.
	Policy *Policy `json:"policy,omitempty"`
	// Checked says that connections leave from the source ports that tell the
	// destination's kernel that policy was judged here.
	Checked bool `json:"checked,omitempty"`
}

// ClusterEndpoints are a cluster's backends, sorted by first address.
type ClusterEndpoints struct {
	Cluster  string    `json:"cluster"`
	Backends []Backend `json:"backends,omitempty"`
}

// Backend is one endpoint by its addresses. Clusters of services are of one family
// and give one: where a backend has two, Envoy tries the first, in vain, for clients
// of the other family.
type Backend struct {
	Addrs []netip.AddrPort `json:"addrs"`
}

// Policy is what a request must pass: no rule of Deny matches, and of each group
// in Allow at least one rule matches. Rules hold request parts and sources only:
// ports were resolved. All lists are sorted by content and without repeats.
type Policy struct {
	Deny  []model.AuthRule   `json:"deny,omitempty"`
	Allow [][]model.AuthRule `json:"allow,omitempty"`
	// Known lists, for policies judged by address (inbound), the addresses of
	// every identity that some rule could match; sorted by Identity.
	Known []KnownIdentity `json:"known,omitempty"`
}

// KnownIdentity is an identity and the addresses that have it.
type KnownIdentity struct {
	Identity  string       `json:"identity"`
	Addresses []netip.Addr `json:"addresses"`
}

// Class is a set of sources that no policy of the mesh can tell apart: one
// identity (or none) inside one set of prefixes.
type Class struct {
	ID       uint64         `json:"id"` // 0 is everything that is in no other class
	Identity string         `json:"identity,omitempty"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"` // all that contain it, sorted
	// Unassigned: a pod's address that no known pod has. Nobody can say what it may
	// do, so no governed pod lets it in.
	Unassigned bool `json:"unassigned,omitempty"`
}

// Address tells the kernel whose an address is.
type Address struct {
	Addr  netip.Addr `json:"addr"`
	Class uint64     `json:"class"`
	// Managed: a pod of a node that runs Fairlead, so that the proxy's source
	// ports can be believed.
	Managed bool `json:"managed,omitempty"`
	// Node: an address of a node itself.
	Node bool `json:"node,omitempty"`
}

// Prefix gives a class to addresses outside the Address table; the longest wins.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	Class  uint64       `json:"class"`
}

// Action is what the kernel does with a packet for a pod.
type Action string

const (
	Allow  Action = "allow"
	Deny   Action = "deny"   // refused by the kernel
	Check  Action = "check"  // needs the request: only from a proxy that checked it, else through the inbound listener
	Refuse Action = "refuse" // denied on an HTTP port: the inbound listener answers 403
)

// Verdict is one tuple of the policy table. The kernel tries (class, port),
// (any, port), (class, any port), (any, any port) and the first that is there
// decides; nothing there: denied.
type Verdict struct {
	Set    uint64         `json:"set"`
	Class  uint64         `json:"class"`           // meaningless if Any
	Any    bool           `json:"any,omitempty"`   // any class
	Port   uint16         `json:"port"`            // the workload's; 0 = any
	Proto  model.Protocol `json:"proto,omitempty"` // "" with port 0
	Action Action         `json:"action"`
	Rule   uint64         `json:"rule,omitempty"` // Origin that decided; 0 = default
}

// Key of the verdict in its table.
func (v *Verdict) Key() string {
	c := fmt.Sprintf("%016x", v.Class)
	if v.Any {
		c = "any"
	}
	return fmt.Sprintf("%016x/%s/%s/%d", v.Set, c, v.Proto, v.Port)
}

// Pod is a local pod's address.
type Pod struct {
	Addr netip.Addr `json:"addr"`
	Name string     `json:"name"` // ns/name
	// Set is its policy set; 0 = nobody governs it, everything may come in.
	Set uint64 `json:"set,omitempty"`
	// Listener is the outbound listener that takes its requests; "" = not captured.
	Listener   string   `json:"listener,omitempty"`
	ProbePorts []uint16 `json:"probePorts,omitempty"`
}

// Mode says who balances a service.
type Mode string

const (
	Kernel Mode = "kernel" // per connection, at connect
	HTTP   Mode = "http"   // captured pods keep the address and go through the proxy
)

// Service is one address and port that the kernel knows.
type Service struct {
	Addr     netip.Addr      `json:"addr"`
	Port     uint16          `json:"port"`
	Protocol model.Protocol  `json:"protocol"`
	Name     string          `json:"name"` // ns/name, for people
	Mode     Mode            `json:"mode"`
	Affinity time.Duration   `json:"affinity,omitempty"`
	Backends []KernelBackend `json:"backends,omitempty"` // sorted by Addr; for clients that are not proxied
}

// Key of the service in its table.
func (s *Service) Key() string {
	return fmt.Sprintf("%s/%s", s.Protocol, netip.AddrPortFrom(s.Addr, s.Port))
}

// KernelBackend is an endpoint with its share; weights are small whole numbers.
type KernelBackend struct {
	Addr   netip.AddrPort `json:"addr"`
	Weight uint32         `json:"weight"`
}

// Origin names what an id came from. The id is a route's ID, or a rule's in 16 hex
// digits as in the kernel's Rule and the RBAC policy names.
type Origin struct {
	ID      string         `json:"id"`
	Sources []model.Source `json:"sources"`
}
