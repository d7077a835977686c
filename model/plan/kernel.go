// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"fairlead.io/fairlead/model"
)

// maxSlots bounds how finely a split is kept in the kernel.
const maxSlots = 4096

// kernelBackends are the shares of clients that are not proxied, of the family. Where
// a proxy makes a split, by what it reads or by who asks, they get the service's own
// endpoints.
func (c *compiler) kernelBackends(p *servicePort, mode Mode) []KernelBackend {
	backends := []model.Backend{p.own()}
	if p.frontend != nil && mode == Kernel && len(p.frontend.Backends) > 0 {
		backends = p.frontend.Backends
	}
	type share struct {
		weight uint32
		of     []Backend
		units  uint32 // the sum of their weights
	}
	var shares []share
	for _, b := range backends {
		sh := share{weight: b.Weight}
		for _, e := range c.endpoints(b, p.port.Protocol) {
			if e.Addr.Is6() == c.v6 {
				sh.of = append(sh.of, backend(e))
				sh.units += max(1, e.Weight)
			}
		}
		if b.Weight > 0 && len(sh.of) > 0 {
			shares = append(shares, sh)
		}
	}
	ws := make([]Share, len(shares))
	for i, sh := range shares {
		ws[i] = Share{Weight: sh.weight, Members: sh.units}
	}
	var out []KernelBackend
	for i, w := range memberWeights(ws, maxSlots) {
		for _, b := range shares[i].of {
			out = append(out, KernelBackend{Addr: b.Addrs[0], Weight: w * max(1, b.Weight)})
		}
	}
	return mergeKernelBackends(out)
}

// mergeKernelBackends adds up the weights of an address that stands in several shares.
func mergeKernelBackends(in []KernelBackend) []KernelBackend {
	slices.SortFunc(in, func(a, b KernelBackend) int { return a.Addr.Compare(b.Addr) })
	out := in[:0]
	for _, b := range in {
		if n := len(out); n > 0 && out[n-1].Addr == b.Addr {
			out[n-1].Weight += b.Weight
			continue
		}
		out = append(out, b)
	}
	return out
}
