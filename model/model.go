// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"strconv"
	"time"
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
	// DefaultDeny lists planes whose configured default for the namespace is to
	// deny what no policy of theirs allows; sorted.
	DefaultDeny []string `json:"defaultDeny,omitempty"`
	// Mesh is the plane whose mark the namespace carries, "" if none: its defaults
	// hold for frontends that no plane routes.
	Mesh string `json:"mesh,omitempty"`
	// Choice overrides what the plane says for the namespace's frontends.
	Choice Choice `json:"choice,omitzero"`
	Src    Source `json:"-"`
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
	// Generation of configuration that the node has applied; 0 if unknown.
	Generation int64    `json:"generation,omitempty"`
	Locality   Locality `json:"locality,omitzero"`
	Src        Source   `json:"-"`
}

// Locality is where a node or a workload is, from wide to narrow; empty is unknown.
type Locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"subZone,omitempty"`
}

// Service is a name with virtual addresses and ports. Table "service", key: ns/name.
type Service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	VIPs      []netip.Addr `json:"vips,omitempty"` // empty: headless
	// Hosts are the names that requests may call it by: lower case, without port or
	// trailing dot, the full name first; a leading "*." stands for one or more labels.
	Hosts []string      `json:"hosts,omitempty"`
	Ports []ServicePort `json:"ports,omitempty"`
	// Ranges are addresses that it has beside VIPs; sorted. An exact address, of whatever
	// service or pod, comes before a range, and a longer range before a shorter one.
	Ranges []netip.Prefix `json:"ranges,omitempty"`
	// Reach says by which addresses it is got at beside VIPs and Ranges.
	Reach Reach `json:"reach,omitempty"`
	// MeshOnly: it is there for captured clients alone. Others get to the address that
	// they dial.
	MeshOnly bool `json:"meshOnly,omitempty"`
	// Resolution says where its endpoints come from.
	Resolution Resolution `json:"resolution,omitempty"`
	// Affinity keeps a client on one backend for this long; 0 = off.
	Affinity time.Duration `json:"affinity,omitempty"`
	Src      Source        `json:"-"`
}

// Reach is where a service is that has no address of its own, or not that alone.
type Reach string

const (
	ReachAddresses Reach = "" // at VIPs and Ranges, or if it has none at its endpoints
	// ReachNamed: besides, its HTTP ports by authority wherever an address is nobody's.
	ReachNamed Reach = "named"
	// ReachAnywhere: besides, all of its ports: TLS by server name, and by the port alone
	// what is opaque.
	ReachAnywhere Reach = "anywhere"
)

// Resolution is how a service's endpoints are found.
type Resolution string

const (
	ResolveEndpoints Resolution = ""          // the rows of Endpoints, by address
	ResolveDNS       Resolution = "dns"       // Endpoints name hosts; all addresses of them
	ResolveDNSFirst  Resolution = "dns-first" // likewise; one address at a time
	ResolveOriginal  Resolution = "original"  // the address that the client has dialled
)

// ServicePort is one port of a service. TargetPorts lists the numbers that it
// reaches on its endpoints (several if a named port differs between pods).
type ServicePort struct {
	Name     string   `json:"name,omitempty"`
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol"`
	App      App      `json:"app,omitempty"`
	// Target is the port that is dialled in place of the client's (ResolveOriginal); 0: its own.
	Target uint16 `json:"target,omitempty"`
}

// Key of the service in its table.
func (s *Service) Key() string { return s.Namespace + "/" + s.Name }

// Port returns the service's TCP port with that number, or nil.
func (s *Service) Port(n uint16) *ServicePort {
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Port == n && p.Protocol == TCP {
			return p
		}
	}
	return nil
}

// Endpoints are the addresses behind a service. Table "endpoints", key: ns/name of
// the service.
type Endpoints struct {
	Namespace string          `json:"namespace"`
	Service   string          `json:"service"`
	Ports     []EndpointsPort `json:"ports,omitempty"` // sorted by Port, Protocol
}

