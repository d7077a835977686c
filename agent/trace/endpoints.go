// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"math"
	"net/netip"

	"fairlead.io/fairlead/model/plan"
)

// target is an endpoint of a cluster.
type target struct {
	addr     netip.AddrPort
	weight   uint32 // among those of its priority
	priority uint32 // 0 is used first
}

// targets lists a cluster's endpoints, each with its part of its share.
func targets(e *plan.ClusterEndpoints) []target {
	shares := e.Shares
	if len(e.Backends) > 0 {
		shares = []plan.EndpointShare{{Weight: 1, Backends: e.Backends}}
	}
	whole := map[uint32]float64{}
	for _, s := range shares {
		whole[s.Priority] += float64(s.Weight)
	}
	var out []target
	common := uint32(0)
	for _, s := range shares {
		sum := uint64(0)
		for _, b := range s.Backends {
			sum += uint64(max(b.Weight, 1))
		}
		for _, b := range s.Backends {
			part := float64(s.Weight) / whole[s.Priority] * float64(max(b.Weight, 1)) / float64(sum)
			t := target{b.Addrs[0], max(1, uint32(math.Round(1e6*part))), s.Priority}
			common = divisor(common, t.weight)
			out = append(out, t)
		}
	}
	for i := range out {
		out[i].weight /= common
	}
	return out
}

// divisor is the greatest that two numbers have in common.
func divisor(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// direct ends a share at endpoints that each judge for themselves what comes to them.
func (t *tracer) direct(share float64, to []plan.KernelBackend, why string, as *sending) {
	all := make([]target, len(to))
	for i, b := range to {
		all[i] = target{addr: b.Addr, weight: max(b.Weight, 1)}
	}
	t.spread(share, all, why, as)
}

// spread is direct of targets: by weight, and those that judge alike together. Those that
// are in reserve have no share.
func (t *tracer) spread(share float64, to []target, why string, as *sending) {
	first, total := uint32(math.MaxUint32), float64(0)
	for _, e := range to {
		first = min(first, e.priority)
	}
	for _, e := range to {
		if e.priority == first {
			total += float64(e.weight)
		}
	}
	for _, e := range to {
		o := t.arrive(e.addr, as)
		o.Why = cmp.Or(o.Why, why)
		if o.Verdict == Reached {
			o.Sent = as.seen()
		}
		if e.priority > first {
			t.reserve(o, t.endpoint(e))
			continue
		}
		o.Share = share * float64(e.weight) / total
		t.gather(o, t.endpoint(e))
	}
}

func (t *tracer) endpoint(of target) Endpoint {
	e := Endpoint{Addr: of.addr, Weight: of.weight, Priority: of.priority}
	if w := t.pods[of.addr.Addr()]; w != nil {
		e.Pod = w.Key()
	}
	return e
}
