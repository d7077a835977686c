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
	Scopes      incr.Table = "plan/scope"      // *Scope, key Key
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

// Proxies are those that namespaces have of their own on the node.
const Proxies incr.Table = "plan/proxy" // *Proxy, key Name

// Origins lead from ids back to what the user wrote.
const Origins incr.Table = "plan/origin" // *Origin, key ID

// Listener is a proxy port: clients of one identity that satisfy the same
// predicates share it, one for each mode. Its content hardly ever changes, because a
// changed listener drains its connections.
type Listener struct {
	Name string `json:"name"` // "out/<mode>/<hash>" or "in/http", and "@<proxy>" behind it
	// Mode says how its connections are read: HTTP, Any, Detect, TLS or Opaque.
	Mode Mode `json:"mode"`
	// DetectTimeout is how long a Detect listener waits for the first bytes; 0: for ever.
	DetectTimeout time.Duration `json:"detectTimeout,omitempty"`
	// Inbound listeners take connections for local pods from anywhere; they know
	// the source by its address alone. HTTP only.
	Inbound bool `json:"inbound,omitempty"`
	// Proxy is whose it is: a key of Proxies; "": the node's. See SharedName.
	Proxy    string   `json:"proxy,omitempty"`
	Identity string   `json:"identity,omitempty"` // SPIFFE id of the clients
	Selects  []string `json:"selects,omitempty"`  // sorted ids of predicates that they satisfy
	// Class stands for Identity and Selects in the names of clusters of connections; the
	// same in all modes.
	Class string `json:"class,omitempty"`
	// ServerNames are those that some service tells apart, exact or "*.suffix"; sorted.
	// Mode TLS only. The name of the listener does not depend on them: it can take
	// another one in place.
	ServerNames []string `json:"serverNames,omitempty"`
	// Ranges are those that some service has, sorted; in AnyDetect and AnyOpaque. They are
	// no part of the name either.
	Ranges []netip.Prefix `json:"ranges,omitempty"`
	// Times are those of connections to some addresses, sorted by these; in Opaque, TLS
	// and Detect and its like. They are no part of the name.
	Times []ConnectionTimes `json:"times,omitempty"`
	// Tunnels say of all connections to some places how they go, sorted by Cluster; in all
	// modes with connections. They are no part of the name.
	Tunnels []Tunnelled `json:"tunnels,omitempty"`
}

// ConnectionTimes bound the connections to an address; 0: they do not.
type ConnectionTimes struct {
	To   netip.AddrPort `json:"to"`
	Idle time.Duration  `json:"idle,omitempty"` // for which nothing may move
	Max  time.Duration  `json:"max,omitempty"`  // for which they may last
}

// Scope leads requests for a destination to a route table.
type Scope struct {
	// Key is what a listener writes for a request; see DestinationKey and its like.
	Key        string `json:"key"`
	RouteTable string `json:"routeTable"`
	// Proxy is the only one that needs it, "" the node's, if it is of a local pod's port. All
	// others are every proxy's.
	Proxy string `json:"proxy,omitempty"`
}

// Keys of scopes.

// DestinationKey is the key of HTTP requests that a captured pod sends to an address.
func DestinationKey(a netip.AddrPort) string { return a.String() }

// InboundKey is the key of requests that come in for a local pod's port.
func InboundKey(a netip.AddrPort) string { return "in|" + a.String() }

// HostScopeKey is the key of a host without address; requests get there by their
// authority alone. v6 says of which family the client is.
func HostScopeKey(host string, port uint16, v6 bool) string {
	k := fmt.Sprintf("host|%s:%d", host, port)
	if v6 {
		k += "@6"
	}
	return k
}

// AnyKey is the key of requests to an address that nobody is known to have, by port.
func AnyKey(port uint16) string { return fmt.Sprintf("any|%d", port) }

// Names of clusters of connections. What a listener knows of a connection is in the
// name that it asks for; plan has a cluster for the name, or for one that says less: a
// class "" is whatever client, a pattern "*.suffix" or "" whatever server name it takes.

// ConnectionCluster is where connections to an address go of which no byte was looked
// at, or that were found not to be HTTP.
func ConnectionCluster(class string, dst netip.AddrPort) string {
	return connectionCluster(class, dst.String())
}

