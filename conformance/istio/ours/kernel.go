// SPDX-License-Identifier: Apache-2.0

package ours

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"

	"fairlead.io/fairlead/conformance/istio/wire"
)

// kernel stands in for the node's: it does by the plan's rows what bpf/ does by its maps.
// That the two do the same is what conformance/live is about.
type kernel struct {
	services  map[netip.AddrPort]*plan.Service
	ranges    []*plan.Service // of many addresses, the longest first, those of all last
	pods      map[netip.Addr]*plan.Pod
	addresses map[netip.Addr]*plan.Address
	prefixes  []*plan.Prefix
	verdicts  map[verdictKey]plan.Action
	ports     map[string]uint16 // of listeners
}

type verdictKey struct {
	set, class uint64
	any        bool
	port       uint16
}

type rows interface {
	Rows(incr.Table) []incr.Row
}

func newKernel(t rows, ports map[string]uint16) *kernel {
	k := &kernel{services: map[netip.AddrPort]*plan.Service{}, pods: map[netip.Addr]*plan.Pod{},
		addresses: map[netip.Addr]*plan.Address{}, verdicts: map[verdictKey]plan.Action{}, ports: ports}
	for _, r := range t.Rows(plan.Services) {
		s := r.Value.(*plan.Service)
		switch {
		case s.Protocol != model.TCP, s.Addr.Is6():
		case s.Bits != 0, s.Addr.IsUnspecified():
			k.ranges = append(k.ranges, s)
		default:
			k.services[netip.AddrPortFrom(s.Addr, s.Port)] = s
		}
	}
	slices.SortStableFunc(k.ranges, func(a, b *plan.Service) int { return cmp.Compare(b.Bits, a.Bits) })
	for _, r := range t.Rows(plan.Pods) {
		p := r.Value.(*plan.Pod)
		k.pods[p.Addr] = p
	}
	for _, r := range t.Rows(plan.Addresses) {
		a := r.Value.(*plan.Address)
		k.addresses[a.Addr] = a
	}
	for _, r := range t.Rows(plan.Prefixes) {
		k.prefixes = append(k.prefixes, r.Value.(*plan.Prefix))
	}
	for _, r := range t.Rows(plan.Verdicts) {
		v := r.Value.(*plan.Verdict)
		if v.Proto != model.UDP {
			k.verdicts[verdictKey{v.Set, v.Class, v.Any, v.Port}] = v.Action
		}
	}
	return k
}

// way is what becomes of a connection that a pod opens.
func (k *kernel) way(from netip.Addr, dst netip.AddrPort) wire.Way {
	pod, svc := k.pods[from], k.service(dst)
	if svc != nil && pod != nil && pod.Listeners != nil {
		if l := pod.Listeners[svc.Mode]; l != "" {
			return wire.Way{To: dst, Mark: wire.Redirect(k.ports[l])}
		}
	}
	if pod != nil && pod.KnownOnly && svc == nil && dst.Addr() != from {
		return wire.Way{Refused: true}
	}
	if svc != nil && !svc.Direct && !svc.Addr.IsUnspecified() {
		to, ok := balance(svc.BackendsOf(pod != nil && pod.Listeners != nil))
		if !ok {
			return wire.Way{Refused: true}
		}
		dst = to
	}
	switch k.judge(from, dst) {
	case plan.Allow:
		return wire.Way{To: dst}
	case plan.Deny:
		return wire.Way{Refused: true}
	}
	return wire.Way{To: dst, Mark: wire.Redirect(k.ports[plan.InboundListener])}
}

// service is what the address and port are a service's by: exactly, by a range, or because
// they are nobody else's.
func (k *kernel) service(dst netip.AddrPort) *plan.Service {
	if s := k.services[dst]; s != nil {
		return s
	}
	if k.hasServiceAt(dst.Addr()) {
		return nil
	}
	for _, s := range k.ranges {
		if s.Port != dst.Port() || s.Bits == 0 && k.addresses[dst.Addr()] != nil {
			continue
		}
		if s.Bits == 0 || netip.PrefixFrom(s.Addr, int(s.Bits)).Contains(dst.Addr()) {
			return s
		}
	}
	return nil
}

func (k *kernel) hasServiceAt(a netip.Addr) bool {
	for at := range k.services {
		if at.Addr() == a {
			return true
		}
	}
	return false
}

func balance(all []plan.KernelBackend) (netip.AddrPort, bool) {
	var sum uint32
	for _, b := range all {
		sum += b.Weight
	}
	if sum == 0 {
		return netip.AddrPort{}, false
	}
	n := rand.Uint32N(sum)
	for _, b := range all {
		if n < b.Weight {
			return b.Addr, true
		}
		n -= b.Weight
	}
	return netip.AddrPort{}, false
}

// judge is the verdict over a connection to a pod's port.
func (k *kernel) judge(from netip.Addr, dst netip.AddrPort) plan.Action {
	class := uint64(0)
	if a := k.addresses[from]; a != nil {
		class = a.Class
	} else {
		best := -1
		for _, p := range k.prefixes {
			if p.Prefix.Contains(from) && p.Prefix.Bits() > best {
				class, best = p.Class, p.Prefix.Bits()
			}
		}
	}
	pod := k.pods[dst.Addr()]
	if pod == nil || pod.Set == 0 {
		return plan.Allow
	}
	for _, key := range []verdictKey{{pod.Set, class, false, dst.Port()}, {pod.Set, 0, true, dst.Port()}, {pod.Set, class, false, 0}, {pod.Set, 0, true, 0}} {
		if a, ok := k.verdicts[key]; ok {
			return a
		}
	}
	return plan.Deny
}

// admit judges a connection that has come to a pod. All proxies are this node's, and
// believed where they say by their port that they have checked.
func (k *kernel) admit(from, to netip.AddrPort) bool {
	switch k.judge(from.Addr(), to) {
	case plan.Allow:
		return true
	case plan.Deny, plan.Refuse:
		return false
	}
	return from.Port() >= render.CheckedLow && from.Port() <= render.CheckedHigh
}
