// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fairlead.io/fairlead/model"
)

// Service is one address and port that the kernel knows.
type Service struct {
	// Addr is unspecified (0.0.0.0 or ::) in mode Any and its like: whatever address is no
	// pod's, no node's and no service's.
	Addr netip.Addr `json:"addr"`
	// Bits make it a range of addresses, of which Addr is the first; the longest that
	// contains an address counts, and none if the address itself is a service's. 0: Addr alone.
	Bits     uint8           `json:"bits,omitempty"`
	Port     uint16          `json:"port"`
	Protocol model.Protocol  `json:"protocol"`
	Name     string          `json:"name"` // ns/name, for people
	Mode     Mode            `json:"mode"`
	Affinity time.Duration   `json:"affinity,omitempty"`
	Backends []KernelBackend `json:"backends,omitempty"` // sorted by Addr; for clients that are not proxied
	// Routed is what captured clients get in place of Backends where the kernel follows the
	// service's routes; nil: the same. Mode Kernel only.
	Routed *KernelRoute `json:"routed,omitempty"`
	// Direct: the address is a pod's own (of a headless service), or that of somebody
	// outside: clients that are not proxied go to it, and it has no Backends.
	Direct bool `json:"direct,omitempty"`
}

// Key of the service in its table.
func (s *Service) Key() string {
	if s.Bits != 0 {
		return fmt.Sprintf("%s/%s", s.Protocol, RangePort(netip.PrefixFrom(s.Addr, int(s.Bits)), s.Port))
	}
	return fmt.Sprintf("%s/%s", s.Protocol, netip.AddrPortFrom(s.Addr, s.Port))
}

// BackendsOf are those of a client that the kernel balances.
func (s *Service) BackendsOf(captured bool) []KernelBackend {
	if captured && s.Routed != nil {
		return s.Routed.Backends
	}
	return s.Backends
}

// KernelRoute is where connections to a service are led by the kernel.
type KernelRoute struct {
	Backends []KernelBackend `json:"backends,omitempty"` // sorted by Addr; none: connections are refused
}

// KernelBackend is an endpoint with its share; weights are small whole numbers.
type KernelBackend struct {
	Addr   netip.AddrPort `json:"addr"`
	Weight uint32         `json:"weight"`
}

// maxSlots bounds how finely a split is kept in the kernel.
const maxSlots = 4096

// balanced sets what the kernel gives the service's clients, of the family: the port's
// own endpoints, and where it follows the routes those that these lead captured ones to.
func (c *compiler) balanced(s *Service, p *servicePort) {
	own := []model.Backend{p.own()}
	s.Backends = c.kernelBackends(own, p.port.Protocol, func(model.Backend) bool { return true })
	switch {
	case s.Mode != Kernel:
		return
	case p.frontend != nil && len(p.frontend.Backends) > 0:
		own = p.frontend.Backends
	case p.frontend == nil || c.hints(own[0]):
		return // nobody leads them elsewhere
	}
	if led := c.kernelBackends(own, p.port.Protocol, c.hints); !slices.Equal(led, s.Backends) {
		s.Routed = &KernelRoute{led}
	}
}

// kernelBackends are the endpoints of backends, of the family, with their shares.
func (c *compiler) kernelBackends(backends []model.Backend, proto model.Protocol, hints func(model.Backend) bool) []KernelBackend {
	type share struct {
		weight uint32
		of     []Backend
		units  uint32 // the sum of their weights
	}
	var shares []share
	for _, b := range backends {
		sh := share{weight: b.Weight}
		for _, e := range c.endpointsFor(b, proto, hints) {
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