func connectionCluster(class, at string) string { return "tcp|" + class + "|" + at }

// ServerNameCluster is where TLS connections to an address go by the server name that
// the client says; the pattern is one of the listener's ServerNames, "" if none fits.
func ServerNameCluster(pattern, class string, dst netip.AddrPort) string {
	return serverNameCluster(pattern, class, dst.String())
}

func serverNameCluster(pattern, class, at string) string {
	return "tls|" + pattern + "|" + class + "|" + at
}

// RangePort stands in the names of clusters for addresses of a range that nobody is known
// to have, in place of the address: the range of the listener's in which it is, or the
// whole family's. plan has the cluster under that range or under a wider one.
func RangePort(r netip.Prefix, port uint16) string { return fmt.Sprintf("%s:%d", r, port) }

// PassKey is the key of requests that go on to where they were going. Its route table
// is part of every proxy, not a row.
const PassKey = "pass"

// RouteTable is the routes of one frontend, or of one local pod's port.
type RouteTable struct {
	Name string `json:"name"`
	// Hosts are the names that the routes are for: in any case, with any port or none,
	// with or without a trailing dot. Exact, or "*.suffix"; also addresses, those of
	// IPv6 in brackets.
	Hosts []string `json:"hosts,omitempty"`
	// Elsewhere says what becomes of requests for other hosts; nil: the routes are for
	// whatever is asked, and Hosts is empty. With Elsewhere and without Hosts, as in the
	// table of AnyKey, every request is looked up.
	Elsewhere *Elsewhere `json:"elsewhere,omitempty"`
	// Routes in order; no match: 404.
	Routes []Route `json:"routes,omitempty"`
	// Limit is of tables of pods' ports, before any policy; nil: none.
	Limit *Limit `json:"limit,omitempty"`
	// Proxy is that of the Scope that leads here.
	Proxy string `json:"proxy,omitempty"`
}

// Elsewhere is how requests for hosts that are not a frontend's own find theirs: the
// frontend of that name at the same port, of the client's family; "name" alone is
// the service of the client's namespace.
type Elsewhere struct {
	Port    uint16        `json:"port"`
	Unknown model.Unknown `json:"unknown"` // of a host that nobody knows
	// From come before Unknown; the first that is about the client counts.
	From []UnknownFrom `json:"from,omitempty"`
}

// UnknownFrom is what becomes of hosts that nobody knows for some clients; see Route for
// how they are told.
type UnknownFrom struct {
	SourceNamespace string        `json:"sourceNamespace,omitempty"`
	SourceSelects   string        `json:"sourceSelects,omitempty"`
	Unknown         model.Unknown `json:"unknown"`
}

// Route is one route with everything resolved to clusters. A route with neither
// Clusters, Direct, Redirect nor Original answers 503.
type Route struct {
	ID    string           `json:"id"` // hash of the content and the frontend's key; the route's name in Envoy, key of its Origin
	Match model.RouteMatch `json:"match"`
	// SourceSelects is the predicate that stands for Match.SourceLabels; the
	// listener's Selects must contain it. Match.SourceNamespace is matched against
	// the listener's Identity.
	SourceSelects string `json:"sourceSelects,omitempty"`

	Clusters []WeightedCluster `json:"clusters,omitempty"` // weights > 0
	Direct   *model.Direct     `json:"direct,omitempty"`
	Redirect *model.Redirect   `json:"redirect,omitempty"`
	// Original sends to the destination that the client had dialled.
	Original bool      `json:"original,omitempty"`
	App      model.App `json:"app,omitempty"` // of the original destination; AppDetect: as the client speaks
	// Checked is that of Cluster, for Original: set on inbound routes, behind Policy.
	Checked bool `json:"checked,omitempty"`
	// Policy is judged before the request is routed (inbound listeners).
	Policy *Policy `json:"policy,omitempty"`

	RequestHeaders  model.HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders model.HeaderEdit `json:"responseHeaders,omitzero"`
	Rewrite         *model.Rewrite   `json:"rewrite,omitempty"`
	Mirrors         []Mirror         `json:"mirrors,omitempty"`
	Hash            []model.HashOn   `json:"hash,omitempty"` // by which Clusters that hash find the endpoint
	Fault           *model.Fault     `json:"fault,omitempty"`
	CORS            *model.CORS      `json:"cors,omitempty"`
	Timeout         time.Duration    `json:"timeout,omitempty"`
	IdleTimeout     time.Duration    `json:"idleTimeout,omitempty"`
	Retry           *model.Retry     `json:"retry,omitempty"`
}

