// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds/serve"
)

// Status is what an agent tells of its node.
type Status struct {
	Node    string `json:"node"`
	Uptime  string `json:"uptime"`
	Source  string `json:"source"`
	Objects int    `json:"objects"`
	// Revision is the content of the source that was read last, Applied the one
	// that Envoy acknowledged and the kernel has. What Envoy rejected is in Feed; its
	// last good version serves on.
	Revision string `json:"revision"`
	Applied  string `json:"applied"`
	Problem  string `json:"problem,omitempty"` // why the two differ, or what could not be read
	Errors   int    `json:"errors"`            // diagnostics that are errors
	Warnings int    `json:"warnings"`          // other diagnostics that are not cosmetic
	// Pods maps the node's pods to "ready" or to what is missing.
	Pods map[string]string `json:"pods"`
	// Unrenderable lists rows that no valid Envoy resource can be made of.
	Unrenderable map[string]string `json:"unrenderable,omitempty"`
	Feed         serve.Status      `json:"feed"`
	Proxy        *proxy.Status     `json:"proxy,omitempty"`
	ProxyError   string            `json:"proxyError,omitempty"`
	Kernel       datapath.Status   `json:"kernel"`
	KernelError  string            `json:"kernelError,omitempty"` // why Kernel is not whole
	Writes       map[string]uint64 `json:"writes"`                // to each kernel map, since the agent started
	Ports        map[string]uint16 `json:"ports"`                 // of listeners
	Flows        FlowCounts        `json:"flows"`
}

// FlowCounts says how many flows were seen and how many were lost on the way.
type FlowCounts struct {
	Seen          uint64 `json:"seen"`
	LostKernel    uint64 `json:"lostKernel"`    // the kernel's ring was full
	LostAccessLog uint64 `json:"lostAccessLog"` // records that nobody read in time
	LostObservers uint64 `json:"lostObservers"` // observers that were too slow
}
