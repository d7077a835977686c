// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// State remembers what was given to whom, so that it stays. Its zero value is an
// empty cluster's.
type State struct {
	Pods        map[string]Slot    `json:"pods,omitempty"`     // by pod key
	Numbers     map[string]Numbers `json:"numbers,omitempty"`  // by kind and key of a workload
	Services    map[string]int     `json:"services,omitempty"` // number, by service key
	LastPod     map[string]int     `json:"lastPod,omitempty"`  // slot given last, by node
	LastService int                `json:"lastService,omitempty"`
}

// Numbers are those of a workload's pods, and the hash of their template.
type Numbers struct {
	Template string `json:"template"`
	Pods     []int  `json:"pods"`
}

// Slot is a pod's place: a node and the last part of its addresses; 0 in the
// node's own network.
type Slot struct {
	Node   string `json:"node"`
	Number int    `json:"number,omitempty"`
}

func (s State) clone() State {
	c := State{maps.Clone(s.Pods), maps.Clone(s.Numbers), maps.Clone(s.Services), maps.Clone(s.LastPod), s.LastService}
	if c.Pods == nil {
		c.Pods = map[string]Slot{}
	}
	if c.Numbers == nil {
		c.Numbers = map[string]Numbers{}
	}
	if c.Services == nil {
		c.Services = map[string]int{}
	}
	if c.LastPod == nil {
		c.LastPod = map[string]int{}
	}
	return c
}

// Pods get the slots firstSlot to lastSlot. A slot that became free is used again
// as late as possible: somebody may still send to it.
const (
	firstSlot = 11
	lastSlot  = 250
)

func (s *State) takeSlot(node string) (int, bool) {
	used := map[int]bool{}
	for _, p := range s.Pods {
		if p.Node == node {
			used[p.Number] = true
		}
	}
	n := max(s.LastPod[node], firstSlot-1)
	for range lastSlot - firstSlot + 1 {
		if n++; n > lastSlot {
			n = firstSlot
		}
		if !used[n] {
			s.LastPod[node] = n
			return n, true
		}
	}
	return 0, false
}

// maxServices is how many cluster addresses there are.
const maxServices = 250 * 250

func (s *State) takeService(key string, taken func(netip.Addr) bool) (int, bool) {
	if n, ok := s.Services[key]; ok {
		return n, true
	}
	used := slices.Collect(maps.Values(s.Services))
	slices.Sort(used)
	for range maxServices {
		if s.LastService++; s.LastService > maxServices {
			s.LastService = 1
		}
		n := s.LastService
		if _, found := slices.BinarySearch(used, n); !found && !slices.ContainsFunc(serviceAddresses(n), taken) {
			s.Services[key] = n
			return n, true
		}
	}
	return 0, false
}

// The address plan. Both families show the same numbers.

// NodeAddresses of the node with a number from 1.
func NodeAddresses(n int) []netip.Addr { return pair("10.240.0.%d", "fd40::%d", n) }

// PodRanges of the node with a number from 1.
func PodRanges(n int) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n)),
		netip.MustParsePrefix(fmt.Sprintf("fd44:%d::/64", n)),
	}
}

func podAddresses(node, slot int) []netip.Addr {
	return pair("10.244.%d.%d", "fd44:%d::%d", node, slot)
}

func serviceAddresses(n int) []netip.Addr {
	return pair("10.96.%d.%d", "fd96::%d:%d", (n-1)/250, (n-1)%250+1)
}

func pair(v4, v6 string, a ...any) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(fmt.Sprintf(v4, a...)), netip.MustParseAddr(fmt.Sprintf(v6, a...))}
}
