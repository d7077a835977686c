// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"time"
)

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
	// Local: clients of a node get those of that node alone, by Node of the endpoints, or
	// none if it has none.
	Local bool `json:"local,omitempty"`
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
	// Node that it is on, if the endpoints are Local; "": on none.
	Node string `json:"node,omitempty"`
	// ForZones and ForNodes are hints whose clients it is meant for: names, sorted, with
	// commas between; "": no hint. They count where all ready endpoints of the port and
	// family have them, and the client's node or zone is named by some.
	ForZones string `json:"forZones,omitempty"`
	ForNodes string `json:"forNodes,omitempty"`
}

// Workload is a running pod, or what a plane declares to run elsewhere (External; Node
// is empty then, and Identity may be). Table "workload", key: ns/name.
type Workload struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Addresses   []netip.Addr `json:"addresses,omitempty"` // sorted; v4 and v6
	Node        string       `json:"node"`
	Identity    string       `json:"identity"`      // SPIFFE id, spiffe://trust-domain/ns/NS/sa/SA
	UID         string       `json:"uid,omitempty"` // of the pod, as its node's kubelet calls it
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	// External: no node has it, and nothing guards it. An address of a pod, of a node, or
	// out of a node's pod range is not believed to be its own.
	External bool `json:"external,omitempty"`
	Capture  bool `json:"capture,omitempty"` // its requests are routed
	// Observed: what policy and capture come to for it is told, and not done.
	Observed bool `json:"observed,omitempty"`
	// Proxy is its namespace's own on its node; nil: it shares the node's.
	Proxy *OwnProxy `json:"proxy,omitempty"`
	// Sidecar: a mesh's own proxy or redirection still has them. Never with Capture.
	Sidecar    bool              `json:"sidecar,omitempty"`
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

// Member reports whether the workload is in a mesh, so that a mesh would give it its
// identity: it is captured, still has a mesh's own proxy, or a plane declares it with an
// identity. Others have theirs by their addresses alone.
func (w *Workload) Member() bool {
	return w.Capture || w.Sidecar || w.External && w.Identity != ""
}

// SPIFFE builds the identity of a service account.
func SPIFFE(trustDomain, namespace, serviceAccount string) string {
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount
}