// EndpointsPort lists who serves one port of the service.
type EndpointsPort struct {
	Port     uint16     `json:"port"` // the service's port
	Protocol Protocol   `json:"protocol"`
	Backends []Endpoint `json:"backends,omitempty"` // sorted by Addr, Port
	// Unready get no new traffic, but their port is what the service says it is:
	// requests that are under way are judged as before. Sorted by Addr, Port.
	Unready []Endpoint `json:"unready,omitempty"`
}

// Endpoint is one ready address and port behind a service. What else is known of it
// (labels, locality, identity) is the Workload's that has the address.
type Endpoint struct {
	Addr netip.Addr `json:"addr"`
	// Host stands in place of Addr where names are resolved (ResolveDNS and its like).
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port"`
	// Weight among the endpoints of the service; 0 is 1.
	Weight uint32 `json:"weight,omitempty"`
	// Workload is the key of the one that it is, if not that which has the address:
	// labels and locality are those of it.
	Workload string `json:"workload,omitempty"`
}

// Workload is a running pod, or what a plane declares to run elsewhere (External; Node
// is empty then, and Identity may be). Table "workload", key: ns/name.
type Workload struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Addresses   []netip.Addr `json:"addresses,omitempty"` // sorted; v4 and v6
	Node        string       `json:"node"`
	Identity    string       `json:"identity"` // SPIFFE id, spiffe://trust-domain/ns/NS/sa/SA
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	// External: no node has it, and nothing guards it. An address of a pod, of a node, or
	// out of a node's pod range is not believed to be its own.
	External   bool              `json:"external,omitempty"`
	Capture    bool              `json:"capture,omitempty"` // its requests are routed
	Labels     map[string]string `json:"labels,omitempty"`
	Ports      []WorkloadPort    `json:"ports,omitempty"`      // declared container ports
	ProbePorts []uint16          `json:"probePorts,omitempty"` // sorted
	Locality   Locality          `json:"locality,omitzero"`    // empty: its node's
	Src        Source            `json:"-"`
}

// WorkloadPort is a port that a pod declares.
type WorkloadPort struct {
	Name     string   `json:"name,omitempty"`
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol"`
}

// Key of the workload in its table.
func (w *Workload) Key() string { return w.Namespace + "/" + w.Name }

// SPIFFE builds the identity of a service account.
func SPIFFE(trustDomain, namespace, serviceAccount string) string {
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount
}

// MatchKind says how a string is compared. Regex is RE2 and matches the whole string.
type MatchKind string

const (
	Exact  MatchKind = "exact"
	Prefix MatchKind = "prefix" // by string
	// Segments is a prefix of whole path segments (paths only): "/a" takes "/a" and
	// "/a/b", not "/ab". Without trailing slash, but for "/".
	Segments MatchKind = "segments"
	Suffix   MatchKind = "suffix"
	Regex    MatchKind = "regex"
	Present  MatchKind = "present" // any value, also empty
	// Template is an Envoy URI template (paths only): {*} is one segment, {**} any number.
	Template MatchKind = "template"
)

// StringMatch compares one string.
type StringMatch struct {
	Kind       MatchKind `json:"kind"`
	Value      string    `json:"value,omitempty"`
	IgnoreCase bool      `json:"ignoreCase,omitempty"`
}

// NamedMatch compares a header (lower-case name) or query parameter.
type NamedMatch struct {
	Name  string      `json:"name"`
	Match StringMatch `json:"match"`
	Not   bool        `json:"not,omitempty"` // the opposite; see MissingEmpty
	// MissingEmpty treats a missing header as an empty one before comparing, so
	// that Not matches it by value. Without it a missing header never matches,
	// and Not of Present matches a missing header.
	MissingEmpty bool `json:"missingEmpty,omitempty"`
}