// WeightedCluster is a share of a route.
type WeightedCluster struct {
	Name string `json:"name,omitempty"`
	// Status is there instead of Name: the share is answered with it.
	Status          uint32           `json:"status,omitempty"`
	Weight          uint32           `json:"weight"`
	RequestHeaders  model.HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders model.HeaderEdit `json:"responseHeaders,omitzero"`
}

// Mirror copies a share of a route's requests to a cluster.
type Mirror struct {
	Cluster    string `json:"cluster"`
	PerMillion uint32 `json:"perMillion"`
	Shadow     bool   `json:"shadow,omitempty"`
}

// Cluster is a set of endpoints of one family that obey one policy. Name:
// "ns/svc:port" with "/<hash>" behind it where labels, and "~<hash>" where policies,
// make it a part of the service, "=<hash>" for its traffic policy, and "@6" at the end
// for IPv6. Those that take connections are named by what the client dialled, see
// ConnectionCluster.
type Cluster struct {
	Name string `json:"name"`
	// App is what it is spoken to: an HTTP protocol, AppDetect for the client's own, or
	// AppTCP for connections that are not read.
	App model.App `json:"app"`
	// Policy is the destinations' policy, folded: judged in the cluster's upstream
	// filters, on the request as rewritten. Identities are compared with the
	// listener's. nil: nothing to check.
	Policy *Policy `json:"policy,omitempty"`
	// Checked says that connections leave from the source ports that tell the
	// destination's kernel that policy was judged here.
	Checked bool `json:"checked,omitempty"`
	// Inbound says that connections are for the inbound listener of the endpoints' nodes,
	// whether their kernels know yet or not. Nothing is judged here.
	Inbound bool `json:"inbound,omitempty"`
	// Traffic is how the endpoints are dealt with; nil: evenly, without limits. What it
	// says about near ones is in ClusterEndpoints, what is hashed in the routes.
	Traffic *model.TrafficPolicy `json:"traffic,omitempty"`
	// Original clusters lead to the address that the client has dialled, and have no
	// ClusterEndpoints.
	Original bool `json:"original,omitempty"`
	// Port is dialled in place of the client's; 0: that. Original only.
	Port uint16 `json:"port,omitempty"`
	// Names clusters look the names of their endpoints up, which are part of them: there
	// are no ClusterEndpoints.
	Names *Names `json:"names,omitempty"`
}

// Names are endpoints of which some are known by name.
type Names struct {
	// One: an address is used for each new connection, the first that a name has at that
	// time; else all addresses of all names are endpoints.
	One bool `json:"one,omitempty"`
	// V6 says which addresses of a name are meant.
	V6        bool             `json:"v6,omitempty"`
	Endpoints ClusterEndpoints `json:"endpoints"`
}

// ClusterEndpoints are a cluster's backends, sorted by first address.
type ClusterEndpoints struct {
	Cluster  string    `json:"cluster"`
	Backends []Backend `json:"backends,omitempty"`
	// Shares are there instead of Backends where these are not all alike: connections
	// are split, or localities have their parts, or near ones are preferred. Each has
	// backends. A split has two or more, with weights that have no common divisor, and a
	// sum of 32 bits.
	Shares []EndpointShare `json:"shares,omitempty"`
}

// EndpointShare is a part of what goes to a cluster, in proportion to its weight among
// those of its priority and whatever the number of its backends.
type EndpointShare struct {
	// Priority is 0 for those that are used first; none is left out.
	Priority uint32    `json:"priority,omitempty"`
	Weight   uint32    `json:"weight"`
	Backends []Backend `json:"backends"`
}

