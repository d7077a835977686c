// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"
	"sync"
)

// addresses are those of the node's own interfaces, as the datapath has told last.
type addresses struct {
	mu   sync.Mutex
	now  []netip.Addr
	wake chan struct{} // a value that nobody takes stands for all that followed
}

func newAddresses() *addresses { return &addresses{wake: make(chan struct{}, 1)} }

func (s *addresses) put(now []netip.Addr) {
	s.mu.Lock()
	s.now = now
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *addresses) get() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// rehost takes up which addresses the node has. Before the first application it is all
// that there is to do, and where the source is not this node's what was applied stays.
func (a *agent) rehost(ctx context.Context) {
	a.mu.Lock()
	changes := a.pipe.SetHostAddresses(a.host.get())
	a.mu.Unlock()
	if !a.begun || a.held || len(changes) == 0 {
		return
	}
	a.bring(ctx, a.res.take(changes), func() error { return a.writeKernel(ctx, changes) })
}
