// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net"
	"strconv"
	"time"
)

// TrafficPolicy is how a client's proxy deals with the endpoints of a backend. What is
// counted (connections, requests, failures) is counted on each node, for all of its
// clients together. The zero value of a field means that nothing was said.
type TrafficPolicy struct {
	Balance Balance `json:"balance,omitempty"`
	// Hash keeps requests that agree in all of these on one endpoint; with ByRing and
	// ByTable. A request that has none of them goes to any. Connections know the source's
	// address alone.
	Hash []HashOn `json:"hash,omitempty"`
	// HashSize is the least size of the ring, or the size of the table (a prime number);
	// 0 = 1024, or 65537.
	HashSize uint64    `json:"hashSize,omitempty"`
	Locality *NearFar  `json:"locality,omitempty"`
	Warmup   *Warmup   `json:"warmup,omitempty"`
	Limits   Limits    `json:"limits,omitzero"`
	Outlier  *Outlier  `json:"outlier,omitempty"`
	TCP      TCPPolicy `json:"tcp,omitzero"`
	// HTTPIdle closes connections without requests after this long; 0: after some seconds,
	// because each client has connections of its own.
	HTTPIdle time.Duration `json:"httpIdle,omitempty"`
	// RequestsPerConnection closes a connection after so many; 0 = any number.
	RequestsPerConnection uint32 `json:"requestsPerConnection,omitempty"`
	// Upgrade speaks HTTP/2 to endpoints of HTTP/1 ports; ClientProtocol speaks what the
	// client speaks.
	Upgrade        bool `json:"upgrade,omitempty"`
	ClientProtocol bool `json:"clientProtocol,omitempty"`
	// StreamsPerConnection bounds concurrent requests on one connection of HTTP/2; 0 = Envoy's.
	StreamsPerConnection uint32        `json:"streamsPerConnection,omitempty"`
	PingInterval         time.Duration `json:"pingInterval,omitempty"` // of HTTP/2; 0 = none
	PingTimeout          time.Duration `json:"pingTimeout,omitempty"`
	// ProxyProtocol begins each connection with PROXY, in this version (1 or 2), and
	// the client's address; 0 = without.
	ProxyProtocol uint32 `json:"proxyProtocol,omitempty"`
	// Tunnel leads connections on through the endpoints. Requests know none; connections
	// that are split go as the first of their backends that is there says.
	Tunnel *Tunnel `json:"tunnel,omitempty"`
	// Src is where limits and outlier detection were written.
	Src []Source `json:"-"`
}

// NeedsProxy reports whether the policy does something for connections that a kernel,
// which spreads them evenly, does not do. A nil policy does nothing.
func (p *TrafficPolicy) NeedsProxy() bool {
	return p != nil && (p.Limits != Limits{} || p.Outlier != nil || p.TCP != TCPPolicy{} ||
		len(p.Hash) > 0 || p.Locality != nil || p.Warmup != nil || p.ProxyProtocol != 0 || p.Tunnel != nil)
}

// Balance is how an endpoint is chosen.
type Balance string

const (
	LeastRequest Balance = "" // the less busy of two
	RoundRobin   Balance = "round-robin"
	Random       Balance = "random"
	ByRing       Balance = "ring"     // consistent hashing
	ByTable      Balance = "table"    // likewise, by Maglev's table
	AsDialled    Balance = "original" // the address that the client has dialled
)

// HashOn is one thing to hash by; exactly one field is set.
type HashOn struct {
	Header   string      `json:"header,omitempty"`
	Query    string      `json:"query,omitempty"`
	Cookie   *HashCookie `json:"cookie,omitempty"`
	SourceIP bool        `json:"sourceIP,omitempty"`
}

// HashCookie is a cookie that is hashed. With TTL set, one is handed out to who has none;
// 0 makes it last as long as the browser's session.
type HashCookie struct {
	Name       string         `json:"name"`
	Path       string         `json:"path,omitempty"`
	TTL        *time.Duration `json:"ttl,omitempty"`
	Attributes []Header       `json:"attributes,omitempty"` // sorted by name
}

// NearFar prefers endpoints by where they are, as seen from the client's node. Those
// that are preferred less are used when the ones before are not healthy.
type NearFar struct {
	// Distribute gives shares to localities; the first whose From contains the node
	// counts, and endpoints in none of its To are not used. If none does: evenly. The
	// rest is used without it alone.
	Distribute []Distribute `json:"distribute,omitempty"`
	// Labels prefer endpoints that have all of these, then those without the last, and so
	// on: "key=value", or "key" alone for what the node says of its pods (see Topology).
	Labels []string `json:"labels,omitempty"`
	// Failover prefers, among endpoints that Labels make equal, those of the node's own
	// subzone, then zone, then region; ByRegion those of its region, without difference.
	Failover bool `json:"failover,omitempty"`
	ByRegion bool `json:"byRegion,omitempty"`
	// Regions names the region that comes after the node's own, by the node's own; with
	// Failover and ByRegion.
	Regions map[string]string `json:"regions,omitempty"`
}

