// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"

	"fairlead.io/fairlead/model/plan"
)

// Status is what the datapath has in the kernel, as it is now.
type Status struct {
	Cgroup     Attached          `json:"cgroup"`
	Interfaces []Attached        `json:"interfaces"` // sorted by name
	Bank       int               `json:"bank"`       // of the proxy's listeners: the one in use
	Host       []Need            `json:"host"`
	Features   []Need            `json:"features"`
	Pods       []PodStatus       `json:"pods,omitempty"` // sorted by name
	Maps       []MapStatus       `json:"maps"`
	Counters   map[string]uint64 `json:"counters"` // by reason, those that are not 0
	Lost       uint64            `json:"lost"`     // flows that the ring had no room for
}

// Attached is a cgroup or an interface and our programs on it.
type Attached struct {
	Name     string   `json:"name"`
	Ifindex  int      `json:"ifindex,omitempty"`
	Programs []string `json:"programs"`
	Reason   string   `json:"reason,omitempty"` // why programs are missing
}

// Need is something that the node gives us or that we gave the node.
type Need struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what is wrong, or what it is
}

// PodStatus is a local pod. Ready: its policy is enforced and, if it is to be
// captured, its requests are redirected.
type PodStatus struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Interface string       `json:"interface,omitempty"`
	// ProxyPorts of listeners that are ready, in bank 0; none: not captured, or not yet.
	ProxyPorts map[plan.Mode]uint16 `json:"proxyPorts,omitempty"`
	Ready      bool                 `json:"ready"`
	// Guarded: nothing passes that its policy forbids, though its requests may not be
	// redirected yet.
	Guarded bool   `json:"guarded"`
	Reason  string `json:"reason,omitempty"`  // why it is not ready
	Warning string `json:"warning,omitempty"` // what is left out though it is ready
	// Observed: its policy is not enforced, and nothing is redirected; it is told what would be.
	Observed bool `json:"observed,omitempty"`
}

// MapStatus is a map's fill.
type MapStatus struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"`
	Max     int    `json:"max"`
	Writes  uint64 `json:"writes"` // by this process
}
