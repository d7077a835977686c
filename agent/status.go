// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/lease"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds/serve"
)

// Status is what an agent tells of its node.
type Status struct {
	Node    string `json:"node"`
	Version string `json:"version"` // of the agent
	Uptime  string `json:"uptime"`
	// Time is when this was so, by the node's clock, as all other times here are; zero of an
	// agent that is older.
	Time    time.Time `json:"time,omitzero"`
	Source  string    `json:"source"`
	Objects int       `json:"objects"`
	// APIServer is how it stands with the API server that the objects are read from; nil:
	// they are a folder's.
	APIServer *kube.Health `json:"apiServer,omitempty"`
	// Lease is what the other nodes are told of this one, and Peers what is heard of them;
	// nil: the objects are a folder's.
	Lease *lease.Status `json:"lease,omitempty"`
	Peers []kube.Peer   `json:"peers,omitempty"`
	// Revision is the content of the source that was read last, Applied the one
	// that Envoy acknowledged and the kernel has. What Envoy rejected is in Rejected.
	Revision string `json:"revision"`
	Applied  string `json:"applied"`
	Problem  string `json:"problem,omitempty"` // why the two differ, or what could not be read
	Errors   int    `json:"errors"`            // diagnostics that are errors
	Warnings int    `json:"warnings"`          // other diagnostics that are not cosmetic
	// Pods maps the node's pods to "ready" or to what is missing.
	Pods map[string]string `json:"pods"`
	// Rejected lists what Envoy did not take, and what could not be rendered for it, as
	// things stand; in the order of the types, then by name.
	Rejected []Rejected `json:"rejected,omitempty"`
	// AckLimit is how long the kernel waits for Envoy to acknowledge a change. Waiting
	// lists what has not been acknowledged within it; the kernel goes on without, and
	// it is tried again.
	AckLimit string    `json:"ackLimit"`
	Waiting  []Waiting `json:"waiting,omitempty"`
	// WhenProxyAbsent is as chosen; BypassedSince is when the kernel began to do without
	// an Envoy, nil: it does not.
	WhenProxyAbsent Absence    `json:"whenProxyAbsent"`
	BypassedSince   *time.Time `json:"bypassedSince,omitempty"`

	// Observed are namespaces whose policies and routes are told, and not enforced; sorted.
	Observed []string `json:"observed,omitempty"`

	// Standby are planes with routes for frontends that another one serves, and what would
	// differ if they did.
	Standby []diff.Standby `json:"standby,omitempty"`

	// Preflight is what was found on the node that is in the way, or beside: see "fairlead
	// preflight --node".
	Preflight []datapath.Finding `json:"preflight,omitempty"`

	// Plugin is the chained CNI plugin, nil if the node has none.
	Plugin *PluginStatus `json:"plugin,omitempty"`

	Feed        serve.Status      `json:"feed"`
	Proxy       *proxy.Status     `json:"proxy,omitempty"`
	ProxyError  string            `json:"proxyError,omitempty"`
	Own         []OwnStatus       `json:"own,omitempty"` // proxies that namespaces have of their own
	Kernel      datapath.Status   `json:"kernel"`
	KernelError string            `json:"kernelError,omitempty"` // why Kernel is not whole
	Writes      map[string]uint64 `json:"writes"`                // to each kernel map, since the agent started
	Ports       map[string]uint16 `json:"ports"`                 // of listeners
	// Retiring counts by short type what Envoy keeps for a moment though nothing leads
	// there any more.
	Retiring map[string]int `json:"retiring,omitempty"`
	Flows    FlowCounts     `json:"flows"`
}

// Readiness is whether a node is as its source says; asking costs next to nothing.
type Readiness struct {
	Ready bool   `json:"ready"`
	Why   string `json:"why,omitempty"` // it is not ready
	// Revision and Applied are as in Status.
	Revision string `json:"revision"`
	Applied  string `json:"applied"`
}

// PluginStatus is how it stands with the chained CNI plugin.
type PluginStatus struct {
	// Configuration is the node's network configuration that has it; "" if this agent has
	// not put it there.
	Configuration string `json:"configuration,omitempty"`
	Pods          int    `json:"pods"`    // that it has told of
	Waiting       int    `json:"waiting"` // that may not start yet
	Problem       string `json:"problem,omitempty"`
}

// Waiting is a resource that Envoy has not acknowledged in time.
type Waiting struct {
	Type  string    `json:"type"` // short: "Cluster"
	Name  string    `json:"name"`
	Since time.Time `json:"since"` // when it was pushed first
}

// FlowCounts says how many flows were seen and how many were lost on the way.
type FlowCounts struct {
	Seen          uint64 `json:"seen"`
	LostKernel    uint64 `json:"lostKernel"`    // the kernel's ring was full
	LostAccessLog uint64 `json:"lostAccessLog"` // records that nobody read in time
	LostObservers uint64 `json:"lostObservers"` // observers that were too slow
}

// OwnStatus is how it stands with the proxy that a namespace has of its own.
type OwnStatus struct {
	Namespace string `json:"namespace"`
	Slot      int    `json:"slot"`
	UID       int    `json:"uid"`    // of its Envoys
	Memory    uint64 `json:"memory"` // that they may use, in bytes
	// Problem is why it does not have all that it should; "": it has.
	Problem string `json:"problem,omitempty"`
	// Rejected is what its Envoy did not take.
	Rejected   []Rejected    `json:"rejected,omitempty"`
	Proxy      *proxy.Status `json:"proxy,omitempty"`
	ProxyError string        `json:"proxyError,omitempty"`
}