// Frontend is what clients of a service's port get. Tables "route/<plane>" and,
// after merge, "frontend"; key: FrontendKey.
type Frontend struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service,omitempty"`
	// Host is set instead of Service for a host that has no service: lower case,
	// exact or "*.suffix". Its addresses are not known: any that is nobody else's, with
	// the port, may be it. Such a frontend is HTTP and routed by authority.
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port"`
	// App is the protocol as its plane sees it; AppUndeclared leaves the service's.
	App App `json:"app,omitempty"`
	// Routes are tried in order; a request that none matches gets 404. Used if the
	// port is HTTP.
	Routes []Route `json:"routes,omitempty"`
	// Backends share the connections of a port that is not HTTP. Empty: the
	// service's own endpoints.
	Backends []Backend `json:"backends,omitempty"`
	// Connections are used instead of Backends, for connections that are not HTTP: of
	// those that match, the one with the most specific server name, the first among
	// equals; one that none matches is closed. Only AppTLS, AppTCP and AppDetect.
	Connections []ConnectionRoute `json:"connections,omitempty"`
	// DetectTimeout is how long the first bytes are waited for (AppDetect) before the
	// connection is taken as opaque; 0: for ever.
	DetectTimeout time.Duration `json:"detectTimeout,omitempty"`
	// Choice says how other hosts than its own are treated; open fields are as the
	// namespace and the plane say.
	Choice Choice `json:"choice,omitzero"`
	// Invalid makes the frontend answer 500 to everything: its plane could not
	// translate it and no earlier version exists.
	Invalid bool     `json:"invalid,omitempty"`
	Src     []Source `json:"-"`
}

// FrontendKey is the key of a service's port in the frontend tables.
func FrontendKey(namespace, service string, port uint16) string {
	return namespace + "/" + service + ":" + strconv.Itoa(int(port))
}

// HostKey is the key of a host without service in the frontend tables.
func HostKey(namespace, host string, port uint16) string {
	return namespace + "/host/" + host + ":" + strconv.Itoa(int(port))
}

// Key of the frontend in its table.
func (f *Frontend) Key() string {
	if f.Host != "" {
		return HostKey(f.Namespace, f.Host, f.Port)
	}
	return FrontendKey(f.Namespace, f.Service, f.Port)
}

// ConnectionRoute shares connections among backends. The zero match takes all.
type ConnectionRoute struct {
	// ServerNames are what the client may say in its TLS handshake (SNI): lower case,
	// exact or "*.suffix"; empty: any, also none, also without TLS. They are not read
	// with AppDetect: who asks for one takes nothing there.
	ServerNames     []string          `json:"serverNames,omitempty"`
	SourceNamespace string            `json:"sourceNamespace,omitempty"`
	SourceLabels    map[string]string `json:"sourceLabels,omitempty"`
	// Backends by weight; the share of one without endpoints goes to the others. None
	// has endpoints, or none is there: closed.
	Backends []Backend `json:"backends,omitempty"`
	// Original sends on to the address that the client has dialled, in place of Backends.
	Original bool     `json:"original,omitempty"`
	Src      []Source `json:"-"`
}