// Labels of topology: those of Kubernetes' nodes, and those that Istio adds.
const (
	TopologyRegion  = "topology.kubernetes.io/region"
	TopologyZone    = "topology.kubernetes.io/zone"
	TopologySubZone = "topology.istio.io/subzone"
	TopologyHost    = "kubernetes.io/hostname"
	TopologyNetwork = "topology.istio.io/network"
	TopologyCluster = "topology.istio.io/cluster"
)

// Topology reports whether a label says where a pod runs, so that all pods of a node
// have it alike.
func Topology(label string) bool {
	switch label {
	case TopologyRegion, TopologyZone, TopologySubZone, TopologyHost, TopologyNetwork, TopologyCluster:
		return true
	}
	return false
}

// Distribute is where the traffic of one locality goes. A locality is written
// "region/zone/subzone"; a "*" at the end stands for what follows.
type Distribute struct {
	From string            `json:"from"`
	To   map[string]uint32 `json:"to"` // percent; they make 100
}

// Warmup gives a new endpoint less at first.
type Warmup struct {
	Duration       time.Duration `json:"duration"`
	MinimumPercent *float64      `json:"minimumPercent,omitempty"` // nil = 10
	Aggression     float64       `json:"aggression,omitempty"`     // 0 = 1, which is linear
}

// Limits bound what is under way at once; 0 = no limit. More is refused with 503.
type Limits struct {
	Connections uint32 `json:"connections,omitempty"`
	Pending     uint32 `json:"pending,omitempty"` // requests without a connection
	Requests    uint32 `json:"requests,omitempty"`
	Retries     uint32 `json:"retries,omitempty"`
	// RetryBudget bounds retries by the requests that are under way; it comes in place of Retries.
	RetryBudget *RetryBudget `json:"retryBudget,omitempty"`
}

// RetryBudget lets so many retries be under way at once.
type RetryBudget struct {
	Percent float64 `json:"percent"` // of the requests
	AtLeast uint32  `json:"atLeast,omitempty"`
	// Interval over which requests are counted; 0 = those that are under way.
	Interval time.Duration `json:"interval,omitempty"`
}

// Outlier takes endpoints out of use that fail, for a time that grows with each time.
type Outlier struct {
	Consecutive5xx     uint32        `json:"consecutive5xx,omitempty"`     // 0 = off, as are the next ones
	ConsecutiveGateway uint32        `json:"consecutiveGateway,omitempty"` // 502, 503, 504
	ConsecutiveLocal   uint32        `json:"consecutiveLocal,omitempty"`   // not reached; with SplitLocal, else these are 5xx
	SplitLocal         bool          `json:"splitLocal,omitempty"`
	FailurePercent     uint32        `json:"failurePercent,omitempty"`
	MinRequests        uint32        `json:"minRequests,omitempty"`  // for FailurePercent
	Interval           time.Duration `json:"interval,omitempty"`     // 0 = 10 s
	BaseEjection       time.Duration `json:"baseEjection,omitempty"` // 0 = 30 s
	MaxEjection        time.Duration `json:"maxEjection,omitempty"`  // 0 = 300 s
	Jitter             time.Duration `json:"jitter,omitempty"`
	MaxPercent         *uint32       `json:"maxPercent,omitempty"` // nil = 10
	// PanicPercent: below so many percent of healthy endpoints all are used again; 0 = never.
	PanicPercent uint32 `json:"panicPercent,omitempty"`
	// StatusCodes count as failures in place of 5xx: codes and ranges "500-599".
	StatusCodes []string `json:"statusCodes,omitempty"`
}

// TCPPolicy is about connections to the endpoints.
type TCPPolicy struct {
	ConnectTimeout time.Duration `json:"connectTimeout,omitempty"` // 0 = 10 s
	MaxDuration    time.Duration `json:"maxDuration,omitempty"`    // 0 = for ever
	Idle           time.Duration `json:"idle,omitempty"`           // of opaque connections; 0 = none
	Keepalive      *Keepalive    `json:"keepalive,omitempty"`
}

// Keepalive probes connections on which nothing moves; 0 = the system's.
type Keepalive struct {
	Probes   uint32        `json:"probes,omitempty"`
	Time     time.Duration `json:"time,omitempty"`
	Interval time.Duration `json:"interval,omitempty"`
}

// Tunnel says where endpoints, which are HTTP proxies, are asked to lead each connection.
type Tunnel struct {
	Host string `json:"host"` // a DNS name, or an address without brackets
	Port uint16 `json:"port"`
	// Post asks by POST, not by CONNECT; HTTP2 speaks HTTP/2 to the proxies, not HTTP/1.1.
	Post  bool `json:"post,omitempty"`
	HTTP2 bool `json:"http2,omitempty"`
}

// Target is the host and port as an authority: an IPv6 address has brackets.
func (t *Tunnel) Target() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// Method is that of the request for the tunnel.
func (t *Tunnel) Method() string {
	if t.Post {
		return "POST"
	}
	return "CONNECT"
}

// String says where connections are led on, and how that is asked for.
func (t *Tunnel) String() string {
	version := "1.1"
	if t.HTTP2 {
		version = "2"
	}
	return t.Target() + " by " + t.Method() + " over HTTP/" + version
}