// Backend is one endpoint by its addresses. Clusters of services are of one family
// and give one: where a backend has two, Envoy tries the first, in vain, for clients
// of the other family.
type Backend struct {
	Addrs []netip.AddrPort `json:"addrs,omitempty"`
	// Host and Port stand in place of Addrs in Names.
	Host   string `json:"host,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Weight uint32 `json:"weight,omitempty"` // 0 = 1
}

// Policy is what a request must pass: no rule of Deny matches, and of each group
// in Allow at least one rule matches. Rules hold request parts and sources only:
// ports were resolved. All lists are sorted by content and without repeats.
type Policy struct {
	Deny  []model.AuthRule   `json:"deny,omitempty"`
	Allow [][]model.AuthRule `json:"allow,omitempty"`
	// Known lists, for policies judged by address (inbound), the addresses of
	// every identity that some rule could match by name; sorted by Identity.
	Known []KnownIdentity `json:"known,omitempty"`
	// Members, likewise, are the addresses of all members of a mesh, where some rule asks
	// for any identity; sorted.
	Members []netip.Addr `json:"members,omitempty"`
	// Shadow: what it would refuse passes, and is told; the destination is observed.
	Shadow bool `json:"shadow,omitempty"`
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
	Member   bool           `json:"member,omitempty"`   // of a mesh; never without Identity
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
	// Behind: the proxy may check by configuration that is old, so what it says of new
	// connections is not believed. Those that it has open go on: it ends them soon.
	Behind bool `json:"behind,omitempty"`
	// Node: an address of a node itself.
	Node bool `json:"node,omitempty"`
}

// Prefix gives a class to addresses outside the Address table; the longest wins.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	Class  uint64       `json:"class"`
	// Unassigned is its class's: nobody in it is reached through Any.
	Unassigned bool `json:"unassigned,omitempty"`
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
	UID  string     `json:"uid,omitempty"`
	// Set is its policy set; 0 = nobody governs it, everything may come in.
	Set uint64 `json:"set,omitempty"`
	// Listeners take what it sends, by mode; nil = not captured. A mode other than HTTP
	// that no service has is not there.
	Listeners map[Mode]string `json:"listeners,omitempty"`
	// Inbound is the listener that takes what has to be judged on its way to the pod; "":
	// the node's InboundListener.
	Inbound string `json:"inbound,omitempty"`
	// KnownOnly: it may connect to services alone, and to itself. Only if it is captured.
	KnownOnly  bool     `json:"knownOnly,omitempty"`
	ProbePorts []uint16 `json:"probePorts,omitempty"`
	// Observed: what Set would refuse goes in, and what it sends is not redirected; it is
	// told what would be.
	Observed bool `json:"observed,omitempty"`
}

// Mode says who balances a service: the kernel, per connection at connect, or the
// proxy, which captured pods get to with the address that they dialled.
type Mode string

const (
	Kernel Mode = "kernel"
	HTTP   Mode = "http"   // requests
	TLS    Mode = "tls"    // connections, routed by SNI
	Opaque Mode = "opaque" // connections, no byte of which is looked at
	Any    Mode = "any"    // requests to addresses that nobody is known to have
	// AnyDetect is for all else that is sent to such addresses, or to a range: the first
	// bytes are read, for server names too. AnyOpaque reads nothing.
	AnyDetect Mode = "any-detect"
	AnyOpaque Mode = "any-opaque"
	// Detect and its like read the first bytes. They differ in how long they wait for
	// them: a node has at most three such times; the shortest is Detect.
	Detect  Mode = "detect"
	Detect2 Mode = "detect2"
	Detect3 Mode = "detect3"
)

// Modes are all modes of listeners, in the order in which the kernel numbers them
// from 1; Kernel is 0.
func Modes() []Mode {
	return []Mode{HTTP, TLS, Opaque, Any, Detect, Detect2, Detect3, AnyDetect, AnyOpaque}
}

// Origin names what an id came from. The id is a route's ID, the name of a cluster of
// connections, or a rule's in 16 hex digits as in the kernel's Rule and the RBAC policy
// names. Equal rules of several policies have one id, and this names one of them; see
// RuleSources.
type Origin struct {
	ID      string         `json:"id"`
	Sources []model.Source `json:"sources"`
}