// Route is one match and what happens to requests that it matches.
type Route struct {
	Match RouteMatch `json:"match"`
	// Backends share the requests by weight. Empty, with none of
	// Direct, Redirect and Original: 503.
	Backends []Backend `json:"backends,omitempty"`
	Direct   *Direct   `json:"direct,omitempty"`
	Redirect *Redirect `json:"redirect,omitempty"`
	// Original sends on to the address that the client has dialled.
	Original bool `json:"original,omitempty"`

	RequestHeaders  HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders HeaderEdit `json:"responseHeaders,omitzero"`
	Rewrite         *Rewrite   `json:"rewrite,omitempty"`
	Mirrors         []Mirror   `json:"mirrors,omitempty"`
	// Fault is before everything else. CORS is before backends; it does nothing for
	// requests that are answered by Direct, Redirect or the Status of a Backend.
	Fault   *Fault        `json:"fault,omitempty"`
	CORS    *CORS         `json:"cors,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // of the whole request, with its retries; 0 = none
	// IdleTimeout ends a request on which nothing moves in either direction; 0 = none. One
	// whose routes have to be loaded first may be silent for a minute all the same.
	IdleTimeout time.Duration `json:"idleTimeout,omitempty"`
	Retry       *Retry        `json:"retry,omitempty"` // nil = no retries
	Src         []Source      `json:"-"`
}

// RouteMatch is a conjunction; the zero value matches everything.
type RouteMatch struct {
	Path      *StringMatch `json:"path,omitempty"` // Exact, Prefix, Segments, Regex; without the query
	Method    *StringMatch `json:"method,omitempty"`
	Scheme    *StringMatch `json:"scheme,omitempty"`
	Authority *StringMatch `json:"authority,omitempty"`
	Headers   []NamedMatch `json:"headers,omitempty"`
	Query     []NamedMatch `json:"query,omitempty"`
	// Source restricts by the client: its namespace and labels (all must be there).
	SourceNamespace string            `json:"sourceNamespace,omitempty"`
	SourceLabels    map[string]string `json:"sourceLabels,omitempty"`
}

// Backend is a share of the traffic. A backend whose service, port or subset does
// not exist keeps its share of requests and answers 503; connections of an opaque
// port go to the backends that are there.
type Backend struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Port      uint16 `json:"port"`
	// Labels restrict to the service's workloads that carry them all (a subset).
	Labels map[string]string `json:"labels,omitempty"`
	// Missing says that the plane knows that this backend cannot exist (an unknown
	// subset, for example): its share gets Status.
	Missing bool `json:"missing,omitempty"`
	// Status is what the share of a Missing backend is answered with, without retries;
	// 0 is 503 by a cluster without endpoints.
	Status uint32 `json:"status,omitempty"`
	Weight uint32 `json:"weight"`
	// Policy is how its endpoints are dealt with; nil: evenly, without limits.
	Policy *TrafficPolicy `json:"policy,omitempty"`

	RequestHeaders  HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders HeaderEdit `json:"responseHeaders,omitzero"`
}

// Direct answers without a backend.
type Direct struct {
	Status uint32 `json:"status"`
	Body   string `json:"body,omitempty"`
}

// HeaderEdit changes headers; each list is sorted by name. Names are lower case.
// A Set of ":authority" replaces the host.
type HeaderEdit struct {
	Set    []Header `json:"set,omitempty"`
	Add    []Header `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// IsZero reports whether nothing is edited.
func (e HeaderEdit) IsZero() bool { return len(e.Set)+len(e.Add)+len(e.Remove) == 0 }

// Header is a name and a literal value.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Rewrite changes path or authority. Path replaces the matched prefix if the
// match is a prefix, else the whole path. FullPath replaces the whole path whatever the
// match is. PathRegex wins over both.
//
// In place of Segments comes Path without its slashes at the end, and what follows the
// segments stays with its slash: "/a" by "/b" or "/b/" makes "/b", "/b/" and "/b/x" of
// "/a", "/a/" and "/a/x". Nothing left of "/a" by "/" is "/".
type Rewrite struct {
	Path      string     `json:"path,omitempty"`
	FullPath  string     `json:"fullPath,omitempty"`
	PathRegex *RegexEdit `json:"pathRegex,omitempty"`
	Authority string     `json:"authority,omitempty"`
}

// RegexEdit is an RE2 substitution with \1-style references.
type RegexEdit struct {
	Match       string `json:"match"`
	Replacement string `json:"replacement"`
}

// Mirror sends a copy of a share of the requests and drops the answers.
type Mirror struct {
	Backend Backend `json:"backend"`
	// PerMillion is the share that is copied, 0 to 1,000,000.
	PerMillion uint32 `json:"perMillion"`
	// Shadow: the host that the copy names ends in "-shadow".
	Shadow bool     `json:"shadow,omitempty"`
	Src    []Source `json:"-"`
}

// Retry repeats failed requests. On and StatusCodes use Envoy's retry_on words.
type Retry struct {
	Attempts      uint32        `json:"attempts"` // beyond the first; > 0
	On            []string      `json:"on,omitempty"`
	StatusCodes   []uint32      `json:"statusCodes,omitempty"`
	PerTryTimeout time.Duration `json:"perTryTimeout,omitempty"`
	Backoff       time.Duration `json:"backoff,omitempty"`    // base interval; 0 = 25 ms
	BackoffMax    time.Duration `json:"backoffMax,omitempty"` // 0 = ten times the base
	// MaxBody is the size in bytes above which a request's body is not kept, and the
	// request not repeated; 0 = as large as the proxy's buffers.
	MaxBody        uint32 `json:"maxBody,omitempty"`
	AvoidPrevious  bool   `json:"avoidPrevious,omitempty"`
	OtherLocations bool   `json:"otherLocations,omitempty"`
}

// Authorization says who may do what at some workloads. Tables "authz/<plane>";
// the key is the plane's own.
//
// A workload that some Allow of a plane selects is governed by that plane: the
// plane then allows only what a rule of its Allows matches (an Allow without
// rules allows nothing). Every plane that governs a workload must allow, and a
// match of any Deny refuses.
type Authorization struct {
	Deny   bool       `json:"deny,omitempty"`
	Target Target     `json:"target"`
	Rules  []AuthRule `json:"rules,omitempty"`
	Src    []Source   `json:"-"`
}

// Target selects workloads. All set fields must hold.
type Target struct {
	Namespace string `json:"namespace,omitempty"` // "" = every namespace
	// Workload is the name of one; with Namespace.
	Workload       string            `json:"workload,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	// Except are not meant, though the rest selects them.
	Except []Target `json:"except,omitempty"`
}

// AuthRule matches if one of From (or none is given) and one of To (or none is
// given) and all of When match.
type AuthRule struct {
	From []Peer      `json:"from,omitempty"`
	To   []Operation `json:"to,omitempty"`
	When []Condition `json:"when,omitempty"`
	Src  []Source    `json:"-"`
}

// Peer is a conjunction over the source; within a list one must match, within a
// Not list none may. Identities are compared as whole SPIFFE ids, and a source
// without a known identity has none: no positive match holds for it.
type Peer struct {
	Identities    []StringMatch  `json:"identities,omitempty"`
	NotIdentities []StringMatch  `json:"notIdentities,omitempty"`
	IPs           []netip.Prefix `json:"ips,omitempty"`
	NotIPs        []netip.Prefix `json:"notIPs,omitempty"`
}

// Operation is a conjunction over the request. Ports are the workload's. All but
// ports needs a request: on a port that is not HTTP such an operation never
// matches in an Allow, and its request part is taken as matching in a Deny.
type Operation struct {
	// Protocol restricts to one transport; "" is any.
	Protocol   Protocol      `json:"protocol,omitempty"`
	Hosts      []StringMatch `json:"hosts,omitempty"` // case-insensitive
	NotHosts   []StringMatch `json:"notHosts,omitempty"`
	Ports      []uint16      `json:"ports,omitempty"`
	NotPorts   []uint16      `json:"notPorts,omitempty"`
	Methods    []StringMatch `json:"methods,omitempty"`
	NotMethods []StringMatch `json:"notMethods,omitempty"`
	Paths      []StringMatch `json:"paths,omitempty"` // without the query, normalised
	NotPaths   []StringMatch `json:"notPaths,omitempty"`
	Headers    []NamedMatch  `json:"headers,omitempty"` // all must match
}

// ConditionKind says what a Condition looks at.
type ConditionKind string

const (
	OnHeader          ConditionKind = "header" // Name is the header
	OnIdentity        ConditionKind = "identity"
	OnSourceIP        ConditionKind = "source-ip"
	OnDestinationIP   ConditionKind = "destination-ip"
	OnDestinationPort ConditionKind = "destination-port"
	OnSNI             ConditionKind = "sni"
)

// Condition holds if one of Values (if any are given) and none of NotValues match.
// For the IP kinds use Prefixes and NotPrefixes, for ports Ports and NotPorts.
type Condition struct {
	Kind        ConditionKind  `json:"kind"`
	Name        string         `json:"name,omitempty"`
	Values      []StringMatch  `json:"values,omitempty"`
	NotValues   []StringMatch  `json:"notValues,omitempty"`
	Prefixes    []netip.Prefix `json:"prefixes,omitempty"`
	NotPrefixes []netip.Prefix `json:"notPrefixes,omitempty"`
	Ports       []uint16       `json:"ports,omitempty"`
	NotPorts    []uint16       `json:"notPorts,omitempty"`
}
